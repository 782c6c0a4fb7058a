"""Checks the house's own rules: directions, purity, sizes, first lines, marks, tools, and what is installed."""

import ast
import configparser
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs
from tests.house import rooms
from tests.house.rooms import DIRECTIONS, PACKAGES, ROOT, impurities, module_name, modules, wrong_directions

FILE_LINES, FUNCTION_LINES = 500, 70
SOURCES = sorted([*modules(), *(ROOT / "tests").rglob("*.py")])
TREES = {path: ast.parse(path.read_text()) for path in SOURCES}
# Written in pieces, or this file would be what it looks for.
MARKS = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
PLACES = re.compile(r"(?<![\w.~}])/(root|work|home/\w+)/|index-" r"url|--regis" r"try|find-" r"links")


def _where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def _handwritten() -> list[Path]:
    """Everything of ours that a person writes and reads, in any language."""
    found = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        return [path for path in SOURCES]
    return [ROOT / name for name in found.stdout.splitlines()
            if (ROOT / name).is_file() and name != "LICENSE" and not name.endswith("package-lock.json")]


def test_directions() -> None:
    wrong = [line for path in modules() for line in wrong_directions(module_name(path), TREES[path])]
    assert not wrong, "\n" + "\n".join(wrong)


def test_every_folder_of_the_gateway_has_its_row() -> None:
    folders = [path.name for path in (ROOT / "gateway").iterdir() if any(path.glob("*.py"))]
    assert [name for name in folders if f"gateway.{name}" not in DIRECTIONS] == []


@pytest.mark.parametrize(("module", "line"), [
    ("firmware.agent", "import gateway.config"), ("firmware.wire.cbor", "import os"),
    ("firmware.wire.seal", "from firmware.crypto import p256"), ("gateway.ingest.verify", "import firmware.agent"),
    ("gateway.consensus.replica", "from gateway.ledger import ledger"), ("gateway.api.views", "import gateway.ledger"),
    ("gateway.contracts.apply", "from gateway import ledger"), ("gateway.ledger.ledger", "from . import votes"),
    ("gateway.ledger.ledger", "import gateway.ingest.chains"), ("gateway.driver", "import gateway.node"),
    ("gateway.node", "import deploy.clock"), ("sim_hardware.bus", "import firmware.modbus"),
    ("deploy.demo", "from tests import needs"),
])
def test_a_wrong_direction_is_seen(module: str, line: str) -> None:
    assert list(wrong_directions(module, ast.parse(line)))


def test_purity() -> None:
    wrong = [line for path in modules() for line in impurities(module_name(path), TREES[path])]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(("module", "line"), [
    ("firmware.agent", "import time"), ("gateway.consensus.replica", "from random import Random"),
    ("gateway.contracts.apply", "import os.path"), ("gateway.ingest.verify", "import threading"),
    ("firmware.journal", "f = open('x')"), ("gateway.api.views", "x = datetime.now()"),
])
def test_an_impurity_is_seen(module: str, line: str) -> None:
    assert list(impurities(module, ast.parse(line)))
    assert not list(impurities("deploy.demo", ast.parse(line)))


def test_the_oracle_stays_in_the_tests() -> None:
    # Its signing leaks the nonce by timing (CVE-2024-23342), and nobody will mend it.
    for path in modules():
        assert not [name for _, name in rooms.imports(TREES[path]) if name.split(".")[0] == "ecdsa"], path


def test_sizes() -> None:
    long_files = [(str(path.relative_to(ROOT)), lines) for path in _handwritten()
                  if path.suffix in (".py", ".mjs", ".sh", ".js", ".css", "")
                  and (lines := len(path.read_text(errors="replace").splitlines())) > FILE_LINES]
    assert not long_files
    long_functions = [(_where(path, node), node.name) for path, tree in TREES.items() for node in ast.walk(tree)
                      if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                      and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES]
    assert not long_functions


def test_a_modules_first_line_says_what_it_is() -> None:
    without = [str(path.relative_to(ROOT)) for path, tree in TREES.items()
               if path.read_text().strip() and not (ast.get_docstring(tree) or "").split("\n")[0].strip()]
    assert not without


def test_no_unfinished_mark_and_no_place_of_some_machine() -> None:
    found = []
    for path in _handwritten():
        if path.suffix in (".png", ".bin", ".cbor", ".ico"):
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if MARKS.search(line) or PLACES.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number} {line.strip()[:80]}")
    assert not found, "\n" + "\n".join(found)


def test_no_error_is_swallowed_in_silence() -> None:
    wide = {"Exception", "BaseException"}
    found = [_where(path, node) for path, tree in TREES.items() for node in ast.walk(tree)
             if isinstance(node, ast.ExceptHandler) and all(isinstance(statement, ast.Pass) for statement in node.body)
             and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in wide))]
    found += [_where(path, node) for path, tree in TREES.items() for node in ast.walk(tree)
              if isinstance(node, ast.Raise) and "NotImplemented" in ast.unparse(node)]
    assert not found


def test_ruff_is_clean() -> None:
    command = [sys.executable, "-m", "ruff", "check", "--quiet", "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, "\n" + done.stdout + done.stderr


def test_mypy_is_clean() -> None:
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, "\n" + done.stdout + done.stderr


def test_the_installed_names_belong_to_gridseal_alone() -> None:
    owners = importlib.metadata.packages_distributions()
    if "gridseal" not in {owner for names in owners.values() for owner in names}:
        needs.missing("gridseal as an installed distribution", "./gridseal test")
    for package in PACKAGES:
        assert set(owners.get(package, ())) == {"gridseal"}, package
    assert "gridseal" not in owners.get("tests", ())
    scripts = importlib.metadata.entry_points(group="console_scripts", name="gridseal")
    assert {script.value for script in scripts} == {"deploy.cli:main"}


def test_what_we_depend_on_is_what_was_chosen() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options"]["install_requires"].splitlines()
    chosen = {re.split(r"[<>=]", line)[0] for line in lines if line and not line.startswith("#")}
    assert chosen == {"pymodbus", "pyserial", "paho-mqtt", "cbor2", "cryptography", "starlette", "uvicorn",
                      "jinja2"}
    assert all("<" in line for line in lines if line and not line.startswith("#")), "a next major release may break us"
    assert len((ROOT / "pyproject.toml").read_text().splitlines()) == 3


def test_the_lock_pins_contents_and_names_no_registry() -> None:
    text = (ROOT / "tests" / "micropython" / "package-lock.json").read_text()
    packages = {name: entry for name, entry in json.loads(text)["packages"].items() if name}
    assert packages and all(entry["integrity"].startswith("sha512-") for entry in packages.values())
    assert "http" not in text and "resolved" not in text


def test_data_files_are_installed_with_the_code() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = setup["options.package_data"]["*"].split()
    data = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()
            and path.suffix not in (".py", ".pyc", ".md")]
    assert [str(path.relative_to(ROOT)) for path in data if f"**/*{path.suffix}" not in patterns] == []
