"""Makes the body of a validator change (transaction type 26) and a new replica's request; reads both strictly.

Body: `[[member, ...], [request, ...]]`: the whole next set, and for each member that is new to it, by rising kid, what
its own key has signed. A request is a COSE_Sign1 of kind `enrol` over `[key, SHA-256 of the TLS key, "replica"]`: proof
that whoever is given a seat holds the key of it, for this chain.
"""

from collections import namedtuple

from firmware.wire import cbor, certificate, cose, identity
from firmware.wire.errors import check
from firmware.wire.shape import check_fields, check_list

CHANGE = 26  # in transaction.TYPES
ROLE = "replica"

Change = namedtuple("Change", ("members", "requests"))


def encode_request(public_key, tls_hash, chain_id, sign_digest):
    """Returns the request of a new replica: signed by its own key."""
    payload = cbor.encode([identity.encode_cose_key(public_key), bytes(tls_hash), ROLE])
    return cose.sign1(payload, identity.kid_of(public_key), "enrol", chain_id, sign_digest)


def check_request(message, chain_id, verify_digest):
    """Returns the Member that a request makes; Refused unless its own key signed it for this chain."""
    signed = cose.parse(message)
    fields = cbor.decode(signed.payload)
    check_fields(fields, ("b", "b32", "t"))
    check(fields[2] == ROLE, "malformed", ROLE, fields[2])
    public_key = identity.decode_cose_key(fields[0])
    kid = identity.kid_of(public_key)
    check(signed.kid == kid, "wrong_key", kid, signed.kid)
    cose.check(signed, "enrol", chain_id, public_key, verify_digest)
    return certificate.Member(kid, public_key, fields[1])


def encode_body(members, requests):
    """Returns the body of type 26."""
    return [certificate.member_lists(members), [bytes(request) for request in requests]]


def decode_body(body):
    """Returns the Change of a decoded list; Refused `malformed` or `wrong_set`."""
    check_fields(body, ("l", "l"))
    check_list(body[1], "b")
    return Change(certificate.decode_members(body[0]), body[1])
