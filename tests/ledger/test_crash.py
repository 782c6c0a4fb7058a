"""kill -9 at random moments of writing: what was said to be durable is there, everything else is there wholly or not.

The victim is a process of its own that puts envelopes and executes batches, and says on its output what is durable.
"""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from firmware.wire.certificate import quorum
from gateway.ledger.ledger import Ledger
from gateway.ledger.reader import Reader
from gateway.ledger.votes import VoteLog
from tests.ledger.world import START_S, World

KILLS = 12
AGENTS = [("meter", (1, 2)), ("other", (3,))]
POINTS = (("meter", 1), ("meter", 2), ("other", 3))

_VICTIM = """
import sys
import time
from pathlib import Path
from tests.ledger.test_crash import live
live(Path(sys.argv[1]))
"""


def play(world: World, minute: int):
    return [world.seal(name, point, (START_S + 60 * minute) * 1000, 1000 + minute) for name, point in POINTS]


def live(folder: Path) -> None:
    """Goes on from where the ledger stands, for ever: envelopes, votes, block, certificate, a word after each."""
    world = World(agents=AGENTS)
    ledger, votes = Ledger.open(folder, world.genesis), VoteLog(folder / "votes.log")
    done = ledger.position()[0]
    for minute in range(1, done + 1):
        play(world, minute)  # moves the agents' own chains on
    for n in range(done + 1, done + 10_000):
        seals = play(world, n)
        ledger.put_envelopes(seals)
        print("envelopes", n, flush=True)
        votes.append([b"vote %d" % n])
        print("voted", n, flush=True)
        if n % 5 == 0:
            votes.replace([b"vote %d" % n])
        outcome = ledger.execute(n, ("trade", 0, START_S + 60 * n + 1, [item.leaf for item in seals]))
        print("executed", n, outcome.state_root.hex(), flush=True)
        assert outcome.height is not None and outcome.header is not None
        ledger.put_certificate("trade", outcome.height, world.certificate(outcome.header))


def test_killed_at_any_moment(tmp_path: Path) -> None:
    chance = random.Random(20261120)
    world = World(agents=AGENTS)
    roots: dict[int, str] = {}
    for _ in range(KILLS):
        victim = subprocess.Popen([sys.executable, "-c", _VICTIM, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert victim.stdout is not None
        said: list[list[str]] = []
        count, pause_s = chance.randrange(3, 60), chance.random() * 0.004
        for line in victim.stdout:
            said.append(line.split())
            if len(said) >= count:
                break
        time.sleep(pause_s)  # no waiting for anything: the blow must not fall at the end of a step alone
        victim.send_signal(signal.SIGKILL)
        said.extend(line.split() for line in victim.stdout if line.endswith("\n"))
        victim.stdout.close()
        assert victim.wait(10) == -signal.SIGKILL
        _check(tmp_path, world, said, roots)


def _check(folder: Path, world: World, said: list[list[str]], roots: dict[int, str]) -> None:
    last = {words[0]: int(words[1]) for words in said}
    roots.update({int(words[1]): words[2] for words in said if words[0] == "executed"})
    if "executed" in last:
        reader = Reader.open(folder)  # `proof export` on a folder whose process was killed
        assert reader.position()[0] >= last["executed"] and reader.newest_readings()
        reader.close()
    ledger, votes = Ledger.open(folder, world.genesis), VoteLog(folder / "votes.log")
    ledger.check()
    n, root, heads = ledger.position()
    assert n == heads[0][1] >= last.get("executed", 0) and n - last.get("executed", 0) <= 1
    assert roots.setdefault(n, root.hex()) == root.hex()
    waiting = sorted((item.seal.point, item.seal.height) for item in ledger.pending_envelopes())
    assert waiting in ([], [(1, n + 1), (2, n + 1), (3, n + 1)]), "three envelopes in one step, or none"
    if last.get("envelopes", 0) > n:
        assert waiting
    assert ledger.newest_readings() == ({} if n == 0 else {
        point: world.reading(name, point, (START_S + 60 * n) * 1000, 1000 + n) for name, point in POINTS})
    assert ledger.uncertified() in ([], [n]), "a certificate is one block late at most"
    for missing in ledger.uncertified():
        header = ledger.header("trade", missing)
        assert header is not None
        ledger.put_certificate("trade", missing, world.certificate(header, signers=range(quorum(4))))
    newest = votes.load()[-1]
    assert int(newest.split()[1]) >= last.get("voted", 0)
    votes.close()
    ledger.close()
