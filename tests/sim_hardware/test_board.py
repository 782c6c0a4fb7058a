"""Checks the simulated board with the tools that real boards are flashed with: esptool and mpremote, unchanged."""

import hashlib
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim_hardware.board import images, partitions
from sim_hardware.board.board import Board, Faults
from sim_hardware.board.chips import CHIPS
from sim_hardware.board.loader import Frames, checksum_of, frame
from sim_hardware.board.nor import NorFlash
from tests.deploy.boards import MIB, ROOT, be_impatient, need_prompt, plugged, tool, write_firmware

SEED = 20261120
BLANK = b"\xff"


def noise(count: int, seed: int = SEED) -> bytes:
    return random.Random(seed).randbytes(count)


@pytest.fixture
def board(tmp_path: Path) -> Iterator[tuple[Board, str]]:
    """An empty ESP32 and its port."""
    with plugged(tmp_path / "flash.bin", tmp_path / "port") as made:
        yield made, str(tmp_path / "port")


@pytest.fixture(scope="module")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Board, list[str], Path]]:
    """A board with (a stand-in for) MicroPython on it, and mpremote's first words."""
    need_prompt()
    folder = tmp_path_factory.mktemp("board")
    write_firmware(folder / "firmware.bin")
    with plugged(folder / "flash.bin", folder / "port") as made:
        port = str(folder / "port")
        done = tool("esptool", "--port", port, "write-flash", "0x1000", str(folder / "firmware.bin"))
        assert done.returncode == 0, done.stdout + done.stderr
        yield made, ["connect", port], folder


@pytest.mark.parametrize(("chip", "mib"), [("esp32", 4), ("esp32-s3", 8), ("esp32-c3", 4)])
@pytest.mark.parametrize("stub", [[], ["--no-stub"]], ids=["stub", "rom"])
def test_esptool_finds_the_chip(tmp_path: Path, chip: str, mib: int, stub: list[str]) -> None:
    with plugged(tmp_path / "flash.bin", tmp_path / "port", chip=chip, size=mib * MIB):
        done = tool("esptool", *stub, "--port", str(tmp_path / "port"), "flash-id")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Connected to {CHIPS[chip].name} on" in done.stdout and f"Detected flash size: {mib}MB" in done.stdout
    assert "7c:9e:bd:0a:1b:2c" in done.stdout
    assert ("Stub flasher running" in done.stdout) == (not stub)


