"""Makes a new ledger from a genesis, and the verdict whether an old one still is what its blocks say.

Whoever edits the database by hand changes a record under its checksum; whoever computes the checksum anew contradicts
the state root of the newest block; whoever changes that contradicts its certificate (security.md, T39 and T40). The
check at the start takes bounded time, `check_all` executes the whole chain again.
"""

from firmware.crypto.openssl import verify_digest
from firmware.wire import certificate as certificate_codec
from firmware.wire import genesis as genesis_codec
from firmware.wire import header as header_codec
from firmware.wire import merkle
from firmware.wire.errors import Refused
from gateway.contracts import accounts, validators
from gateway.contracts.apply import apply_items
from gateway.contracts.context import BlockContext
from gateway.contracts.registry import apply_genesis
from gateway.ledger import records
from gateway.ledger.damage import Damaged
from gateway.ledger.history import state_of_base
from gateway.ledger.reader import Reader
from gateway.ledger.records import Position
from gateway.ledger.store import Store
from gateway.ledger.tree import Draft, StateTree
from gateway.market.records import account_key, decode_account

START_BLOCKS = 64  # newest blocks of a channel that are read at every start: one checkpoint interval
QUICK_CHECK_BYTES = 256 * 1024 * 1024  # SQLite's own check reads the whole file: some seconds on a card


def make(store: Store, genesis: bytes) -> None:
    """Writes a ledger that stands at its genesis; Refused when the genesis contradicts itself."""
    facts = genesis_codec.decode(genesis)
    tree = first_state(genesis)
    heads = tuple((channel, 0, header_codec.hash_of(genesis_codec.header_zero(genesis, channel)))
                  for channel in facts.channels)
    stand = Position(0, 0, tree.root(), heads, facts.created_s, 1, (0,) * len(records.COUNTS),
                     (0,) * records.MARK_BITS)
    with store.writing():
        store.put("facts", records.FORMAT, bytes((records.FORMAT_VERSION,)))
        store.put("facts", records.GENESIS, genesis)
        store.put("facts", records.POSITION, records.encode_position(stand))
        for key, value in tree.items():
            store.put("state", key, value)


def first_state(genesis: bytes) -> StateTree:
    """The state that a genesis makes: its enrolments and balances, at height 0."""
    facts = genesis_codec.decode(genesis)
    tree = StateTree()
    draft = Draft(tree)
    context = BlockContext(
        facts.channels[0], 0, facts.created_s, facts.parameters, genesis_codec.chain_id(genesis), facts.created_s,
        facts.channels, tuple(member.kid for member in facts.members), verify_digest)
    apply_genesis(draft, context, facts.enrolments, facts.balances)
    tree.apply(draft.changes)
    return tree


def check_start(reader: Reader) -> None:
    """Damaged unless the file is whole, the newest blocks are linked, and the state is the one they name."""
    if reader.store.size_bytes() <= QUICK_CHECK_BYTES:
        reader.store.check()
    version = reader.store.get("facts", records.FORMAT)
    if version != bytes((records.FORMAT_VERSION,)):
        raise Damaged("table facts, format", records.FORMAT_VERSION, version)
    stand = reader.stand()
    tree = StateTree((bytes(key), value) for key, value in reader.store.scan("state") if isinstance(key, bytes))
    newest = "the genesis"
    root = first_state(reader.genesis).root() if stand.serial == 0 else stand.state_root
    for channel, height, header_hash in stand.heads:
        first = reader.base_height(channel) + 1
        check_links(reader, channel, height, header_hash, max(first, height - START_BLOCKS + 1))
        record = reader.block_record(channel, height)
        if record is not None and record.serial == stand.serial:
            newest, root = f"{channel} height {height}", header_codec.decode_meta(record.meta).state_root
    if tree.root() != root:
        raise Damaged(f"table state, {newest}", root, tree.root())


