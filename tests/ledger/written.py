"""Makes the number of bytes that a replica's ledger and votes write per day, by the kernel's count.

    python -m tests.ledger.written [--minutes 60] [--points 20] [--groups 4] [--page BYTES] [--checkpoint PAGES]

Twenty points at one reading a minute, each reading under its own seal, a block a minute; the envelopes come in
`groups` durable steps (ingest acknowledges a burst at once, and agents are not in step). /proc/self/io counts pages as
they become dirty, and so what a card has to take; run it on the file system that you mean (not on tmpfs, which writes
nothing).

The votes file is written as for n = 4 with the sizes of the real records: the batch with the PRE-PREPARE, then vote,
certificate, checkpoint or header vote, each a durable step of its own (pbft.md 3.11).
"""

import argparse
import tempfile
from pathlib import Path

from firmware.wire import genesis
from gateway.ledger import sqlite as store
from gateway.ledger.ledger import Ledger
from gateway.ledger.votes import VoteLog
from tests.ledger.world import START_S, World

AIM_MB = 200  # wire.md, Size of things
VOTE_STEPS = (300, 450, 1500, 250)  # bytes beside the batch: own vote, q - 1 votes, certificate, header vote
CHECKPOINT_INTERVAL = dict(genesis.PARAMETERS)["checkpoint_interval"]


def written_bytes() -> int:
    """Bytes that this process has caused to be written, by the kernel's count."""
    for line in Path("/proc/self/io").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "write_bytes":
            return int(value)
    raise ValueError("this kernel does not count what a process writes")


def measure(folder: Path, minutes: int = 60, points: int = 20, groups: int = 4) -> dict[str, float]:
    """Plays `minutes` minutes; returns bytes per minute of envelopes, blocks, certificates, votes and in all, MB per
    day of all, and what the folder has grown by."""
    world = World(agents=[(f"meter {i}", (i + 1,)) for i in range(points)])
    # Signed beforehand, so that nothing but the ledger's own work is counted.
    played = [[world.seal(f"meter {i}", i + 1, (START_S + 60 * minute) * 1000, 1000 + minute) for i in range(points)]
              for minute in range(1, minutes + 1)]
    ledger = Ledger.open(folder, world.genesis)
    votes = VoteLog(folder / "votes.log")
    counts = dict.fromkeys(("envelopes", "blocks", "certificates", "votes"), 0)
    began = last = written_bytes()

    def note(name: str) -> None:
        nonlocal last
        now = written_bytes()
        counts[name] += now - last
        last = now

    for n, seals in enumerate(played, 1):
        for group in range(groups):
            ledger.put_envelopes(seals[group::groups])
        note("envelopes")
        leaves = [item.leaf for item in seals]
        votes.append([b"".join(leaves)])
        for size in VOTE_STEPS:
            votes.append([bytes(size)])
        if n % CHECKPOINT_INTERVAL == 0:
            votes.replace([bytes(5000)])
        note("votes")
        outcome = ledger.execute(n, ("trade", 0, START_S + 60 * n + 1, leaves))
        note("blocks")
        assert outcome.header is not None and outcome.height is not None
        ledger.put_certificate("trade", outcome.height, world.certificate(outcome.header))
        note("certificates")
    size = ledger.store.size_bytes()
    ledger.close()
    votes.close()
    note("blocks")  # the checkpoint at close
    found: dict[str, float] = {name: count / minutes for name, count in counts.items()}
    found["all"] = (last - began) / minutes
    found["mb_per_day"] = found["all"] * 1440 / 1e6
    found["stored_mb_per_day"] = size / minutes * 1440 / 1e6
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="bytes written per day by ledger and votes, by the kernel's count")
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--page", type=int, default=store.PAGE_BYTES)
    parser.add_argument("--checkpoint", type=int, default=store.CHECKPOINT_PAGES)
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder here)")
    args = parser.parse_args()
    store.PAGE_BYTES, store.CHECKPOINT_PAGES = args.page, args.checkpoint
    with tempfile.TemporaryDirectory(dir=args.folder or Path.cwd()) as folder:
        found = measure(Path(folder), args.minutes, args.points, args.groups)
    for name, value in found.items():
        print(f"{name:20}{value:12.1f}" + ("" if "day" in name else " bytes a minute"))
    is_good = found["mb_per_day"] <= AIM_MB
    print(f"{'good' if is_good else 'BAD'}: {found['mb_per_day']:.0f} MB a day, aim {AIM_MB}")
    return 0 if is_good else 1


if __name__ == "__main__":
    raise SystemExit(main())
