"""Prints the smallest heap in which the light node and the whole agent run, code in RAM as .mpy files, by bisection.

    python -m tests.micropython.measure

The light node checks a genesis' chain with forgeries in between; the agent reads, seals, publishes and is acked in a
real area. What a board needs is less where its code stays in flash (ROMFS, frozen): compare with the bytes in use.
"""

import argparse
import json
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.firmware.world import Chain
from tests.micropython.area import Area
from tests.micropython.bounded import INPUTS, Compiled, bounded, compile_all
from tests.micropython.interpreter import command
from tests.micropython.test_lightnode import START_S, steps

HEADERS = 40
SEALS = 15  # the agent's, each time
RESOLUTION = 512
HIGHEST = 256 * 1024


def bisect(runs: Callable[[int], bool], low: int, high: int) -> int:
    """The smallest heap, as far as RESOLUTION tells, with which `runs` is true; it is taken to be monotonic."""
    while high - low > RESOLUTION:
        middle = (low + high) // 2
        if runs(middle):
            high = middle
        else:
            low = middle
    return high


def light_node(version: str, made: Compiled, folder: Path) -> int:
    data = folder / f"light-{version}"
    data.mkdir()
    chain = Chain(created_s=START_S)
    todo = steps(chain, HEADERS)
    (data / "genesis.cbor").write_bytes(chain.genesis)
    (data / "steps.bin").write_bytes(b"".join(
        struct.pack(">HHI", len(top), len(proof), now_s) + top + proof for top, proof, now_s, _ in todo))

    def runs(heap_bytes: int) -> bool:
        line = command(bounded(version), made.scripts / "lightnode.mpy", options=made.options(heap_bytes,
                                                                                              {data: "/data"}))
        return subprocess.run(line, capture_output=True, timeout=120).returncode == 0

    return bisect(runs, 16 * 1024, HIGHEST)


def whole_agent(version: str, made: Compiled, area: Area, name: str) -> tuple[int, int]:
    """(smallest heap, bytes in use when it has started)."""
    acked = in_use = 0

    def runs(heap_bytes: int) -> bool:
        nonlocal acked, in_use
        child = area.start_agent(name, bounded(version), made.scripts / "agent.mpy", str(acked + SEALS), "20", "stay",
                                 options=made.options(heap_bytes))
        out = child.communicate(timeout=60)[0]
        report = next((json.loads(text[7:]) for text in out.splitlines() if text.startswith("REPORT ")), None)
        if child.returncode or report is None:
            return False
        is_enough = report["heights"][0][2] >= acked + SEALS
        acked, in_use = report["heights"][0][2], report["in_use"][0]
        return bool(is_enough)

    return bisect(runs, 32 * 1024, HIGHEST), in_use


def said(version: str, made: Compiled, script: str) -> str:
    """What a script prints."""
    line = command(bounded(version), made.scripts / script, options=made.options(HIGHEST))
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=True).stdout


def loaded_bytes(version: str, made: Compiled) -> int:
    """.mpy of the modules that an agent has loaded."""
    size = 0
    for name in said(version, made, "loaded.mpy").split():
        path = made.firmware.parent / name.replace(".", "/")
        path = path / "__init__.mpy" if path.is_dir() else path.with_suffix(".mpy")
        size += path.stat().st_size if path.is_file() and name.startswith("firmware") else 0
    return size


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.micropython.measure", description=__doc__)
    parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = compile_all(folder / "mpy")
        size = sum(path.stat().st_size for path in made.firmware.rglob("*.mpy"))
        print(f".mpy files: {loaded_bytes('1.29', made) / 1024:.1f} KiB of the agent, {size / 1024:.1f} KiB in all",
              flush=True)
        for version in INPUTS:
            print(f"light node, {version}: {light_node(version, made, folder) / 1024:.1f} KiB", flush=True)
        names = [f"board-{version}" for version in INPUTS]
        for version, one in zip(INPUTS, names):
            area = Area(folder / version, [one])
            try:
                area.start()
                area.run_for(24 * 60)
                least, in_use = whole_agent(version, made, area, one)
            finally:
                area.close()
            print(f"whole agent, {version}: {least / 1024:.1f} KiB, {in_use / 1024:.1f} KiB of it in use at rest, "
                  f"{int(said(version, made, 'shims.mpy')) / 1024:.1f} KiB of these by the bridge", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
