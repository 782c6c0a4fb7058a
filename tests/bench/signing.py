"""Makes row 15: pure P-256 in MicroPython, held against the slow ways of tests/crypto/yardsticks.py in one process.

Everything is timed in the same interpreter, in turns, by CPU time. A ratio is taken between the quickest rounds of the
two (other work on the machine only ever slows one down); the rounds' own ratios stand beside it. Two interpreters:
npm's own, whose garbage is not collected while Python runs, and the one with a board's hard heap, where it is.
"""

import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.bench.measure import Outcome
from tests.micropython.bounded import bounded, compile_all
from tests.micropython.interpreter import ROOT, Options, command, stock

SCRIPTS = ROOT / "tests" / "crypto"
HEAP = 192 * 1024  # of the second: the script, compiled on the spot, and the 8 KiB table lie in it as well
TIMEOUT_S = 300


class Aim(NamedTuple):
    """A ratio of two measured things and its limit, by firmware.md's table: at least where `is_least`, else at most."""

    what: str
    of: str
    to: str
    limit: float
    is_least: bool


AIMS = (
    Aim("naive affine sign / our sign, 2 KiB comb", "naive sign", "sign 2k", 25, True),
    Aim("naive affine sign / our sign, 8 KiB comb", "naive sign", "sign 8k", 25, True),
    Aim("Jacobian double-and-add sign / our sign, 8 KiB comb", "jacobian sign", "sign 8k", 3.5, True),
    Aim("known-key verify / sign, 2 KiB comb", "verify known", "sign 2k", 2.0, False),
    Aim("known-key verify / sign, 8 KiB comb", "verify known 8k", "sign 8k", 2.0, False),
    Aim("any-key verify / Jacobian sign", "verify any", "jacobian sign", 1.1, False),
    Aim("3-of-4 certificate with key combs / Jacobian sign", "certificate", "jacobian sign", 1.5, False),
)
COUNTS = (("field reductions a multiplication, 2 KiB comb", "reductions 2k", 900),
          ("field reductions a multiplication, 8 KiB comb", "reductions 8k", 600))


def sign(rounds: int) -> list[Outcome]:
    """Row 15, for each of the two interpreters."""
    mounts = {SCRIPTS: "/lib/tests/crypto"}
    with tempfile.TemporaryDirectory() as name:
        made = compile_all(Path(name))
        return [_row("15 1.27", "npm's own", stock("1.27"), Options(mounts), rounds),
                _row("15 1.29", f"with a hard heap of {HEAP // 1024} KiB", bounded("1.29"),
                     made.options(HEAP, mounts), rounds)]


def _row(name: str, which: str, interpreter: Path, options: Options, rounds: int) -> Outcome:
    done = subprocess.run(command(interpreter, SCRIPTS / "speed.py", str(rounds), options=options),
                          capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return judge(name, which, read(done.stdout))


def read(text: str) -> dict[str, list[float]]:
    """What speed.py prints: its numbers by name."""
    found = {}
    for line in text.splitlines():
        name, _, values = line.partition(": ")
        found[name] = [float(value) for value in values.split()]
    return found


def judge(name: str, which: str, found: dict[str, list[float]]) -> Outcome:
    """The row: every ratio beside its aim."""
    lines, numbers, is_good = [f"P-256 in MicroPython, {which}"], {}, True
    for aim in AIMS:
        ratios = [one / other for one, other in zip(found[aim.of], found[aim.to], strict=True)]
        ratio = min(found[aim.of]) / min(found[aim.to])
        is_met = ratio >= aim.limit if aim.is_least else ratio <= aim.limit
        is_good = is_good and is_met
        numbers[f"{aim.of} / {aim.to}"] = ratio
        lines.append(f"{'' if is_met else 'BELOW '}{ratio:7.2f}  aim {'>=' if aim.is_least else '<='} {aim.limit:<4g} "
                     f"{aim.what}   rounds {min(ratios):.2f} to {max(ratios):.2f}")
    for what, key, most in COUNTS:
        is_good = is_good and found[key][0] <= most
        numbers[key] = found[key][0]
        lines.append(f"{found[key][0]:7.0f}  aim <= {most:<4} {what}")
    times = {key: min(found[key]) for key in found if not key.startswith("reductions")}
    lines.append("ms here: " + ", ".join(f"{key} {time:.2f}" for key, time in times.items()))
    return Outcome(name, is_good, lines, {**numbers, "ms": times})
