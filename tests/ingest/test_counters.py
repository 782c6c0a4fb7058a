"""Counters and evidence are bounded, and evidence survives a torn end of its file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ingest import counters
from gateway.ingest.counters import Evidence, Flagged, Refusals, decode_evidence, encode_evidence
from gateway.ingest.router import AGENT_BURST, AGENT_PER_S, Allowance

kids = st.binary(min_size=8, max_size=8)
evidence = st.builds(Evidence, kids, st.integers(0, 2**32), st.integers(1, 2**40),
                     st.binary(min_size=32, max_size=32), st.binary(max_size=300))


def test_agents_beyond_the_limit_share_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "COUNTED_AGENTS", 3)
    refusals = Refusals()
    for number in range(10):
        refusals.count(str(number), "fork")
        refusals.count(str(number), "gap")
    assert refusals.by_reason == {"fork": 10, "gap": 10}
    assert refusals.by_agent["1"] == {"fork": 1, "gap": 1}
    assert refusals.by_agent[counters.OTHERS] == {"fork": 7, "gap": 7}
    assert len(refusals.by_agent) == 4


def test_evidence_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    flagged = Flagged()
    made = [Evidence(bytes([number]) * 8, 1, height, bytes(32), b"leaf") for number in range(3) for height in range(99)]
    kept = [found for found in made if flagged.add(found)]
    assert len(kept) == 3 * counters.EVIDENCE_OF_ONE
    assert not flagged.add(kept[0])
    assert flagged.kids() == ["00" * 8, "01" * 8, "02" * 8]
    monkeypatch.setattr(counters, "EVIDENCE", len(kept))
    assert not flagged.add(Evidence(b"another!", 1, 1, bytes(32), b""))


@given(st.lists(evidence, max_size=5), st.integers(0, 400))
def test_evidence_files(made: list[Evidence], cut: int) -> None:
    parts = [encode_evidence(found) for found in made]
    data = b"".join(parts)
    assert decode_evidence(data) == made
    whole = decode_evidence(data[:max(0, len(data) - cut)])
    assert whole == made[:len(whole)]
    assert len(b"".join(parts[:len(whole) + 1])) > len(data) - cut or len(whole) == len(made)


def test_an_allowance_is_a_burst_and_then_a_pace() -> None:
    allowance = Allowance()
    assert sum(allowance.take("a", 0) for _ in range(2 * AGENT_BURST)) == AGENT_BURST
    assert allowance.take("b", 0)
    assert sum(allowance.take("a", 1000) for _ in range(2 * AGENT_BURST)) == AGENT_PER_S
    assert sum(allowance.take("a", 10**9) for _ in range(2 * AGENT_BURST)) == AGENT_BURST
