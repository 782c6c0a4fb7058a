"""Makes the lists that rules need beside single records: all points, an owner's points, who is `grid`; and heirs.

A point whose owner leaves in debt comes back in debt (market.md): when it was that owner's last point, the debt goes
with the point to the new owner, at once, and once more for what slots that were traded before cost the old owner later.
"""

import bisect
from collections.abc import Callable

from firmware.wire import cbor
from firmware.wire.state import AgentRecord, PointRecord
from gateway.contracts import accounts
from gateway.contracts.context import BlockContext, State
from gateway.market import records


def points(store: State) -> list[int]:
    """Every point of the area, rising."""
    return _list(store, records.POINTS_KEY)


def points_of(store: State, kid: bytes) -> list[int]:
    """The points of an owner, rising."""
    return _list(store, records.owner_key(kid))


def points_in_market(store: State, kid: bytes) -> list[int]:
    """The points of an owner that have not left the market."""
    return [point for point in points_of(store, kid) if not has_left(store, point)]


def has_left(store: State, point: int) -> bool:
    """Has the point left the market (leaving.py), and not come back?"""
    return store.get(records.left_key(point)) is not None


def leaving(store: State) -> list[list]:
    """[[kid, slot], ...]: whose deposit comes back when all slots before are final."""
    return _list(store, records.LEAVING_KEY)


def put_leaving(store: State, rows: list[list]) -> None:
    """Writes that list."""
    _put(store, records.LEAVING_KEY, rows)


def note_point(store: State, context: BlockContext, old: PointRecord | None, new: PointRecord) -> None:
    """A point is registered, perhaps again and for another owner: it is in the market, its owner's deposit answers for
    it."""
    if has_left(store, new.point):
        store.delete(records.left_key(new.point))
    waiting = leaving(store)
    if any(kid == new.owner for kid, _ in waiting):
        put_leaving(store, [row for row in waiting if row[0] != new.owner])
    if old is None:
        _add(store, records.POINTS_KEY, new.point)
    elif old.owner != new.owner:
        left = points_of(store, old.owner)
        left.remove(new.point)
        _put(store, records.owner_key(old.owner), left)
        _note_former(store, old.owner, new.point)
    _add(store, records.owner_key(new.owner), new.point)
    if old is not None and old.owner != new.owner:
        _inherit(store, context, old.owner, new)


def note_role(store: State, kid: bytes, record: AgentRecord, signer_of: Callable[[State, bytes], AgentRecord | None]
              ) -> None:
    """A key of role grid came or was revoked: the first account that still has a key is the area's grid account."""
    if record.role != "grid":
        return
    account, kids = accounts.of(store, kid), _list(store, records.GRID_KEY)
    known = [(other, signer_of(store, other)) for other in [*kids, *([] if account in kids else [account])]]
    living = [other for other, found in known if found is not None and found.revoked_height is None]
    _put(store, records.GRID_KEY, living or kids[:1])


def former_of(store: State, kid: bytes) -> list[int]:
    """For each point that another owner has now: the first slot that is the other's."""
    return [slot_s for former, _, slot_s in _list(store, records.FORMER_KEY) if former == kid]


def settle_former(store: State, context: BlockContext, final_s: int,
                  point_of: Callable[[State, int], PointRecord | None]) -> None:
    """After a slot's final: what came to former owners since goes with their points; slots before final_s are done."""
    rows = _list(store, records.FORMER_KEY)
    for kid, point, _ in rows:
        found = point_of(store, point)
        if found is not None:
            _inherit(store, context, kid, found)
    left = [row for row in rows if row[2] > final_s]
    if left != rows:
        _put(store, records.FORMER_KEY, left)


def _inherit(store: State, context: BlockContext, old_owner: bytes, point: PointRecord) -> None:
    account = accounts.find(store, old_owner)
    if account is None or account.balance_mc >= 0 or old_owner == point.owner or points_of(store, old_owner):
        return
    for kid, amount_mc in ((old_owner, -account.balance_mc), (point.owner, account.balance_mc)):
        accounts.post(store, context, kid, records.DEBT, amount_mc, point=point.point)


def _note_former(store: State, kid: bytes, point: int) -> None:
    data = store.get(records.CALENDAR_KEY)
    if data is not None:
        rows = _list(store, records.FORMER_KEY)
        _put(store, records.FORMER_KEY, sorted([*rows, [kid, point, records.decode_calendar(data).clear_s]]))


def _list(store: State, key: bytes) -> list:
    data = store.get(key)
    return [] if data is None else cbor.decode(data)


def _put(store: State, key: bytes, values: list) -> None:
    if values:
        store.put(key, cbor.encode(values))
    else:
        store.delete(key)


def _add(store: State, key: bytes, value: int) -> None:
    values = _list(store, key)
    at = bisect.bisect_left(values, value)
    if values[at:at + 1] != [value]:
        values.insert(at, value)
        _put(store, key, values)
