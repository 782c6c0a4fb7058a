"""Sets up the demo's people, market and control device, by the commands that a person types, and reports what they did.

The retailer is the area's grid; LA1 to LA3 buy and the microgrid MG sells, by the figures of paper 003; a laboratory, a
manufacturer and a regulator stand for what runs in the substation's control device, which somebody alters for a third
of the day.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from deploy.demo import settled, world
from deploy.supervisor import Program, gridseal
from deploy.trading import table4
from gateway.ledger.reader import Reader
from gateway.market import records

if TYPE_CHECKING:
    from deploy.demo.play import Demo

GRID = "retailer"
ENDORSERS = (("laboratory", "laboratory"), ("maker", "manufacturer"), ("office", "regulator"))
START_UNITS = 1500  # of currency, of every buyer (paper 003)
DEVICE, MODEL, RELEASE = "bay-1", "ssc-100", "2.0"
SOFTWARE_BYTES = 4000  # a pull is sixty requests: at speed 600 there is one every second and a half
CHECK_S = 900
TAMPERED = ("software", "strategy", "settings")
# of the day: from when to when the device is altered; the check's interval must fit before, in and after
ALTERED_FROM, ALTERED_TO = 1 / 3, 2 / 3
WAIT_S = 30.0


class Alteration(NamedTuple):
    """What was done to the device, by label time."""

    file: str
    offset: int
    from_s: int
    to_s: int


class Players:
    """The people of one demo, and their machines."""

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self.has_market = demo.args.mechanism != "none" and demo.args.meters >= len(world.TRADERS)
        self.has_device = demo.args.mechanism != "none"
        self.alteration: Alteration | None = None
        self._files = demo.folder / "device-files"
        self._control = ("", 0)
        self._chance = random.Random(demo.args.seed)
        self._kids: dict[str, str] = {}
        self._owners = sorted({bus.owner for bus in demo.buses})

    def home(self, name: str) -> Path:
        """The folder of one of them."""
        return self.demo.folder / name

    def kid(self, name: str) -> str:
        """Somebody's kid, once the folder is made."""
        return self._kids[name]

    # Before the replicas run.

    async def start_device(self) -> None:
        """Starts the simulated control device and tells replica 0 where it is."""
        if not self.has_device:
            return
        sim = ("sim", "security-device", "--device", DEVICE, "--model", MODEL, "--release", RELEASE, "--twin",
               "--seed", str(self.demo.args.seed), "--software-bytes", str(SOFTWARE_BYTES))
        self.demo.type_plain(*sim, "--export", str(self._files))
        command = gridseal(*sim, "--tcp", "127.0.0.1:0", "--control", "127.0.0.1:0", "--json",
                           "--clock", str(self.demo.clock_folder))
        await self.demo.supervisor.start(Program("device", "meter", self.demo.folder, command))
        line = await self.demo.supervisor.wait_line("device", lambda text: text.startswith("{"), WAIT_S)
        ready = json.loads(line)
        host, _, port = str(ready["control"]).rpartition(":")
        self._control = (host, int(port))
        with open(self.demo.area / "replica-0" / "gateway.toml", "a", encoding="utf-8") as file:
            file.write(f'\n[[device]]\nname = "{DEVICE}"\nmodel = "{MODEL}"\nport = "tcp://{ready["buses"][0]["tcp"]}"\n'
                       f"unit = 1\ntwin = true\ncheck_interval_s = {CHECK_S}\n")

    # Before the agents run.

    def enroll(self) -> None:
        """Makes everybody known: the grid, the owners of points, who stands for the control device."""
        people = [(GRID, "grid")] if self.has_market else []
        people += [(name, "participant") for name in self._owners] if self.has_market else []
        people += list(ENDORSERS) if self.has_device else []
        for name, role in people:
            said = self.demo.type("enroll", "request", str(self.home(name)), "--role", role, *self._area())
            self._kids[name] = said["kid"]
            self.demo.type("enroll", "approve", str(self.home(name)), "--role", role, *self._area(), *self._clock())

    def owner_words(self, owner: str) -> list[str]:
        """What `enroll approve` of an agent is told of its points' owner."""
        return ["--owner", self.kid(owner)] if self.has_market else []

    def open_market(self) -> None:
        """Publishes the rule sets and fills the buyers' accounts."""
        if not self.has_market:
            return
        for name, settings in self._rules().items():
            words = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
            self.demo.type("rules", "publish", name, *self._area(), *words, *self._clock())
        for name in table4.BUYERS:
            self.demo.type("account", "top-up", str(self.home(name)), str(START_UNITS), "--grid", str(self.home(GRID)),
                           "--reference", "opening balance", *self._clock())
        self.demo.say(f"market: {self.demo.args.mechanism}, {len(table4.BUYERS)} buyers with {START_UNITS} each, "
                      f"{table4.SELLER} sells, {GRID} supplies")

    def certify(self) -> None:
        """Has the device's three files certified and endorsed."""
        if not self.has_device:
            return
        made = self.demo.type("device", "certify", str(self.home("laboratory")), "--files", str(self._files), "--model",
                              MODEL, "--release", RELEASE, "--device", DEVICE, *self._area(), *self._clock())
        for name, _ in ENDORSERS[1:]:
            self.demo.type("device", "endorse", str(self.home(name)), made["version"], *self._clock())
        self.demo.say(f"control device {DEVICE}: release {RELEASE} certified, checked every {CHECK_S // 60} minutes")

    async def start_trader(self) -> None:
        """Starts the process that trades for all participants; the clock waits for it."""
        if not self.has_market:
            return
        path = self.demo.folder / "trader.toml"
        path.write_text(self._trader_file())
        await self.demo.supervisor.start(Program("trader", "agent", self.demo.folder, gridseal(
            "market", "trade", str(path), *self._clock(), "--clock-name", "trader"), has_end=True))

    def clock_names(self) -> list[str]:
        """Who of them the clock has to wait for."""
        return ["trader"] if self.has_market else []

    # While the day runs.

    async def play(self) -> None:
        """Alters the control device for a third of the day, at a random byte of a random file."""
        if not self.has_device or self.demo.args.no_tamper:
            return
        length_ms = self.demo.end_ms - self.demo.start_ms
        await self._wait(self.demo.start_ms + int(length_ms * ALTERED_FROM))
        held = json.loads(await self._tell("files"))["sides"][0]
        file = self._chance.choice(TAMPERED)
        offset = self._chance.randrange(held[TAMPERED.index(file)]["bytes"])
        await self._tell(f"tamper {file} {offset}")
        from_s = self.demo.keeper.slowest_ms() // 1000
        self.demo.say(f"somebody altered byte {offset} of the {file} of {DEVICE}")
        await self._wait(self.demo.start_ms + int(length_ms * ALTERED_TO))
        await self._tell("repair")
        self.alteration = Alteration(file, offset, from_s, self.demo.keeper.slowest_ms() // 1000)
        self.demo.say(f"{DEVICE} was repaired")

    def is_settled(self) -> bool:
        """Tells whether every replica has settled all slots that ended with the day."""
        if not self.has_market:
            return True
        for home in self.demo.homes():
            with contextlib.closing(Reader.open(home / "data")) as reader:
                data = reader.state_value(records.CALENDAR_KEY)
                if data is None or records.decode_calendar(data).final_s * 1000 < self.demo.end_ms:
                    return False
        return True

    # Afterwards.

    def report(self, reader: Reader) -> dict[str, Any]:
        """The report's fields of market, witnesses and device, and "players_good"."""
        found: dict[str, Any] = {"trades": 0, "clearings": 0, "settlement": dict.fromkeys(
            ("sum_mc", "turnover_mc", "bought_wh", "sold_wh", "shortfall_wh", "surplus_wh"), 0), "alarms": []}
        good = True
        if self.has_market:
            good = self._report_market(reader, found)
        if self.has_device:
            good = self._report_device(found) and good
        return {**found, "players_good": good}

    def _report_market(self, reader: Reader, found: dict[str, Any]) -> bool:
        demo, day_s = self.demo, self.demo.start_ms // 1000
        market = settled.read_market(reader)
        buyers = {name: bytes.fromhex(self.kid(name)) for name in table4.BUYERS}
        ratios = {point.number: point.ratio for bus in demo.buses for point in bus.points}
        found["trades"] = sum(len(one.trades) for one in market.clearings.values())
        found["clearings"] = sum(bool(one.trades) for one in market.clearings.values())
        found["settlement"] = settled.settlement(market)
        found["slots"] = {"settled": len(market.slots), "even": settled.is_even(market),
                          **settled.qualities(market)}
        found["bids"] = settled.bids(reader, buyers, day_s)
        found["energies"] = settled.energies(market, demo.truths(), ratios)
        found["energies"]["paper"] = settled.against_table(
            market, {name: number for number, name in enumerate(world.TRADERS, 1)}, day_s)
        found["bill"] = self._bill() if market.slots else None  # a day of one hour settles nothing: it begins at 01:00
        good = (found["slots"]["even"] and not found["settlement"]["sum_mc"] and found["energies"]["equal"]
                and not found["energies"]["missing"] and found["clearings"] > 0
                and found["energies"]["paper"]["worst_wh"] <= settled.TOLERANCE_WH
                and (found["bill"] is None or found["bill"]["verdict"] == "good")
                and all((row["hour"], row["who"]) == table4.MISPRINTED for row in found["bids"]["differing"]))
        if demo.args.mechanism == "blind":
            found["fills"] = settled.fills(market, buyers, day_s, demo.end_ms // 1000)
            good = good and not found["fills"]["differing"]
        return bool(good)

    def _bill(self) -> dict[str, Any]:
        """The first buyer's bill, exported and verified by the commands."""
        path = self.demo.folder / f"{table4.BUYERS[0]}.bill"
        self.demo.type("bill", "export", str(path), *self._area(), "--replica", self.demo.replica_number(),
                       "--account", str(self.home(table4.BUYERS[0])))
        said = self.demo.type("verify", "bill", str(path), "--trust", str(self.demo.area / "genesis.cbor"))
        return {name: said[name] for name in ("verdict", "total_mc", "lines", "doubts")}

    def _report_device(self, found: dict[str, Any]) -> bool:
        said = self.demo.type("device", "history", str(self.demo.homes()[0]), DEVICE)["devices"][0]
        found["alarms"] = alarms_of(said["changes"])
        found["device"] = {"reports": said["reports"], "alteration": None}
        if self.alteration is None:
            return said["reports"] > 0 and not found["alarms"]
        found["device"]["alteration"] = self.alteration._asdict()
        if len(found["alarms"]) != 1 or found["alarms"][0]["cleared"] is None:
            return False
        alarm = found["alarms"][0]
        late_s = (_seconds(alarm["raised"]) - self.alteration.from_s, _seconds(alarm["cleared"]) - self.alteration.to_s)
        found["device"]["raised_after_s"], found["device"]["cleared_after_s"] = late_s
        return max(late_s) <= CHECK_S and (alarm["item"], alarm["offset"]) == self.alteration[:2]

    # Inside.

    def _area(self) -> list[str]:
        return ["--area-folder", str(self.demo.area)]

    def _clock(self) -> list[str]:
        return ["--clock", str(self.demo.clock_folder)]

    def _rules(self) -> dict[str, dict[str, Any]]:
        return {"market": {"mechanism": self.demo.args.mechanism},
                "tariff": {"periods": table4.PERIODS, "buyback": table4.FEED_IN_MC, "wheeling": 2000},
                "vee": {"provisional_s": 1800, "final_s": 3600}, "credit": {}}

    def _trader_file(self) -> str:
        until_s = self.demo.end_ms // 1000 + 1  # the slot that begins where the day ends is traded, not settled
        lines = [f'ledger = "{self.demo.homes()[0] / "data"}"', f"until = {until_s}"]
        for number, name in enumerate(world.TRADERS, 1):
            lines += ["", "[[participant]]", f'folder = "{self.home(name)}"', f"point = {number}",
                      f'plan = "table4:{name}"']
        return "\n".join(lines) + "\n"

    async def _wait(self, label_ms: int) -> None:
        while self.demo.keeper.slowest_ms() < label_ms:
            await asyncio.sleep(0.05)

    async def _tell(self, line: str) -> str:
        """One line to the device's control port; its answer."""
        reader, writer = await asyncio.open_connection(*self._control)
        try:
            writer.write(line.encode() + b"\n")
            answer = (await asyncio.wait_for(reader.readline(), WAIT_S)).decode().strip()
        finally:
            writer.close()
        if answer.startswith("error"):
            raise ChildProcessError(f"{DEVICE}: {line}: {answer}")
        return answer


def _seconds(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).timestamp())


def alarms_of(changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was not MATCH in a device's history, and when it was cleared."""
    alarms: list[dict[str, Any]] = []
    for change in changes:
        if change["outcome"] == "MATCH":
            if alarms and alarms[-1]["cleared"] is None:
                alarms[-1]["cleared"] = change["time"]
        elif alarms and alarms[-1]["cleared"] is None:
            alarms[-1] = {**alarms[-1], "outcome": change["outcome"]}
        else:
            alarms.append({"device": DEVICE, "raised": change["time"], "cleared": None,
                           **{name: change[name] for name in ("outcome", "item", "kind", "offset", "height")}})
    return alarms
