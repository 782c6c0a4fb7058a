"""Header votes: what is worth a signature's check, and when a certificate is there."""

from firmware.wire import certificate
from gateway.consensus.types import Head
from gateway.consensus.votes import HeaderVotes

HEAD, OTHER = (Head("trade", 1, bytes([number]) * 32) for number in (1, 2))
SIGNATURES = [bytes([number]) * 64 for number in range(4)]


def votes() -> HeaderVotes:
    return HeaderVotes(0, 3, 128, ["trade"])


def test_no_more_is_wanted_than_the_own_vote_completes():
    held = votes()
    for sender in (1, 2):
        assert held.wants(HEAD, sender) and not held.add(HEAD, sender, SIGNATURES[sender])
    assert not held.wants(HEAD, 3)
    held.keep(HEAD, b"own")
    assert not held.execute(HEAD)
    certified = held.add(HEAD, 0, SIGNATURES[0])
    assert certified is not None
    assert certificate.decode(certified.certificate).signers == (0, 1, 2)


def test_where_votes_differ_or_the_own_block_does_all_are_wanted():
    held = votes()
    held.add(OTHER, 1, SIGNATURES[1])
    held.add(HEAD, 2, SIGNATURES[2])
    assert held.wants(HEAD, 3)
    held = votes()
    for sender in (1, 2):
        held.add(OTHER, sender, SIGNATURES[sender])
    assert held.wants(HEAD, 3), "one that contradicts the others has to be seen"
    held.execute(HEAD)
    assert held.wants(OTHER, 3) and held.wants(HEAD, 3)
