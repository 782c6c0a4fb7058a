"""Makes the proof that the simulator finds bugs: each seeded bug is one changed text, and a sweep over it must break.

A mutation is applied to the source before anything imports it, in a process of its own (`mutant.py`). Its old text must
stand in the file exactly once, so that a mutation cannot go stale in silence.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 2000  # pbft.md 6: each bug found within so many


class Mutation(NamedTuple):
    """`new` in the place of `old` in a module; `why` it is a bug."""

    module: str
    old: str
    new: str
    why: str


_WIRE, _ROOM = "firmware.wire.voting", "gateway.consensus."
MUTATIONS = {
    "quorum": Mutation(
        _WIRE, "return (member_count + faults(member_count) + 2) // 2",
        "return (member_count + faults(member_count) + 2) // 2 - 1", "two quorums share a liar only"),
    "no disk": Mutation(
        _ROOM + "core", "[] if self._is_compacting else self._records, compact,", "[], compact,",
        "promises die in a crash"),
    "certificate unwritten": Mutation(
        _ROOM + "ordering", "self._persist(durable.prepared(slot.n, proof, commit))", "pass",
        "a restart forgets what prepared"),
    "not the highest view": Mutation(
        _ROOM + "viewchange", "if n > newest.low and view > best.get(n, (-1,))[0]:",
        "if n > newest.low and n not in best:", "an older certificate beats the one that was committed"),
    "nothing carried": Mutation(
        _ROOM + "viewing", "tuple(slot.certificate.proof for slot in self._log if slot.certificate is not None)",
        "()", "a view change hides what prepared"),
    "nothing ordered again": Mutation(
        _ROOM + "viewchange", "Plan(newest.low, newest.stable, order)", "Plan(newest.low, newest.stable, ())",
        "a view change forgets what prepared"),
    "signer twice in V": Mutation(
        _ROOM + "viewchange", "check(change.sender > last, ", "check(change.sender >= 0, ", "two members make a view"),
    "signer twice in P": Mutation(
        _ROOM + "viewchange", "check(prepare.sender > last, ", "check(prepare.sender >= 0, ",
        "one backup makes a certificate"),
    "primary prepares": Mutation(
        _ROOM + "ordering", 'check(vote.sender != self.primary, "not_permitted", "a backup", vote.sender)', "pass",
        "the primary counts twice"),
    "checkpoint of q - 1": Mutation(
        _ROOM + "checkpoints", "if len(equal) < self._quorum:", "if len(equal) < self._quorum - 1:",
        "an unproven state becomes final"),
    "header of q - 1": Mutation(
        _ROOM + "votes", "if len(signed) < self._quorum:", "if len(signed) < self._quorum - 1:",
        "a certificate that no light node takes"),
    "any header counts": Mutation(
        _ROOM + "votes", "if said == tally.own_hash)", "if True)", "a certificate over signatures of another header"),
    "signer twice in C": Mutation(
        _ROOM + "checkpoints", "check(message.sender > last.sender, ", "check(message.sender >= 0, ",
        "one member proves a checkpoint"),
    "PREPAREs of q - 2": Mutation(
        _ROOM + "ordering", "if len(prepares) >= self.quorum - 1:", "if len(prepares) >= self.quorum - 2:",
        "a certificate that is none"),
    "COMMITs of q - 1": Mutation(
        _ROOM + "ordering", "if len(equal) >= self.quorum:", "if len(equal) >= self.quorum - 1:",
        "a decision that a view change forgets"),
    "header vote unwritten": Mutation(
        _ROOM + "stability", "self._persist(durable.header_vote(vote))", "pass", "a restart may sign another header"),
    "view unwritten": Mutation(
        _ROOM + "viewing", "self._persist(durable.stopped(signed))", "pass",
        "a restart votes in a view it left"),
    "NEW-VIEW unwritten": Mutation(
        _ROOM + "viewing", "self._persist(durable.active(signed))", "pass", "a restart forgets what O ordered"),
    "amnesia": Mutation(
        _ROOM + "replica", "self._restore(records)", "self._restore(())", "a restart reads nothing back"),
    "join one liar": Mutation(
        _ROOM + "viewing", "if len(higher) > self.faults:", "if len(higher) > self.faults - 1:",
        "one member moves all from view to view"),
    "endless patience": Mutation(
        _ROOM + "timing", "        self._stop(self.view + 1)\n\n    # --- SUBMIT", "        return\n\n    # --- SUBMIT",
        "a silent primary is never left"),
    "no deadlines": Mutation(
        _ROOM + "ordering", "due_s = min(due_s, self._deadline_s)", "pass", "a primary without items stops time"),
    "deadlines refused": Mutation(
        _ROOM + "ordering", "return max(newest_s, min(self._deadline_s, self._earliest_empty_s(newest_s)))", "pass",
        "backups take a deadline's block for a heartbeat too early"),
    "numbers kept": Mutation(
        _ROOM + "log", "self._slots = {n: slot for n, slot in self._slots.items() if n > low}", "pass",
        "a log without an end"),
    "checkpoints kept": Mutation(
        _ROOM + "checkpoints", "            del held[min(held)]", "            pass",
        "one liar fills the memory of all"),
    "votes of any view": Mutation(
        _ROOM + "ordering", "if self.active and vote.view == self.view:", "if self.active and vote.view <= self.view:",
        "COMMITs of several views make a decision"),
    "beyond the end": Mutation(
        _ROOM + "ordering", "return self._final is not None and n > self._final", "return False",
        "an epoch goes on behind its last checkpoint"),
    "bucket unchecked": Mutation(
        "gateway.transfer", 'check(leaf_of(data) == self._leaves[index], "wrong_state", self._leaves[index], index)',
        "pass", "a peer's word for a part of the state"),
    "end unproven": Mutation(
        _ROOM + "stability", "or self._has_ended or self.is_halted or self.low < self._final",
        "or self._has_ended or self.is_halted", "an epoch ends before q members have reached its end"),
}


class Finding(NamedTuple):
    """What became of one mutation."""

    name: str
    seed: int | None  # that broke
    invariant: int | None
    runs: int
    seconds: float


def hunt(name: str, seeds: int = SEEDS, processes: int = 0) -> Finding:
    """Runs seeds over a mutated copy of the code until one breaks."""
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.cluster.mutant", name, str(seeds), str(processes)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode:
        raise RuntimeError(f"mutation {name}: {done.stderr}")
    found = json.loads(done.stdout)
    return Finding(name, found["seed"], found["invariant"], found["runs"], time.monotonic() - began)


def main() -> int:
    """Hunts all; 1 when one was not found."""
    missed = 0
    for name, mutation in MUTATIONS.items():
        found = hunt(name)
        missed += found.seed is None
        told = f"seed {found.seed} breaks invariant {found.invariant}" if found.seed is not None else "NOT FOUND"
        print(f"{name:28} {told}, {found.runs} runs, {found.seconds:.1f} s   ({mutation.why})", flush=True)
    return 1 if missed else 0
