"""Makes a chain's first bytes (the genesis) from its rules, its first replicas and its first identities; reads them.

The chain id is the genesis' hash, so nothing in it can name the chain: the enrolments inside are signed for 32 zero
bytes in its place.
"""

import hashlib
from collections import namedtuple

from firmware.wire import cbor, certificate, header, merkle
from firmware.wire.errors import check
from firmware.wire.shape import check_fields, check_list

VERSION = 1
GENESIS_BYTES = 1024 * 1024
CHANNELS = ("trade", "dispatch", "credit")
EMPTY = bytes(32)

# Chain parameters in the order in which the genesis lists their values, with defaults; new ones at the end. Those
# ending in _ms or _s that compare labels are never multiplied by speed: a demo chain sets its own.
PARAMETERS = (
    ("checkpoint_interval", 64),  # K, sequence numbers
    ("log_window", 128),  # L = 2 K
    ("timeout_ms", 2000),  # T, a wait
    ("view_change_ms", 2000),  # T_vc, a wait, doubling
    ("view_change_max_ms", 60000),
    ("frame_bytes", 8 * 1024 * 1024),
    ("batch_items", 500),
    ("batch_bytes", 256 * 1024),
    ("wait_transaction_ms", 5),  # a wait
    ("wait_seal_ms", 30000),  # a label
    ("heartbeat_s", 900),
    ("time_ahead_s", 2),
    ("time_behind_s", 10),
    ("boundary_s", 10),
    ("late_s", 120),
    ("late_window_s", 86400),
    ("slot_s", 3600),
    ("point_max_w", 100000),  # a register that rises faster, times the CT ratio, is marked: 3 x 63 A has 44 kW
    ("client_items", 128),  # of one sender in a batch
    ("witness_interval_s", 900),  # a label: a light node signs one header in each of these
)
DEMO_LABELS = {"time_ahead_s": 1200, "time_behind_s": 6000, "boundary_s": 300, "late_s": 7200}  # at speed 600

Genesis = namedtuple("Genesis", (
    "channels", "created_s", "speed", "parameters", "members", "enrolments", "balances"))


def parameters(changes=None):
    """Returns the parameters as {name: value}, the defaults with `changes`; ValueError for an unknown name."""
    values = dict(PARAMETERS)
    for name in changes or {}:
        if name not in values:
            raise ValueError("no chain parameter " + name)
        values[name] = changes[name]
    return values


def encode(genesis):
    """Returns the genesis bytes. enrolments: lists `[enrol COSE, owner kid, [point entry], note]`; balances: lists
    `[kid, mc]`, by rising kid, of the accounts' first money."""
    values = [genesis.parameters[name] for name, _ in PARAMETERS]
    return cbor.encode([VERSION, "gridseal", list(genesis.channels), genesis.created_s, genesis.speed, values,
                        certificate.member_lists(genesis.members), list(genesis.enrolments), list(genesis.balances)])


def decode(data):
    """Returns the Genesis; Refused `oversize`, `malformed`, `wrong_version` or `wrong_set`."""
    check(len(data) <= GENESIS_BYTES, "oversize", GENESIS_BYTES, len(data))
    fields = cbor.decode(data)
    check_fields(fields, ("u", "t", "l", "u", "u", "l", "l", "l", "l"))
    check(fields[0] == VERSION and fields[1] == "gridseal", "wrong_version", VERSION, fields[0])
    check_list(fields[2], "t")
    check(bool(fields[2]), "malformed", "a channel", None)
    for channel in fields[2]:
        check(channel in CHANNELS, "malformed", "a channel", channel)
    check_list(fields[5], "u")
    check(len(fields[5]) <= len(PARAMETERS) and fields[4] > 0, "malformed", len(PARAMETERS), len(fields[5]))
    values = parameters()
    for index in range(len(fields[5])):
        values[PARAMETERS[index][0]] = fields[5][index]
    check(values["slot_s"] > 0, "malformed", "a slot's length", values["slot_s"])
    check_list(fields[7], "l")
    _check_balances(fields[8])
    return Genesis(tuple(fields[2]), fields[3], fields[4], values, certificate.decode_members(fields[6]),
                   fields[7], fields[8])


def _check_balances(rows):
    last = b""
    for row in rows:
        check_fields(row, ("b8", "u"))
        check(last < row[0], "malformed", "rising kids", row[0])
        last = row[0]


def chain_id(data):
    """Returns SHA-256 of the genesis bytes: the chain's name in everything that is signed."""
    return hashlib.sha256(data).digest()


def parameters_hash(values):
    """Returns SHA-256 of the CBOR of all values in their order, as a block's meta names them."""
    return hashlib.sha256(cbor.encode([values[name] for name, _ in PARAMETERS])).digest()


def header_zero(data, channel):
    """Returns the 80 bytes of a channel's height 0, trusted without certificate; its one leaf names the chain."""
    created_s = decode(data).created_s
    leaf = cbor.encode([VERSION, "gridseal", channel, chain_id(data)])
    return header.encode(header.Header(header.VERSION, EMPTY, merkle.root([leaf]), created_s, 0, 0))
