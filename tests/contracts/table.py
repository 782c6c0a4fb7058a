"""Makes a state in memory and runs items on it, for tests of single rules."""

from collections.abc import Sequence

from firmware.crypto.openssl import verify_digest
from firmware.wire import cose, genesis, state
from firmware.wire.reasons import REASONS
from gateway.contracts.apply import apply_items
from gateway.contracts.context import MARKED, MARKS, BlockContext
from gateway.ledger.audit import first_state
from gateway.ledger.tree import StateTree
from tests.ledger.world import START_S, World, key


class Table:
    """A world's state, one block after another; verdicts come as text: "accepted", a reason, or names of marks."""

    def __init__(self, world: World):
        self.world = world
        self.tree: StateTree = first_state(world.genesis)
        self.height = 0
        self.facts = genesis.decode(world.genesis)

    def get(self, key: bytes) -> bytes | None:
        return self.tree.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self.tree.apply({key: value})

    def delete(self, key: bytes) -> None:
        self.tree.apply({key: None})

    def check_signature(self, message: bytes, kind: str, public_key: bytes) -> bool:
        signed = cose.parse(message)
        return verify_digest(public_key, cose.digest(signed.payload, kind, self.world.chain_id), signed.signature)

    def codes(self, items: Sequence[bytes], time_s: int = START_S + 60, channel: str = "trade") -> list[int]:
        self.height += 1
        context = BlockContext(channel, self.height, time_s, self.facts.parameters, self.world.chain_id,
                               self.facts.created_s, self.facts.channels,
                               tuple(member.kid for member in self.facts.members), verify_digest,
                               {member.kid: member.public_key for member in self.facts.members})
        return apply_items(self, context, items, self.check_signature)

    def run(self, *items: bytes, time_s: int = START_S + 60, channel: str = "trade") -> list[str]:
        return [verdict(code) for code in self.codes(items, time_s, channel)]

    def agent(self, name: str) -> state.AgentRecord:
        data = self.get(state.agent_key(key(name).kid))
        assert data is not None
        return state.decode_agent(data)

    def chain(self, name: str, point: int) -> state.ChainRecord:
        data = self.get(state.chain_key(key(name).kid, point))
        assert data is not None
        return state.decode_chain(data)


def verdict(code: int) -> str:
    if code < MARKED:
        return REASONS[code]
    return " ".join(name for bit, name in MARKS.items() if (code - MARKED) & bit)
