"""Makes a demo's day with trouble in it: the demo's own machinery, and beside it whatever a scenario does to it."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from deploy import demo as demo_command
from deploy.demo.play import Demo
from deploy.supervisor import environment, gridseal
from firmware.wire import certificate

LOOK_S = 0.02
WAIT_S = 60.0


class Day(Demo):
    """A demo whose replicas may be fewer at the end than at the start."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self.lost: set[str] = set()  # names of replicas that stay away
        self.trouble: asyncio.Future[None] | None = None

    def homes(self) -> list[Path]:
        return [home for home in super().homes() if home.name not in self.lost]

    def label(self, share: float) -> int:
        """The label time at a share of the day."""
        return self.start_ms + int((self.end_ms - self.start_ms) * share)

    async def _watch_day(self) -> None:
        """Until the day is over and its trouble too, or one of them fails."""
        assert self.trouble is not None, "set by play"
        watching = asyncio.ensure_future(super()._watch_day())
        try:
            done, _ = await asyncio.wait((watching, self.trouble), return_when=asyncio.FIRST_EXCEPTION)
            for one in done:
                one.result()
        finally:
            watching.cancel()

    async def _settle(self) -> bool:
        """First all that is to come back is back, while the clock runs on: a replica that is behind needs the others'
        next blocks. Those who stay away are not waited for."""
        end = time.monotonic() + WAIT_S
        while not self.lost and not is_whole(await self.status(), self.args.replicas):
            if time.monotonic() > end:
                return False
            await asyncio.sleep(LOOK_S)
        return await super()._settle()

    async def wait_label(self, label_ms: int) -> None:
        """Returns when every agent has done what was due before that label; bounded by the demo's own watch."""
        while self.keeper.slowest_ms() < label_ms:
            await asyncio.sleep(LOOK_S)

    async def status(self) -> dict[str, Any]:
        """What `gateway status --json` prints; it exits with 1 while a replica is silent, and prints all the same."""
        command = gridseal("gateway", "status", str(self.area), "--json")
        asked = await asyncio.create_subprocess_exec(*command, env=environment(), stdout=asyncio.subprocess.PIPE,
                                                     stderr=asyncio.subprocess.DEVNULL)
        said, _ = await asyncio.wait_for(asked.communicate(), WAIT_S)
        return dict(json.loads(said))


def make_day(folder: Path, *words: str) -> Day:
    """A day from the words that one would type after `gridseal demo`; without a market unless they name one."""
    if "--mechanism" not in words:
        words = ("--mechanism", "none", *words)
    parser = argparse.ArgumentParser()
    demo_command.add_parser(parser.add_subparsers(dest="command"))
    return Day(parser.parse_args(["demo", "--json", "--folder", str(folder), *words]))


async def play(day: Day, trouble: Callable[[Day], Awaitable[None]]) -> dict[str, Any]:
    """Plays the day with its trouble and returns the demo's report; what `trouble` raises ends it.

    The report has three more keys: "settled"; "processes" and "status", the rows of `gateway status --json` at the end.
    """
    started = time.monotonic()
    try:
        await day.prepare()
        await day.enroll()
        day.trouble = asyncio.ensure_future(trouble(day))
        settled = await day.run_day()
        report = await asyncio.to_thread(day.make_report, started)
        status = await day.status()
        return {**report, "settled": settled, "processes": status["processes"], "status": status["replicas"]}
    finally:
        if day.trouble is not None:
            day.trouble.cancel()
            await asyncio.wait((day.trouble,))
        await day.close()


def is_whole(status: dict[str, Any], replicas: int) -> bool:
    """All processes live or have done their work, all replicas answer and see each other, and at most f of them wait
    for the next view: who lost patience alone may not vote in the present view any more (pbft.md 3.6), but takes part
    in every block."""
    return (all(row["pid"] is not None or row["exit_code"] == 0 for row in status["processes"])
            and len(status["replicas"]) == replicas
            and all("silent" not in one and not any("not connected" in peer["state"] for peer in one["replicas"])
                    for one in status["replicas"])
            and sum(not one["active"] for one in status["replicas"]) <= certificate.faults(replicas))
