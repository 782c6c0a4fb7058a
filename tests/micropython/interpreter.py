"""Runs a script in a real MicroPython and gives back what it printed and its exit code.

    def test_it(micropython):                       # once per version, skipped loudly where Node is missing
        done = micropython(SCRIPT, "argument", mounts={FOLDER: "/data"})
        assert (done.returncode, done.stdout) == (0, "...")

`firmware` is importable in the script, nothing else of ours. The same script usually runs on CPython too (`cpython`),
and the test compares what they print.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from tests import needs
from tests.micropython.node import find_node

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# The oldest that has what we use (1.22.0 is not on npm), and a current one.
VERSIONS = ("1.23", "1.27")


class Run(Protocol):
    """run(script, *words, mounts={host path: guest path}, firmware=folder) -> completed process, text."""

    def __call__(self, script: Path, *words: str, mounts: Mapping[Path, str] | None = None,
                 firmware: Path = ..., timeout_s: int = ...) -> subprocess.CompletedProcess[str]: ...


class Options(NamedTuple):
    """What the runner is told beside script and words; run.mjs says what each does."""

    mounts: Mapping[Path, str] = {}  # host path: guest path
    copied_out: Mapping[str, Path] = {}  # guest folder: host folder
    clock: tuple[Path, str] | None = None  # the folder that deploy.clock.ClockKeeper keeps, our name there
    firmware: Path = ROOT / "firmware"  # our sources, or a folder of their .mpy files
    lib: Path = HERE / "lib"  # sources, or their .mpy files
    image: Path | None = None  # a ROMFS image that is mapped and comes first; 1.29 only
    heap_bytes: int = 0  # 0: as much as is wanted; a limit only in the interpreters of bounded.py


def stock(version: str) -> Path:
    """The folder of an interpreter as npm has it; skips the test where it is missing."""
    package = HERE / "node_modules" / f"micropython-{version}"
    if find_node() is None or not package.is_dir():
        needs.missing("Node and MicroPython's npm packages", "./gridseal test")
    return package


def command(interpreter: Path, script: Path, *words: str, options: Options = Options()) -> list[str]:  # noqa: B008
    """What runs the script in the interpreter of that folder."""
    node = find_node()
    assert node is not None, "stock() has looked"
    line = [node[0], str(HERE / "run.mjs"), str(interpreter), "-m", f"{options.firmware}:/lib/firmware", "-l",
            str(options.lib)]
    for host, guest in options.mounts.items():
        line += ["-m", f"{host}:{guest}"]
    for guest, host in options.copied_out.items():
        line += ["-o", f"{guest}:{host}"]
    if options.clock is not None:
        line += ["-c", f"{options.clock[0]}:{options.clock[1]}"]
    if options.image is not None:
        line += ["-f", str(options.image)]
    if options.heap_bytes:
        line += ["-h", str(options.heap_bytes)]
    return [*line, str(script), *words]


def run(version: str, script: Path, *words: str, mounts: Mapping[Path, str] | None = None,
        firmware: Path = ROOT / "firmware", timeout_s: int = 120) -> subprocess.CompletedProcess[str]:
    """The script in MicroPython `version`; firmware: our sources, or a folder of their .mpy files."""
    line = command(stock(version), script, *words, options=Options(mounts=mounts or {}, firmware=firmware))
    return subprocess.run(line, capture_output=True, text=True, timeout=timeout_s)


def cpython(script: Path, *words: str, timeout_s: int = 120) -> subprocess.CompletedProcess[str]:
    """The same script in this CPython, with the same modules of ours and no others."""
    code = ("import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); sys.argv[:] = sys.argv[1:];"
            "runpy.run_path(sys.argv[0], run_name='__main__')")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, "-c", code, str(ROOT), str(script), *words], capture_output=True, text=True,
                          timeout=timeout_s, cwd=script.parent, env=environment)


@pytest.fixture(params=VERSIONS)
def micropython(request: pytest.FixtureRequest) -> Run:
    """`run` for one version after the other."""
    version: str = request.param

    def run_version(script: Path, *words: str, mounts: Mapping[Path, str] | None = None,
                    firmware: Path = ROOT / "firmware", timeout_s: int = 120) -> subprocess.CompletedProcess[str]:
        return run(version, script, *words, mounts=mounts, firmware=firmware, timeout_s=timeout_s)

    return run_version
