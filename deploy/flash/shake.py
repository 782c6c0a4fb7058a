"""Makes sources for a board out of ours by leaving out what nothing on a board uses, as a linker does with sections.

A wire file has both halves of a format, and gateways need more of it than a board, where each name costs RAM.
Statements at the top of a module are kept if a kept statement names them, from the roots on: functions, classes, plain
assignments and imports go, everything else stays. A module whose name is handed on as a value stays whole, for then
nobody can tell what is used of it; so do tables that are imported by a name made at run time.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

WHOLE = "firmware.meters."  # tables: imported by names that are put together


def shaken(sources: Mapping[str, str], roots: Iterable[str]) -> dict[str, str]:
    """{module: source} of what the roots need of {module: source}; roots are kept whole."""
    house = {name: _Module(name, text, sources) for name, text in sources.items()}
    waiting = [(name, statement) for name in roots for statement in house[name].statements]
    for name, module in house.items():
        if name.startswith(WHOLE):
            waiting += [(name, statement) for statement in module.statements]
        waiting += [(name, statement) for statement in module.statements if not module.can_go(statement)]
    while waiting:
        name, statement = waiting.pop()
        if statement in house[name].kept:
            continue
        house[name].kept.add(statement)
        for other, used in house[name].uses(statement):
            house[other].asked.add(used)
            waiting += [(other, found) for found in house[other].statements
                        if used is None or used in house[other].defined(found)]
    return {name: module.text() for name, module in house.items()}


def module_name(path: Path) -> str:
    """firmware.wire.cbor for .../firmware/wire/cbor.py."""
    parts = path.with_suffix("").parts
    parts = parts[len(parts) - 1 - parts[::-1].index("firmware"):]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_empty(text: str) -> bool:
    """Tells whether nothing but its docstring is left of a source."""
    return all(isinstance(statement, ast.Expr) for statement in ast.parse(text).body)


class _Module:
    """One source, its statements, and what each of them names."""

    def __init__(self, name: str, text: str, sources: Mapping[str, str]) -> None:
        self.name, self.lines, self.sources = name, text.splitlines(), sources
        tree = ast.parse(text)
        self.statements = tree.body
        self.kept: set[ast.stmt] = set()
        self.asked: set[str | None] = set()  # names that kept statements, of any module, take from here
        self.modules: dict[str, str] = {}  # names that stand for modules of ours, wherever they are imported
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if f"{node.module}.{alias.name}" in sources:
                        self.modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def can_go(self, statement: ast.stmt) -> bool:
        return bool(self.defined(statement)) and not isinstance(statement, ast.Try | ast.If)

    def defined(self, statement: ast.stmt) -> set[str]:
        """The names that a statement gives to the module."""
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            return {statement.name}
        if isinstance(statement, ast.Assign):
            return {node.id for target in statement.targets for node in ast.walk(target) if isinstance(node, ast.Name)}
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            return {statement.target.id}
        if isinstance(statement, ast.Import | ast.ImportFrom):
            return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
        return set()

    def uses(self, statement: ast.stmt) -> Iterator[tuple[str, str | None]]:
        """(module, name) of all that a statement names; None: all of that module."""
        bases = {id(node.value) for node in ast.walk(statement) if isinstance(node, ast.Attribute)}
        own = self.defined(statement) if isinstance(statement, ast.FunctionDef | ast.ClassDef) else set()
        for node in ast.walk(statement):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in self.modules:
                yield self.modules[node.value.id], node.attr
            if isinstance(node, ast.Name) and node.id not in own:
                yield self.name, node.id
                if node.id in self.modules and id(node) not in bases:
                    yield self.modules[node.id], None
            if isinstance(node, ast.ImportFrom) and node.module in self.sources and node is not statement:
                for alias in node.names:
                    yield str(node.module), alias.name
        if isinstance(statement, ast.ImportFrom) and statement.module in self.sources:
            for alias in statement.names:
                if (alias.asname or alias.name) not in self.modules:
                    yield str(statement.module), alias.name

    def text(self) -> str:
        """The source without what is not kept; lines stay where they are."""
        named = {used for statement in self.kept if not isinstance(statement, ast.Import | ast.ImportFrom)
                 for other, used in self.uses(statement) if other == self.name} | self.asked
        lines = list(self.lines)
        for statement in self.statements:
            end = statement.end_lineno or statement.lineno
            if statement not in self.kept:
                lines[statement.lineno - 1:end] = [""] * (end - statement.lineno + 1)
            elif isinstance(statement, ast.Import | ast.ImportFrom):
                statement.names = [alias for alias in statement.names
                                   if None in named or (alias.asname or alias.name.partition(".")[0]) in named
                                   ] or statement.names
                lines[statement.lineno - 1:end] = [ast.unparse(statement)] + [""] * (end - statement.lineno)
        return "\n".join(lines) + "\n"
