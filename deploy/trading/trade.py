"""`gridseal market trade`: orders, commits and reveals of one or many participants, every slot, until it is ended.

Each participant has a thread and a connection of its own; all share the clock and one look at the ledger. In a demo the
clock does not pass what is due here until it has its certified receipt (`--clock-name`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import Any

from deploy import places
from deploy.clock import Clock, open_clock
from deploy.errors import NoAnswer
from deploy.line import Line, Outcome
from deploy.operator import Person
from deploy.trading.notes import Note, Notes
from deploy.trading.settings import Participant, Settings, load_settings
from deploy.trading.trader import Duty, Present, Trader, order_id
from firmware.wire import cose, transaction
from firmware.wire.errors import Refused
from firmware.wire.reasons import NUMBERS
from gateway.contracts import rulesets
from gateway.ledger.damage import Damaged
from gateway.ledger.reader import Reader
from gateway.market import records

FOREVER_MS = 1 << 52
SUBMIT_S = 3.0  # then it is looked whether to go on; the same bytes go out again
PAUSE_S = 1.0  # before a broker or a ledger that is not there is asked again
WAKE_S = 0.25  # a waiting thread looks at the clock at least so often
KNOWN_S = 0.05  # one look at the ledger serves all participants for this long
STOP_S = 5.0


def add_parser(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `trade` to the words of `gridseal market`."""
    trade = kinds.add_parser("trade", help="trade for participants, slot by slot, until it is ended",
                             epilog="example: gridseal market trade trade.toml --json")
    trade.add_argument("config", type=Path, help="TOML: ledger, [[participant]] folder, point, side, plan")
    trade.add_argument("--check", action="store_true", help="read the file, say what it means, and trade nothing")
    trade.add_argument("--clock-name", help=argparse.SUPPRESS)
    places.add_usual(trade)
    trade.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trades until SIGTERM or Ctrl-C, or until the last slot is done; 1 when a participant had to give up."""
    settings = load_settings(args.config)
    people = {one.name: Person.open(one.folder) for one in settings.participants}
    if args.check:
        return _check(args, settings, people)
    desk = Desk(settings, args.clock, args.clock_name, args.json)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: desk.stop.set())
    with contextlib.ExitStack() as held:
        threads = []
        for one in settings.participants:
            notes = Notes(one.folder)
            held.enter_context(notes.alone())
            worker = Worker(desk, settings, one, people[one.name], notes)
            threads.append(threading.Thread(target=worker.run, name=one.name, daemon=True))
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) and not desk.stop.is_set():
            desk.stop.wait(WAKE_S)
        for thread in threads:
            thread.join(STOP_S)
    return 1 if desk.is_broken else 0


class Desk:
    """What the participants share: the clock, the ledger's present rules, the log."""

    def __init__(self, settings: Settings, clock_folder: str | None, clock_name: str | None, is_json: bool) -> None:
        self.stop = threading.Event()
        self.is_broken = False
        self.clock_folder, self._is_json = clock_folder, is_json
        self._ledger = settings.ledger
        self._shared = open_clock(clock_folder, clock_name)
        now_ms = self._shared.now_ms()
        self._due_ms = {one.name: now_ms for one in settings.participants}
        self._lock = threading.Lock()
        self._known: Present | None = None
        self._known_at = 0.0
        self._complaints: dict[str, str] = {}

    def set_due(self, name: str, due_ms: int) -> None:
        """Nothing is due for that participant before this label; the clock may run until the earliest of all."""
        with self._lock:
            self._due_ms[name] = due_ms
            self._shared.progress(min(self._due_ms.values()))

    def present(self) -> Present | None:
        """The rules that the next block will find in force; None while there are none, or no ledger."""
        with self._lock:
            if time.monotonic() - self._known_at > KNOWN_S:
                try:
                    self._known = read_present(self._ledger)
                    self._complaints.pop("ledger", None)
                except (OSError, Damaged, sqlite3.Error) as error:
                    self._known = None
                    self.complain("ledger", f"the ledger cannot be read: {error}")
                self._known_at = time.monotonic()
            return self._known

    def complain(self, name: str, text: str) -> None:
        """Says a trouble once, until it changes."""
        if self._complaints.get(name) != text:
            self._complaints[name] = text
            print(f"{name}: {text}", file=sys.stderr, flush=True)

    def tell(self, participant: Participant, kid: bytes, note: Note) -> None:
        """One line of a slot that is done."""
        values = _values(participant, kid, note)
        text = json.dumps(values) if self._is_json else _line(values)
        with self._lock:
            print(text, flush=True)


