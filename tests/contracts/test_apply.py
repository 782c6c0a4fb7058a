"""Whatever the bytes are, every replica gives them the same code, and nothing raises."""

import os
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.wire import cbor, cose
from tests.contracts.table import Table
from tests.ledger.world import START_S, World, key, point_entry

_WORLD = World(agents=[("meter", (1, 2)), ("other", (3,))])
_START_MS = START_S * 1000


def _good_items() -> list[bytes]:
    world = World(agents=[("meter", (1, 2)), ("other", (3,))])
    items = [world.seal("meter", 1 + i % 2, _START_MS + 1000 * i, 1000 + i).leaf for i in range(8)]
    return [*items, world.enrol("new", [point_entry(9)]), world.seal("new", 9, _START_MS).leaf,
            world.replace("other", "newer"), world.revoke("meter"), world.seal("other", 3, _START_MS).leaf]


_GOOD = _good_items()
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2**64, 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=17), max_leaves=30)


def _signed(payload: bytes, kind: str, name: str) -> bytes:
    return cose.sign1(payload, key(name).kid, kind, _WORLD.chain_id, key(name).signer.sign_digest)


_SIGNED = st.builds(lambda fields, kind, name: _signed(cbor.encode(fields), kind, name), st.one_of(
    _VALUES, st.tuples(st.just(1), st.integers(0, 30), st.just(key("operator").kid), st.integers(0, 50),
                       st.just(2**40), st.just("trade"), st.lists(_VALUES, max_size=4))),
    st.sampled_from(("seal", "tx")), st.sampled_from(("operator", "meter")))
_ITEMS = st.lists(st.one_of(st.sampled_from(_GOOD), st.binary(max_size=400), _SIGNED, st.builds(
    lambda item, at, bit: item[:at % len(item)] + bytes((item[at % len(item)] ^ 1 << bit,)) + item[
        at % len(item) + 1:], st.sampled_from(_GOOD), st.integers(0, 2000), st.integers(0, 7))), max_size=12)


@settings(max_examples=150)
@given(st.lists(_ITEMS, max_size=3))
def test_any_bytes_get_a_code_and_two_replicas_agree(blocks: list[list[bytes]]) -> None:
    first, second = Table(_WORLD), Table(_WORLD)
    for number, items in enumerate(blocks):
        codes = first.codes(items, START_S + number)
        assert len(codes) == len(items) and all(0 <= code < 512 for code in codes)
        assert second.codes(items, START_S + number) == codes
    assert first.tree.root() == second.tree.root()


@settings(max_examples=60)
@given(st.permutations(_GOOD))
def test_order_decides_and_nothing_else(items: list[bytes]) -> None:
    """In one block or one block each: the same codes. The order is the leader's, the outcome everybody's."""
    together, apart = Table(_WORLD), Table(_WORLD)
    codes = together.codes(items)
    apart.height = 0
    assert [apart.codes([item])[0] for item in items] == codes
    assert sum(code == 0 for code in codes) >= 1


def test_the_hash_seed_of_the_interpreter_does_not_matter() -> None:
    """Dicts and sets of bytes iterate differently under another PYTHONHASHSEED; the state must not."""
    program = ("from tests.contracts.test_apply import _GOOD, _WORLD\nfrom tests.contracts.table import Table\n"
               "t = Table(_WORLD); print(t.codes(_GOOD * 2), t.tree.root().hex())")
    outputs = set()
    for seed in ("0", "1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": "Asia/Kathmandu", "LC_ALL": "C"}
        outputs.add(subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60,
                                   capture_output=True, text=True).stdout)
    assert len(outputs) == 1 and "[" in outputs.pop()
