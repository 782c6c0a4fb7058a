"""Makes the table of measured speeds and their floors: `python -m tests.bench [NAME ...] [--rounds N] [--json]`.

Not part of the test suite: minutes of a quiet machine. Exit code 1 when something is below its floor.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable

from tests.bench import deciding, ordering, pipeline, receiving, signing, trading, verifying, written
from tests.bench.measure import ROUNDS, Outcome, cores, reference_name

ROWS: dict[str, Callable[[int], list[Outcome]]] = {
    "1": verifying.verify,
    "2": verifying.store,
    "3": receiving.receive,
    "4": verifying.store_full,
    "5": deciding.commit,
    "6": pipeline.widen,
    "7": deciding.decide,
    "7-signed": deciding.decide_signed,
    "8": ordering.order,
    "14": trading.order,
    "15": signing.sign,
    "written": written.write,
}


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ROWS)}; all without one")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true", help="JSON instead of text")
    args = parser.parse_args(words)
    unknown = [name for name in args.names if name not in ROWS]
    if unknown or args.rounds < 1:
        parser.error(f"no measurement {', '.join(unknown)}" if unknown else "at least one round")
    machine = {"python": platform.python_version(), "machine": platform.machine(), "cores": len(cores()) or None,
               "reference": reference_name(), "rounds": args.rounds}
    if not args.json:
        print(f"{machine['machine']}, {machine['cores']} cores, CPython {machine['python']}; "
              f"V = {machine['reference']}; {args.rounds} rounds, medians", flush=True)
    found: list[Outcome] = []
    for name in args.names or ROWS:
        for outcome in ROWS[name](args.rounds):
            found.append(outcome)
            if not args.json:
                _print(outcome)
    if args.json:
        print(json.dumps({**machine, "rows": {one.name: {**one.numbers, "is_good": one.is_good} for one in found}}))
    return 0 if all(one.is_good for one in found) else 1


def _print(outcome: Outcome) -> None:
    head = f"{'good ' if outcome.is_good else 'BELOW'} {outcome.name}"
    for line in outcome.lines:
        print(f"{head:<17} {line}", flush=True)
        head = ""


if __name__ == "__main__":
    sys.exit(main())
