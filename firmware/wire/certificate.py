"""Makes and checks certificates: q replicas' signatures over one (epoch, channel, height, header hash).

A replica signs one header per (channel, height) for ever, after execution, so signatures of different views cannot
be mixed into a false certificate (pbft.md 0.2). The quorum is ceil((n + f + 1) / 2), safe for every n >= 1.
"""

import hashlib
from collections import namedtuple

from firmware.wire import cbor, cose
from firmware.wire.errors import Refused, check
from firmware.wire.shape import check_fields, check_list

VERSION = 1
MEMBERS = 128  # beyond some twenty replicas PBFT's messages win anyway

Member = namedtuple("Member", ("kid", "public_key", "tls_hash"))
Certificate = namedtuple("Certificate", ("epoch", "channel", "height", "header_hash", "signers", "signatures"))


def faults(member_count):
    """Returns f, how many members may lie: (n - 1) // 3."""
    return (member_count - 1) // 3


def quorum(member_count):
    """Returns q = ceil((n + f + 1) / 2): two quorums share an honest member, and q honest ones are there."""
    return (member_count + faults(member_count) + 2) // 2


def member_lists(members):
    """Returns the set as lists, sorted by kid, as it is hashed and stored."""
    rows = [[bytes(m.kid), bytes(m.public_key), bytes(m.tls_hash)] for m in members]
    rows.sort()
    return rows


def decode_members(rows):
    """Returns the Members of a decoded set; Refused `wrong_set` unless sorted by kid, distinct and of known shape."""
    check(isinstance(rows, list) and 0 < len(rows) <= MEMBERS, "wrong_set", MEMBERS, rows)
    members: list = []
    for row in rows:
        check_fields(row, ("b8", "b65", "b32"))
        check(not members or members[-1].kid < row[0], "wrong_set", "kids that rise", row[0])
        members.append(Member(*row))
    return members


def set_hash(members):
    """Returns SHA-256 of the set's CBOR."""
    return hashlib.sha256(cbor.encode(member_lists(members))).digest()


def vote_payload(epoch, channel, height, header_hash):
    """Returns what a HEADER-VOTE signs, kind `header`."""
    return cbor.encode([epoch, channel, height, bytes(header_hash)])


def encode(certificate):
    """Returns the certificate's bytes; signers are ids in rising order, signatures in the same order."""
    bitmap = bytearray((certificate.signers[-1] >> 3) + 1) if certificate.signers else bytearray()
    for signer in certificate.signers:
        bitmap[signer >> 3] |= 1 << (signer & 7)
    return cbor.encode([VERSION, certificate.epoch, certificate.channel, certificate.height,
                        bytes(certificate.header_hash), bytes(bitmap), list(certificate.signatures)])


def decode(data):
    """Returns the Certificate; Refused `malformed`, `wrong_version` or `duplicate_signer`.

    A bitmap cannot name one signer twice; more signatures than bits is how a duplicate would look.
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
    return Certificate(fields[1], fields[2], fields[3], fields[4], tuple(signers), tuple(signatures))


def check_certificate(certificate, header_bytes, members, epoch, channel, chain_id, verify_digest):
    """Raises Refused unless the certificate proves `header_bytes` under the set `members` of `epoch`.

    `wrong_epoch`, `wrong_channel`, `wrong_height`, `wrong_header`, `unknown_signer`, `duplicate_signer`,
    `too_few_signers`, `bad_signature`; the cheap checks come first. verify_digest(public key, digest, signature).
    """
    height = int.from_bytes(bytes(header_bytes[76:80]), "big")
    header_hash = hashlib.sha256(header_bytes).digest()
    check(certificate.epoch == epoch, "wrong_epoch", epoch, certificate.epoch)
    check(certificate.channel == channel, "wrong_channel", channel, certificate.channel)
    check(certificate.height == height, "wrong_height", height, certificate.height)
    check(certificate.header_hash == header_hash, "wrong_header", header_hash, certificate.header_hash)
    check(len(certificate.signers) == len(certificate.signatures), "malformed", "a signature a signer", None)
    last = -1
    for signer in certificate.signers:
        check(signer < len(members), "unknown_signer", len(members), signer)
        check(signer > last, "duplicate_signer", last, signer)
        last = signer
    needed = quorum(len(members))
    check(len(certificate.signers) >= needed, "too_few_signers", needed, len(certificate.signers))
    digest = cose.digest(vote_payload(epoch, channel, height, header_hash), "header", chain_id)
    for index in range(len(certificate.signers)):
        public_key = members[certificate.signers[index]].public_key
        if not verify_digest(public_key, digest, certificate.signatures[index]):
            raise Refused("bad_signature", certificate.signers[index], certificate.signatures[index])