class Worker:
    """One participant's thread."""

    def __init__(self, desk: Desk, settings: Settings, participant: Participant, person: Person, notes: Notes) -> None:
        self.desk, self.participant, self.person = desk, participant, person
        self.clock: Clock = open_clock(desk.clock_folder)
        self.trader = Trader(settings, participant, notes, person.kid, person.chain_id,
                             person.genesis.parameters["slot_s"], self._sign)
        self._line: Line | None = None

    def _sign(self, kind: int, body: list[Any]) -> bytes:
        return self.person.sign(kind, body, self.clock)

    def run(self) -> None:
        """Does what is due until the desk stops or nothing is left."""
        try:
            while not self.desk.stop.is_set() and self._next():
                pass
        except Exception as error:
            self.desk.is_broken = True
            self.desk.complain(self.participant.name, f"gives up: {type(error).__name__}: {error}")
            raise
        finally:
            if self._line is not None:
                self._line.close()
        self.desk.set_due(self.participant.name, FOREVER_MS)

    def _next(self) -> bool:
        """One duty, or the wait for it; False when nothing is left."""
        now_s, market = self._now_s(), self.desk.present()
        duty = self.trader.next_duty(now_s, market)
        if duty is None:
            return False
        if duty.due_s > now_s:
            self.desk.set_due(self.participant.name, duty.due_s * 1000)
            self._wait(duty.due_s * 1000)
        else:
            self._do(duty, now_s, market)
        return True

    def _do(self, duty: Duty, now_s: int, market: Present | None) -> None:
        message = self.trader.begin(duty, now_s, market)
        note = self.trader.notes.find(duty.slot_s)
        if message is not None:
            outcome = self._submit(message)
            if outcome is None:
                return  # it ends; the notes have it
            note = self.trader.finish(duty, outcome.height, outcome.code, self._now_s())
        if note is not None:
            self.desk.tell(self.participant, self.person.kid, note)

    def _submit(self, message: bytes) -> Outcome | None:
        """What a certified block says of it, however long that takes; `expired` when no block can take it any more."""
        until_s = transaction.decode(cose.parse(message).payload).valid_until_s
        while not self.desk.stop.is_set():
            try:
                if self._line is None:
                    self._line = self.person.line(self.person.area, self.person.brokers, "trader")
                return self._line.submit(message, SUBMIT_S)
            except (NoAnswer, Refused) as error:
                self.desk.complain(self.participant.name, str(error))
                if self._line is None:
                    self.desk.stop.wait(PAUSE_S)
            if self._now_s() > until_s:
                return Outcome(0, NUMBERS["expired"])
        return None

    def _wait(self, due_ms: int) -> None:
        """Until that label, or for a while: rules may have changed."""
        left_s = (due_ms - self.clock.now_ms()) / 1000 / self.clock.speed
        self.desk.stop.wait(min(max(left_s, 0.002), WAKE_S))

    def _now_s(self) -> int:
        return self.clock.now_ms() // 1000


def read_present(folder: Path) -> Present | None:
    """What a replica's ledger says of the rules for the next block; None before any are in force."""
    with contextlib.closing(Reader.open(folder)) as reader:
        state, height = places.View(reader), reader.height() + 1
        market = rulesets.in_force(state, "market", height)
        tariff = rulesets.in_force(state, "tariff", height)
        data = reader.state_value(records.CALENDAR_KEY)
    if market is None:
        return None
    return Present(rulesets.read("market", market), rulesets.read("tariff", tariff) if tariff else None,
                   records.decode_calendar(data).clear_s if data else None)


def _check(args: argparse.Namespace, settings: Settings, people: dict[str, Person]) -> int:
    rows = [{"name": one.name, "kid": people[one.name].kid.hex(), "point": one.point, "side": one.side,
             "brokers": people[one.name].brokers} for one in settings.participants]
    if args.json:
        print(json.dumps({"ledger": str(settings.ledger), "participants": rows}))
        return 0
    print(f"ledger {settings.ledger}")
    for row in rows:
        print(f"{row['name']:<12} {row['kid']}  {row['side']:<4} for point {row['point']}")
    return 0


def _values(participant: Participant, kid: bytes, note: Note) -> dict[str, Any]:
    last = list(note.steps.values())[-1]
    first = next((step.message for step in note.steps.values() if step.message), None)
    return {"slot_s": note.slot_s, "participant": participant.name, "kid": kid.hex(), "point": participant.point,
            "side": note.side, "wh": note.wh, "price_mc": note.price_mc, "result": last.result,
            "id": order_id(first) if first else None,
            "steps": {name: {"height": step.height, "result": step.result} for name, step in note.steps.items()}}


def _line(values: dict[str, Any]) -> str:
    steps = ", ".join(f"{name} {step['result']}" + (f" in block {step['height']}" if step["height"] else "")
                      for name, step in values["steps"].items())
    return (f"{places.moment(values['slot_s'])} {values['participant']} {values['side']} {values['wh']} Wh at "
            f"{places.money(values['price_mc'])}: {steps}")
