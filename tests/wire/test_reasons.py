"""Checks that every reason the code refuses with is in the numbered list: boards carry no list to ask at run time."""

import ast

from firmware.wire.reasons import REASONS
from tests.house.rooms import modules


def literals(tree: ast.AST) -> list[str]:
    """The reasons of Refused("...") and check(condition, "..."), where they stand there as text."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Refused", "check"):
            at = 0 if node.func.id == "Refused" else 1
            if len(node.args) > at and isinstance(reason := node.args[at], ast.Constant):
                found.append(str(reason.value))
    return found


def test_every_reason_in_the_code_is_in_the_list() -> None:
    found = {path: literals(ast.parse(path.read_text())) for path in modules()}
    unknown = {f"{path.name}: {reason}" for path, reasons in found.items() for reason in reasons
               if reason not in REASONS}
    assert not unknown
    assert sum(map(len, found.values())) > 200, "the search still finds what it is for"
