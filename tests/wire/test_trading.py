"""Bodies of the market's transactions: inverse codecs, strict shapes, published bytes."""

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.wire import cbor, trading
from firmware.wire.errors import Refused

KID = bytes(range(8))
CODECS: dict[int, tuple[Callable, list]] = {
    trading.LEAVE: (trading.decode_leave_body, trading.leave_body(KID)),
    trading.DEPOSIT: (trading.decode_deposit_body, trading.deposit_body(KID, 5)),
    trading.TOP_UP: (trading.decode_money_body, trading.money_body(KID, 100_000, "bank 7")),
    trading.WITHDRAW: (trading.decode_money_body, trading.money_body(KID, trading.AMOUNT_MC, "")),
    trading.RULE_SET: (trading.decode_rule_set_body, trading.rule_set_body("credit", 1, 9, [100000, 0, []])),
    trading.ORDER: (trading.decode_order_body, trading.order_body(trading.Order(3600, 0, 1, 0, 2, 42000, 500, 7))),
    trading.CANCEL: (trading.decode_cancel_body, trading.cancel_body(bytes(32))),
    trading.COMMIT: (trading.decode_commit_body, trading.commit_body(3600, b"h" * 32)),
    trading.REVEAL: (trading.decode_reveal_body, trading.reveal_body(3600, 42000, 500, b"n" * 16)),
}
# What other makers of these bytes must come to; they change only together with the formats' version.
GOLDEN = {
    trading.LEAVE: "81480001020304050607",
    trading.DEPOSIT: "82480001020304050607" "05",
    trading.TOP_UP: "83480001020304050607" "1a000186a0" "6662616e6b2037",
    trading.WITHDRAW: "83480001020304050607" "1b00038d7ea4c68000" "60",
    trading.RULE_SET: "856663726564697401095820"
                      "566490bf30022ee45cdd964a34a5aad702a05960ec5d8ad7530ead36423c8d33" "831a000186a00080",
    trading.ORDER: "88190e1000010002" "19a410" "1901f4" "07",
    trading.CANCEL: "815820" + "00" * 32,
    trading.COMMIT: "82190e105820" + "68" * 32,
    trading.REVEAL: "84190e1019a4101901f450" + "6e" * 16,
}
numbers = st.integers(0, 2**32 - 1)


def reason_of(decode: Callable, body: list) -> str:
    with pytest.raises(Refused) as caught:
        decode(body)
    return caught.value.reason


@pytest.mark.parametrize("kind", CODECS)
def test_golden_bytes(kind: int) -> None:
    decode, body = CODECS[kind]
    assert cbor.encode(body).hex() == GOLDEN[kind]
    assert decode(cbor.decode(bytes.fromhex(GOLDEN[kind])))


def test_leaving_with_one_point_has_one_spelling() -> None:
    assert cbor.encode(trading.leave_body(7)).hex() == "8107"


@given(st.builds(trading.Order, numbers, st.integers(0, 2), st.integers(0, 1), st.integers(0, 3), st.integers(0, 255),
                 numbers, numbers, numbers))
def test_order_decodes_to_itself(order: trading.Order) -> None:
    assert trading.decode_order_body(cbor.decode(cbor.encode(trading.order_body(order)))) == order


@given(st.binary(min_size=8, max_size=8), st.integers(1, trading.AMOUNT_MC), st.text(max_size=60), numbers,
       st.binary(min_size=16, max_size=16))
def test_others_decode_to_themselves(kid: bytes, amount_mc: int, text: str, number: int, nonce: bytes) -> None:
    assert trading.decode_money_body(trading.money_body(kid, amount_mc, text)) == (kid, amount_mc, text)
    assert trading.decode_deposit_body(trading.deposit_body(kid, amount_mc)) == (kid, amount_mc, "")
    assert trading.decode_reveal_body(trading.reveal_body(number, amount_mc, number, nonce)) == (
        number, amount_mc, number, nonce)
    digest = hashlib.sha256(nonce).digest()
    assert trading.decode_commit_body(trading.commit_body(number, digest)) == (number, digest)
    assert trading.decode_cancel_body(trading.cancel_body(digest)) == digest
    for who in (kid, number):
        assert trading.decode_leave_body(cbor.decode(cbor.encode(trading.leave_body(who)))) == who
    read = trading.decode_rule_set_body(cbor.decode(cbor.encode(
        trading.rule_set_body(text, number, number, [number, text, [kid]]))))
    assert read[:3] == (text, number, number) and read.parameters == [number, text, [kid]]


_VALUES = st.recursive(st.none() | st.booleans() | st.integers(-2**64, 2**64 - 1) | st.binary(max_size=40)
                       | st.text(max_size=10), lambda inner: st.lists(inner, max_size=9), max_leaves=12)


@given(st.sampled_from(sorted(CODECS)), st.data())
def test_any_other_shape_is_refused(kind: int, data: st.DataObject) -> None:
    decode, good = CODECS[kind]
    body = data.draw(st.one_of(st.lists(_VALUES, max_size=9), st.builds(
        lambda at, value: [*good[:at], value, *good[at + 1:]], st.integers(0, len(good) - 1), _VALUES)))
    try:
        decode(body)
    except Refused as refused:
        assert refused.reason in ("malformed", "wrong_digest")


@pytest.mark.parametrize(("kind", "at", "value", "reason"), [
    (trading.LEAVE, 0, bytes(7), "malformed"), (trading.LEAVE, 0, 2**32, "malformed"),
    (trading.LEAVE, 0, -1, "malformed"), (trading.LEAVE, 0, True, "malformed"), (trading.LEAVE, 0, None, "malformed"),
    (trading.DEPOSIT, 1, 0, "malformed"), (trading.TOP_UP, 1, trading.AMOUNT_MC + 1, "malformed"),
    (trading.WITHDRAW, 1, True, "malformed"), (trading.TOP_UP, 2, "x" * 257, "malformed"),
    (trading.RULE_SET, 3, bytes(32), "wrong_digest"), (trading.RULE_SET, 2, trading.HEIGHT, "malformed"),
    (trading.ORDER, 0, trading.SLOT_S, "malformed"), (trading.ORDER, 1, 3, "malformed"),
    (trading.ORDER, 2, 2, "malformed"), (trading.ORDER, 3, 4, "malformed"), (trading.ORDER, 4, 256, "malformed"),
    (trading.ORDER, 5, -1, "malformed"), (trading.ORDER, 7, 2**32, "malformed"),
    (trading.COMMIT, 0, trading.SLOT_S, "malformed"), (trading.COMMIT, 1, bytes(31), "malformed"),
    (trading.REVEAL, 0, trading.SLOT_S, "malformed"), (trading.REVEAL, 3, bytes(15), "malformed"),
])
def test_refused(kind: int, at: int, value: object, reason: str) -> None:
    decode, good = CODECS[kind]
    assert reason_of(decode, [*good[:at], value, *good[at + 1:]]) == reason
