"""Makes what a light node starts with: facts out of a genesis, and the state that was saved before.

Loaded for a start, and dropped by a board. The genesis is the root of trust and is not doubted here; what is behind the
members in it (enrolments, first balances) may be long and is not even taken apart.
"""

import hashlib
import struct
from collections import namedtuple

from firmware.wire import cbor
from firmware.wire.errors import check
from firmware.wire.shape import check_fields, check_list

VERSION = 3  # of a saved state, LightNode.save's
RECENT = 4  # headers kept with their certificates, to show both sides of a contradiction
# Of the chain's parameters those that a light node and its agent ask for: name, place in genesis.PARAMETERS, default.
PARAMETERS = (("time_ahead_s", 11, 2), ("late_s", 14, 120), ("slot_s", 16, 3600), ("witness_interval_s", 19, 900))
_FIRST = 7  # fields of the genesis, up to and with the members
_HEADER = ">I32s32sIII"  # header.py's; a header 0 has one leaf, which names the chain

Facts = namedtuple("Facts", ("chain_id", "speed", "parameters", "keys", "tls_hashes", "header"))
# keys and all about epochs: 0, empty or None while the genesis' set is in force.
Trust = namedtuple("Trust", ("chain_id", "channel", "epoch", "since", "keys", "tls_hashes", "old_keys", "recent",
                             "contradiction", "silent_s", "witnessed"))


def read_genesis(data, channel):
    """Returns the Facts: parameters by name, the members' public keys in their order, the hashes of their TLS keys in
    one piece, 80 bytes of height 0."""
    check(len(data) > 0 and data[0] == 0x89, "malformed", "an array of nine", None)
    fields: list = []
    at = 1
    while len(fields) < _FIRST:
        value, at = cbor.decode_from(data, at)
        fields.append(value)
    check_fields(fields, ("u", "t", "l", "u", "u", "l", "l"))
    check(fields[0] == 1 and fields[1] == "gridseal", "wrong_version", 1, fields[0])
    check_list(fields[5], "u")
    check(bool(fields[6]), "wrong_set", "a member", None)
    parameters: dict = {}
    for name, place, value in PARAMETERS:
        parameters[name] = fields[5][place] if place < len(fields[5]) else value
    keys: list = []
    tls_hashes = last = b""
    for row in fields[6]:
        check_fields(row, ("b8", "b65", "b32"))
        check(last < row[0], "wrong_set", "kids that rise", row[0])
        last = row[0]
        keys.append(row[1])
        tls_hashes += row[2]
    chain_id = hashlib.sha256(data).digest()
    leaf = hashlib.sha256(b"\x00" + cbor.encode([1, "gridseal", channel, chain_id])).digest()
    zero = struct.pack(_HEADER, 1, bytes(32), leaf, fields[3], 0, 0)
    return Facts(chain_id, fields[4], parameters, keys, tls_hashes, zero)


def decode_trust(state):
    """Returns the Trust of what LightNode.save gave; pairs are (header, certificate).

    Refused `malformed`, `wrong_version`.
    """
    fields = cbor.decode(state)
    check_fields(fields, ("u", "b32", "t", "l?", "l", "l?", "u", "l?"))
    check(fields[0] == VERSION, "wrong_version", VERSION, fields[0])
    epoch = fields[3]
    if epoch is None:
        epoch = (0, 0, [], b"", None)
    else:
        check_fields(epoch, ("u", "u", "l", "b", "l"))
        check_list(epoch[2], "b65")
        check_list(epoch[4], "b65")
        check(len(epoch[3]) == 32 * len(epoch[2]) > 0, "malformed", len(epoch[2]), len(epoch[3]))
    check(0 < len(fields[4]) <= RECENT, "malformed", RECENT, len(fields[4]))
    contradiction = None
    if fields[5] is not None:
        check(len(fields[5]) == 2, "malformed", 2, len(fields[5]))
        contradiction = (_pair(fields[5][0]), _pair(fields[5][1]))
    witnessed = None if fields[7] is None else _pair(fields[7])
    recent = [_pair(row) for row in fields[4]]
    return Trust(fields[1], fields[2], epoch[0], epoch[1], epoch[2], epoch[3], epoch[4], recent, contradiction,
                 fields[6], witnessed)


def _pair(row):
    check_fields(row, ("b80", "b"))
    return (row[0], row[1])
