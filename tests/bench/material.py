"""Makes agents, their genesis, and what they send, signed beforehand so that only its use is timed."""

from collections.abc import Sequence
from typing import NamedTuple

from firmware.wire import genesis
from tests.ingest.parts import Agent
from tests.ingest.replica import MEMBER, OPERATOR, join, make_genesis

AGENTS = 20  # one point each


class Traffic(NamedTuple):
    """envelopes: (topic, bytes), in the order in which twenty meters would send them: round by round."""

    agents: list[Agent]
    genesis: bytes
    chain_id: bytes
    envelopes: list[tuple[str, bytes]]


def make_traffic(envelopes: int, readings: int = 1) -> Traffic:
    """`envelopes` seals of AGENTS points, with so many readings each."""
    agents = [Agent(number + 1, (number + 1,)) for number in range(AGENTS)]
    join(agents)
    made = make_genesis(agents, Agent(OPERATOR), Agent(MEMBER).signer)
    return Traffic(agents, made, genesis.chain_id(made), make_envelopes(agents, envelopes, readings))


def make_envelopes(agents: Sequence[Agent], count: int, readings: int = 1) -> list[tuple[str, bytes]]:
    """(topic, bytes) of so many envelopes of agents that know their chain, one of each in turn."""
    found = []
    for number in range(count):
        agent = agents[number % len(agents)]
        found.append((agent.topic(), agent.next(agent.points[0], readings)))
    return found


def make_transactions(agents: Sequence[Agent], count: int, after: int = 0) -> list[bytes]:
    """So many signed transactions of the agents in turn, their sequences above `after`. None is permitted to do what it
    asks for; it is verified, ordered, executed and stored all the same."""
    return [agents[number % len(agents)].transaction(sequence=after + 1 + number)
            for number in range(count)]
