"""Whatever a body of the market says, signed by whoever: a code on every replica, no exception, no money made."""

from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.wire import trading
from firmware.wire.reasons import REASONS
from gateway.contracts import accounts
from gateway.market import records, rules
from tests.contracts.area import FIRST_S, SLOT_S, MarketWorld
from tests.contracts.table import Table
from tests.ledger.world import START_S, key

_WORLD = MarketWorld(3)
_KIDS = [key(name).kid for name in ("p0", "p1", "grid", "operator", "m0", "stranger")]
_NUMBERS = st.sampled_from((0, 1, 2, 3, 255, 256, 500, 50_000, 10**8, 10**11, 10**15, 2**32 - 1, 2**32, 2**40 - 1,
                            2**63, 2**64 - 1, FIRST_S, FIRST_S + SLOT_S, START_S))
_VALUES = st.recursive(st.none() | st.booleans() | _NUMBERS | st.integers(-2**64, 2**64 - 1) | st.binary(max_size=40)
                       | st.text(max_size=5) | st.sampled_from(_KIDS) | st.sampled_from(rules.NAMES),
                       lambda inner: st.lists(inner, max_size=15), max_leaves=20)
_NAMES = st.sampled_from(("p0", "p1", "grid", "operator", "m0"))
_ORDERS = st.lists(_NUMBERS, min_size=8, max_size=8)
_PARAMETERS = st.sampled_from(rules.NAMES).flatmap(lambda name: st.tuples(
    st.just(name), st.lists(st.one_of(_VALUES, st.sampled_from(rules.make(name))), max_size=16)))
_BODIES = st.one_of(
    st.tuples(st.just(trading.ORDER), _ORDERS),
    st.tuples(st.sampled_from((trading.TOP_UP, trading.WITHDRAW)), st.builds(
        lambda kid, amount: [kid, amount, "r"], st.sampled_from(_KIDS), _NUMBERS)),
    st.tuples(st.just(trading.DEPOSIT), st.builds(lambda kid, amount: [kid, amount], st.sampled_from(_KIDS), _NUMBERS)),
    st.builds(lambda made, version, valid_from: (trading.RULE_SET, trading.rule_set_body(
        made[0], version, valid_from, made[1])), _PARAMETERS, st.integers(1, 3), st.integers(0, 40)),
    st.tuples(st.just(trading.REVEAL), st.builds(lambda numbers: [*numbers, bytes(16)], st.lists(
        _NUMBERS, min_size=3, max_size=3))),
    st.tuples(st.just(trading.COMMIT), st.builds(lambda slot_s: [slot_s, bytes(32)], _NUMBERS)),
    st.tuples(st.just(trading.LEAVE), st.lists(st.sampled_from(_KIDS) | st.integers(0, 4), min_size=1, max_size=1)),
    st.tuples(st.sampled_from((trading.LEAVE, *range(6, 14))), st.lists(_VALUES, max_size=9)))
_BLOCKS = st.lists(st.tuples(st.lists(st.tuples(_NAMES, _BODIES), max_size=8), st.integers(0, 5000)), max_size=6)


def _begun() -> Table:
    """A market that runs, under `blind`, so that every type means something."""
    table = Table(_WORLD)
    _WORLD.sequences.clear()
    changes: dict[str, dict] = {"market": {"mechanism": "blind"}, "vee": {"provisional_s": SLOT_S, "final_s": SLOT_S}}
    codes = table.codes([_WORLD.rule_set(name, 1, 2, changes.get(name)) for name in rules.NAMES])
    assert codes == [0] * 4
    return table


@settings(max_examples=120, deadline=None)
@given(_BLOCKS)
def test_any_body_gets_a_code_and_two_replicas_agree(blocks: list) -> None:
    first, second = _begun(), _begun()
    for table in (first, second):
        table.codes([])
    now_s = START_S + 60
    for bodies, step_s in blocks:
        now_s += step_s
        items = [_WORLD.tx(kind, list(body), name) for name, (kind, body) in bodies]
        codes = first.codes(items, now_s)
        assert len(codes) == len(items) and all(0 <= code < len(REASONS) for code in codes)
        assert second.codes(items, now_s) == codes
        assert first.tree.root() == second.tree.root()
    for table in (first, second):
        table.codes([], now_s + 6 * SLOT_S)  # all of it is cleared and settled
    found = [records.decode_account(data) for _, data in first.tree.with_prefix(b"account/")]
    assert sum(account.balance_mc for account in found) == accounts.minted_mc(first)
