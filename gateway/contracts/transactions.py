"""Makes the verdict on a transaction and what it changes: one table says which rule judges a type, and who may send it.

A rule is called with a sender that is enrolled, not revoked, of a role that its row names, and whose signature and
sequence are good. It checks everything first and then writes, so that a refusal leaves nothing half done.
"""

from collections.abc import Callable
from typing import NamedTuple

from firmware.wire import cbor, cose, device, state, trading, transaction
from firmware.wire import validators as wire_validators
from firmware.wire.errors import check
from firmware.wire.state import AgentRecord
from firmware.wire.transaction import Transaction
from gateway.contracts import (
    bids,
    devices,
    leaving,
    money,
    orders,
    registry,
    replacement,
    rulesets,
    settlement,
    validators,
)
from gateway.contracts.context import BlockContext, CheckSignature, State


class Rule(NamedTuple):
    """Who may send a type of transaction, and what then decides and writes."""

    roles: tuple[str, ...]
    apply: Callable[[State, BlockContext, Transaction], None]


def apply_transaction(store: State, context: BlockContext, item: bytes, signed: cose.Signed,
                      check_signature: CheckSignature) -> None:
    """Executes a transaction; Refused with the reason otherwise, its sequence used up once the signature is good."""
    check(cose.is_low_s(signed.signature), "high_s", "the low half", signed.signature)
    found = transaction.decode(signed.payload)
    transaction.check_sender(signed, found)
    sender = _sender(store, context, found.sender)
    check(sender is not None, "not_enrolled", "an enrolled sender", found.sender)
    assert sender is not None
    check(sender.revoked_height is None, "revoked", sender.revoked_height, context.height)
    check(check_signature(item, "tx", sender.public_key), "bad_signature", found.sender, signed.signature)
    key = state.sequence_key(found.sender)
    data = store.get(key)
    last = cbor.decode(data) if data is not None else 0
    check(found.sequence > last, "stale_sequence", last + 1, found.sequence)
    store.put(key, cbor.encode(found.sequence))
    check(found.channel == context.channel, "wrong_channel", context.channel, found.channel)
    check(context.time_s <= found.valid_until_s, "expired", found.valid_until_s, context.time_s)
    check(found.type in RULES, "unknown_type", sorted(RULES), found.type)
    rule = RULES[found.type]
    check(sender.role in rule.roles, "not_permitted", rule.roles, sender.role)
    rule.apply(store, context, found)


def _sender(store: State, context: BlockContext, kid: bytes) -> AgentRecord | None:
    """Whoever is enrolled, or a member of the validator set, which is in the genesis."""
    key = context.member_keys.get(kid)
    return registry.agent_of(store, kid) if key is None else state.replica_record(kid, key, "")


RULES: dict[int, Rule] = {
    transaction.ENROL: Rule(("operator",), registry.enrol),
    transaction.REVOKE: Rule(("operator",), registry.revoke),
    trading.LEAVE: Rule(("participant",), leaving.leave),
    transaction.REPLACE_METER: Rule(("agent", "operator"), replacement.replace_meter),
    transaction.REPLACE_AGENT: Rule(("operator",), registry.replace_agent),
    trading.DEPOSIT: Rule(("grid", "participant"), money.deposit),
    trading.TOP_UP: Rule(("grid", "participant"), money.top_up),
    trading.WITHDRAW: Rule(("grid", "participant"), money.withdraw),
    trading.RULE_SET: Rule(("operator",), rulesets.rule_set),
    trading.ORDER: Rule(("participant", "grid"), orders.order),
    trading.CANCEL: Rule(("participant", "grid"), orders.cancel),
    trading.COMMIT: Rule(("participant",), bids.commit),
    trading.REVEAL: Rule(("participant",), bids.reveal),
    transaction.CORRECTION: Rule(("operator", "dispatcher"), settlement.correct),
    device.CERTIFY: Rule(("laboratory",), devices.certify),
    device.ENDORSE: Rule(("manufacturer", "regulator"), devices.endorse),
    device.REPORT: Rule(("replica",), devices.report),
    wire_validators.CHANGE: Rule((wire_validators.ROLE,), validators.change),
}
