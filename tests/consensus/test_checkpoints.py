"""Stable checkpoints: a liar's words count once, and its first one is in nobody's way."""

from gateway.consensus.checkpoints import KEPT, Checkpoints
from gateway.consensus.messages import Checkpoint
from gateway.consensus.types import Head


def said(sender: int, root: bytes = b"t", n: int = 4) -> Checkpoint:
    return Checkpoint(n, root * 32, (Head("trade", n, root * 32),), sender)


def test_q_equal_ones_of_distinct_members() -> None:
    held = Checkpoints(3)
    assert held.add(said(0), b"0") is None
    assert held.add(said(0), b"0") is None and held.add(said(1, b"f"), b"1") is None
    assert held.add(said(2), b"2") is None
    stable = held.add(said(3), b"3")
    assert stable is not None and stable.holders == (0, 2, 3) and stable.proof == (b"0", b"2", b"3")


def test_a_proof_with_a_liars_second_word() -> None:
    """Seed 20019: member 0 said one thing here and another to those who made the proof; they were gone to the next
    epoch, and nobody was left who could have said it without member 0."""
    held = Checkpoints(3)
    assert held.add(said(3), b"own") is None and held.add(said(0, b"f"), b"false") is None
    assert held.add(said(0), b"0") is None
    stable = held.add(said(2), b"2")
    assert stable is not None and stable.holders == (0, 2, 3)


def test_a_liar_fills_its_own_place_alone() -> None:
    held = Checkpoints(3)
    for n in range(4, 400, 4):
        held.add(said(0, n=n), b"far")
        held.add(said(0, b"f", n=n), b"and otherwise")
    assert len(list(held.of(0))) == KEPT
    held.add(said(1), b"1")
    held.add(said(2), b"2")
    assert held.add(said(3), b"3") is not None