def check_links(reader: Reader, channel: str, height: int, header_hash: bytes, first: int) -> None:
    """Damaged unless the blocks from `height` down to `first` are whole and lead to one another, and every certificate
    that is there is valid."""
    for at in range(height, first - 1, -1):
        place = f"table blocks, {channel} height {at}"
        whole = reader.whole(channel, at)
        if whole is None:
            raise Damaged(place, "a block", None)
        found = header_codec.hash_of(whole.header)
        if found != header_hash:
            raise Damaged(place, header_hash, found)
        named = header_codec.decode_meta(whole.meta)
        expected = reader.meta(channel, at, whole.results, named.state_root, named.next_set)
        if whole.meta != expected:
            raise Damaged(place, expected, whole.meta)
        certificate = reader.certificate(channel, at)
        if certificate is not None:
            check_certificate(reader, channel, at, whole.header, certificate)
        header_hash = header_codec.decode(whole.header).previous
    if first == reader.base_height(channel) + 1:
        below = header_codec.hash_of(reader.header(channel, first - 1) or b"")
        if header_hash != below:
            raise Damaged(f"table blocks, {channel} height {first}", below, header_hash)


def check_certificate(reader: Reader, channel: str, height: int, header: bytes, certificate: bytes) -> None:
    """Damaged unless the certificate is the set's for this header."""
    try:
        epoch = reader.epoch_at(channel, height)
        certificate_codec.check_certificate(certificate_codec.decode(certificate), header, reader.members_of(epoch),
                                            epoch, channel, reader.chain_id, verify_digest)
    except Refused as refusal:
        raise Damaged(f"table certificates, {channel} height {height}", "a certificate", str(refusal)) from refusal


def check_all(reader: Reader) -> None:
    """Damaged unless every record is whole and the chain, executed again from its genesis, comes out the same.

    Takes about as long as executing it did; readings are compared with the seals they stand under."""
    with reader.store.reading():
        reader.store.check()
        check_start(reader)
        stand, first = reader.stand(), reader.base.serial + 1
        tree = first_state(reader.genesis) if first == 1 else state_of_base(reader)
        for channel, height, header_hash in stand.heads:
            check_links(reader, channel, height, header_hash, reader.base_height(channel) + 1)
        order = sorted((records.decode_block(data).serial, key) for key, data in reader.store.scan("blocks"))
        order = [pair for pair in order if pair[0] >= first]  # what a gap cut off is data, no part of this chain
        if [serial for serial, _ in order] != list(range(first, stand.serial + 1)):
            raise Damaged("table blocks", stand.serial, len(order))
        for _, key in order:
            assert isinstance(key, int)
            channel, height = reader.channels[key >> records.CHANNEL_SHIFT], key & ((1 << records.CHANNEL_SHIFT) - 1)
            _check_executed(reader, tree, channel, height)
        if tree.root() != stand.state_root:
            raise Damaged("table facts, position", tree.root(), stand.state_root)
        check_money(tree)


def check_money(tree: StateTree) -> None:
    """Damaged unless all balances are together what was minted: nothing but top-ups and the genesis makes money."""
    balances_mc = sum(decode_account(data).balance_mc for _, data in tree.with_prefix(account_key(b"")))
    minted_mc = accounts.minted_mc(Draft(tree))
    if balances_mc != minted_mc:
        raise Damaged("table state, accounts", minted_mc, balances_mc)


def _check_executed(reader: Reader, tree: StateTree, channel: str, height: int) -> None:
    """Executes a block on `tree` and compares; its seals' readings too."""
    whole = reader.whole(channel, height)
    assert whole is not None, "check_links has read it"
    draft = Draft(tree)
    header = header_codec.decode(whole.header)
    context = reader.context(channel, height, header.time_s, header.previous)
    codes = apply_items(draft, context, whole.leaves, reader.verify)
    tree.apply(draft.changes)
    place = f"table blocks, {channel} height {height}"
    if codes != whole.results:
        raise Damaged(place, codes, whole.results)
    meta = header_codec.decode_meta(whole.meta)
    if tree.root() != meta.state_root:
        raise Damaged(place, meta.state_root, tree.root())
    coming = validators.next_set(Draft(tree))
    if meta.next_set != (None if coming is None else certificate_codec.member_lists(coming)):
        raise Damaged(place, coming, meta.next_set)
    for index in range(1, len(codes) + 1):
        found = reader.seal_at(channel, height, index)
        if found is not None and found.readings is not None and merkle.root(found.readings) != found.seal.root:
            raise Damaged(f"table envelopes, {channel} height {height}, leaf {index}", found.seal.root,
                          merkle.root(found.readings))
