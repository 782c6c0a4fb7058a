"""Gives a test what only some machines have, or skips it with a reason that names the remedy.

`conftest.py` counts these skips and prints them in one loud line. With GRIDSEAL_VECTORS=required (set by `.ci/run`
where `../shared` is there) a missing vector file is a failure.
"""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

VECTORS = Path(__file__).resolve().parents[2] / "shared" / "data" / "vectors"
MISSING = "missing: "


def missing(what: str, remedy: str) -> NoReturn:
    """Skips the running test; remedy: the line to type."""
    pytest.skip(f"{MISSING}{what} ({remedy})")


def find_program(name: str) -> str | None:
    """The path of a system's program, or None. Debian puts daemons where a plain user's PATH does not look, and
    PostgreSQL's programs beside their version."""
    versions = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    return shutil.which(name) or shutil.which(name, path=":".join(["/usr/sbin", "/usr/local/sbin", *versions]))


def program(name: str) -> str:
    """The path of a system's program, such as mosquitto or mbpoll."""
    return find_program(name) or missing(name, "./gridseal test --install")


def browser() -> str:
    """The path of Chromium. It is big, so `--install` leaves it to whoever wants the page looked at."""
    found = find_program("chromium") or find_program("chromium-browser") or find_program("google-chrome")
    return found or missing("chromium", "sudo apt install chromium, 300 MB")


def vectors(name: str) -> Path:
    """A file or folder of outside test vectors: `vectors("wycheproof/ecdsa_secp256r1_sha256_test.json")`."""
    path = VECTORS / name
    if not path.exists():
        if are_vectors_required():
            pytest.fail(f"test vectors {name} are missing, and GRIDSEAL_VECTORS=required")
        missing("test vectors", "../shared/data/vectors beside the checkout")  # one reason for all: counted together
    return path


def are_vectors_required() -> bool:
    return os.environ.get("GRIDSEAL_VECTORS") == "required"
