"""Checks updates of boards in the real MicroPython: whatever comes, the last good version runs, and metering goes on.

Boards, each in another interpreter, in one area with Mosquitto, TLS and its access list: a version is flashed,
then everything is sent that must not be taken, then a good one under power cuts, then those that boot and fail. A
restart is the chip's: the process ends, flash and files are copied out, another begins with them.
"""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import update as packages
from deploy.flash import agent
from deploy.operator import Person
from deploy.update import Package
from deploy.update_send import Courier, End
from firmware import update
from firmware.crypto.openssl import OpenSSLSigner
from firmware.wire import seal
from tests.firmware.live import wait_for
from tests.micropython.boards import AREA, CUT, MODEL, Board, Surrounding, check_chain, compile_one
from tests.micropython.bounded import bounded
from tests.micropython.interpreter import stock

pytestmark = pytest.mark.slow
# One board in the suite; all three interpreters with GRIDSEAL_SOAK=1, which takes three times as long.
INTERPRETERS = {"stock-1.23": (stock, "1.23"), "board-1.27": (bounded, "1.27"), "board-1.29": (bounded, "1.29")}
if not os.environ.get("GRIDSEAL_SOAK"):
    INTERPRETERS = {name: made for name, made in INTERPRETERS.items() if name == "board-1.29"}
NAMES = tuple(INTERPRETERS)
BOARDS = len(NAMES)
HEAP_BYTES = 2 << 20  # code lies in RAM here: romvfs.py; what a board needs is tests.micropython.measure's
CUTS = 20
WAIT_S = 120.0
# What takes the place of firmware/__init__.py: versions that differ, crash, hang, sign wrongly, or hear no meter.
EDITION = "EDITION = {}\n"
CRASH = "EDITION = {}\nraise ValueError('this version crashes at its start')\n"
HANG = "EDITION = {}\nimport machine, time\nmachine.WDT(timeout=1000)\nwhile True:\n    time.sleep_ms(10)\n"
FORGER = ("EDITION = {}\nfrom firmware.crypto import signer\n"
          "signer.SoftwareSigner.sign_digest = lambda self, h32: bytes(63) + b'\\x01'\n")
DEAF = ("EDITION = {}\nfrom firmware import bus\nfrom firmware.board import trial\n"
        "bus.poll = lambda *words: []\ntrial.TRIAL_MS = 4000\n")


class Factory:
    """Signed packages of this firmware, each with another firmware/__init__."""

    def __init__(self, folder: Path, surrounding: Surrounding) -> None:
        self._folder = folder
        self._files = [row for row in agent.build(["sdm120"]) if row[0] != "firmware/__init__.mpy"]
        self.operator = OpenSSLSigner.load(surrounding.area / "operator" / "signing.key")
        self.chain_id = surrounding.chain_id

    def make(self, counter: int, text: str = EDITION, model: str = MODEL,
             signer: OpenSSLSigner | None = None) -> Package:
        source = self._folder / f"init-{counter}.py"
        source.write_text(text.format(counter))
        files = [*self._files, ("firmware/__init__.mpy", compile_one(source))]
        package = packages.make_package(files, model, counter)
        return packages.sign_package(package, signer or self.operator, self.chain_id)


class Scene:
    """The area, its boards and whoever sends to all of them at once."""

    def __init__(self, folder: Path) -> None:
        self.surrounding = Surrounding(folder, list(NAMES))
        self.factory = Factory(folder, self.surrounding)
        self.boards = [Board(self.surrounding, name, make(version), 0 if make is stock else HEAP_BYTES)
                       for name, (make, version) in INTERPRETERS.items()]
        self.first = self.factory.make(5)
        self.is_over = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self.surrounding.start()
        for index, board in enumerate(self.boards):
            board.next_cuts = [2 + (index + number) % 4 for number in range(CUTS)]  # erases and writes alike
            board.flash(packages.slot_image(self.first))
            thread = threading.Thread(target=board.run, args=(self.is_over,), daemon=True)
            thread.start()
            self._threads.append(thread)
        self.wait_for_seals_of(self.first)

    def close(self) -> None:
        self.is_over.set()
        for board in self.boards:
            board.kill()
        for thread in self._threads:
            thread.join()
        self.surrounding.close()

    def send(self, package: Package, silent_s: float = WAIT_S) -> list[End]:
        """What became of it on each board, in their order."""
        area = self.surrounding.area
        with Courier(Person(area), AREA, [self.surrounding.url], package.manifest, package.stream,
                     packages.contents(package).counter) as courier:
            ends = {end.kid: end for end in courier.serve([board.kid for board in self.boards], silent_s=silent_s,
                                                             offer_s=0.3)}
        return [ends[board.kid] for board in self.boards]

    def wait_for_seals_of(self, package: Package, count: int = 2) -> None:
        """Every board seals with that version from now on."""
        wanted, now_s = packages.contents(package).measurement, time.monotonic()

        def are_there() -> bool:
            return all(len([one for one in self.surrounding.seals(board.kid)
                            if one.at_s > now_s and one.seal.measurement == wanted]) >= count for board in self.boards)
        try:
            wait_for(are_there, f"seals of version {packages.contents(package).counter}", WAIT_S)
        except AssertionError as error:
            raise AssertionError("\n".join(board.said()[-3000:] for board in self.boards)) from error


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    made = Scene(tmp_path_factory.mktemp("updates"))
    try:
        made.start()
        yield made
    finally:
        made.close()


