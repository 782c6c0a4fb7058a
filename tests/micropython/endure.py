"""Lets the whole agent run on a board's heap for many rounds of three meters, and says what its RAM does meanwhile.

    python -m tests.micropython.endure [--rounds 10000] [--heap KIB] [--ram] [--only NAME]

Two meters by Modbus TCP, one by RTU on a terminal; seals, journal, TLS to a real Mosquitto, a real gateway whose acks
and headers are checked. MicroPython 1.27 and 1.29 with a hard limit of the heap and code in flash (--ram: in RAM), and
npm's 1.23 as it is, one after the other. A round is one reading of each meter, sealed, published and acked.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.micropython.area import RTU, TCP, Area
from tests.micropython.bounded import Compiled, bounded, compile_all
from tests.micropython.interpreter import ROOT, Options, stock

METERS = ((TCP, "sdm120"), (RTU, "sdm630"), (TCP, "em24"))
NAMES = ("board-1.29", "board-1.27", "stock-1.23")
ROUNDS = 10_000
SECONDS_A_ROUND = 1  # the longest that a round may take on the slowest machine: the run ends then
SCRIPT = ROOT / "tests" / "micropython" / "scripts"


class Look(NamedTuple):
    """What LIVE says in scripts/endure.py."""

    rounds: int
    bytes: int
    waiting: int


class Run(NamedTuple):
    """One agent's life: looks at its live set, its last report, its output, its exit code, seconds."""

    looks: list[Look]
    report: dict[str, Any]
    text: str
    code: int
    seconds: float

    def floors(self, parts: int) -> list[int]:
        """The smallest live set in each of the run's equal parts, of looks with as many seals waiting as usual."""
        usual = statistics.mode(look.waiting for look in self.looks[1:])
        looks = [look for look in self.looks[1:] if look.waiting == usual]
        size = max(1, len(looks) // parts)
        return [min(look.bytes for look in looks[at:at + size]) for at in range(0, size * parts, size) if looks[at:]]


def run(folder: Path, made: Compiled, name: str, rounds: int, heap_bytes: int, flash: bool = True) -> Run:
    """The agent `name` in an area of its own; heap_bytes: of a board's."""
    kind, version = name.split("-")
    area = Area(folder, [name], METERS)
    words = (str(rounds), str(max(60, rounds * SECONDS_A_ROUND)))
    start_s = time.monotonic()
    try:
        area.start()
        if kind == "stock":
            child = area.start_agent(name, stock(version), SCRIPT / "endure.py", *words, options=Options())
        else:
            child = area.start_agent(name, bounded(version, flash), made.scripts / "endure.mpy", *words,
                                     options=made.options(heap_bytes, flash=version if flash else ""))
        area.run_for(rounds + 60)
        text = child.communicate(timeout=60 + rounds * SECONDS_A_ROUND)[0]
    finally:
        area.close()
    looks, report = [], {}
    for line in text.splitlines():
        if line.startswith("LIVE "):
            looks.append(Look(*map(int, line.split()[1:])))
        elif line.startswith("REPORT "):
            report = json.loads(line[7:])
    return Run(looks, report, text, child.returncode, time.monotonic() - start_s)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.micropython.endure", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--heap", type=int, default=56, metavar="KIB", help="of a bounded interpreter (56)")
    parser.add_argument("--ram", action="store_true", help="code in RAM, as on builds without ROMFS")
    parser.add_argument("--only", choices=NAMES)
    args = parser.parse_args()
    is_good = True
    with tempfile.TemporaryDirectory() as temporary:
        made = compile_all(Path(temporary) / "mpy", "endure")
        for name in [args.only] if args.only else NAMES:
            folder = Path(temporary) / name
            folder.mkdir()
            done = run(folder, made, name, args.rounds, args.heap * 1024, not args.ram)
            is_good = told(name, args, done) and is_good
    return 0 if is_good else 1


def told(name: str, args: argparse.Namespace, done: Run) -> bool:
    """Prints one run's figures; is it as it should be?"""
    limit = "no limit" if name.startswith("stock") else f"{args.heap} KiB, code in {'RAM' if args.ram else 'flash'}"
    if done.code or not done.report:
        print(f"{name} ({limit}): ended after {done.looks[-1].rounds if done.looks else 0} rounds:", flush=True)
        print("\n".join(done.text.splitlines()[-20:]), flush=True)
        return False
    report = done.report
    acked = min(chain[2] for chain in report["heights"])
    bad = {key: report[key] for key in ("bad_acks", "bad_headers", "refused", "lost", "missed_polls", "journal_dropped",
                                        "journal_damaged") if report[key]}
    kept = "nothing is collected while it runs" if name.startswith("stock") else \
        f"live set at its lowest in each tenth: {done.floors(10)} bytes"
    print(f"{name} ({limit}): {acked} rounds of {len(report['heights'])} meters acked in {done.seconds:.0f} s, "
          f"{report['witnessed']} headers signed, header {report['header_height']} followed; "
          f"{kept}; amiss: {bad or 'nothing'}", flush=True)
    return acked >= args.rounds and not bad


if __name__ == "__main__":
    sys.exit(main())
