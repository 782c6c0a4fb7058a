"""Makes one participant's orders, commits and reveals, slot by slot, when they are due, and remembers them.

Theory. For each slot its mechanism in force says which steps there are:

    knn          order     from order_before_s (default: commit_open_s) until gate_s before the slot
    blind, buy   commit    from commit_open_s until commit_close_s
                 reveal    from commit_close_s until gate_s
    blind, sell  order     as under knn

`next_duty` looks at the notes, the rules and the time, and gives the earliest step that is not done; `begin` writes its
signed message into the notes; only then it may leave; `finish` notes what a certified receipt said. One step is under
way at a time, so that sequence numbers arrive in their order. Whatever has no receipt yet comes first, the very same
bytes again: after a crash at any place this goes on where it stood, and nothing is executed twice.

No clock, socket or thread here: time comes in as label seconds.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import NamedTuple

from deploy.trading.notes import MISSED, Note, Notes, Step
from deploy.trading.plans import BUY
from deploy.trading.settings import Participant, Settings
from firmware.wire import cose, trading
from firmware.wire.reasons import NUMBERS
from gateway.market import commitment
from gateway.market.rules import Market, Tariff

LOOK_S = 60  # label time until the ledger is asked again for rules that are not there yet
RETRY_S, TRIES = 30, 5  # what may pass: rules that are about to begin, a block time behind ours, money on its way
PASSING = tuple(NUMBERS[name] for name in ("no_rules", "outside_window", "busy", "insufficient_funds",
                                           "stale_sequence"))
HORIZON = 400  # slots looked ahead for one that is wanted

Sign = Callable[[int, list], bytes]  # (type, body): the signed transaction


class Present(NamedTuple):
    """What the ledger says now. clear_s: the next slot that the calendar will clear; None before it runs."""

    rules: Market
    tariff: Tariff | None
    clear_s: int | None


class Duty(NamedTuple):
    """What comes next, at label `due_s`. step: order, commit, reveal; "look": ask again then; close_s: too late."""

    due_s: int
    step: str
    slot_s: int
    close_s: int


class Trader:
    """One participant's decisions."""

    def __init__(self, settings: Settings, participant: Participant, notes: Notes, kid: bytes, chain_id: bytes,
                 slot_length_s: int, sign: Sign) -> None:
        self.participant, self.notes = participant, notes
        self._settings, self._kid, self._chain_id = settings, kid, chain_id
        self._length_s, self._sign = slot_length_s, sign

    def next_duty(self, now_s: int, market: Present | None) -> Duty | None:
        """The earliest step that is not done; None when the time that is traded is over."""
        waiting = self._without_receipt(market)
        if waiting is not None:
            return waiting
        first = now_s - now_s % self._length_s + self._length_s
        first = max(first, -(-self._settings.from_s // self._length_s) * self._length_s)
        if first >= self._settings.until_s:
            return None
        if market is None or market.clear_s is None:
            return Duty(now_s + LOOK_S, "look", 0, 0)
        first = max(first, market.clear_s)
        best: Duty | None = None
        for slot_s in range(first, first + HORIZON * self._length_s, self._length_s):
            if slot_s >= self._settings.until_s:
                return best
            opens_s = slot_s - max(self._lead_s(market.rules), market.rules.commit_open_s)
            if best is not None and best.due_s <= opens_s:
                return best
            duty = self._duty_of(slot_s, now_s, market)
            if duty is not None and (best is None or duty.due_s < best.due_s):
                best = duty
        return best or Duty(slot_s - self._lead_s(market.rules), "look", 0, 0)

    def begin(self, duty: Duty, now_s: int, market: Present | None) -> bytes | None:
        """The signed message of a duty, in the notes already; None when its window is over."""
        note = self.notes.find(duty.slot_s)
        step = note.steps.get(duty.step) if note else None
        if step is not None and step.code is None:
            return step.message
        if note is None:
            wish = self.participant.plan(duty.slot_s, market.tariff if market else None)
            assert wish is not None, "a duty is made of a wish"
            note = Note(duty.slot_s, self.participant.side, wish.wh, wish.price_mc)
        if now_s >= duty.close_s:
            note.steps[duty.step] = step or Step(b"")
            note.steps[duty.step].code = MISSED
            self.notes.keep(note)
            return None
        if duty.step == "commit" and note.nonce is None:
            note.nonce = secrets.token_bytes(trading.NONCE_BYTES)
            self.notes.keep(note)
        message = self._sign(*_transaction(duty.step, note, self.participant, self._kid, self._chain_id))
        note.steps[duty.step] = Step(message, tries=step.tries + 1 if step else 1)
        self.notes.keep(note)
        return message

    def finish(self, duty: Duty, height: int, code: int, now_s: int) -> Note | None:
        """Notes what became of a duty; returns the slot's note when nothing more is to be done for it."""
        note = self.notes.find(duty.slot_s)
        assert note is not None, "begun before"
        step = note.steps[duty.step]
        step.height, step.code = height, code
        if _may_pass(step) and now_s + RETRY_S < duty.close_s:
            step.retry_s = now_s + RETRY_S
        elif code:
            step.tries = TRIES
        self.notes.keep(note)
        is_open = duty.step == "commit" if code == 0 else _may_pass(step)
        return None if is_open else note

    def _duty_of(self, slot_s: int, now_s: int, market: Present) -> Duty | None:
        """The slot's next step, or None."""
        note = self.notes.find(slot_s)
        if note is None and self.participant.plan(slot_s, market.tariff) is None:
            return None
        for duty in self._steps(slot_s, market.rules):
            step = note.steps.get(duty.step) if note else None
            if step is None:
                # nothing noted and too late already: nobody's fault, the trader was not there; but a bid must be opened
                return None if now_s >= duty.close_s and duty.step != "reveal" else duty
            if step.code is not None and _may_pass(step):
                return duty._replace(due_s=max(duty.due_s, step.retry_s))
            if step.code != 0:
                return None
        return None

    def _steps(self, slot_s: int, rules: Market) -> list[Duty]:
        """All steps of a slot, in their order."""
        gate_s, opens_s = slot_s - rules.gate_s, slot_s - rules.commit_close_s
        if rules.mechanism == "blind" and self.participant.side == BUY:
            return [Duty(slot_s - rules.commit_open_s, "commit", slot_s, opens_s),
                    Duty(opens_s, "reveal", slot_s, gate_s)]
        return [Duty(slot_s - self._lead_s(rules), "order", slot_s, gate_s)]

    def _lead_s(self, rules: Market) -> int:
        return min(self.participant.order_before_s or rules.commit_open_s, rules.open_s)

    def _without_receipt(self, market: Present | None) -> Duty | None:
        for slot_s in self.notes.slots()[-HORIZON:]:
            note = self.notes.find(slot_s)
            for name, step in (note.steps if note else {}).items():
                if step.code is None:
                    closes = {duty.step: duty.close_s for duty in self._steps(slot_s, market.rules)} if market else {}
                    return Duty(0, name, slot_s, closes.get(name, 0))
        return None


def order_id(message: bytes) -> str:
    """The name of the order or bid that a signed message makes."""
    return hashlib.sha256(cose.parse(message).payload).hexdigest()


def _may_pass(step: Step) -> bool:
    return step.code in PASSING and step.tries < TRIES


def _transaction(step: str, note: Note, participant: Participant, kid: bytes, chain_id: bytes) -> tuple[int, list]:
    """(type, body) of a step."""
    if step == "commit":
        assert note.nonce is not None
        sealed = commitment.commitment(chain_id, kid, note.slot_s, note.price_mc, note.wh, note.nonce)
        return trading.COMMIT, trading.commit_body(note.slot_s, sealed)
    if step == "reveal":
        assert note.nonce is not None
        return trading.REVEAL, trading.reveal_body(note.slot_s, note.price_mc, note.wh, note.nonce)
    return trading.ORDER, trading.order_body(trading.Order(
        note.slot_s, participant.scale, trading.SIDES.index(note.side), participant.flow, participant.form,
        note.price_mc, note.wh, participant.point))
