"""A trader's decisions alone: what is due when; a crash at any place repeats the same bytes and nothing else."""

import contextlib
import stat
from pathlib import Path

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from deploy.clock import ClockKeeper
from deploy.trading import plans
from deploy.trading.notes import MISSED, Notes
from deploy.trading.settings import FOREVER_S, Participant, Settings
from deploy.trading.trade import FOREVER_MS, Desk
from deploy.trading.trader import LOOK_S, RETRY_S, TRIES, Duty, Present, Trader
from firmware.crypto.openssl import OpenSSLSigner
from firmware.wire import cose, identity, trading, transaction
from firmware.wire.reasons import NUMBERS
from gateway.market import commitment
from gateway.market.rules import Market, Tariff

CHAIN = bytes(32)
SIGNER = OpenSSLSigner.generate()
KID = identity.kid_of(SIGNER.public_key())
SLOT_S = 1_781_920_800  # 2026-06-20T02:00Z
BLIND, KNN = Market(mechanism="blind"), Market()
ROWS = plans.of_rows([plans.Row(0, 24, 1000, 40000)])


class Rig:
    """A trader over a folder; `again` is what a new process makes of it."""

    def __init__(self, home: Path, side: str = "buy", plan: plans.Plan = ROWS, until_s: int = FOREVER_S) -> None:
        self.home, self.side, self.plan, self.until_s = home, side, plan, until_s
        self.sequence = 0
        self.again()

    def again(self) -> None:
        self.notes = Notes(self.home)
        participant = Participant("anna", self.home, 7, self.side, self.plan, 0, 0, 1, 0)
        all_settings = Settings(Path(), 0, self.until_s, [participant])
        self.trader = Trader(all_settings, participant, self.notes, KID, CHAIN, 3600, self.sign)

    def sign(self, kind: int, body: list) -> bytes:
        self.sequence += 1
        return cose.sign1(transaction.encode(transaction.Transaction(1, kind, KID, self.sequence, 1 << 40, "trade",
                                                                     body)), KID, "tx", CHAIN, SIGNER.sign_digest)

    def due(self, now_s: int, rules: Market = KNN) -> Duty | None:
        return self.trader.next_duty(now_s, present(rules))

    def do(self, now_s: int, rules: Market = KNN, code: int = 0) -> bytes | None:
        """Does what is due at that time; the message."""
        duty = self.due(now_s, rules)
        assert duty is not None and duty.due_s <= now_s and duty.step != "look", duty
        message = self.trader.begin(duty, now_s, present(rules))
        if message is not None:
            self.trader.finish(duty, 5, code, now_s)
        return message


def present(rules: Market, clear_s: int = SLOT_S) -> Present:
    return Present(rules, Tariff(), clear_s)


def body_of(message: bytes | None) -> tuple[int, list]:
    assert message is not None
    found = transaction.decode(cose.parse(message).payload)
    return found.type, found.body


