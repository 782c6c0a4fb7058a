"""Makes the command `python -m tests.cluster SEED`: one seed told in full, a sweep, or the check by mutations."""

import argparse
import sys

from tests.cluster import mutations
from tests.cluster.sweep import run_one, show, sweep


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("seed", nargs="?", type=int, help="run this seed alone")
    parser.add_argument("--sweep", type=int, metavar="N", help="run N seeds on all cores")
    parser.add_argument("--start", type=int, default=1, metavar="S", help="the first seed of a sweep")
    parser.add_argument("--n", type=int, default=4, help="replicas (4)")
    parser.add_argument("--events", type=int, default=300, help="events before the healing (300)")
    parser.add_argument("--real", action="store_true", help="real ES256 signatures in place of HMAC")
    parser.add_argument("--mutations", action="store_true", help="seed bugs and demand that each is found")
    options = parser.parse_args()
    if options.mutations:
        return mutations.main()
    if options.sweep:
        result = sweep(options.start, options.sweep, options.n, options.events, options.real)
        for outcome in result.broken[:3]:
            print(outcome.violation)
        print(show(result))
        return 1 if result.broken or result.lacking else 0
    if options.seed is None:
        parser.error("a SEED or --sweep N or --mutations")
    outcome = run_one(options.seed, options.n, options.events, options.real)
    print(f"seed {outcome.seed}: {outcome.events} events, trace {outcome.trace_hash}")
    for name, count in sorted(outcome.seen.items()):
        print(f"  {name:32} {count}")
    print(outcome.violation or "no invariant broken")
    return 1 if outcome.violation else 0


if __name__ == "__main__":
    sys.exit(main())
