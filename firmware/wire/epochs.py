"""Makes the next set of validators from the certified block in which the present one names it (pbft.md 3.12).

A handover is a block's header, its certificate by the set of its epoch, and leaf 0, which gives the set of the next
epoch. Who knows one set comes to every later one this way, epoch by epoch, and believes nobody on it.
"""

from collections import namedtuple

from firmware.wire import cbor, certificate, header, merkle
from firmware.wire.errors import check
from firmware.wire.shape import check_fields, check_list

HANDOVER_BYTES = 64 * 1024  # of 64 members it has 12 KiB

Handover = namedtuple("Handover", ("header", "certificate", "meta", "meta_path"))


def encode(handover):
    """Returns `[header, certificate, meta, [hash, ...]]`."""
    return cbor.encode([bytes(handover[0]), bytes(handover[1]), bytes(handover[2]), list(handover[3])])


def decode(data):
    """Returns the Handover; Refused `oversize` or `malformed`."""
    check(len(data) <= HANDOVER_BYTES, "oversize", HANDOVER_BYTES, len(data))
    return read(cbor.decode(data))


def read(fields):
    """Returns the Handover of a decoded list; Refused `malformed`."""
    check_fields(fields, ("b80", "b", "b", "l"))
    check_list(fields[3], "b32")
    return Handover(*fields)


def check_change(members, others):
    """Raises Refused `wrong_set` unless `others` may follow on `members`: at most max(1, f) seats change hands."""
    kids = [member.kid for member in members]
    left = [member.kid for member in others if member.kid in kids]
    count = max(len(kids), len(others)) - len(left)
    limit = max(1, certificate.faults(len(kids)))
    check(0 < count <= limit, "wrong_set", limit, count)
    for member in others:
        if member.kid in kids:
            check(member in members, "wrong_set", "the same keys", member.kid)


def check_handover(handover, members, epoch, channels, chain_id, verify_digest):
    """Returns (Header, members of epoch + 1); Refused unless `members`, the set of `epoch`, hand over to them there.

    `wrong_chain`, `wrong_channel`, `wrong_epoch`, `wrong_height`, `wrong_set`, the reasons of a certificate and of a
    path. verify_digest(public key 65, digest 32, signature 64) -> bool.
    """
    top = header.decode(handover.header)
    meta = header.decode_meta(handover.meta)
    check(meta.chain_id == chain_id, "wrong_chain", chain_id, meta.chain_id)
    check(meta.channel in channels, "wrong_channel", channels, meta.channel)
    check(meta.epoch == epoch, "wrong_epoch", epoch, meta.epoch)
    check(meta.height == top.height, "wrong_height", top.height, meta.height)
    own = certificate.set_hash(members)
    check(meta.set_hash == own, "wrong_set", own, meta.set_hash)
    check(meta.next_set is not None, "wrong_set", "the next set", None)
    others = certificate.decode_members(meta.next_set)
    check_change(members, others)
    named = certificate.set_hash(others)
    check(meta.next_set_hash == named, "wrong_set", meta.next_set_hash, named)
    merkle.check_path(merkle.leaf_hash(handover.meta), 0, meta.count + 1, handover.meta_path, top.root)
    certificate.check_certificate(certificate.decode(handover.certificate), handover.header, members, epoch,
                                  meta.channel, chain_id, verify_digest)
    return top, others


def read_list(rows):
    """Returns the handovers at the end of a file about a later epoch than 0, as bytes; Refused `malformed`."""
    check_list(rows, "b")
    check(bool(rows), "malformed", "a handover", None)
    return rows


def set_of(meta, members, handovers, channels, chain_id, verify_digest):
    """Returns the members of a block's epoch; `members`: the genesis' set, handovers: bytes of all up to that epoch.

    Refused `wrong_epoch` when they are more or fewer, `wrong_set` when the block's meta names another set.
    """
    check(len(handovers) == meta.epoch, "wrong_epoch", len(handovers), meta.epoch)
    found = walk(members, [decode(data) for data in handovers], channels, chain_id, verify_digest)[-1]
    named = certificate.set_hash(found)
    check(meta.set_hash == named, "wrong_set", named, meta.set_hash)
    return found


def walk(members, handovers, channels, chain_id, verify_digest):
    """Returns the sets of all epochs from 0 on, each proven by the one before; `members`: the genesis' set."""
    sets = [members]
    for found in handovers:
        sets.append(check_handover(found, sets[-1], len(sets) - 1, channels, chain_id, verify_digest)[1])
    return sets