def altered(package: Package, at: int) -> Package:
    """One bit of the manifest is another."""
    data = bytearray(package.manifest)
    data[at] ^= 1
    return Package(bytes(data), package.data)


def test_what_is_older_altered_foreign_or_for_another_model_is_not_even_asked_for(scene: Scene) -> None:
    """Refused with a reason, no restart, nothing lost: the version that was flashed goes on sealing."""
    starts = [len(board.starts) for board in scene.boards]
    good = scene.factory.make(6)
    other_area = packages.sign_package(good, scene.factory.operator, bytes(32))
    wrong = {
        "stale_sequence": scene.factory.make(4), "bad_signature": altered(good, len(good.manifest) // 2),
        "unknown_signer": scene.factory.make(6, signer=OpenSSLSigner.generate()),
        "not_permitted": scene.factory.make(6, model="esp32-16m"),
    }
    for reason, package in [*wrong.items(), ("bad_signature", other_area)]:
        ends = scene.send(package)
        assert [(end.state, end.text.split(":")[0]) for end in ends] == [(update.REFUSED, reason)] * BOARDS, ends
    assert [end.state for end in scene.send(scene.first)] == [update.RUNS] * BOARDS
    assert [len(board.starts) for board in scene.boards] == starts, "a board has restarted"
    scene.wait_for_seals_of(scene.first)


def test_under_twenty_power_cuts_the_old_version_runs_until_the_new_one_is_whole(scene: Scene) -> None:
    good = scene.factory.make(6)
    ends = scene.send(good)
    assert [end.state for end in ends] == [update.CONFIRMED] * BOARDS, "\n".join(board.said() for board in scene.boards)
    for board in scene.boards:
        cut = [(code, out) for code, out in board.starts if code == CUT]
        assert len(cut) == CUTS and not board.next_cuts, board.said()
        assert all("SLOT a" in out for _, out in cut)
        assert "b" not in board.slots()[:len(cut)]
    scene.wait_for_seals_of(good)


def test_bytes_that_are_not_the_manifests_never_run(scene: Scene) -> None:
    """Under a good signature one file is altered: asked for again and again, then given up."""
    good = scene.factory.make(7)
    data = bytearray(good.data)
    data[len(data) // 2] ^= 1
    starts = [len(board.starts) for board in scene.boards]
    ends = scene.send(Package(good.manifest, bytes(data)))
    assert [(end.state, end.text.split(":")[0]) for end in ends] == [(update.REFUSED, "wrong_digest")] * BOARDS, ends
    assert [len(board.starts) for board in scene.boards] == starts
    scene.wait_for_seals_of(scene.factory.make(6))


def test_a_version_that_boots_and_fails_is_gone_after_its_trial(scene: Scene) -> None:
    """Crash at the start, then a signature that does not verify: the version before is back, and says so."""
    for counter, text in ((7, CRASH), (8, FORGER)):
        before = [len(board.starts) for board in scene.boards]
        ends = scene.send(scene.factory.make(counter, text))
        assert [end.state for end in ends] == [update.FAILED] * BOARDS, ends
        scene.wait_for_seals_of(scene.factory.make(6))
        for board, count in zip(scene.boards, before, strict=True):
            assert f"[1, 0, False, 1, {counter}, 6, 6, 7" in board.said() or counter == 7
            trials = [out for _, out in board.starts[count:] if "SLOT a" in out]
            assert len(trials) == (3 if text == CRASH else 1), board.said()
    again = scene.send(scene.factory.make(8, FORGER))
    assert [(end.state, end.text.split(":")[0]) for end in again] == [(update.REFUSED, "stale_sequence")] * BOARDS


def test_the_next_good_version_goes_into_the_other_slot_and_the_same_holds_from_there(scene: Scene) -> None:
    good = scene.factory.make(9)
    assert [end.state for end in scene.send(good)] == [update.CONFIRMED] * BOARDS
    scene.wait_for_seals_of(good)
    assert [end.text.split(":")[0] for end in scene.send(scene.factory.make(6))] == ["stale_sequence"] * BOARDS
    for counter, text in ((10, HANG), (11, DEAF)):
        before = [len(board.starts) for board in scene.boards]
        assert [end.state for end in scene.send(scene.factory.make(counter, text))] == [update.FAILED] * BOARDS
        scene.wait_for_seals_of(good)
        for board, count in zip(scene.boards, before, strict=True):
            trials = [out for _, out in board.starts[count:] if "SLOT b" in out]
            assert len(trials) == (3 if text == HANG else 1), board.said()
            assert (text == HANG) == ("WATCHDOG" in trials[0])


def test_readings_and_chains_of_seals_went_on_through_all_of_it(scene: Scene) -> None:
    """Same key, every height once, each after the one before; what signed them is what the manifests measure."""
    known = [packages.contents(scene.factory.make(counter)).measurement for counter in (5, 6, 9)]
    for board in scene.boards:
        found = scene.surrounding.seals(board.kid)
        check_chain(found, scene.surrounding.chain_id)
        assert {one.seal.kid for one in found} == {board.kid}
        slots = {one.seal.measurement: one.seal.flags & seal.SLOT_B for one in found}
        assert [slots[measurement] for measurement in known] == [0, seal.SLOT_B, 0], "which slot sealed"
        times = sorted({one.seal.last_ms // 1000 for one in found})
        gaps = [after - before for before, after in zip(times, times[1:], strict=False)]
        print(f"{board.name}: {len(board.starts)} starts, {len(found)} seals, longest gap {max(gaps)} s")
