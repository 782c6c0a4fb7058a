"""`gridseal market poca`: the credit paper's lottery beside its baseline by balance, over many runs.

Prints for each player its odds by eq. (11) and the blocks it won on average, and how often the ranks of credit and of
blocks won agree (Spearman); beside it the same with balances (eq. 9), and the share of the first turn in the credit
rotation that replicas use. Nothing of it touches a ledger.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence

from deploy import places
from gateway.consensus import lottery
from gateway.consensus.rotation import POINTS, THOUSANDTHS, CreditRotation, weight_table

GOOD = 0
PAPER_CREDITS = tuple(range(91, 101))  # 004, Fig. 3: ten players between 90 and 100, 50 blocks
PAPER_BLOCKS = 50


def add_parser(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = kinds.add_parser("poca", help="the credit paper's lottery, simulated", description=__doc__,
                              epilog="example: gridseal market poca --credits 91,95,100 --runs 200")
    parser.add_argument("--credits", type=_points, default=PAPER_CREDITS, metavar="C,C,..",
                        help="each player's points, 0..100 (default 91..100)")
    parser.add_argument("--balances", type=_balances, default=None, metavar="B,B,..",
                        help="each player's balance for the baseline (default: all the same)")
    parser.add_argument("--blocks", type=_positive, default=PAPER_BLOCKS, help="of one run (default 50)")
    parser.add_argument("--runs", type=_positive, default=100)
    parser.add_argument("--seed", type=int, default=2021)
    places.add_usual(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Plays and prints; exit 0."""
    credits = [points * THOUSANDTHS for points in args.credits]
    balances = args.balances or (1,) * len(credits)
    if len(balances) != len(credits):
        raise ValueError(f"{len(credits)} credits and {len(balances)} balances: one of each for every player")
    by_credit = _played(args, credits, lottery.credit_weights(credits))
    by_balance = _played(args, balances, balances)
    first = _first_turns(args, credits)
    if args.json:
        print(json.dumps({"seed": args.seed, "runs": args.runs, "blocks": args.blocks, "credit": by_credit,
                          "balance": by_balance, "rotation_first": first}))
        return GOOD
    print(f"{args.runs} runs of {args.blocks} blocks, seed {args.seed}")
    print("credit   odds (11)   blocks   balance   blocks   first in the rotation")
    for player, points in enumerate(args.credits):
        print(f"{points:6}   {by_credit['odds'][player]:9.6f}   {by_credit['blocks'][player]:6.2f}   "
              f"{balances[player]:7}   {by_balance['blocks'][player]:6.2f}   {first[player]:.3f}")
    for name, played in (("credit", by_credit), ("balance", by_balance)):
        print(f"ranks of {name} and blocks won: {_correlation(played)}")
    return GOOD


def _played(args: argparse.Namespace, values: Sequence[int], weights: Sequence[int]) -> dict[str, list[float]]:
    total = [0] * len(weights)
    found = []
    for number in range(args.runs):
        won = lottery.play(_seed(args.seed, number), weights, args.blocks)
        total = [sum(pair) for pair in zip(total, won, strict=True)]
        correlation = lottery.rank_correlation(values, won)
        if correlation is not None:
            found.append(correlation)
    return {"odds": lottery.odds(weights), "blocks": [count / args.runs for count in total], "correlations": found}


def _first_turns(args: argparse.Namespace, credits: Sequence[int]) -> list[float]:
    table = weight_table()
    turns = [0] * len(credits)
    rotation = CreditRotation(_seed(args.seed, 0), credits, table)
    rounds = args.runs * args.blocks
    for number in range(rounds):
        turns[rotation.primary(number * len(credits))] += 1
    return [count / rounds for count in turns]


def _correlation(played: dict[str, list[float]]) -> str:
    found = played["correlations"]
    if not found:
        return "all players are equal"
    above = sum(one > 0 for one in found) / len(found)
    return f"{sum(found) / len(found):.3f} on average, above 0 in {above:.1%} of the runs"


def _seed(seed: int, number: int) -> bytes:
    return hashlib.sha256(f"gridseal poca {seed} {number}".encode()).digest()


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("a number from 1")
    return value


def _points(text: str) -> tuple[int, ...]:
    values = tuple(int(part) for part in text.split(","))
    if not all(0 <= value <= POINTS for value in values):
        raise argparse.ArgumentTypeError(f"points of 0..{POINTS}")
    return values


def _balances(text: str) -> tuple[int, ...]:
    values = tuple(int(part) for part in text.split(","))
    if min(values) < 0 or not sum(values):
        raise argparse.ArgumentTypeError("balances from 0, one of them above")
    return values
