"""Makes blocks' winners as the credit paper's proof-of-credit lottery would draw them, and its baseline by balance.

For reproduction and simulation; no replica is chosen by it (rotation.py says why). Source: 004, read as papers.md does.

    (10)  F(W_j, S_j) <= N_diff e^C_j        POCA: credit in points makes the target
    (11)  P_k = e^C_k / sum_g e^C_g          what (10) comes to when few tickets win
    (9)   SHA256(SHA256(B_prev), A, t) <= balance(A)     DPOS, the baseline; without a scale in print: N_diff here too

F is SHA-256 over (hash of the block before, player, tick). In one tick several may hit: the ticket deepest below its
target wins. N_diff is set so that somebody hits in one tick of EASE; the odds are then (11)'s to within 1 / (2 EASE).
"""

import hashlib
from collections.abc import Sequence
from decimal import Decimal, localcontext

SPACE = 1 << 256
EASE = 32
DIGITS = 60


def credit_weights(credits: Sequence[int]) -> list[int]:
    """Returns e^C for credits in thousandths of a point, in integers of a common scale (e^(C - largest) 2^128)."""
    largest = max(credits)
    with localcontext() as context:
        context.prec = DIGITS
        return [int((Decimal(credit - largest) / 1000).exp() * (1 << 128)) for credit in credits]


def odds(weights: Sequence[int]) -> list[float]:
    """Returns each player's share of all blocks by eq. (11)."""
    total = sum(weights)
    return [weight / total for weight in weights]


def targets(weights: Sequence[int]) -> list[int]:
    """Returns N_diff times each weight: below it a ticket wins; one of all players' does in about EASE ticks."""
    return [SPACE * weight // (EASE * sum(weights)) for weight in weights]


def draw(previous: bytes, bounds: Sequence[int]) -> tuple[int, bytes]:
    """Returns (winner, the new block's hash): ticks go on until a ticket is not above its player's target."""
    tick = 0
    while True:
        stamp = hashlib.sha256(previous).digest() + tick.to_bytes(8, "big")
        best: tuple[int, int, int, bytes] | None = None  # (ticket, target, player, digest)
        for player, bound in enumerate(bounds):
            digest = hashlib.sha256(stamp + player.to_bytes(4, "big")).digest()
            ticket = int.from_bytes(digest, "big")
            if ticket <= bound and (best is None or ticket * best[1] < best[0] * bound):
                best = (ticket, bound, player, digest)
        if best is not None:
            return best[2], best[3]
        tick += 1


def play(seed: bytes, weights: Sequence[int], blocks: int) -> list[int]:
    """Returns how many of `blocks` each player won, from the first block's hash on."""
    bounds = targets(weights)
    won = [0] * len(weights)
    previous = seed
    for _ in range(blocks):
        winner, previous = draw(previous, bounds)
        won[winner] += 1
    return won


def rank_correlation(left: Sequence[int], right: Sequence[int]) -> float | None:
    """Returns Spearman's coefficient, equals sharing their mean rank; None where one side has a single value."""
    one, other = _ranks(left), _ranks(right)
    middle = (len(left) + 1) / 2
    spread = sum((rank - middle) ** 2 for rank in one) * sum((rank - middle) ** 2 for rank in other)
    if not spread:
        return None
    both: float = sum((a - middle) * (b - middle) for a, b in zip(one, other, strict=True))
    return both / float(spread) ** 0.5


def _ranks(values: Sequence[int]) -> list[float]:
    order = sorted(values)
    return [(order.index(value) + 1 + order.index(value) + order.count(value)) / 2 for value in values]
