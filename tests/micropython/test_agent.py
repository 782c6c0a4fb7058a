"""Checks the whole agent in the real MicroPython: meters by Modbus TCP, TLS to a real Mosquitto, a real gateway.

Three agents live in one area at once, each in another interpreter, with pure P-256, the journal a ring in a file, and a
clock at speed 1200. Each reads its meter 200 times and more; everything read is on the ledger, as the meter showed it,
and was acked by proofs that the agent's own light node has checked; its journal is given up that far. The power of one
fails at the moment when its first witness signature is about to leave.
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firmware import meters
from firmware.board.linux import FileDevice
from firmware.crypto import openssl
from firmware.journal import Journal
from firmware.wire import cbor, cose, identity, witness
from firmware.wire import reading as reading_codec
from sim_hardware.truth import read_truth
from tests.firmware.world import DAY_MS
from tests.micropython.area import AREA, Area
from tests.micropython.bounded import bounded, compile_all
from tests.micropython.interpreter import ROOT, Options, stock

READINGS = 200
MINUTE = 60_000
WAIT_S = 150  # of real time; ten seconds are what the clock asks for
CUT_CODE = 42
# With its code in RAM, as .mpy files: what it needs today (123 KiB by tests.micropython.measure, with three meters) and
# a fifth more. With code in flash: tests/micropython/test_endure.py.
AGENT_HEAP = 148 * 1024
GROWTH_BYTES = 4096  # twenty seals wait for their ack at one moment and none at another
SCRIPT = ROOT / "tests" / "micropython" / "scripts" / "agent.py"
NAMES = ("stock-1.23", "stock-1.27", "board-1.29")


class Run:
    """One agent's life: its lines, its report, what it sent as a witness in each of its starts."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = ""
        self.report: dict[str, Any] = {}
        self.witnessed: list[list[bytes]] = []

    def take(self, child: subprocess.Popen[str], code: int = 0) -> None:
        out = child.communicate(timeout=WAIT_S)[0]
        self.text += out
        assert child.returncode == code, out
        lines = out.splitlines()
        self.witnessed.append([bytes.fromhex(text.split()[1]) for text in lines if text.startswith("WITNESS ")])
        for text in lines:
            if text.startswith("REPORT "):
                self.report = json.loads(text[7:])


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Area, dict[str, Run]]]:
    """The area after the agents' day."""
    interpreters = dict(zip(NAMES, (stock("1.23"), stock("1.27"), bounded("1.29"))))
    folder = tmp_path_factory.mktemp("agents")
    made = compile_all(folder / "mpy", "agent")
    sources = shutil.copytree(ROOT / "firmware", folder / "py" / "firmware",
                              ignore=shutil.ignore_patterns("__pycache__"))  # what runs stays as it is
    area = Area(folder, list(NAMES))
    runs = {name: Run(name) for name in NAMES}

    def start(name: str, *how: str) -> subprocess.Popen[str]:
        words = (str(READINGS), str(WAIT_S), *how)
        if name.startswith("stock"):
            return area.start_agent(name, interpreters[name], SCRIPT, *words, options=Options(firmware=sources))
        return area.start_agent(name, interpreters[name], made.scripts / "agent.mpy", *words,
                                options=made.options(AGENT_HEAP))
    try:
        area.start()
        children = {name: start(name, *(["cut"] if name == NAMES[1] else [])) for name in NAMES}
        area.run_for(24 * 60)
        runs[NAMES[1]].take(children[NAMES[1]], CUT_CODE)
        children[NAMES[1]] = start(NAMES[1])
        for name, child in children.items():
            runs[name].take(child)
        yield area, runs
    finally:
        area.close()


def kid_of(area: Area, name: str) -> bytes:
    signer = openssl.OpenSSLSigner.from_scalar((area.home(name) / "signing.key").read_bytes())
    return identity.kid_of(signer.public_key())


