"""Gives every test its interpreters and printed seeds, and a run one loud line about what was skipped."""

from collections import Counter
from collections.abc import Generator

import hypothesis
import pytest

from tests import needs
from tests.micropython.interpreter import micropython  # noqa: F401  a fixture for every room

# No deadline: two cores are shared with other work. print_blob: a failure prints the line that repeats it.
hypothesis.settings.register_profile("house", deadline=None, print_blob=True)
hypothesis.settings.load_profile("house")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One loud line: how many tests were skipped because something is missing, and what installs it."""
    reasons = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", []))
    lacking = {reason: count for reason, count in reasons.items() if reason.startswith(needs.MISSING)}
    if lacking:
        each = "; ".join(f"{count} x {reason.removeprefix(needs.MISSING)}" for reason, count in lacking.items())
        total = sum(lacking.values())
        terminalreporter.write_line(f"!!! {total} TESTS SKIPPED, something is missing: {each}", bold=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.CallInfo[None], None]:
    """Where vectors are required, a test of theirs that is skipped for whatever reason has failed."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.skipped and needs.are_vectors_required():
        if report.nodeid.startswith("tests/vectors/") or "vector" in _reason(report).lower():
            report.outcome = "failed"


def _reason(report: pytest.TestReport) -> str:
    """Why a test was skipped; pytest keeps (file, line, "Skipped: why")."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")
