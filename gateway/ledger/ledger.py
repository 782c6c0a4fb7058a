"""Makes blocks and the next state from decided batches, and keeps both over power cuts; one thread uses a Ledger.

What belongs together is one transaction of the store: block, state, clients' sequences and the sequence number n
stand at the same place after any crash (pbft.md 3.11). A header is computed here by every replica for itself, from its
parent, the batch and the state after it; nobody's word is taken for any of them, and blocks that come from a peer
(`install`) are executed again and must come out the same.

The whole state is in memory beside its table: pairs, buckets and the tree over them. When a transaction fails, memory
is made anew from the store: there is one way to come to it, whatever happened before.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from firmware.crypto.openssl import verify_digest
from firmware.wire import certificate as certificate_codec
from firmware.wire import cose, merkle, seal
from firmware.wire import genesis as genesis_codec
from firmware.wire import header as header_codec
from firmware.wire.errors import Refused, check
from firmware.wire.reasons import NUMBERS
from gateway.contracts import calendar, validators
from gateway.contracts.apply import Result, apply_block
from gateway.contracts.context import MARKED, CheckSignature, is_accepted
from gateway.ledger import audit, block, history, proofs, records, snapshot
from gateway.ledger.envelopes import Envelopes, Pending, Verified
from gateway.ledger.epochs import Epochs
from gateway.ledger.reader import StoredEnvelope
from gateway.ledger.records import Chain, ItemRecord, Link, Place, Position
from gateway.ledger.store import Store, open_store
from gateway.ledger.tree import Draft, StateTree

# Refusals of a leaf that was verified here which say nothing about the seal, only about where a primary put it.
_NOT_FOR_GOOD = (NUMBERS["gap"], NUMBERS["wrong_channel"])


class Outcome(NamedTuple):
    """What executing one sequence number made. For NULL all of the block's fields are None or empty."""

    n: int
    channel: str | None
    height: int | None
    header_hash: bytes | None
    header: bytes | None
    state_root: bytes
    results: list[int]
    items: list[bytes]


