"""Runs the market's random checks for longer: `python -m tests.market [--seed S] [--books N] [--slots N]`.

A million settled slots is what security.md, T67, asks for: `python -m tests.market --books 0 --slots 1000000`.
"""

import argparse
import random
import time

from tests.market import test_knn, test_settle


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.market", description=__doc__)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9)
    parser.add_argument("--books", type=int, default=100_000)
    parser.add_argument("--slots", type=int, default=1_000_000)
    words = parser.parse_args()
    print(f"seed {words.seed}", flush=True)
    start = time.monotonic()
    traded, refused = test_knn.run_books(random.Random(words.seed), words.books)
    print(f"{words.books} books: {traded} traded, {refused} with orders refused, every one as brute force says "
          f"({time.monotonic() - start:.0f} s)", flush=True)
    start = time.monotonic()
    matched, missing = test_settle.run_cases(words.seed, words.slots)
    print(f"{words.slots} slots: {matched} trades matched, {missing} missing, every sum 0 "
          f"({time.monotonic() - start:.0f} s)")


if __name__ == "__main__":
    main()
