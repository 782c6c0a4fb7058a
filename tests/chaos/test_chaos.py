"""A short run of each kind of trouble, and what the watch would say of a cluster that breaks its word."""

from pathlib import Path

import pytest

from tests import needs
from tests.chaos import wires
from tests.chaos.__main__ import make_parser, play, problems_of


@pytest.fixture(autouse=True)
def root() -> None:
    if not wires.may():
        needs.missing("root and network namespaces", "sudo ./gridseal test")


@pytest.mark.soak
def test_some_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.chaos.__main__.HOLD_S", (3, 4))
    words = ["--minutes", "0.3", "--no-stall", "--seed", "11", "--faults", "partition,liar,disk", "--json"]
    report = play(make_parser().parse_args(words), tmp_path)
    assert not problems_of(report), report
    assert sum(report["faults"].values()) >= 2 and report["published"] > 20 and report["acked"] > 20


def test_broken_words_are_told() -> None:
    good = {"forks": [], "lost": [], "longest_pause_s": 2.0, "stalled": True, "resumed_s": 3.0}
    assert not problems_of(good)
    for wrong in ({"forks": ["height 3"]}, {"lost": ["point 1"]}, {"longest_pause_s": 15.1}, {"stalled": False},
                  {"resumed_s": 31}, {"failover_s": {"p99": 5.1}}):
        assert len(problems_of({**good, **wrong})) == 1