class Ledger(Epochs):
    """A replica's ledger; see the module. Questions are Reader's."""

    def __init__(self, store: Store, check_signature: CheckSignature | None):
        super().__init__(store)
        self._stand: Position
        self._tree: StateTree
        self._check_signature = check_signature or self.verify
        self.snapshots: dict[int, snapshot.Snapshot] = {}  # by n, the newest checkpoints executed here
        self._load()

    @classmethod
    def open(cls, folder: Path, genesis: bytes | None = None,
             check_signature: CheckSignature | None = None, address: str = "") -> Self:
        """Opens the ledger in a folder, making it from `genesis` at the first start, and checks it (audit.py).

        address: of a PostgreSQL database that takes the place of the folder's own (store.py).

        Damaged when a record is not what was written; Refused `wrong_chain` for a ledger of another genesis."""
        folder.mkdir(parents=True, exist_ok=True)
        store = open_store(folder, address=address)
        try:
            if store.get("facts", records.GENESIS) is None:
                if genesis is None:
                    raise ValueError("a new ledger is made from a genesis")
                audit.make(store, genesis)
            ledger = cls(store, check_signature)
            if genesis is not None and genesis != ledger.genesis:
                raise Refused("wrong_chain", genesis_codec.chain_id(genesis), ledger.chain_id)
            audit.check_start(ledger)
        except BaseException:
            store.close()
            raise
        return ledger

    # Execution.

    def execute(self, n: int, batch: Sequence | None) -> Outcome:
        """Executes the decided batch (channel, view, time_s, items) of sequence number n; None is NULL.

        n must be the one after the last: ValueError otherwise."""
        if n != self._stand.n + 1:
            raise ValueError(f"{n} executed after {self._stand.n}")
        with self._writing():
            if batch is None:
                self._stand = self._stand._replace(n=n)
                outcome = Outcome(n, None, None, None, None, self._tree.root(), [], [])
            else:
                channel, view, time_s, items = batch
                outcome = self._execute(n, channel, view, time_s, [bytes(item) for item in items])
            self._put_stand()
            self._end_epoch()
        self._take_snapshot()
        return outcome

    def install(self, n: int, blocks: Iterable[tuple[bytes, bytes]], heads: Iterable[Sequence],
                state_root: bytes) -> list[Outcome]:
        """Executes blocks [(block file, certificate or empty), ...] of a peer and comes to stand at n, or at none.

        They come in the order of their execution (with one channel: by height).
        Each must follow our newest of its channel, and come out byte for byte when executed here; a certificate must
        hold, but may be lacking (the last one needed may be our own vote); at the end `heads` and `state_root` (of a
        stable checkpoint: q members signed them, and they prove all below) must be ours. Refused otherwise:
        `wrong_parent`, `wrong_header`, `too_few_signers` and what else block and certificate codecs say, `wrong_state`.
        Blocks that are here already are passed over. Nothing is done for an n that was executed."""
        if n <= self._stand.n:
            return []
        outcomes = []
        with self._writing():
            for data, certificate in blocks:
                outcome = self._install(n, block.decode(data), certificate)
                if outcome is not None:
                    outcomes.append(outcome)
            ours = [tuple(head) for head in self._stand.heads]
            theirs = [tuple(head) for head in heads]
            check(sorted(ours) == sorted(theirs), "wrong_header", theirs, ours)
            check(self._tree.root() == state_root, "wrong_state", state_root, self._tree.root())
            self._stand = self._stand._replace(n=n)
            self._put_stand()
            self._end_epoch()
        self._take_snapshot()
        return outcomes

    def install_state(self, n: int, headers: Sequence[tuple[str, bytes]], heads: Iterable[Sequence],
                      state_root: bytes, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Takes over the state of a stable checkpoint n in one transaction, and goes on from there (snapshot.py).

        `heads` and `state_root` are what q members signed; headers of the heads and the whole root are checked again
        here: Refused `wrong_header`, `wrong_state`. ValueError for an n that was executed."""
        if n <= self._stand.n:
            raise ValueError(f"a state of {n} after {self._stand.n}")
        snapshot.check_headers(headers, list(heads))
        tree = StateTree(pairs)
        check(tree.root() == state_root, "wrong_state", state_root, tree.root())
        record = validators.record_of(Draft(tree))
        epoch = self.epochs[-1]._replace(heights=snapshot.heights_of(headers))
        if record is not None:
            check(record.epoch == epoch.number, "wrong_epoch", epoch.number, record.epoch)
            epoch = epoch._replace(base=record.base)
        base = snapshot.base_of(n, state_root, headers, self.channels)
        with self._writing():
            snapshot.write(self.store, base, tree, self._chains, self._numbers)
            self._stand = snapshot.stand_of(base, self._stand)
            self._put_stand()
            if epoch.number:
                self._put_epochs([*self.epochs[:-1], epoch])
            self._tree = tree
            self._end_epoch()
        self.base = base
        self._load()
        self._take_snapshot()

    def put_certificate(self, channel: str, height: int, certificate: bytes) -> None:
        """Keeps the certificate of a block of ours; ValueError for another's. No fsync: the next durable step takes it
        along, and after a power cut `uncertified` names what has to be asked for again."""
        header = self.header(channel, height)
        found = certificate_codec.decode(certificate)
        if header is None or found.header_hash != header_codec.hash_of(header):
            raise ValueError(f"a certificate of another block than {channel} {height}")
        key = records.block_key(self._channel(channel), height)
        if not self._is_certified(channel, height):
            with self.store.writing(is_durable=False):
                self.store.put("certificates", key, certificate)

    # Envelopes.

    def put_envelopes(self, items: Iterable[Verified]) -> int:
        """Makes verified seals and their readings durable, in one fsync; returns how many were new.

        A seal that is committed already gets its readings if they were missing here (a block fetched from a peer).
        Refused `busy` when too many wait; nothing of this call is kept then."""
        waiting, late, numbers = [], [], self._numbers
        for payload_hash, item in {item.payload_hash: item for item in items}.items():
            facts = item.seal
            number = numbers.get((facts.kid, facts.point))
            if number is not None and facts.height <= self._chains[number].height:
                late.append(item)
            elif self._envelopes.find(payload_hash) is None:
                waiting.append(item)
        late = [item for item in late if self._lacks_readings(item)]
        if waiting or late:
            with self._writing():
                self._envelopes.put(waiting)
                for item in late:
                    self._fill(item)
        return len(waiting) + len(late)

    def pending_envelopes(self) -> Iterator[StoredEnvelope]:
        """The envelopes that are in no block yet, in (kid, point, height) order."""
        return self._envelopes.pending()

    def pending_count(self) -> int:
        """Number of envelopes that are in no block yet."""
        return len(self._envelopes)

    def readings_of(self, payload_hash: bytes) -> list[bytes] | None:
        item = self._envelopes.find(payload_hash)
        return super().readings_of(payload_hash) if item is None else self._envelopes.readings(item)[1]

    def envelope_of(self, payload_hash: bytes) -> bytes | None:
        item = self._envelopes.find(payload_hash)
        return super().envelope_of(payload_hash) if item is None else seal.encode_envelope(
            *self._envelopes.readings(item))

    def give_up_pending(self, key: int) -> bool:
        """Forgets the waiting envelope of that key, which cannot be read any more; False where none waits."""
        with self._writing():
            return self._envelopes.drop_key(key)

    def chain_numbered(self, number: int) -> Chain:
        return self._chains[number]

    # Proofs and checks.

    def prove_items(self, channel: str, height: int, indexes: Sequence[int]) -> proofs.BlockProof:
        """Proof of the leaves `indexes` (1.., the meta is 0) of a certified block; see proofs.py."""
        return proofs.prove_items(self, channel, height, indexes)

    def prove_reading(self, point: int, time_ms: int) -> bytes:
        """The proof file of a reading; see proofs.py."""
        return proofs.prove_reading(self, point, time_ms)

    def check(self) -> None:
        """Reads and executes everything again from the genesis; Damaged names what is not as it was (audit.py)."""
        audit.check_all(self)

    def deadline_s(self) -> int | None:
        """Block time that the chain must not stop short of: the calendar's next duty; None before it runs."""
        return self._deadline_s

    # Reader's questions that memory answers.

    def stand(self) -> Position:
        return self._stand

    def state_value(self, key: bytes) -> bytes | None:
        return self._tree.get(key)

    def _chains_of_point(self, point: int) -> list[tuple[int, Chain]]:
        return [(number, self._chains[number]) for number in reversed(self._numbers_of_point.get(point, ()))]

    # Inside.

    def _load(self) -> None:
        """Makes memory from the store."""
        self._wholes.clear()
        self._read_epochs()
        self._stand = records.decode_position(self._fact(records.POSITION))
        self._tree = StateTree((bytes(key), value) for key, value in self.store.scan("state") if isinstance(key, bytes))
        self._deadline_s = self._next_deadline_s()
        self._chains: dict[int, Chain] = {}
        self._numbers: dict[tuple[bytes, int], int] = {}
        self._numbers_of_point = {}
        for number, data in self.store.scan("chains"):
            assert isinstance(number, int)
            self._note_chain(number, records.decode_chain(data))
        self._envelopes = Envelopes(self.store, self._stand.low_envelope, self._is_waiting)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One durable transaction; when it fails, memory is made anew from what is stored."""
        try:
            with self.store.writing():
                yield
        except BaseException:
            self._load()
            raise

    def _put_stand(self) -> None:
        self.store.put("facts", records.POSITION, records.encode_position(self._stand))

    def _take_snapshot(self) -> None:
        """At a checkpoint: the state as it is now, for peers that are behind."""
        stand = self._stand
        if stand.n % self.parameters["checkpoint_interval"] == 0:
            headers = tuple((channel, self.header(channel, height) or b"") for channel, height, _ in stand.heads)
            kept = sorted({*self.snapshots, stand.n})[-snapshot.KEPT:]
            fresh = {stand.n: snapshot.Snapshot(stand.n, self._tree.freeze(), headers)}
            self.snapshots = {at: {**self.snapshots, **fresh}[at] for at in kept}  # other threads read it

    def _next_deadline_s(self) -> int | None:
        return calendar.next_deadline_s(Draft(self._tree), self._stand.heads[0][1] + 1, self.parameters["slot_s"])

    def _is_waiting(self, kid: bytes, point: int, height: int) -> bool:
        number = self._numbers.get((kid, point))
        return number is None or height > self._chains[number].height

    def _execute(self, n: int, channel: str, view: int, time_s: int, items: list[bytes]) -> Outcome:
        number = self._channel(channel)
        height = self._stand.heads[number][1] + 1
        time_s = max(time_s, self._stand.time_s)  # block time never falls, also over channels
        draft = Draft(self._tree)
        context = self.context(channel, height, time_s, self._stand.heads[number][2])
        results = apply_block(draft, context, items, self._check_signature)
        before = self._tree.apply(draft.changes)
        codes = [result.code for result in results]
        coming = validators.next_set(draft)
        meta = self.meta(channel, height, codes, self._tree.root(),
                         None if coming is None else certificate_codec.member_lists(coming))
        header = header_codec.encode(header_codec.Header(
            header_codec.VERSION, self._stand.heads[number][2], merkle.root([meta, *items]), time_s, view, height))
        header_hash = header_codec.hash_of(header)
        heads = list(self._stand.heads)
        heads[number] = (channel, height, header_hash)
        self._stand = self._stand._replace(n=n, serial=self._stand.serial + 1, state_root=self._tree.root(),
                                           heads=tuple(heads), time_s=time_s)
        self._store_block(records.block_key(number, height), header, meta, items, results)
        for key, value in draft.changes.items():
            if value is None:
                self.store.delete("state", key)
            else:
                self.store.put("state", key, value)
        self._deadline_s = self._next_deadline_s()
        undo = history.undo_of(before)
        if undo is not None:
            self.store.put("undo", self._stand.serial, undo)
        return Outcome(n, channel, height, header_hash, header, self._tree.root(), codes, items)

    def _install(self, n: int, found: block.Block, certificate: bytes) -> Outcome | None:
        header, meta = header_codec.decode(found.header), header_codec.decode_meta(found.meta)
        check(meta.channel in self.channels, "wrong_channel", self.channels, meta.channel)
        _, height, header_hash = self._stand.heads[self._channel(meta.channel)]
        if header.height <= height:
            ours = self.header(meta.channel, header.height)
            check(ours == found.header, "contradiction", ours, found.header)
            return None
        check(header.height == height + 1, "wrong_height", height + 1, header.height)
        check(header.previous == header_hash, "wrong_parent", header_hash, header.previous)
        if certificate:
            epoch = self.epoch_at(meta.channel, header.height)
            certificate_codec.check_certificate(certificate_codec.decode(certificate), found.header,
                                                self.members_of(epoch), epoch, meta.channel, self.chain_id,
                                                verify_digest)
        outcome = self._execute(n, meta.channel, header.view, header.time_s, found.items)
        check(outcome.header == found.header, "wrong_header", outcome.header, found.header)
        if certificate:
            self.store.put("certificates", records.block_key(self._channel(meta.channel), header.height), certificate)
        return outcome

    def _store_block(self, key: int, header: bytes, meta: bytes, items: list[bytes], results: list[Result]) -> None:
        """Writes the block's record and moves its chains on; what waited for it waits no longer."""
        rows: list[ItemRecord] = []
        touched: set[int] = set()
        refused: list[tuple[Pending, int]] = []
        places: dict[bytes, bytes] = {}  # of transactions
        for index, (item, result) in enumerate(zip(items, results, strict=True), 1):
            place = Place(key, index)
            if result.is_transaction and (result.code == 0 or (
                    result.payload_hash not in places and self.transaction_place(result.payload_hash) is None)):
                places[result.payload_hash] = records.encode_place(place)
            waiting = self._envelopes.find(result.payload_hash)
            if result.seal is None or result.record is None:
                if waiting is not None and item[-cose.SIGNATURE_BYTES:] == waiting.signature:
                    refused.append((waiting, result.code))
                rows.append(ItemRecord(item, 0, None))
                continue
            is_kept = waiting is not None and item[-cose.SIGNATURE_BYTES:] == waiting.signature
            link = self._extend_chain(place, result)
            touched.add(link.chain)
            rows.append(ItemRecord(None if is_kept else item, waiting.key if waiting else 0, link))
            self._envelopes.settle(result.payload_hash)
        self.store.put_all("transactions", places.items())
        for number in sorted(touched):
            self.store.put("chains", number, records.encode_chain(self._chains[number]))
        hashes = b"".join(result.payload_hash[:8] for result in results)
        codes = [result.code for result in results]
        self.store.put("blocks", key, records.encode_block(records.BlockRecord(
            header, meta, codes, hashes, rows, self._stand.serial)))
        self._drop_refused(refused)
        for number in sorted(touched):
            chain = self._chains[number]
            self._envelopes.drop_overtaken(chain.kid, chain.point, chain.height)
        self._envelopes.move_straggler()
        self._count(results)

    def _extend_chain(self, place: Place, result: Result) -> Link:
        """The link of an accepted seal; its chain's newest is now there."""
        fields, record = result.seal, result.record
        assert fields is not None and record is not None
        number = self._numbers.get((fields.kid, fields.point))
        if number is None:
            number = len(self._chains) + 1
            chain = Chain(fields.kid, fields.point, 0, 0, Place(0, 0), 0, True)
        else:
            chain = self._chains[number]
        link = Link(number, chain.seals + 1, fields.height, chain.tip, record.lost, history.kept_of(record, fields))
        self._note_chain(number, Chain(chain.kid, chain.point, link.ordinal, fields.height, place, fields.last_ms,
                                       chain.is_ordered and fields.last_ms >= chain.last_ms))
        if link.ordinal % records.STEP == 0:
            step = records.Step(place, fields.height, fields.last_ms, self._stand.serial)
            self.store.put("steps", records.step_key(number, link.ordinal // records.STEP), records.encode_step(step))
        return link

    def _note_chain(self, number: int, chain: Chain) -> None:
        self._chains[number] = chain
        if (chain.kid, chain.point) not in self._numbers:
            self._numbers[chain.kid, chain.point] = number
            self._numbers_of_point.setdefault(chain.point, []).append(number)

    def _drop_refused(self, refused: list[tuple[Pending, int]]) -> None:
        """Removes what waited and was refused for good. A gap may close: a primary that proposed a seal too early, or
        in the wrong channel's batch, does not take it from its agent."""
        for item, code in refused:
            if code not in _NOT_FOR_GOOD:
                self._envelopes.drop(item.payload_hash)

    def _count(self, results: list[Result]) -> None:
        blocks, seals, readings, transactions, refused = self._stand.counts
        marks = list(self._stand.marks)
        for result in results:
            if not is_accepted(result.code):
                refused += 1
            elif result.seal is None:
                transactions += 1
            else:
                seals += 1
                readings += result.seal.count
                for bit in range(records.MARK_BITS if result.code >= MARKED else 0):
                    marks[bit] += (result.code - MARKED) >> bit & 1
        self._stand = self._stand._replace(counts=(blocks + 1, seals, readings, transactions, refused),
                                           marks=tuple(marks), low_envelope=self._envelopes.low())

    def _lacks_readings(self, item: Verified) -> bool:
        place = self.place_of_seal(item.seal.kid, item.seal.point, item.seal.height)
        found = None if place is None else self.seal(place)
        return (found is not None and found.readings is None
                and seal.payload_hash(cose.parse(found.leaf).payload) == item.payload_hash)

    def _fill(self, item: Verified) -> None:
        """Puts the readings of a committed seal beside it."""
        place = self.place_of_seal(item.seal.kid, item.seal.point, item.seal.height)
        assert place is not None
        record = self._block_record(place.block)
        assert record is not None
        record.items[place.leaf - 1] = record.items[place.leaf - 1]._replace(
            envelope=self._envelopes.append(item.leaf, item.readings))
        self.store.put("blocks", place.block, records.encode_block(record))