@pytest.mark.parametrize("stub", [[], ["--no-stub"]], ids=["stub", "rom"])
@pytest.mark.parametrize("compressed", ["--compress", "--no-compress"])
def test_what_esptool_writes_is_verified_and_read_back_equal(board: tuple[Board, str], tmp_path: Path, stub: list[str],
                                                             compressed: str) -> None:
    made, port = board
    data = noise(70_001)
    (tmp_path / "data").write_bytes(data)
    for words in (["write-flash", compressed, "0x12000", str(tmp_path / "data")],
                  ["verify-flash", "0x12000", str(tmp_path / "data")]):
        done = tool("esptool", *stub, "--port", port, *words)
        assert done.returncode == 0, done.stdout + done.stderr
    size = len(data) if not stub else 4096  # the ROM reads 64 bytes a time
    done = tool("esptool", *stub, "--port", port, "read-flash", "0x12000", str(size), str(tmp_path / "back"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "back").read_bytes() == data[:size] == made.flash.read(0x12000, size)
    assert made.flash.read(0x12000 - 16, 16) == made.flash.read(0x12000 + len(data) + 4096, 16) == 16 * BLANK


def test_erase_is_by_sectors_and_writing_without_it_shows(board: tuple[Board, str], tmp_path: Path) -> None:
    made, port = board
    made.flash.program(0x3000, b"\x00" * 0x3000)
    assert tool("esptool", "--port", port, "erase-region", "0x4000", "0x1000").returncode == 0
    assert made.flash.read(0x3000, 0x3000) == b"\0" * 0x1000 + BLANK * 0x1000 + b"\0" * 0x1000
    made.flash.program(0x3FF0, b"\xaa" * 32)  # half of it over zeros
    assert made.flash.read(0x3FF0, 32) == b"\0" * 16 + b"\xaa" * 16
    assert made.flash.dirty_writes == 16
    (tmp_path / "data").write_bytes(noise(9000))
    for stub in ([], ["--no-stub"]):  # esptool has what it writes erased first
        assert tool("esptool", *stub, "--port", port, "write-flash", "0x3000", str(tmp_path / "data")).returncode == 0
        assert made.flash.read(0x3000, 9000) == noise(9000) and made.flash.dirty_writes == 16
        made.flash.program(0x3000, bytes(9000))
        made.flash.dirty_writes = 16
    assert tool("esptool", "--port", port, "erase-flash").returncode == 0
    assert made.flash.read(0, made.flash.size) == BLANK * made.flash.size


def test_a_worn_sector_fails_verification(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(noise(9000))
    with plugged(tmp_path / "flash.bin", tmp_path / "port", worn_sector=0x11):
        done = tool("esptool", "--port", str(tmp_path / "port"), "write-flash", "0x10000", str(tmp_path / "data"))
    assert done.returncode != 0 and "MD5 of file does not match" in done.stdout + done.stderr


def test_lost_bytes_are_sent_again(tmp_path: Path) -> None:
    data = noise(120_000)
    (tmp_path / "data").write_bytes(data)
    with plugged(tmp_path / "flash.bin", tmp_path / "port", Faults(lose_at=60_000)) as made:
        done = tool("esptool", "--port", str(tmp_path / "port"), "write-flash", "0x10000", str(tmp_path / "data"))
        assert done.returncode == 0, done.stdout + done.stderr
        assert made.flash.read(0x10000, len(data)) == data


def test_a_pulled_plug_leaves_what_was_written_and_nothing_else(tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    be_impatient(tmp_path, monkeypatch)
    data = noise(200_000)
    (tmp_path / "data").write_bytes(data)
    words = ["--port", str(tmp_path / "port"), "write-flash", "0x10000", str(tmp_path / "data")]
    with plugged(tmp_path / "flash.bin", tmp_path / "port", Faults(unplug_at=100_000)) as made:
        done = tool("esptool", *words)
        assert done.returncode != 0 and made.is_unplugged
        found = made.flash.read(0x10000, len(data))
        kept = next(at for at in range(len(data)) if found[at] != data[at])
        assert 50_000 < kept < 100_000 and not found[kept:].strip(BLANK)
        assert not (tmp_path / "port").is_symlink()
    with plugged(tmp_path / "flash.bin", tmp_path / "port") as made:
        assert tool("esptool", *words).returncode == 0
        assert made.flash.read(0x10000, len(data)) == data


def test_there_is_no_prompt_before_the_interpreter_is_whole(tmp_path: Path) -> None:
    write_firmware(tmp_path / "firmware.bin")
    data = (tmp_path / "firmware.bin").read_bytes()
    chip = CHIPS["esp32"]
    app = data[images.APP_AT - chip.bootloader_at:]
    assert images.problem_of(app, chip.image_id) == ""
    assert images.problem_of(app, 9) == "image is for chip id 0"
    assert images.problem_of(app[:-40], chip.image_id) != ""
    for at in (0, 1, 30, len(app) // 2, len(app) - 33, len(app) - 1):
        bad = bytes([*app[:at], app[at] ^ 1, *app[at + 1:]])
        assert images.problem_of(bad, chip.image_id) != "", at
    (tmp_path / "half").write_bytes(data[:len(data) - 2000])
    with plugged(tmp_path / "flash.bin", tmp_path / "port") as made:
        assert tool("esptool", "--port", str(tmp_path / "port"), "write-flash", "0x1000",
                    str(tmp_path / "half")).returncode == 0
        made.flash.program(0x8000, bytes(0xC00))
        with pytest.raises(partitions.BadTable):
            partitions.read_table(made.flash)


def test_mpremote_runs_code_and_gives_its_exit_code(prompt: tuple[Board, list[str], Path]) -> None:
    _, words, folder = prompt
    (folder / "script.py").write_text("import sys\nprint('ran', sys.implementation[0])\n")
    (folder / "long.py").write_text("total = 0\n" + "total += 1\n" * 3000 + "print(total)\n")  # many paste windows
    for more, said in ((["exec", "print(1 + 1)"], "2\n"), (["eval", "3 * 4"], "12\n"),
                       (["run", str(folder / "script.py")], "ran micropython\n"),
                       (["run", str(folder / "long.py")], "3000\n")):
        done = tool("mpremote", *words, *more)
        assert (done.returncode, done.stdout) == (0, said), done.stderr
    done = tool("mpremote", *words, "exec", "raise ValueError(17)")
    assert done.returncode == 1 and "ValueError: 17" in done.stdout
    done = tool("mpremote", *words, "exec", "import os; print(len(os.urandom(7)))", "+", "soft-reset", "+", "eval", "5")
    assert (done.returncode, done.stdout) == (0, "7\n5\n"), done.stderr
    done = tool("mpremote", *words, "fs", "cat", ":nowhere")
    assert done.returncode == 1 and "No such file" in done.stdout + done.stderr


def test_mpremote_copies_files_and_they_stay(prompt: tuple[Board, list[str], Path]) -> None:
    made, words, folder = prompt
    data = noise(20_000)
    (folder / "data.bin").write_bytes(data)
    done = tool("mpremote", *words, "fs", "mkdir", ":sub", "+", "fs", "cp", str(folder / "data.bin"), ":sub/data.bin",
                "+", "fs", "sha256sum", ":sub/data.bin", "+", "fs", "ls", ":sub")
    assert done.returncode == 0, done.stdout + done.stderr
    assert hashlib.sha256(data).hexdigest() in done.stdout and "20000 data.bin" in done.stdout
    done = tool("mpremote", *words, "fs", "cp", ":sub/data.bin", str(folder / "back.bin"))
    assert done.returncode == 0 and (folder / "back.bin").read_bytes() == data
    # on the flash itself, as littlefs: what a programmer would read from the chip
    assert dict(partitions.unpack(made.flash, folder / "found"))[partitions.file_system(
        partitions.read_table(made.flash), made.flash.size)] >= 2
    assert (folder / "found" / "vfs" / "sub" / "data.bin").read_bytes() == data
    done = tool("mpremote", *words, "fs", "cat", ":boot.py")
    assert done.returncode == 0 and "executed on every boot" in done.stdout
    done = tool("mpremote", *words, "fs", "rm", ":sub/data.bin", "+", "fs", "rmdir", ":sub", "+", "fs", "ls", ":")
    assert done.returncode == 0 and "sub" not in done.stdout.splitlines()[-1]
    partitions.unpack(made.flash, folder / "after")
    assert not (folder / "after" / "vfs" / "sub" / "data.bin").exists()


def test_mpremote_mounts_a_folder_and_runs_from_it(prompt: tuple[Board, list[str], Path]) -> None:
    """The board reads a module from this computer, over the same line, while code runs on it."""
    _, words, folder = prompt
    (folder / "there.py").write_text("def answer():\n    return 41\n")
    (folder / "mounted.py").write_text("import there, os\nprint(there.answer() + 1, os.getcwd(), len(os.listdir()))\n")
    done = tool("mpremote", *words, "mount", str(folder), "run", str(folder / "mounted.py"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"42 /remote {len(list(folder.iterdir()))}" in done.stdout


def test_loader_and_prompt_share_one_port(prompt: tuple[Board, list[str], Path]) -> None:
    _, words, _ = prompt
    for _ in range(2):
        assert tool("esptool", "--port", words[1], "flash-id").returncode == 0
        assert tool("mpremote", *words, "eval", "2 ** 70").stdout == "1180591620717411303424\n"


def test_boot_py_runs_and_main_py_does_not(prompt: tuple[Board, list[str], Path]) -> None:
    _, words, folder = prompt
    (folder / "boot.py").write_text("import builtins\nbuiltins.found = 'boot'\n")
    (folder / "main.py").write_text("import builtins\nbuiltins.found = 'main'\n")
    done = tool("mpremote", *words, "fs", "cp", str(folder / "boot.py"), str(folder / "main.py"), ":", "+",
                "soft-reset", "+", "eval", "found", "+", "fs", "rm", ":main.py")
    assert done.returncode == 0 and done.stdout.splitlines()[-2:] == ["boot", "rm :main.py"], done.stdout + done.stderr


def test_partitions_are_nor_flash_for_programs_too(prompt: tuple[Board, list[str], Path]) -> None:
    made, words, _ = prompt
    code = ("from esp32 import Partition as P; p = P.find(P.TYPE_APP)[0]; b = bytearray(4); n = p.ioctl(4, 0) - 1\n"
            "p.ioctl(6, n); p.writeblocks(n, b'\\xf0\\x0f\\xff\\x00', 8); p.writeblocks(n, bytes(4 * (15,)), 8)\n"
            "p.readblocks(n, b, 8); print(bytes(b), p.info()[4])")
    done = tool("mpremote", *words, "exec", code)
    assert done.stdout == "b'\\x00\\x0f\\x0f\\x00' factory\n", done.stderr
    assert made.flash.read(0x10000 + 0x1F0000 - 4096 + 8, 4) == b"\0\x0f\x0f\0"


def test_by_command_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's way: a process, a link, a stand-in, an end by a signal; then a look into the flash."""
    line = [sys.executable, "-m", "deploy.cli", "sim", "board"]
    monkeypatch.chdir(ROOT)
    made = subprocess.run([*line, "--make-firmware", str(tmp_path / "f.bin"), "--chip", "esp32-c3"],
                          capture_output=True, text=True)
    assert made.returncode == 0
    assert made.stdout.split()[0] == hashlib.sha256((tmp_path / "f.bin").read_bytes()).hexdigest()
    child = subprocess.Popen([*line, "--pty", str(tmp_path / "port"), "--flash", str(tmp_path / "flash.bin"), "--chip",
                              "esp32-c3", "--json"], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None and '"ready": true' in child.stdout.readline()
        done = tool("esptool", "--port", str(tmp_path / "port"), "write-flash", "0", str(tmp_path / "f.bin"))
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        child.terminate()
        assert child.wait(10) == 0
    done = subprocess.run([*line, "--flash", str(tmp_path / "flash.bin"), "--unpack", str(tmp_path / "found")],
                          capture_output=True, text=True)
    assert done.returncode == 0 and "factory   0x010000" in done.stdout
    done = subprocess.run([*line, "--flash", str(tmp_path / "flash.bin"), "--flash-mib", "8", "--unpack", "x"],
                          capture_output=True, text=True)
    assert done.returncode == 2 and "has 4194304 bytes, expected 8388608" in done.stderr
    done = subprocess.run([*line, "--interpreter", str(tmp_path)], capture_output=True, text=True, timeout=20)
    assert done.returncode == 2 and "has no micropython.mjs" in done.stderr


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_frames_come_out_as_they_went_in(packet: bytes, cuts: list[int]) -> None:
    line = frame(packet)
    frames = Frames()
    found: list[bytes] = []
    places = [0, *sorted(min(cut, len(line)) for cut in cuts), len(line)]
    for start, end in zip(places, places[1:]):
        found += frames.feed(line[start:end])
    assert found == ([packet] if packet else []) and (frames.is_idle() or not packet)


@given(st.binary(max_size=300))
def test_the_checksum_is_that_of_single_bytes(data: bytes) -> None:
    expected = 0xEF
    for byte in data:
        expected ^= byte
    assert checksum_of(data) == expected


@given(st.lists(st.tuples(st.integers(0, 3 * 4096), st.binary(min_size=1, max_size=64)), max_size=12))
def test_programming_only_clears_bits(writes: list[tuple[int, bytes]]) -> None:
    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        flash = NorFlash(Path(folder) / "flash", 2 * MIB)
        model = bytearray(BLANK * (4 * 4096))
        for at, data in writes:
            flash.program(at, data)
            for index, byte in enumerate(data):
                model[at + index] &= byte
        assert flash.read(0, len(model)) == bytes(model)
        flash.close()
