"""Makes certificates (q replicas' signatures over one (epoch, channel, height, header hash)) and sets of members.

`voting.py` takes certificates apart and judges them; its names are names here too.
"""

import hashlib
from collections import namedtuple

from firmware.wire import cbor, voting
from firmware.wire.errors import check
from firmware.wire.shape import check_fields
from firmware.wire.voting import MEMBERS, VERSION, check_votes, faults, quorum, vote_payload

__all__ = ("MEMBERS", "VERSION", "Certificate", "Member", "check_certificate", "decode", "decode_members", "encode",
           "faults", "member_lists", "quorum", "set_hash", "vote_payload")

Member = namedtuple("Member", ("kid", "public_key", "tls_hash"))
Certificate = namedtuple("Certificate", ("epoch", "channel", "height", "header_hash", "signers", "signatures"))


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


def encode(certificate):
    """Returns the certificate's bytes; signers are ids in rising order, signatures in the same order."""
    bitmap = bytearray((certificate.signers[-1] >> 3) + 1) if certificate.signers else bytearray()
    for signer in certificate.signers:
        bitmap[signer >> 3] |= 1 << (signer & 7)
    return cbor.encode([VERSION, certificate.epoch, certificate.channel, certificate.height,
                        bytes(certificate.header_hash), bytes(bitmap), list(certificate.signatures)])


def decode(data):
    """Returns the Certificate; Refused as `voting.decode`."""
    return Certificate(*voting.decode(data))


def check_certificate(certificate, header_bytes, members, epoch, channel, chain_id, verify_digest):
    """Raises Refused unless the certificate proves `header_bytes` under the set `members` of `epoch`; see voting."""
    check_votes(certificate, header_bytes, [member.public_key for member in members], epoch, channel, chain_id,
                verify_digest)
