"""Says which room may import which, and what a pure room may not touch: the house on one page.

A module belongs to the longest name in the table that it begins with. Within its room it imports what it likes; of
the rest of ours, what its row begins with, and nothing else. `node` and `deploy` may import all; nothing imports them
(deploy holds the command line, so deploy alone starts a node).
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("firmware", "gateway", "sim_hardware", "deploy")

DIRECTIONS: dict[str, tuple[str, ...]] = {
    # the meter agent: nothing of ours outside itself
    "firmware.wire": (),  # sign and verify are handed in as functions
    "firmware.crypto": (),
    "firmware.meters": ("firmware.schedule", "firmware.tables"),
    "firmware.board": ("firmware",),
    "firmware.main": ("firmware",),
    "firmware.boot": ("firmware.board",),  # hands over to the slot it has mounted
    "firmware": ("firmware.wire", "firmware.crypto", "firmware.meters"),
    # the gateway: of firmware the contract and the signers, no more
    "gateway.ingest": ("firmware.wire", "firmware.crypto"),
    "gateway.consensus": ("firmware.wire", "firmware.crypto.signer"),  # a batch is opaque bytes here
    "gateway.market": ("firmware.wire",),  # integers only: every replica computes the same
    "gateway.dispatch": ("firmware.wire",),  # judges with nothing but bytes and records; pulls over Modbus
    "gateway.contracts": ("firmware.wire", "firmware.crypto", "gateway.market", "gateway.dispatch"),
    "gateway.ledger": ("firmware.wire", "firmware.crypto", "gateway.contracts", "gateway.market",
                       "gateway.ingest.verify"),
    "gateway.api": ("firmware.wire",),  # sees views of the state, handed in
    "gateway.node": ("firmware.wire", "firmware.crypto", "gateway"),
    # what joins the rooms: driver, stores, peers, configuration
    "gateway": ("firmware.wire", "firmware.crypto", "gateway.consensus", "gateway.ingest", "gateway.ledger",
                "gateway.dispatch", "gateway.market", "gateway.api.views"),
    # an error in a register table shared with the agent would cancel itself out
    "sim_hardware": (),
    "deploy": ("firmware", "gateway", "sim_hardware"),
}

# The codec imports these of the standard library and itself, nothing else.
WIRE_MODULES = ("struct", "hashlib", "binascii", "collections", "micropython", "firmware.wire")

# Pure: values in, values or duties out. Rooms and files, then what in them does I/O or owns a thread.
PURE = ("firmware", "gateway.consensus", "gateway.contracts", "gateway.market", "gateway.dispatch", "gateway.ingest",
        "gateway.ledger.block", "gateway.ledger.tree", "gateway.api.views")
NOT_PURE = ("firmware.main", "firmware.boot", "firmware.romvfs", "firmware.board", "firmware.crypto.openssl",
            "gateway.ingest.evidence", "gateway.ingest.mqtt", "gateway.ingest.pulse", "gateway.ingest.stream",
            "gateway.ingest.storing", "gateway.ingest.ingest", "gateway.ingest.checker", "gateway.dispatch.pull")
# Clocks, chance, files, sockets, threads, processes and logs come in from outside or not at all.
IMPURE_MODULES = ("time", "random", "secrets", "socket", "ssl", "select", "selectors", "threading", "asyncio",
                  "concurrent", "multiprocessing", "subprocess", "os", "io", "pathlib", "tempfile", "sqlite3",
                  "logging", "paho", "aiomqtt", "pymodbus", "serial", "uvicorn", "starlette", "machine", "network")
IMPURE_CALLS = ("open", "print", "input", "now", "utcnow", "today")


def module_name(path: Path) -> str:
    """firmware/wire/cbor.py -> firmware.wire.cbor; a package is its own name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> list[Path]:
    """Every module of the distribution."""
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def begins(name: str, beginnings: tuple[str, ...]) -> bool:
    """Is the dotted name one of these, or inside one?"""
    return any(name == beginning or name.startswith(beginning + ".") for beginning in beginnings)


def room_of(name: str) -> str:
    """The longest row that the name begins with, or "" for what is not ours."""
    return max((room for room in DIRECTIONS if begins(name, (room,))), key=len, default="")


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything imported, wherever it stands; `from a import b` is a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, "." * node.level + (node.module or "") + "." + alias.name


def wrong_directions(name: str, tree: ast.AST) -> Iterator[str]:
    """What a module of this name may not import."""
    room = room_of(name)
    for line, target in imports(tree):
        if target.startswith("."):
            yield f"{name}:{line} imports {target}: say the whole name"
        elif room_of(target) not in ("", room) and not begins(target, DIRECTIONS[room]):
            yield f"{name}:{line} imports {target}, and {room} may import {DIRECTIONS[room] or 'nothing of ours'}"
        elif target.split(".")[0] == "tests":
            yield f"{name}:{line} imports {target}, and tests are not installed"
        elif room == "firmware.wire" and not begins(target, WIRE_MODULES):
            yield f"{name}:{line} imports {target}, and the codec imports {WIRE_MODULES} only"


def impurities(name: str, tree: ast.AST) -> Iterator[str]:
    """What a module of this name takes from the world by itself, if it is a pure one."""
    if not begins(name, PURE) or begins(name, NOT_PURE):
        return
    for line, target in imports(tree):
        if begins(target, IMPURE_MODULES):
            yield f"{name}:{line} imports {target}, and is pure"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if called in IMPURE_CALLS and (isinstance(node.func, ast.Name) or called in IMPURE_CALLS[3:]):
                yield f"{name}:{node.lineno} calls {called}, and is pure"
