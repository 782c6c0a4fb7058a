"""Makes answers about blocks, certificates and the registry from the ledger's tables. Changes nothing.

The lower half of `Reader`; the upper one (reader.py) knows the chains of seals. A block read here has the leaves that
its header names, or is `Damaged`.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from firmware.crypto.openssl import verify_digest
from firmware.wire import certificate as certificate_codec
from firmware.wire import cose, merkle, state
from firmware.wire import genesis as genesis_codec
from firmware.wire import header as header_codec
from firmware.wire.state import AgentRecord, ChainRecord, PointRecord
from gateway.contracts.context import BlockContext
from gateway.ledger import block, records
from gateway.ledger.damage import Damaged
from gateway.ledger.records import BlockRecord
from gateway.ledger.store import Store

WHOLES = 16  # blocks kept in memory: acks ask for the newest ones again and again; 256 KiB each at most


class Whole(NamedTuple):
    """A block put together; hashes: of all leaves, the meta's first."""

    header: bytes
    meta: bytes
    leaves: list[bytes]
    hashes: list[bytes]
    results: list[int]


class Blocks:
    """Questions to one ledger about its blocks and its state; one thread at a time uses an instance."""

    def __init__(self, store: Store):
        """Takes a store that holds a ledger; Damaged when it does not."""
        self.store = store
        self._wholes: OrderedDict[int, Whole] = OrderedDict()
        genesis = self._fact(records.GENESIS)
        self.genesis = genesis
        self.chain_id = genesis_codec.chain_id(genesis)
        facts = genesis_codec.decode(genesis)
        self.channels: tuple[str, ...] = facts.channels
        self.parameters: dict[str, int] = facts.parameters
        self.genesis_members = facts.members
        self.speed: int = facts.speed
        self.created_s: int = facts.created_s
        self._parameters_hash = genesis_codec.parameters_hash(facts.parameters)
        base = store.get("facts", records.BASE)
        self.base = records.Base(0, 0, b"", ()) if base is None else records.decode_base(base)
        self._read_epochs()

    def close(self) -> None:
        self.store.close()

    # Epochs.

    def _read_epochs(self) -> None:
        """Makes what is known of the sets of validators; the genesis' set is epoch 0."""
        data = self.store.get("facts", records.EPOCHS)
        first = records.Epoch(0, 0, (), certificate_codec.member_lists(self.genesis_members), b"", ())
        self.epochs = [first] if data is None else records.decode_epochs(data)
        self._sets = [certificate_codec.decode_members(epoch.rows) for epoch in self.epochs]
        self._set_hashes = [certificate_codec.set_hash(members) for members in self._sets]

    @property
    def epoch(self) -> int:
        """The newest epoch: of the next block."""
        return self.epochs[-1].number

    @property
    def members(self) -> list[certificate_codec.Member]:
        """The newest epoch's set."""
        return self._sets[-1]

    def members_of(self, epoch: int) -> list[certificate_codec.Member]:
        """The set of an epoch."""
        return self._sets[epoch]

    def epoch_at(self, channel: str, height: int) -> int:
        """The epoch of a block; of one to come, the newest."""
        for epoch in reversed(self.epochs):
            if height > dict(epoch.heights).get(channel, -1):
                return epoch.number
        return 0

    # Where the chain stands.

    def stand(self) -> records.Position:
        """The position, read from the store."""
        return records.decode_position(self._fact(records.POSITION))

    def position(self) -> tuple[int, bytes, list[tuple[str, int, bytes]]]:
        """(last executed n, state root, [(channel, height, header hash)])."""
        stand = self.stand()
        return stand.n, stand.state_root, list(stand.heads)

    def height(self, channel: str = "trade") -> int:
        """The height of a channel's newest block, 0 for the genesis."""
        return self.stand().heads[self._channel(channel)][1]

    def base_height(self, channel: str) -> int:
        """The height of a channel's newest block in the state that was fetched; 0 where all was executed here."""
        return max((header_codec.decode(data).height for name, data in self.base.headers if name == channel), default=0)

    def counts(self) -> dict[str, int]:
        """Numbers of blocks, accepted seals, their readings, accepted transactions, refused items."""
        return dict(zip(records.COUNTS, self.stand().counts, strict=True))

    # Blocks.

    def block(self, channel: str, height: int) -> bytes | None:
        """The block file, or None where there is none (also at height 0, which has no leaves of its own)."""
        whole = self.whole(channel, height)
        return None if whole is None else block.encode(whole.header, whole.meta, whole.leaves)

    def whole(self, channel: str, height: int) -> "Whole | None":
        """A block with its leaves and their hashes, or None; Damaged unless they are those that its header names."""
        key = records.block_key(self._channel(channel), height)
        if key in self._wholes:
            self._wholes.move_to_end(key)
            return self._wholes[key]
        record = self._block_record(key)
        if record is None:
            return None
        leaves = [self._leaf(record, index) for index in range(1, len(record.items) + 1)]
        hashes = [merkle.leaf_hash(leaf) for leaf in (record.meta, *leaves)]
        header, found = header_codec.decode(record.header), merkle.root_of_hashes(hashes)
        if found != header.root or header.height != height:
            raise Damaged(f"table blocks, {channel} height {height}", header.root, found)
        whole = Whole(record.header, record.meta, leaves, hashes, record.results)
        self._wholes[key] = whole
        if len(self._wholes) > WHOLES:
            self._wholes.popitem(last=False)
        return whole

    def forget_block(self, key: int) -> None:
        """The block's record was made again: what is kept of it in memory goes."""
        self._wholes.pop(key, None)

    def header(self, channel: str, height: int) -> bytes | None:
        """The 80 bytes of a header, or None."""
        if height == 0:
            return genesis_codec.header_zero(self.genesis, channel)
        for name, data in self.base.headers:
            if name == channel and header_codec.decode(data).height == height:
                return data
        record = self.block_record(channel, height)
        return None if record is None else record.header

    def results(self, channel: str, height: int) -> list[int] | None:
        """The result codes of a block's items, or None."""
        record = self.block_record(channel, height)
        return None if record is None else record.results

    def certificate(self, channel: str, height: int) -> bytes | None:
        """The certificate of a block, or None while it has none here."""
        return self.store.get("certificates", records.block_key(self._channel(channel), height))

    def blocks(self, channel: str, first: int, count: int, max_bytes: int) -> list[tuple[bytes, bytes]]:
        """[(block file, certificate), ...] from height `first` on, as many as fit; for a peer. The certificate is empty
        where it is missing here: who knows a proven head above can check the block by its links."""
        found: list[tuple[bytes, bytes]] = []
        size = 0
        for height in range(max(first, 1), first + count):
            data, certificate = self.block(channel, height), self.certificate(channel, height) or b""
            if data is None:
                break
            size += len(data) + len(certificate)
            if found and size > max_bytes:
                break
            found.append((data, certificate))
        return found

    def uncertified(self, channel: str = "trade", limit: int = 128) -> list[int]:
        """Heights whose certificate is missing here among the newest `limit`; after a power cut some may be."""
        top = self.height(channel)
        return [height for height in range(max(self.base_height(channel) + 1, top - limit + 1), top + 1)
                if not self._is_certified(channel, height)]

    def _is_certified(self, channel: str, height: int) -> bool:
        try:
            return self.certificate(channel, height) is not None
        except Damaged:
            return False  # as good as none: another one is asked for

    # Registry.

    def state_value(self, key: bytes) -> bytes | None:
        """The value of a key in the replicated state, or None."""
        return self.store.get("state", key)

    def agent(self, kid: bytes) -> AgentRecord | None:
        data = self.state_value(state.agent_key(kid))
        return None if data is None else state.decode_agent(data)

    def point(self, number: int) -> PointRecord | None:
        data = self.state_value(state.point_key(number))
        return None if data is None else state.decode_point(data)

    def chain(self, kid: bytes, point: int) -> ChainRecord | None:
        data = self.state_value(state.chain_key(kid, point))
        return None if data is None else state.decode_chain(data)

    def agents(self) -> list[tuple[bytes, AgentRecord]]:
        """Everything enrolled, also revoked, as (kid, record), by kid."""
        prefix = state.agent_key(b"")
        return [(key[len(prefix):], state.decode_agent(value)) for key, value in self.state_with(prefix)]

    def points(self) -> list[PointRecord]:
        """All metering points, by number."""
        return [state.decode_point(value) for _, value in self.state_with(b"point/")]

    # What execution and its check have in common.

    def verify(self, message: bytes, kind: str, public_key: bytes) -> bool:
        """Tells whether a message of our form is signed by a key, for this chain."""
        signed = cose.parse(message)
        return verify_digest(public_key, cose.digest(signed.payload, kind, self.chain_id), signed.signature)

    def context(self, channel: str, height: int, time_s: int, previous_hash: bytes) -> BlockContext:
        """What the contracts may know of a block."""
        epoch = self.epoch_at(channel, height)
        keys = {member.kid: member.public_key for member in self._sets[epoch]}
        return BlockContext(channel, height, time_s, self.parameters, self.chain_id, self.created_s, self.channels,
                            tuple(keys), verify_digest, keys, previous_hash, self._sets[epoch], epoch,
                            self.epochs[epoch].base)

    def meta(self, channel: str, height: int, codes: Sequence[int], state_root: bytes,
             next_set: list | None = None) -> bytes:
        """Leaf 0 of a block with these result codes; next_set: of the next epoch, once it is in force."""
        epoch = self.epoch_at(channel, height)
        own = self._set_hashes[epoch]
        named = own if next_set is None else certificate_codec.set_hash(certificate_codec.decode_members(next_set))
        return header_codec.encode_meta(header_codec.Meta(
            header_codec.VERSION, channel, self.chain_id, epoch, height, len(codes),
            header_codec.results_hash(codes), state_root, own, named, next_set, self._parameters_hash))

    # Ways through the tables.

    def _fact(self, key: int) -> bytes:
        data = self.store.get("facts", key)
        if data is None:
            raise Damaged(f"table facts, key {key}", "a record", None)
        return data

    def _channel(self, channel: str) -> int:
        if channel not in self.channels:
            raise ValueError(f"this chain has no channel {channel}")
        return self.channels.index(channel)

    def state_with(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The pairs of the replicated state whose key begins with `prefix`, by key."""
        for key, value in self.store.scan("state", prefix):
            assert isinstance(key, bytes)
            if not key.startswith(prefix):
                return
            yield key, value

    def block_record(self, channel: str, height: int) -> BlockRecord | None:
        """A block's record, or None."""
        return self._block_record(records.block_key(self._channel(channel), height))

    def _block_record(self, key: int) -> BlockRecord | None:
        data = self.store.get("blocks", key)
        return None if data is None else records.decode_block(data)

    def _leaf(self, record: BlockRecord, index: int) -> bytes:
        item = record.items[index - 1]
        return item.leaf if item.leaf is not None else self._envelope(item.envelope)[0]

    def _envelope(self, key: int) -> tuple[bytes, list[bytes]]:
        data = self.store.get("envelopes", key)
        if data is None:
            raise Damaged(f"table envelopes, key {key}", "a record", None)
        return records.decode_envelope(data)
