"""Makes the next set of validators from the members' wills (transaction type 26): in force when q of them say the same.

The record of the present set stands in the state from the first change on; before, the genesis says who decides. A
change in force waits for the end of its epoch, the next checkpoint, and nothing else is taken until then. A key that
has left its seat never comes back, and no key has a seat and another role.
"""

from collections.abc import Sequence
from typing import NamedTuple

from firmware.wire import cbor, certificate, epochs, state, validators
from firmware.wire.certificate import Member
from firmware.wire.errors import check
from firmware.wire.transaction import Transaction
from gateway.contracts.context import BlockContext, State

KEY = b"validators"
WILLS_KEY = b"validators/wills"
LEFT = b"validators/left/"


class Record(NamedTuple):
    """The set of an epoch: n after which the epoch began, its members' rows, those of the next one or None."""

    epoch: int
    base: int
    rows: list
    next_rows: list | None


def record_of(store: State) -> Record | None:
    """The record, or None while the genesis' set decides and nothing else is in force."""
    data = store.get(KEY)
    return None if data is None else Record(*cbor.decode(data))


def next_set(store: State) -> list[Member] | None:
    """The set of the next epoch, once it is in force."""
    record = record_of(store)
    return None if record is None or record.next_rows is None else certificate.decode_members(record.next_rows)


def begin_epoch(store: State, context: BlockContext) -> None:
    """At the first block of an epoch: the set that was to come is the present one."""
    record = record_of(store)
    if record is None or record.epoch >= context.epoch:
        return
    assert record.next_rows is not None and record.epoch + 1 == context.epoch, "an epoch follows on a change in force"
    staying = {row[0] for row in record.next_rows}
    for row in record.rows:
        if row[0] not in staying:
            store.put(LEFT + row[0], cbor.encode(record.epoch))
    store.put(KEY, cbor.encode([context.epoch, context.epoch_base, record.next_rows, None]))


def change(store: State, context: BlockContext, found: Transaction) -> None:
    """Type 26: a member's will; the q-th equal one is in force. Its newest one counts."""
    check(context.channel == context.channels[0], "wrong_channel", context.channels[0], context.channel)
    wanted = validators.decode_body(found.body)
    members = context.members
    record = record_of(store)
    check(record is None or record.next_rows is None, "busy", "the next epoch", context.epoch)
    epochs.check_change(members, wanted.members)
    _check_new(store, context, wanted, [member.kid for member in members])
    rows = certificate.member_lists(wanted.members)
    digest = certificate.set_hash(wanted.members)
    wills = {kid: said for kid, said in _wills(store) if kid in context.member_keys}
    wills[found.sender] = digest
    if sum(said == digest for said in wills.values()) < certificate.quorum(len(members)):
        store.put(WILLS_KEY, cbor.encode([[kid, wills[kid]] for kid in sorted(wills)]))
        return
    store.delete(WILLS_KEY)
    present = certificate.member_lists(members)
    store.put(KEY, cbor.encode([context.epoch, context.epoch_base, present, rows]))


def _check_new(store: State, context: BlockContext, wanted: validators.Change, kids: Sequence[bytes]) -> None:
    """Each new seat is asked for by its own key, which has had no seat and no other role."""
    fresh = [member for member in wanted.members if member.kid not in kids]
    check(len(fresh) == len(wanted.requests), "wrong_count", len(fresh), len(wanted.requests))
    for member, request in zip(fresh, wanted.requests, strict=True):
        asked = validators.check_request(request, context.chain_id, context.verify_digest)
        check(asked == member, "wrong_key", member.kid, asked.kid)
        check(store.get(state.agent_key(member.kid)) is None, "already_enrolled", None, member.kid)
        check(store.get(LEFT + member.kid) is None, "revoked", None, member.kid)


def _wills(store: State) -> list[tuple[bytes, bytes]]:
    data = store.get(WILLS_KEY)
    return [] if data is None else [(kid, said) for kid, said in cbor.decode(data)]
