"""Plays the demo's day: an area made by `gateway init`, simulated meters, enrolled agents, one shared clock, a report.

Every step is a command a person could type; this module only types them in order, keeps the clock and watches.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import random
import signal
import sys
import time
import webbrowser
from pathlib import Path
from typing import Any

from deploy import broker, cli, mosquitto
from deploy.clock import ClockKeeper
from deploy.demo import report as reports
from deploy.demo import world
from deploy.demo.players import Players
from deploy.enroll import area_brokers
from deploy.gateway import area_programs, replica_folders, replica_status, wait_ready
from deploy.supervisor import Program, Supervisor, gridseal
from gateway.ledger.reader import Reader

AREA = "demo"
SETTLE_S = 60.0  # real time for the last seals to be ordered everywhere
STALL_S = 120.0  # real time without any progress of the clock: something is broken
WATCH_S = 0.25
PROOFS = 3
INTERRUPTED = 130  # exit code of a demo that was ended before its report, as of a shell's Ctrl-C


class Demo:
    """One run: its folder, its processes, its clock."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.buses = world.make_buses(args.meters)
        self.folder: Path = (args.folder or _new_folder()).resolve()
        self.area = self.folder / "area"
        self.clock_folder = self.folder / "clock"
        self.start_ms = world.DAY_START_S * 1000
        self.end_ms = self.start_ms + args.hours * 3_600_000
        self.supervisor: Supervisor = None  # type: ignore[assignment]  # made when the area's folder is
        self.keeper: ClockKeeper
        self.ports: dict[str, str] = {}
        self._is_line_open = False
        self.players = Players(self)

    async def close(self) -> None:
        """Ends every process, agents first."""
        if self.supervisor is not None:
            await self.supervisor.stop(("agent", "meter", "replica", "broker"))

    def say(self, text: str) -> None:
        """Progress, for people only."""
        if not self.args.json:
            print(("\n" if self._is_line_open else "") + text, flush=True)
            self._is_line_open = False

    def type(self, *words: str) -> dict[str, Any]:
        """Types one `gridseal` command with --json; returns what it printed. ChildProcessError when it fails."""
        return dict(json.loads(self.type_plain(*words, "--json")))

    def type_plain(self, *words: str) -> str:
        """Types one `gridseal` command; returns what it printed. ChildProcessError when it fails."""
        said, complained = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
            code = cli.main(list(words))
        if code:
            raise ChildProcessError(f"gridseal {' '.join(words)}: {complained.getvalue().strip() or said.getvalue()}")
        return said.getvalue()

    async def prepare(self) -> None:
        """Makes the area and starts brokers, replicas and simulated meters; the clock stands at the day's start."""
        args = self.args
        if self.folder.exists() and any(self.folder.iterdir()):
            raise FileExistsError(f"{self.folder} is not empty; a demo starts from nothing")
        self.keeper = ClockKeeper(self.clock_folder, self.start_ms, args.speed,
                                  [*(bus.name for bus in self.buses), *self.players.clock_names()])
        embedded = args.embedded_broker or mosquitto.find() is None
        if embedded and not broker.has_embedded():
            raise FileNotFoundError("no broker: sudo apt install mosquitto, or pip install 'gridseal[demo]'")
        settings = [word for name, value in world.chain_parameters(args.speed).items()
                    for word in ("--set", f"{name}={value}")]
        made = self.type("gateway", "init", str(self.area), "--area", AREA, "--replicas", str(args.replicas),
                         "--brokers", str(args.brokers), "--free-ports", "--speed", str(args.speed), *settings,
                         "--ack-interval", "2", "--clock", str(self.clock_folder),
                         *(["--plain-broker"] if embedded else []))
        self.supervisor = Supervisor(self.area, self.say)
        self.say(f"area {AREA}: {args.replicas} replicas, chain {made['chain_id'][:16]}...")
        self.say("broker: embedded, without TLS and access list" if embedded else "broker: Mosquitto with TLS")
        await self.players.start_device()
        for program in area_programs(self.area, str(self.clock_folder)):
            await self.supervisor.start(program)
        await self._start_simulators()
        await wait_ready(self.supervisor, self.area)
        self.say(f"page: http://{self.page_address()}/   data: {self.folder}")

    def homes(self) -> list[Path]:
        """The folders of the replicas that are to hold the day at its end: all of them."""
        return replica_folders(self.area)

    def replica_number(self) -> str:
        """Of a replica that holds the whole day."""
        return self.homes()[0].name.rpartition("-")[2]

    def page_address(self) -> str:
        return str(replica_status(self.homes()[0]).get("api", "?"))

    async def _start_simulators(self) -> None:
        for is_rtu, name in ((False, "meters-tcp"), (True, "meters-rtu")):
            buses = [bus for bus in self.buses if bus.is_rtu == is_rtu]
            if not buses:
                continue
            path = self.folder / f"{name}.toml"
            path.write_text(world.simulator_file(self.folder, buses, self.args.seed, self.truth(name)))
            command = gridseal("sim", "meter", "--config", str(path), "--json", "--clock", str(self.clock_folder))
            await self.supervisor.start(Program(name, "meter", self.folder, command))
            line = await self.supervisor.wait_line(name, lambda text: text.startswith("{"), 30.0)
            for bus, facts in zip(buses, json.loads(line)["buses"], strict=True):
                self.ports[bus.name] = facts["pty"] if bus.is_rtu else "tcp://" + facts["tcp"]

    def truth(self, name: str) -> Path:
        return self.folder / f"{name}-truth.csv"

    def truths(self) -> list[Path]:
        return sorted(self.folder.glob("*-truth.csv"))

    async def enroll(self) -> None:
        """Lets everybody ask, the operator approve, opens the market, and starts the agents."""
        clock = ["--clock", str(self.clock_folder)]
        area = ["--area-folder", str(self.area)]
        await asyncio.to_thread(self.players.enroll)
        for bus in self.buses:
            home = self.folder / bus.name
            await asyncio.to_thread(self.type, "enroll", "request", str(home), *area)
            points = [word for point in bus.points for word in ("--point", f"{point.number}:{point.ratio}/1")]
            (home / "meter.toml").write_text(world.meter_file(AREA, area_brokers(self.area), bus,
                                                              self.ports[bus.name]))
            await asyncio.to_thread(self.type, "enroll", "approve", str(home), *area, *points,
                                    *self.players.owner_words(bus.owner), *clock)
        self.say(f"enrolled {len(self.buses)} agents for {self.args.meters} points: {world.origin(self.args.meters)}")
        await asyncio.to_thread(self.players.open_market)
        await asyncio.to_thread(self.players.certify)
        for bus in self.buses:
            home = self.folder / bus.name
            await self.supervisor.start(Program(bus.name, "agent", home, gridseal(
                "meter", "run", str(home), *clock, "--clock-name", bus.name)))
        await self.players.start_trader()

    async def run_day(self) -> bool:
        """Lets the clock run until the day is over and ordered everywhere; then stops it.

        TimeoutError when it stalls; False when the replicas do not get the day's end in time.
        """
        self.keeper.run_until(self.end_ms + world.AFTER_MS)
        stop = asyncio.Event()
        ticking = asyncio.create_task(self.keeper.run(stop))
        playing = asyncio.create_task(self.players.play())
        try:
            await self._watch_day()
            await playing
            return await self._settle()
        finally:
            playing.cancel()
            stop.set()
            await ticking

    async def _watch_day(self) -> None:
        last_ms, last_change = 0, time.monotonic()
        while self.keeper.slowest_ms() <= self.end_ms:
            await asyncio.sleep(WATCH_S)
            now_ms = self.keeper.slowest_ms()
            if now_ms != last_ms:
                last_ms, last_change = now_ms, time.monotonic()
            elif time.monotonic() - last_change > STALL_S:
                raise TimeoutError(f"the clock stands at {_hour(now_ms, self.start_ms)}: an agent does not go on; "
                                   + "; ".join(self.supervisor.last_words(bus.name) for bus in self.buses))
            self._show(now_ms)

    def _show(self, now_ms: int) -> None:
        if self.args.json:
            return
        text = f"{_hour(now_ms, self.start_ms)} of {self.args.hours}:00"
        if sys.stdout.isatty():
            facts = replica_status(self.homes()[0])
            print(f"\r{text}  readings {facts.get('readings', '?')}  block {facts.get('height', '?')}  "
                  f"clock held {self.keeper.held_ms / 1000:.1f} s ", end="", flush=True)
            self._is_line_open = True
        elif (now_ms - self.start_ms) % 7_200_000 < 60_000 * 3 and text[:2] != getattr(self, "_shown", None):
            self._shown = text[:2]
            self.say(text)

    def expected(self) -> int:
        """One reading a minute and point, both ends of the day included."""
        return self.args.meters * (self.args.hours * 60 + 1)

    async def _settle(self) -> bool:
        """Waits until every replica has the day's last reading of every point and has settled its slots, and until
        their heights are equal and certified.

        The clock runs on meanwhile: what still waits for a block, waits in label time.
        """
        end = time.monotonic() + SETTLE_S
        has_whole_day = False
        while time.monotonic() < end:
            facts = [await asyncio.to_thread(replica_status, home) for home in self.homes()]
            if not has_whole_day:
                has_whole_day = all(self._is_day_over(one) for one in facts) and self.players.is_settled()
                if has_whole_day:
                    self.keeper.run_until(0)
            elif len({(one.get("height"), one.get("certified_height")) for one in facts}) == 1 \
                    and facts[0]["height"] == facts[0]["certified_height"]:
                return True
            await asyncio.sleep(WATCH_S)
        return False

    def _is_day_over(self, facts: dict[str, Any]) -> bool:
        points = facts.get("points", ())
        return len(points) == self.args.meters and all(one["time_ms"] >= self.end_ms for one in points)

    def make_report(self, started: float) -> dict[str, Any]:
        """Joins ledger and truth, checks the replicas against each other, proves readings and verifies the proofs."""
        homes = self.homes()
        facts = [replica_status(home) for home in homes]
        with contextlib.closing(Reader.open(homes[0] / "data")) as reader:
            joined = reports.join(reader, self.truths(), self.end_ms)
            counts, marks = reader.counts(), reports.marks(reader)
            proofs = self.prove(reader)
            players = self.players.report(reader)
            witnesses = self.witnesses(reader)
        refused: dict[str, int] = {}
        for one in facts:
            for reason, count in one.get("refused", {}).items():
                refused[reason] = max(refused.get(reason, 0), count)
        replicas = {"count": len(homes), **reports.check_replicas(homes)}
        good = (joined.is_equal and joined.readings == self.expected() and replicas["headers_equal"]
                and not replicas["uncertified"] and proofs["good"] == proofs["tried"] and players.pop("players_good")
                and 0 < witnesses["k"] == witnesses["n"])
        return {
            "good": good, "hours": self.args.hours, "speed": self.args.speed, "points": self.args.meters,
            "readings": {"made": joined.rows, "sealed": joined.readings, "committed": joined.readings,
                         "refused": refused, "marked": marks},
            "blocks": counts["blocks"], **players, "witnesses": witnesses,
            "truth": {"equal": joined.is_equal, **joined._asdict()}, "replicas": replicas, "proofs": proofs,
            "held_ms": self.keeper.held_ms, "seconds": round(time.monotonic() - started, 1),
            "folder": str(self.folder)}

    def prove(self, reader: Reader) -> dict[str, int]:
        """Exports proofs of random readings and verifies them, by the commands."""
        chance = random.Random(self.args.seed)
        good, replica = 0, self.replica_number()
        for number in range(PROOFS):
            point = chance.choice([point.number for bus in self.buses for point in bus.points])
            minute = chance.randrange(self.args.hours * 60)
            path = self.folder / f"reading-{number + 1}.proof"
            at_ms = self.start_ms + minute * 60_000
            self.type("proof", "export", str(path), "--area-folder", str(self.area), "--replica", replica,
                      "--point", str(point), "--from", str(at_ms))
            verdict = self.type("verify", "proof", str(path), "--trust", str(self.area / "genesis.cbor"))
            good += verdict["verdict"] == "good"
        return {"tried": PROOFS, "good": good}


    def witnesses(self, reader: Reader) -> dict[str, int]:
        """How many light nodes co-signed the best witnessed header of the day's last hour, as `verify header` counts
        them offline."""
        best = reader.best_witnessed(AREA, from_s=self.end_ms // 1000 - 3600)
        if not best["k"]:
            return {name: best[name] for name in ("k", "n", "height")}
        path = self.folder / "last-hour.header"
        self.type("proof", "export", str(path), "--area-folder", str(self.area), "--replica", self.replica_number(),
                  "--header", str(best["height"]))
        said = self.type("verify", "header", str(path), "--trust", str(self.area / "genesis.cbor"))
        return {"k": said["witnesses"]["k"], "n": said["witnesses"]["n"], "height": said["height"]}


def play(args: argparse.Namespace) -> int:
    """Runs the demo; returns 0 when the ledger holds exactly what the meters showed."""
    if not 1 <= args.hours <= 48 or not 1 <= args.speed <= 3600:
        raise ValueError("--hours: 1 to 48; --speed: 1 to 3600")
    return asyncio.run(_play(Demo(args)))


async def _play(demo: Demo) -> int:
    started, code = time.monotonic(), INTERRUPTED
    _end_at_signals()
    try:
        await demo.prepare()
        if demo.args.open:
            webbrowser.open(f"http://{demo.page_address()}/")
        await demo.enroll()
        settled = await demo.run_day()
        report = await asyncio.to_thread(demo.make_report, started)
        report["settled"] = settled
        code = 0 if report["good"] and settled else 1
        if demo.args.json:
            print(json.dumps(report), flush=True)
        else:
            demo.say(reports.table(report) + f"\n  data left in {demo.folder}")
        if demo.args.keep_running:
            demo.say(f"still running, page http://{demo.page_address()}/; Ctrl-C ends it")
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        demo.say("ended")
    except (ChildProcessError, TimeoutError) as error:
        print(f"gridseal demo: {error}\n  logs: {demo.area / 'logs'}", file=sys.stderr)
        code = 1
    finally:
        await demo.close()
    return code


def _end_at_signals() -> None:
    """SIGTERM and Ctrl-C end the demo with every process of it, also where a shell started it with SIGINT ignored."""
    playing = asyncio.current_task()
    assert playing is not None, "called inside a task"
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, lambda: playing.cancel())


def _new_folder() -> Path:
    number = 1
    while True:
        folder = Path(f"gridseal-demo-{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


def _hour(now_ms: int, start_ms: int) -> str:
    minutes = max(0, now_ms - start_ms) // 60_000
    return f"{minutes // 60:02d}:{minutes % 60:02d}"