def test_one_order_for_each_slot_when_commits_would_begin(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    assert rig.due(SLOT_S - 3000) == Duty(SLOT_S - 900, "order", SLOT_S, SLOT_S - 300)
    assert body_of(rig.do(SLOT_S - 900)) == (
        trading.ORDER, trading.order_body(trading.Order(SLOT_S, 0, 0, 0, 1, 40000, 1000, 7)))
    assert rig.due(SLOT_S - 899) == Duty(SLOT_S + 2700, "order", SLOT_S + 3600, SLOT_S + 3300)
    rig.again()
    assert rig.due(SLOT_S - 899) == Duty(SLOT_S + 2700, "order", SLOT_S + 3600, SLOT_S + 3300), "it is on disk"


def test_under_blind_a_buyer_commits_and_reveals_and_a_seller_orders(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    kind, body = body_of(rig.do(SLOT_S - 900, BLIND))
    note = rig.notes.find(SLOT_S)
    assert note is not None and note.nonce is not None
    assert (kind, body[1]) == (trading.COMMIT, commitment.commitment(CHAIN, KID, SLOT_S, 40000, 1000, note.nonce))
    assert rig.due(SLOT_S - 800, BLIND) == Duty(SLOT_S - 600, "reveal", SLOT_S, SLOT_S - 300)
    assert body_of(rig.do(SLOT_S - 600, BLIND)) == (
        trading.REVEAL, trading.reveal_body(SLOT_S, 40000, 1000, note.nonce))
    for path in (tmp_path / "market").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, "a bid is a secret"
    (tmp_path / "seller").mkdir()
    seller = Rig(tmp_path / "seller", "sell")
    assert body_of(seller.do(SLOT_S - 900, BLIND))[0] == trading.ORDER


def test_nothing_is_due_before_the_market_runs_nor_after_the_last_slot(tmp_path: Path) -> None:
    rig = Rig(tmp_path, until_s=SLOT_S + 3600)
    assert rig.trader.next_duty(SLOT_S - 3000, None) == Duty(SLOT_S - 3000 + LOOK_S, "look", 0, 0)
    not_begun = Present(KNN, None, None)
    assert rig.trader.next_duty(SLOT_S - 3000, not_begun) == Duty(SLOT_S - 3000 + LOOK_S, "look", 0, 0)
    later = rig.trader.next_duty(SLOT_S - 3000, present(KNN, SLOT_S + 3600))
    assert later is None, "the calendar begins after the last slot that is traded"
    rig.do(SLOT_S - 900)
    assert rig.due(SLOT_S - 800) is None


def test_a_slot_whose_gate_is_closed_is_left_out_and_a_bid_that_was_not_opened_is_told(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    assert rig.due(SLOT_S - 300) == Duty(SLOT_S + 2700, "order", SLOT_S + 3600, SLOT_S + 3300)
    rig.do(SLOT_S - 900, BLIND)
    assert rig.do(SLOT_S - 300, BLIND) is None
    note = rig.notes.find(SLOT_S)
    assert note is not None and note.steps["reveal"].code == MISSED and note.steps["reveal"].result == "too late"
    assert rig.due(SLOT_S - 299, BLIND) == Duty(SLOT_S + 2700, "commit", SLOT_S + 3600, SLOT_S + 3000)


@pytest.mark.parametrize("reason", ["no_rules", "outside_window", "busy", "insufficient_funds", "stale_sequence"])
def test_what_may_pass_is_tried_again_with_a_new_signature_some_times(tmp_path: Path, reason: str) -> None:
    rig, now_s, messages = Rig(tmp_path), SLOT_S - 900, []
    for _ in range(TRIES):
        messages.append(rig.do(now_s, code=NUMBERS[reason]))
        due = rig.due(now_s)
        now_s += RETRY_S
        if len(messages) < TRIES:
            assert due == Duty(now_s, "order", SLOT_S, SLOT_S - 300)
    assert len(set(messages)) == TRIES
    assert rig.due(now_s) == Duty(SLOT_S + 2700, "order", SLOT_S + 3600, SLOT_S + 3300)


def test_what_will_not_pass_is_not_tried_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.do(SLOT_S - 900, code=NUMBERS["not_its_point"])
    due = rig.due(SLOT_S - 800)
    assert due is not None and due.slot_s == SLOT_S + 3600


class Crash(Exception):
    """The process ends here."""


@seed(3)
@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(["sign", "keep", "sent", "none"]), max_size=12), st.booleans())
def test_crashes_anywhere_leave_one_commit_and_one_reveal(tmp_path_factory: pytest.TempPathFactory, crashes: list[str],
                                                         is_blind: bool) -> None:
    """The ledger here executes each payload once, as the real one does. crash: before the message is signed, before it
    is on disk, after it left and before its receipt is noted."""
    rig, rules = Rig(tmp_path_factory.mktemp("crash"), until_s=SLOT_S + 3600), BLIND if is_blind else KNN
    ledger: dict[bytes, tuple[int, list]] = {}
    now_s = SLOT_S - 900
    planned = list(crashes)
    for _ in range(40):
        rig.again()
        with contextlib.suppress(Crash):
            while (duty := rig.due(now_s, rules)) is not None:
                if duty.due_s > now_s:
                    now_s = duty.due_s
                    continue
                crash = planned.pop() if planned else "none"
                if crash == "sign":
                    raise Crash
                with pytest.MonkeyPatch.context() as patch:
                    if crash == "keep":
                        patch.setattr(rig.notes, "keep", _crash)
                    message = rig.trader.begin(duty, now_s, present(rules))
                assert message is not None
                ledger.setdefault(message, body_of(message))
                if crash == "sent":
                    raise Crash
                rig.trader.finish(duty, 5, 0, now_s)
            break
    kinds = [kind for kind, _ in ledger.values()]
    assert kinds == ([trading.COMMIT, trading.REVEAL] if is_blind else [trading.ORDER])
    if is_blind:
        (_, commit), (_, reveal) = ledger.values()
        commitment.check_reveal(commit[1], CHAIN, KID, *reveal)


def _crash(*_: object) -> None:
    raise Crash


def test_notes_are_told_apart_from_nonsense_and_one_trader_has_them(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.do(SLOT_S - 900)
    with rig.notes.alone(), pytest.raises(OSError, match="another trader"), Notes(tmp_path).alone():
        pass
    path = tmp_path / "market" / f"{SLOT_S}.json"
    path.write_text(path.read_text()[:-9])
    with pytest.raises(ValueError, match="damaged"):
        Notes(tmp_path).find(SLOT_S)


def test_old_notes_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.trading.notes.SLOTS", 3)
    rig = Rig(tmp_path)
    for number in range(6):
        rig.do(SLOT_S - 900 + 3600 * number)
    assert rig.notes.slots() == [SLOT_S + 3600 * number for number in (3, 4, 5)]


def test_the_clock_waits_for_the_earliest_of_all(tmp_path: Path) -> None:
    keeper = ClockKeeper(tmp_path / "clock", 1000, 600, ["trader"])
    people = [Participant(name, tmp_path, 1, "buy", ROWS, 0, 0, 0, 0) for name in ("anna", "bert")]
    desk = Desk(Settings(tmp_path, 0, FOREVER_S, people), str(tmp_path / "clock"), "trader", False)
    for name, due_ms, slowest_ms in (("anna", 90_000, 1000), ("bert", 50_000, 50_000), ("bert", FOREVER_MS, 90_000)):
        desk.set_due(name, due_ms)
        assert keeper.slowest_ms() == slowest_ms
