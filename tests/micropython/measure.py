"""Prints the smallest heaps in which the light node and the whole agent run, by bisection, each beside its aim.

    python -m tests.micropython.measure

The light node checks a genesis' chain with forgeries in between; the agent reads three meters, seals, publishes and is
acked in a real area, with its code in RAM as .mpy files, and in flash as on a board with ROMFS.
"""

import argparse
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.firmware.world import Chain
from tests.micropython import endure
from tests.micropython.bounded import INPUTS, Compiled, bounded, compile_all
from tests.micropython.interpreter import command
from tests.micropython.test_lightnode import START_S, steps

HEADERS = 40
ROUNDS = 40  # the agent's, each time
RESOLUTION, AGENT_RESOLUTION = 512, 2048
AIMS = {"loop": "24 KiB", "all": "96 KiB", "light": "56 KiB", "agent": "40 KiB, at most 56"}  # of the design
HIGHEST = 256 * 1024


def bisect(runs: Callable[[int], bool], low: int, high: int, resolution: int = RESOLUTION) -> int:
    """The smallest heap, as far as the resolution tells, with which `runs` is true; it is taken to be monotonic."""
    while high - low > resolution:
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


def whole_agent(version: str, made: Compiled, folder: Path, flash: bool) -> tuple[int, int]:
    """(smallest heap, bytes in use while it works): the agent with three meters, as endure.py has it."""
    in_use = 0

    def runs(heap_bytes: int) -> bool:
        nonlocal in_use
        with tempfile.TemporaryDirectory(dir=folder) as name:
            done = endure.run(Path(name), made, f"board-{version}", ROUNDS, heap_bytes, flash)
        if done.code == 0 and done.report:
            in_use = done.floors(1)[0]
            return True
        return False

    return bisect(runs, 40 * 1024, HIGHEST, AGENT_RESOLUTION), in_use


def said(version: str, made: Compiled, script: str) -> str:
    """What a script prints."""
    line = command(bounded(version), made.scripts / script, options=made.options(HIGHEST))
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=True).stdout


def sizes(version: str, made: Compiled) -> tuple[int, int]:
    """Bytes of .mpy: of the modules that an agent at work has loaded all the time, and of all that it ever loads."""
    whole = {path.relative_to(made.firmware).as_posix(): path.stat().st_size for path in made.firmware.rglob("*.mpy")}
    kept = 0
    for name in said(version, made, "loaded.mpy").split():
        path = name.removeprefix("firmware").replace(".", "/").strip("/")
        kept += whole.get(f"{path}.mpy", 0) or whole.get(f"{path}/__init__.mpy".lstrip("/"), 0)
    tables = sum(size for path, size in whole.items() if path.startswith("meters/") and path != "meters/__init__.mpy")
    return kept, sum(whole.values()) - tables


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.micropython.measure", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = compile_all(folder / "mpy", "endure")
        kept, whole = sizes("1.29", made)
        print(f".mpy files, three meters' tables apart: {kept / 1024:.1f} KiB that a working agent holds all the time "
              f"(aim {AIMS['loop']}), {whole / 1024:.1f} KiB with all that it loads and drops (aim {AIMS['all']})",
              flush=True)
        everything = compile_all(folder / "everything")
        for version in INPUTS:
            print(f"light node, {version}, code in RAM: {light_node(version, everything, folder) / 1024:.1f} KiB "
                  f"(aim {AIMS['light']})", flush=True)
        for version in INPUTS:
            for flash in (True, False):
                least, in_use = whole_agent(version, made, folder, flash)
                print(f"whole agent, three meters, {version}, code in {'flash' if flash else 'RAM'}: smallest heap "
                      f"{least / 1024:.0f} KiB (aim {AIMS['agent']}), {in_use / 1024:.1f} KiB in use while it works, "
                      f"{int(said(version, everything, 'shims.mpy')) / 1024:.1f} KiB of these by the bridge's modules "
                      "(code in RAM), which a board has in its interpreter", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
