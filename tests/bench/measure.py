"""Makes ratios from the product's speed and the machine's own, taken in turns, and says what is below its floor.

Only ratios within one run travel between machines (performance.md). The reference is V, the P-256 verifications per
second of `openssl speed` on the same core in the same round; a ratio is taken in each round, and the median of the
rounds counts. Speeds are by CPU time, so that other work on the machine disturbs little; wall time stands beside it.
"""

import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

ROUNDS = 5
FALLBACK_S = 1.0
SYNCS = 100


class Floor(NamedTuple):
    """What is owed and what is wanted; for ratios more is better, for times (and bytes) less."""

    floor: float
    aim: float


class Outcome(NamedTuple):
    """A row of the table. lines: for people; numbers: for --json."""

    name: str
    is_good: bool
    lines: list[str]
    numbers: dict[str, Any]


class Spent(NamedTuple):
    """What some work took. units: how many things it did."""

    units: int
    cpu_s: float
    wall_s: float


def spent(work: Callable[[], int]) -> Spent:
    """Does the work once in this process; all of its threads count."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    units = work()
    return Spent(units, time.process_time() - cpu_s, time.perf_counter() - wall_s)


def reference() -> float:
    """V: P-256 verifications a second of CPU time, now, on the core that we are bound to."""
    return references()[1]


def references() -> tuple[float, float]:
    """(signatures, verifications) a second of CPU time."""
    program = shutil.which("openssl")
    if program is None:
        return _references_without_program()
    command = [program, "speed", "-seconds", "1", "ecdsap256"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"nistp256\)\s+[\d.]+s\s+[\d.]+s\s+([\d.]+)\s+([\d.]+)", done.stdout)
    if found is None:
        raise ValueError(f"openssl speed says something new: {done.stdout[-200:]!r}")
    return float(found.group(1)), float(found.group(2))


def reference_name() -> str:
    """Where V comes from."""
    program = shutil.which("openssl")
    if program is None:
        return "the OpenSSL inside `cryptography`, called from Python (there is no openssl command here)"
    done = subprocess.run([program, "version"], capture_output=True, text=True, check=True)
    return "openssl speed, " + " ".join(done.stdout.split()[:2])


def ratio_row(name: str, what: str, floor: Floor, rounds: int, work: Callable[[], Spent],
              per_signature: int = 1) -> Outcome:
    """Reference and work in turns; per_signature: things that share one signature, for the limit."""
    speeds, walls, references = [], [], []
    for _ in range(rounds):
        references.append(reference())
        done = work()
        speeds.append(done.units / done.cpu_s)
        walls.append(done.units / done.wall_s)
    ratios = [speed / own for speed, own in zip(speeds, references, strict=True)]
    ratio = statistics.median(ratios)
    numbers = {"ratio": ratio, "floor": floor.floor, "aim": floor.aim, "limit": per_signature, "ratios": ratios,
               "per_cpu_s": statistics.median(speeds), "per_wall_s": statistics.median(walls),
               "reference_per_s": statistics.median(references)}
    line = (f"{ratio:6.2f} V  floor {floor.floor:g}, aim {floor.aim:g}, limit {per_signature}   "
            f"{statistics.median(speeds):9,.0f}/s of CPU, {statistics.median(walls):9,.0f}/s of wall, "
            f"V {statistics.median(references):,.0f}   {what}")
    spread = f"       rounds: {' '.join(f'{one:.2f}' for one in ratios)}"
    return Outcome(name, ratio >= floor.floor, [line, spread], numbers)


def cores() -> list[int]:
    """The cores that we may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@contextmanager
def one_core() -> Iterator[None]:
    """Binds this process, and what it starts, to the last of its cores, where the system can."""
    before = cores()
    if before:
        os.sched_setaffinity(0, before[-1:])
    try:
        yield
    finally:
        if before:
            os.sched_setaffinity(0, before)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder on the disk that the measurements mean: the working directory's, because /tmp may be memory."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as name:
        yield Path(name)


def sync_times_ms(where: Path, size: int = 1000) -> list[float]:
    """How long the disk takes to make an append durable, sorted: what every durable promise waits for."""
    times = []
    with open(where / "sync", "wb") as file:
        for _ in range(SYNCS):
            file.write(bytes(size))
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - began) * 1000)
    return sorted(times)


def quantile(values: Sequence[float], part: float) -> float:
    """The value that `part` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def _references_without_program() -> tuple[float, float]:
    key = ec.generate_private_key(ec.SECP256R1())
    method, digest = ec.ECDSA(utils.Prehashed(hashes.SHA256())), bytes(32)
    signature, verify = key.sign(digest, method), key.public_key().verify
    return _per_s(lambda: key.sign(digest, method)), _per_s(lambda: verify(signature, digest, method))


def _per_s(work: Callable[[], object]) -> float:
    count, began = 0, time.process_time()
    while time.process_time() - began < FALLBACK_S:
        for _ in range(100):
            work()
        count += 100
    return count / (time.process_time() - began)