def test_everything_read_is_on_the_ledger_as_the_meter_showed_it(scene: tuple[Area, dict[str, Run]]) -> None:
    area, runs = scene
    truth = read_truth(area.folder / "truth.csv")
    labels = {field.name: field.label for field in meters.load("sdm120").fields}
    for point, name in enumerate(NAMES, 1):
        chain = runs[name].report["heights"]
        assert chain[0][0] == point and chain[0][2] >= READINGS
        stored = area.ledger().readings_between(point, DAY_MS, DAY_MS + 24 * 3600 * 1000)
        found = [reading_codec.decode(data) for data in stored]
        minutes = [one.time_ms // MINUTE for one in found]
        assert minutes == list(range(minutes[0], minutes[0] + len(minutes))), "a minute is missing or twice"
        assert minutes[0] - DAY_MS // MINUTE <= 1 and len(minutes) >= READINGS
        for one in found:
            assert one.kid == kid_of(area, name) and len(one.entries) == 3
            shown = truth[point, one.time_ms - one.time_ms % MINUTE]
            assert [(entry.missing, entry.value) for entry in one.entries] == [
                (None, shown[labels[entry.name]]) for entry in one.entries]


def test_frames_that_were_kept_hash_to_what_was_signed(scene: tuple[Area, dict[str, Run]]) -> None:
    area, _ = scene
    for point, name in enumerate(NAMES, 1):
        stored = area.ledger().readings_between(point, DAY_MS, DAY_MS + 24 * 3600 * 1000)
        raw = {one.time_ms: one.raw for one in map(reading_codec.decode, stored)}
        data = (area.home(name) / "data" / "frames" / "2026-01-01.cbor").read_bytes()
        at = matched = 0
        while at < len(data):
            (found, time_ms, frames), at = cbor.decode_from(data, at)
            hasher = hashlib.sha256()
            for frame in (part for pair in frames for part in pair):
                hasher.update(len(frame).to_bytes(2, "big") + frame)
            assert found == point and len(frames) >= 2  # a busy machine may ask twice
            if time_ms in raw:
                assert hasher.digest() == raw[time_ms]
                matched += 1
        assert matched >= READINGS


def test_acks_are_checked_and_the_journal_given_up(scene: tuple[Area, dict[str, Run]]) -> None:
    area, runs = scene
    for name in NAMES:
        report = runs[name].report
        assert (report["bad_acks"], report["bad_headers"], report["refused"], report["lost"]) == (0, 0, 0, 0), report
        assert report["header_height"] > 0 and not report["contradiction"]
        point, height, acked = report["heights"][0]
        assert height - acked == report["unacked"] and report["missed_polls"] == 0
        copy = shutil.copy(area.home(name) / "data" / "journal.bin", area.folder / f"{name}.journal")
        journal = Journal(FileDevice(Path(copy), 64 * 1024))
        held = journal.next_seq - report["trimmed"]
        assert report["trimmed"] > 2 * READINGS and held <= 4 * (report["unacked"] + 2), (report, held)
        assert (journal.dropped, journal.damaged) == (0, 0)
        # the trim mark is on flash with the record after it
        assert journal.used_sectors() in (report["journal_sectors_used"], report["journal_sectors_used"] + 1)


def test_a_board_holds_no_more_after_two_hundred_polls_than_after_fifty(scene: tuple[Area, dict[str, Run]]) -> None:
    """Bytes in use after a whole collection, at each quarter of the run: unacked seals differ, nothing grows."""
    used = scene[1][NAMES[2]].report["in_use"]
    print("the whole agent: bytes in use at the start and at each quarter", used)
    assert len(used) >= 4 and max(used[2:]) - used[1] <= GROWTH_BYTES, used


def test_a_witness_signature_is_saved_before_it_is_sent(scene: tuple[Area, dict[str, Run]]) -> None:
    """scripts/agent.py holds each message against the trust file at the moment it leaves; after the power failed at
    that moment the very same header is signed, and no height twice."""
    area, runs = scene
    for name in NAMES:
        sent = [message for start in runs[name].witnessed for message in start]
        assert len(sent) >= 2, f"{READINGS} minutes at one an interval of 15: {runs[name].text}"
        heights = []
        for message in sent:
            signed, found = witness.read(message)
            signer = openssl.OpenSSLSigner.from_scalar((area.home(name) / "signing.key").read_bytes())
            cose.check(signed, "witness", area.chain_id, signer.public_key(), openssl.verify_digest)
            heights.append(found.height)
        assert len({bytes(message) for message in sent}) == len(set(heights)), "two headers of one height"
        assert heights == sorted(heights)
    before, after = runs[NAMES[1]].witnessed
    assert len(before) == 1 and after[0] == before[0]
    assert runs[NAMES[1]].report["boot"] == 2


def test_the_gateway_keeps_what_they_witnessed(scene: tuple[Area, dict[str, Run]]) -> None:
    """Each message but the last, which may have been on its way when its agent ended, and but one under a header of
    before its agent was enrolled, which counts for nothing; some headers have the signatures of all three."""
    area, runs = scene
    reader = area.ledger()
    enrolled = {kid: record.enrolled_height for kid, record in reader.agents()}
    assert reader.light_nodes(AREA) == len(NAMES)
    signed: dict[int, set[str]] = {}
    for name in NAMES:
        sent = [message for start in runs[name].witnessed for message in start]
        for message in sent[:-1]:
            height = witness.read(message)[1].height
            if height >= enrolled[kid_of(area, name)]:
                assert reader.witness("trade", height, kid_of(area, name)) == message, (name, height)
                signed.setdefault(height, set()).add(name)
    assert len(NAMES) in {len(names) for names in signed.values()}, signed


def test_seals_carry_the_measurement_of_the_files_that_ran(scene: tuple[Area, dict[str, Run]]) -> None:
    """SHA-256 over path, size and hash of each file, as board/linux.py makes it: of sources here, .mpy files there."""
    area, _ = scene
    for point, name in enumerate(NAMES, 1):
        folder = area.folder / ("py" if name.startswith("stock") else "mpy") / "firmware"
        rows = []
        for path in folder.rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                rows.append([path.relative_to(folder.parent).as_posix(), len(data), hashlib.sha256(data).digest()])
        rows.sort()
        found = {one.seal.measurement for one in area.ledger().seals(kid_of(area, name), point)}
        assert found == {hashlib.sha256(cbor.encode(rows)).digest()}
