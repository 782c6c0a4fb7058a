"""Finds, in a firmware file's syntax tree, what MicroPython lacks or does otherwise without a word.

The list was made by running 322 probes on four MicroPython versions and CPython. What mpy-cross refuses by itself
(match, positional-only arguments and the like) is named here too, because it says why.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

# Files of firmware that only CPython runs; every other one passes this linter and mpy-cross.
ONLY_CPYTHON = ("board/linux.py", "board/linux_bus.py", "board/linux_clock.py", "board/linux_link.py",
                "board/linux_slots.py", "crypto/openssl.py")

# On an ESP32 board; anything else is imported inside try/except ImportError, with a substitute.
MODULES = frozenset((
    "array", "asyncio", "binascii", "collections", "errno", "esp32", "gc", "hashlib", "io", "json", "machine",
    "micropython", "network", "ntptime", "os", "random", "re", "romvfs", "select", "socket", "ssl", "struct", "sys",
    "time", "vfs"))

NAMES = dict.fromkeys((
    "FileNotFoundError", "FileExistsError", "ConnectionError", "ConnectionResetError", "TimeoutError",
    "PermissionError", "BrokenPipeError", "InterruptedError", "BlockingIOError", "ModuleNotFoundError",
    "RecursionError", "UnicodeDecodeError", "ExceptionGroup", "aiter", "anext", "ascii", "breakpoint", "vars"),
    "does not exist on a board (for I/O errors use OSError)")

ATTRIBUTES = {
    "bit_length": "int has none", "bit_count": "int has none", "hexdigest": "use digest() and binascii",
    "zfill": "str has none", "ljust": "str has none", "rjust": "str has none", "removeprefix": "str has none",
    "removesuffix": "str has none", "casefold": "str has none", "expandtabs": "str has none", "isascii": "absent",
    "maketrans": "str has none", "_replace": "namedtuple has none", "_make": "namedtuple has none",
    "move_to_end": "OrderedDict has none", "cast": "memoryview has none", "release": "memoryview has none",
    "Struct": "struct has none", "truncate": "a file has none", "monotonic": "time has none",
    "perf_counter": "time has none", "fsync": "flush() is the sync on a board", "makedirs": "os has none",
    "environ": "os has none", "__traceback__": "absent", "__cause__": "absent",
    "__annotations__": "absent", "__doc__": "absent", "TaskGroup": "absent", "Queue": "absent", "shield": "absent",
}
MODULE_ATTRIBUTES = {("struct", "error"): "use ValueError", ("os", "replace"): "os.rename replaces",
                     ("hashlib", "new"): "absent", ("time", "time_ns"): "epoch is 2000 there: ask the board"}

NODES: dict[type[ast.AST], str] = {
    ast.Match: "match is absent", ast.TryStar: "except* is absent", ast.Div: "/ makes a float", ast.MatMult: "absent",
    ast.Assert: "mpy-cross -O3 drops asserts: raise Impossible",
}

KEYWORDS = {"to_bytes": "its arguments go by position", "from_bytes": "its arguments go by position",
            "print": None, "sum": "start goes by position", "zip": "strict is absent", "namedtuple": "no defaults"}


def violations(source: str) -> Iterator[tuple[int, str]]:
    """(line, why) of everything in a board's file that a board would take amiss."""
    tree = ast.parse(source)
    optional = {id(node) for attempt in ast.walk(tree) if isinstance(attempt, ast.Try) and _catches_import(attempt)
                for statement in attempt.body for node in ast.walk(statement)}
    for node in ast.walk(tree):
        for why in _of_node(node, id(node) in optional):
            yield getattr(node, "lineno", 0), why


def board_files(firmware: Path) -> list[Path]:
    """Every file of firmware that a board runs."""
    return [path for path in sorted(firmware.rglob("*.py"))
            if path.relative_to(firmware).as_posix() not in ONLY_CPYTHON]


def _catches_import(attempt: ast.Try) -> bool:
    return any(isinstance(handler.type, ast.Name) and handler.type.id == "ImportError" for handler in attempt.handlers)


def _of_node(node: ast.AST, is_optional: bool) -> Iterator[str]:
    for kind, why in NODES.items():
        if isinstance(node, kind) or (isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, kind)):
            yield why
    if isinstance(node, ast.Import | ast.ImportFrom) and not is_optional:
        yield from _of_import(node)
    elif isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
        yield f"{node.value!r}: a board's floats are single"
    elif isinstance(node, ast.Name) and node.id in NAMES:
        yield f"{node.id} {NAMES[node.id]}"
    elif isinstance(node, ast.Attribute):
        if node.attr in ATTRIBUTES:
            yield f".{node.attr}: {ATTRIBUTES[node.attr]}"
        elif isinstance(node.value, ast.Name) and (node.value.id, node.attr) in MODULE_ATTRIBUTES:
            yield f"{node.value.id}.{node.attr}: {MODULE_ATTRIBUTES[node.value.id, node.attr]}"
    elif isinstance(node, ast.Call):
        yield from _of_call(node)
    else:
        yield from _of_syntax(node)


def _of_import(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
    for name in names:
        if name.split(".")[0] not in MODULES and name.split(".")[0] != "firmware":
            yield f"module {name} is on no board"


def _of_call(node: ast.Call) -> Iterator[str]:
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    given = {keyword.arg for keyword in node.keywords}
    if name == "print":
        if "flush" in given:
            yield "print has no flush"
    elif name in KEYWORDS and given:
        yield f"{name}: {KEYWORDS[name]}"
    if name == "from_bytes" and len(node.args) > 2:
        yield "from_bytes ignores signed: use struct"
    if name == "pow" and len(node.args) == 3 and isinstance(node.args[1], ast.UnaryOp):
        yield "pow(a, -1, m) is silently 0"
    if name == "deque" and not node.args:
        yield "deque needs an iterable and a length"
    if name in ("pack", "unpack", "pack_into", "unpack_from", "calcsize") and node.args:
        form = node.args[0]
        if isinstance(form, ast.Constant) and isinstance(form.value, str) and "?" in form.value:
            yield "struct has no '?'"
    mode = node.args[1] if name == "open" and len(node.args) > 1 else None
    if isinstance(mode, ast.Constant) and "x" in str(mode.value):
        yield "open has no mode x"


def _of_syntax(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.arguments) and node.posonlyargs:
        yield "positional-only arguments are absent"
    elif isinstance(node, ast.List | ast.Tuple | ast.Set) and isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
        if any(isinstance(item, ast.Starred) for item in node.elts):
            yield "[*a] is absent"
    elif isinstance(node, ast.Dict) and None in node.keys:
        yield "{**a} is absent"
    elif isinstance(node, ast.ClassDef) and node.keywords:
        yield "class keywords (metaclass=) are absent"
    elif isinstance(node, ast.FunctionDef) and node.name in ("__class_getitem__", "__init_subclass__"):
        yield f"{node.name} is never called"
    elif isinstance(node, ast.AsyncFunctionDef) and any(isinstance(inner, ast.Yield) for inner in ast.walk(node)):
        yield "async generators become plain ones"
    elif isinstance(node, ast.Slice) and node.step is not None:
        yield "slices with a step are absent on str and bytes"
    elif isinstance(node, ast.Delete):
        if any(isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Slice) for target in node.targets):
            yield "del of a slice is absent on bytearray"
