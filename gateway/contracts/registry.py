"""Makes the registry of agents and points from transactions: enrol, revoke, replace agent (transactions.md 1, 2, 5).

Default deny: an agent exists when an operator's transaction carries the agent's own signed request. One key is one
agent for ever, also after it was revoked: a stolen key never comes back. Revocation holds from this item on.
"""

from collections.abc import Sequence

from firmware.wire import cbor, cose, state, transaction
from firmware.wire.errors import check
from firmware.wire.state import AgentRecord, PointRecord
from firmware.wire.transaction import Enrolment, PointEntry, Transaction
from gateway.contracts import accounts, indexes, memo, metering
from gateway.contracts.context import BlockContext, State
from gateway.market.records import TOP_UP, signs_key

HOLDERS = ("participant", "grid")  # roles that have accounts


def apply_genesis(store: State, context: BlockContext, enrolments: Sequence[list[object]],
                  balances: Sequence[list] = ()) -> None:
    """Enrols the chain's first identities and gives them their first money, rows [kid, mc]; Refused when the genesis
    contradicts itself. context.height is 0."""
    for body in enrolments:
        _enrol_body(store, context, transaction.decode_enrol_body(body), cose.NO_CHAIN)
    for kid, amount_mc in balances:
        check(amount_mc <= accounts.BALANCE_MC, "malformed", accounts.BALANCE_MC, amount_mc)
        accounts.post(store, context, kid, TOP_UP, amount_mc, reference="genesis")


def agent_of(store: State, kid: bytes) -> AgentRecord | None:
    """The registry's record of a kid, or None."""
    data = store.get(state.agent_key(kid))
    return None if data is None else memo.decode_agent(data)


def signer_of(store: State, kid: bytes) -> AgentRecord | None:
    """The record of the newest key that signs for a kid: itself, or what came in its place."""
    record = agent_of(store, kid)
    while record is not None and record.replaced_by is not None:
        record = agent_of(store, record.replaced_by)
    return record


def point_of(store: State, point: int) -> PointRecord | None:
    """The registry's record of a point, or None."""
    data = store.get(state.point_key(point))
    return None if data is None else memo.decode_point(data)


def enrol(store: State, context: BlockContext, found: Transaction) -> None:
    """Type 1: makes an agent, or somebody of another role, and the points it serves."""
    _enrol_body(store, context, transaction.decode_enrol_body(found.body), context.chain_id)


def _enrol_body(store: State, context: BlockContext, body: transaction.EnrolBody, chain_id: bytes) -> None:
    kid, wanted = _check_request(store, context, body.request, chain_id)
    check(not body.points or wanted.role == "agent", "not_permitted", "agent", wanted.role)
    transaction.check_points(body.points)
    records = [_point_record(store, context, entry, kid, body.owner, wanted.area) for entry in body.points]
    _put_agent(store, kid, _agent_record(wanted, body.owner, [record.point for record in records], context.height))
    for record in records:
        old = point_of(store, record.point)
        if old is not None:
            metering.move_point(store, context, old, record)
        store.put(state.point_key(record.point), state.encode_record(record))
        indexes.note_point(store, context, old, record)


def _point_record(store: State, context: BlockContext, entry: PointEntry, kid: bytes, owner: bytes,
                  area: str) -> PointRecord:
    """The point's next record; Refused when it stands elsewhere or another living agent serves it."""
    check(entry.area == area, "wrong_area", area, entry.area)
    check(entry.channel in context.channels, "wrong_channel", context.channels, entry.channel)
    old = point_of(store, entry.point)
    epoch = 1
    if old is not None:
        holder = agent_of(store, old.agent)
        check(holder is None or holder.revoked_height is not None, "point_taken", old.agent, kid)
        is_same_meter = (old.maker, old.model, old.serial, old.ratio_num, old.ratio_den) == (
            entry.maker, entry.model, entry.serial, entry.ratio_num, entry.ratio_den)
        epoch = old.meter_epoch if is_same_meter else old.meter_epoch + 1
    return PointRecord(*entry, kid, accounts.of(store, owner), epoch)


def revoke(store: State, context: BlockContext, found: Transaction) -> None:
    """Type 2: from this item on the kid signs nothing that counts."""
    kid, _reason = transaction.decode_revoke_body(found.body)
    # An operator cannot revoke itself, so there is always one left who can enrol.
    check(kid != found.sender, "not_permitted", "another operator", kid)
    record = agent_of(store, kid)
    check(record is not None, "not_enrolled", "an enrolled agent", kid)
    assert record is not None
    check(record.revoked_height is None, "revoked", record.revoked_height, context.height)
    _put_agent(store, kid, record._replace(revoked_height=context.height))


def replace_agent(store: State, context: BlockContext, found: Transaction) -> None:
    """Type 5: binds a new key to the old one's points; a chain of seals goes on where the registers ended."""
    old_kid, request = transaction.decode_replace_agent_body(found.body)
    old = agent_of(store, old_kid)
    check(old is not None, "not_enrolled", "an enrolled agent", old_kid)
    assert old is not None
    check(old.replaced_by is None, "revoked", old.replaced_by, old_kid)
    kid, wanted = _check_request(store, context, request, context.chain_id)
    check(wanted.role == old.role, "not_permitted", old.role, wanted.role)
    check(wanted.area == old.area, "wrong_area", old.area, wanted.area)
    moved = []
    for point in old.points:
        record = point_of(store, point)
        if record is None or record.agent != old_kid:
            continue  # after a revocation, the point may have gone to somebody else
        data = store.get(state.chain_key(old_kid, point))
        new = record._replace(agent=kid)
        if data is not None:
            chain = state.decode_chain(data)
            if chain.meter_epoch == record.meter_epoch:  # else its last seal is of the meter before
                new = new._replace(start_import_wh=chain.import_wh, start_export_wh=chain.export_wh)
        metering.move_point(store, context, record, new)
        moved.append(new)
    if old.role in HOLDERS:
        store.put(signs_key(kid), accounts.of(store, old_kid))
    _put_agent(store, kid, _agent_record(wanted, old.owner, [record.point for record in moved], context.height))
    revoked_height = context.height if old.revoked_height is None else old.revoked_height
    _put_agent(store, old_kid, old._replace(revoked_height=revoked_height, replaced_by=kid))
    for record in moved:
        store.put(state.point_key(record.point), state.encode_record(record))


def _check_request(store: State, context: BlockContext, request: bytes, chain_id: bytes) -> tuple[bytes, Enrolment]:
    """The new kid and what it asks for; Refused unless the new key signed for this chain and is new to it."""
    kid, wanted = transaction.decode_enrolment(request, chain_id, context.verify_digest)
    check(store.get(state.agent_key(kid)) is None and kid not in context.member_kids, "already_enrolled", None, kid)
    return kid, wanted


def _agent_record(wanted: Enrolment, owner: bytes, points: list[int], height: int) -> AgentRecord:
    return AgentRecord(wanted.public_key, wanted.role, wanted.area, wanted.model, wanted.key_protection,
                       wanted.tls_hash, owner, points, height, None, None)


def _put_agent(store: State, kid: bytes, record: AgentRecord) -> None:
    """Writes the record, and with it the number of the area's light nodes: the n of "k of n witnesses"."""
    old = agent_of(store, kid)
    change = state.is_light(record) - (old is not None and state.is_light(old))
    if change:
        key = state.light_key(record.area)
        store.put(key, cbor.encode(state.decode_count(store.get(key)) + change))
    store.put(state.agent_key(kid), state.encode_record(record))
    indexes.note_role(store, kid, record, signer_of)
