"""kill -9 at random moments of writing: what was said to be durable is there, everything else is there wholly or not.

The victim is a process of its own that puts envelopes and executes batches, and says on its output what is durable.
"""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from firmware.wire.certificate import quorum
from gateway.ledger.ledger import Ledger
from gateway.ledger.reader import Reader
from gateway.ledger.votes import VoteLog
from tests.ledger.world import START_S, World
from tests.postgres import Server, postgres, running  # noqa: F401  the first is a fixture

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


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_killed_at_any_moment(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    chance = random.Random(20261120)
    world = World(agents=AGENTS)
    roots: dict[int, str] = {}
    if store == "postgresql":
        Ledger.open(tmp_path, world.genesis, address=request.getfixturevalue("postgres").database()).close()
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


def test_a_server_that_dies_under_its_writer(tmp_path: Path) -> None:
    """PostgreSQL ends without a checkpoint in the middle of writing, again and again: the victim ends by itself with
    the reason, and what it called durable is there when both are back."""
    chance = random.Random(20261121)
    world = World(agents=AGENTS)
    roots: dict[int, str] = {}
    with running() as server:
        Ledger.open(tmp_path, world.genesis, address=server.database()).close()
        for _ in range(2):
            victim = subprocess.Popen([sys.executable, "-c", _VICTIM, str(tmp_path)], stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, text=True)
            assert victim.stdout is not None
            said: list[list[str]] = []
            count = chance.randrange(10, 60)
            for line in victim.stdout:
                said.append(line.split())
                if len(said) >= count:
                    break
            server.crash()
            rest, errors = victim.communicate(timeout=30)
            said.extend(line.split() for line in rest.splitlines())
            assert victim.returncode == 1 and "OSError: [Errno 5] PostgreSQL" in errors
            server.start()
            _check(tmp_path, world, said, roots)


def test_both_stores_make_the_same_chain(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Headers, state roots, proofs; then one ledger is installed from the other, and opened again."""
    world = World(agents=AGENTS)
    one = Ledger.open(tmp_path / "one", world.genesis)
    other = Ledger.open(tmp_path / "other", world.genesis, address=postgres.database())
    third = Ledger.open(tmp_path / "third", world.genesis, address=postgres.database())
    for n in range(1, 40):
        seals = play(world, n)
        outcomes = []
        for ledger in (one, other):
            ledger.put_envelopes(seals)
            outcomes.append(ledger.execute(n, ("trade", 0, START_S + 60 * n + 1, [item.leaf for item in seals])))
        assert outcomes[0] == outcomes[1]
        for ledger in (one, other):
            ledger.put_certificate("trade", n, world.certificate(ledger.header("trade", n) or b""))
    assert one.blocks("trade", 1, 40, 1 << 20) == other.blocks("trade", 1, 40, 1 << 20)
    _, root, heads = one.position()
    third.install(39, other.blocks("trade", 1, 40, 1 << 20), heads, root)
    assert third.position() == one.position() == other.position()
    monkeypatch.setattr("gateway.ledger.postgres.LOCK_S", 1)
    with pytest.raises(OSError, match="another process writes"):
        Ledger.open(tmp_path / "other")
    for ledger in (one, other, third):
        ledger.check()
        ledger.close()
    again = Ledger.open(tmp_path / "other", world.genesis)
    assert again.position() == (39, root, heads) and again.newest_readings()
    again.close()
