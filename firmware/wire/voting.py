"""Makes a verdict on a certificate from its bytes, a header and the members' public keys: what a light node needs.

A replica signs one header per (channel, height) for ever, after execution, so signatures of different views cannot
be mixed into a false certificate (pbft.md 0.2). The quorum is ceil((n + f + 1) / 2), safe for every n >= 1.
`certificate.py` has the rest: making certificates, and sets of members.
"""

import hashlib

from firmware.wire import cbor, cose
from firmware.wire.errors import check
from firmware.wire.shape import check_fields, check_list

VERSION = 1
MEMBERS = 128  # beyond some twenty replicas PBFT's messages win anyway


def faults(member_count):
    """Returns f, how many members may lie: (n - 1) // 3."""
    return (member_count - 1) // 3


def quorum(member_count):
    """Returns q = ceil((n + f + 1) / 2): two quorums share an honest member, and q honest ones are there."""
    return (member_count + faults(member_count) + 2) // 2


def vote_payload(epoch, channel, height, header_hash):
    """Returns what a HEADER-VOTE signs, kind `header`."""
    return cbor.encode([epoch, channel, height, bytes(header_hash)])


def decode(data):
    """Returns (epoch, channel, height, header hash, signers, signatures); signers are ids in rising order.

    Refused `malformed`, `wrong_version` or `duplicate_signer`: a bitmap cannot name one signer twice; more signatures
    than bits is how a duplicate would look.
    """
    fields = cbor.decode(data)
    check_fields(fields, ("u", "u", "t", "u", "b32", "b", "l"))
    check(fields[0] == VERSION, "wrong_version", VERSION, fields[0])
    bitmap, signatures = fields[5], fields[6]
    check_list(signatures, "b64")
    check(len(bitmap) * 8 <= MEMBERS and (not bitmap or bitmap[-1]), "malformed", "the shortest bitmap", bitmap)
    signers = [index for index in range(len(bitmap) * 8) if bitmap[index >> 3] >> (index & 7) & 1]
    check(len(signatures) <= len(signers), "duplicate_signer", len(signers), len(signatures))
    check(len(signatures) == len(signers), "malformed", len(signers), len(signatures))
    return fields[1], fields[2], fields[3], fields[4], tuple(signers), tuple(signatures)


def check_votes(found, header_bytes, keys, epoch, channel, chain_id, verify_digest):
    """Raises Refused unless what `decode` found proves `header_bytes` under the members of `epoch`, given by `keys`.

    `wrong_epoch`, `wrong_channel`, `wrong_height`, `wrong_header`, `unknown_signer`, `duplicate_signer`,
    `too_few_signers`, `bad_signature`; the cheap checks come first. verify_digest(public key, digest, signature).
    """
    found_epoch, found_channel, found_height, found_hash, signers, signatures = found
    height = int.from_bytes(bytes(header_bytes[76:80]), "big")
    header_hash = hashlib.sha256(header_bytes).digest()
    check(found_epoch == epoch, "wrong_epoch", epoch, found_epoch)
    check(found_channel == channel, "wrong_channel", channel, found_channel)
    check(found_height == height, "wrong_height", height, found_height)
    check(found_hash == header_hash, "wrong_header", header_hash, found_hash)
    check(len(signers) == len(signatures), "malformed", "a signature a signer", None)
    last = -1
    for signer in signers:
        check(signer < len(keys), "unknown_signer", len(keys), signer)
        check(signer > last, "duplicate_signer", last, signer)
        last = signer
    needed = quorum(len(keys))
    check(len(signers) >= needed, "too_few_signers", needed, len(signers))
    digest = cose.digest(vote_payload(epoch, channel, height, header_hash), "header", chain_id)
    for index in range(len(signers)):
        check(verify_digest(keys[signers[index]], digest, signatures[index]), "bad_signature", signers[index],
              signatures[index])
