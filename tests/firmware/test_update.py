"""Checks boot record and updates: cut anywhere, altered anyhow, the version that was confirmed last is what starts."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware import boot, romfs, update
from firmware.board import linux_slots, slots
from firmware.crypto.openssl import OpenSSLSigner, verify_digest
from firmware.wire import cbor, cose, genesis, identity, transaction
from firmware.wire.errors import Refused
from tests.firmware.nor import Flash, PowerCut
from tests.firmware.world import Chain

SECTORS = boot.SLOT_BYTES // boot.SECTOR_BYTES
CHAIN_ID = hashlib.sha256(b"test chain").digest()
OPERATOR = OpenSSLSigner.from_scalar(hashlib.sha256(b"test operator").digest())
KEYS = {identity.kid_of(OPERATOR.public_key()): OPERATOR.public_key()}
FILES = [("firmware/__init__.mpy", b"one" * 7), ("firmware/agent.mpy", bytes(range(256)) * 20),
         ("firmware/board/esp32.mpy", b"b" * 4096), ("firmware/empty.mpy", b""), ("firmware/z.mpy", b"z" * 3000)]
MOST = 0xFFFFFFFF


class Partition(Flash):
    """The flash of world.py, which reads over the end of a sector as an ESP32 does."""

    def readblocks(self, block: int, buffer: bytearray | memoryview, offset: int = 0) -> None:
        at = block * self.size + offset
        whole = b"".join(self.data[at // self.size:(at + len(buffer)) // self.size + 1])
        buffer[:] = whole[at % self.size:at % self.size + len(buffer)]


def signed(counter: int = 7, model: str = "esp32-4m", files: list[tuple[str, bytes]] = FILES,
           signer: OpenSSLSigner = OPERATOR, chain_id: bytes = CHAIN_ID) -> bytes:
    rows = [(name, len(data), hashlib.sha256(data).digest()) for name, data in files]
    return cose.sign1(update.encode_manifest(model, counter, rows), identity.kid_of(signer.public_key()), "update",
                      chain_id, signer.sign_digest)


def manifest_of(message: bytes) -> update.Manifest:
    return update.Manifest(message, CHAIN_ID, KEYS, verify_digest)


def write(session: update.Session, stream: bytes) -> None:
    while session.offset is not None:
        session.take(session.offset, stream[session.offset:session.offset + session.wanted()])
    session.finish()


def image_of(message: bytes) -> bytes:
    rows = manifest_of(message).names()
    return romfs.index(rows) + message + b"".join(data for _, data in FILES)


def slot_bytes(flash: Flash, slot: int, size: int) -> bytes:
    return b"".join(flash.data[slot * SECTORS:(slot + 1) * SECTORS])[:size]


def old_board(folder: Path) -> tuple[Partition, str, bytes]:
    """A flash with version 5 in slot a, confirmed, and an older one in b."""
    flash = Partition(2 * SECTORS)
    image = romfs.MAGIC + b"the version that runs" * 100
    flash.data[0][:len(image)] = image
    flash.data[SECTORS][:3] = romfs.MAGIC
    path = str(folder / boot.NAME)
    boot.save(path, [1, 0, True, 0, 5, 4, 5, 0, 3])
    return flash, path, image


def test_a_slot_is_laid_out_as_flashing_lays_it_out(tmp_path: Path) -> None:
    flash, path, _ = old_board(tmp_path)
    message = signed()
    write(update.Session(manifest_of(message), slots.RomStore(flash, path, 1)), message + b"".join(
        data for _, data in FILES))
    image = image_of(message)
    assert slot_bytes(flash, 1, len(image)) == image and not flash.overwritten + flash.spoilt
    assert (boot.load(path) or [])[boot.COUNTERS + 1] == 0, "what the slot held before is given up in the record"


def test_power_cuts_anywhere_leave_the_old_version_and_the_same_offer_goes_on(tmp_path: Path) -> None:
    message = signed()
    stream = message + b"".join(data for _, data in FILES)
    flash, path, _ = old_board(tmp_path)
    write(update.Session(manifest_of(message), slots.RomStore(flash, path, 1)), stream)
    units = flash.units
    points = sorted({*range(0, units, units // 70), *range(6), *range(units - 6, units)})
    for point in points:
        flash, path, old = old_board(tmp_path)
        flash.cut_at = point
        with pytest.raises(PowerCut):
            write(update.Session(manifest_of(message), slots.RomStore(flash, path, 1)), stream)
        flash.cut_at = None
        record = boot.load(path)
        assert record is not None and boot.count_start(record) == (0, boot.RUN)
        assert slot_bytes(flash, 0, len(old)) == old
        assert record[boot.COUNTERS + 1] == 0, "nobody goes back to what is being written over"
        session = update.Session(manifest_of(message), slots.RomStore(flash, path, 1))
        resumed = session.offset
        write(session, stream)
        assert slot_bytes(flash, 1, len(image_of(message))) == image_of(message)
        if point > 0.9 * units:
            assert resumed is None or resumed > 0, "it began anew"
    print(f"{len(points)} cut points of {units} units")


@pytest.mark.parametrize("change", range(0, 400, 7))
def test_an_altered_manifest_is_refused(change: int) -> None:
    data = bytearray(signed())
    data[change % len(data)] ^= 1 << change % 8
    with pytest.raises(Refused) as refused:
        manifest_of(bytes(data))
    assert refused.value.reason in ("bad_signature", "malformed", "unknown_signer", "oversize")


def test_who_signs_and_for_what_decides() -> None:
    for message, reason in ((signed(signer=OpenSSLSigner.generate()), "unknown_signer"),
                            (signed(chain_id=bytes(32)), "bad_signature")):
        with pytest.raises(Refused, match=reason):
            manifest_of(message)
    tx = cose.sign1(update.encode_manifest("m", 1, []), next(iter(KEYS)), "tx", CHAIN_ID, OPERATOR.sign_digest)
    with pytest.raises(Refused, match="bad_signature"):
        manifest_of(tx)


@pytest.mark.parametrize("rows", (
    [["firmware/b", 1, bytes(32)], ["firmware/a", 1, bytes(32)]], [["firmware/a", 1, bytes(32)]] * 2,
    [["boot.cbor", 1, bytes(32)]], [["firmware/../key.bin", 1, bytes(32)]], [["firmware/a", -1, bytes(32)]],
    [["firmware/a", 1, bytes(31)]], [["firmware/" + "a" * 60, 1, bytes(32)]], []))
def test_names_that_leave_their_place_are_refused(rows: list[list[object]]) -> None:
    payload = cbor.encode([1, "m", 7, rows])
    with pytest.raises(Refused, match="malformed"):
        manifest_of(cose.sign1(payload, next(iter(KEYS)), "update", CHAIN_ID, OPERATOR.sign_digest))


def test_pieces_that_are_wrong_are_asked_for_again_and_then_given_up(tmp_path: Path) -> None:
    flash, path, old = old_board(tmp_path)
    message = signed()
    stream = bytearray(message + b"".join(data for _, data in FILES))
    stream[len(message) + 3000] ^= 1
    session = update.Session(manifest_of(message), slots.RomStore(flash, path, 1))
    asked: list[int | None] = []
    with pytest.raises(Refused, match="wrong_digest"):
        while session.offset is not None:
            asked.append(session.offset)
            session.take(session.offset, bytes(stream[session.offset:session.offset + session.wanted()]))
    assert asked.count(0) == update.RETRIES + 1 and not boot.holds(flash, 1)
    session.take(0, b"")  # of no use any more, and harmless
    assert slot_bytes(flash, 0, len(old)) == old


def test_what_is_too_large_for_a_slot_is_refused(tmp_path: Path) -> None:
    flash, path, _ = old_board(tmp_path)
    message = signed(files=[("firmware/a.mpy", bytes(boot.SLOT_BYTES - 4096))])
    with pytest.raises(Refused, match="oversize"):
        update.Session(manifest_of(message), slots.RomStore(flash, path, 1))
    assert boot.holds(flash, 1), "nothing was erased"


def test_a_counter_never_falls() -> None:
    update.check_counter(8, 7, 7, 0)
    update.check_counter(9, 7, 7, 8)
    for counter, running, highest, failed in ((7, 7, 7, 0), (6, 7, 7, 0), (8, 5, 9, 0), (8, 7, 7, 8)):
        with pytest.raises(Refused, match="stale_sequence"):
            update.check_counter(counter, running, highest, failed)


def test_the_genesis_names_who_may_sign() -> None:
    people = []
    for role in ("operator", "recovery", "laboratory"):
        signer = OpenSSLSigner.from_scalar(hashlib.sha256(role.encode()).digest())
        kid = identity.kid_of(signer.public_key())
        asked = transaction.Enrolment(signer.public_key(), bytes(32), role, "home", "person", "software")
        people.append(transaction.enrol_body(transaction.encode_enrolment(asked, kid, cose.NO_CHAIN,
                                                                          signer.sign_digest), kid, [], role))
    chain = Chain()
    data = genesis.encode(genesis.Genesis(("trade",), 0, 1, genesis.parameters(), chain.members, people, []))
    keys = [OpenSSLSigner.from_scalar(hashlib.sha256(role).digest()) for role in (b"operator", b"recovery")]
    assert sorted(update.keys_of(data).values()) == sorted(key.public_key() for key in keys)


records = st.tuples(st.sampled_from((0, 1)), st.booleans(), st.integers(0, 200), *[st.integers(0, MOST)] * 4,
                    st.integers(0, 3)).map(lambda row: [1, *row])


@given(records)
def test_a_record_is_cbor_and_reads_back(record: list[int]) -> None:
    data = boot.encode(record)
    assert boot.decode(data) == record and cbor.decode(data) == record
    for cut in range(len(data)):
        assert boot.decode(data[:cut]) is None


@settings(max_examples=200)
@given(st.lists(st.sampled_from(("crash", "good", "update", "bad"))))
def test_whatever_happens_a_version_that_was_confirmed_runs_in_the_end(events: list[str]) -> None:
    """A model of a board: a bad version crashes at each start; safe mode comes by crashes of good versions only."""
    record = boot.fresh(True, False)
    record[boot.COUNTERS] = record[boot.HIGHEST] = 1
    bad: set[int] = set()
    next_counter = 2
    trials = 0
    for event in events:
        highest = record[boot.HIGHEST]
        record = boot.decode(boot.encode(record)) or []
        slot, mode = boot.count_start(record)
        counter = record[boot.COUNTERS + slot]
        trials = trials + 1 if not record[boot.IS_CONFIRMED] else 0
        assert trials <= boot.TRIALS and record[boot.HIGHEST] >= highest
        assert counter not in bad or not record[boot.IS_CONFIRMED]
        if counter in bad or event == "crash":
            continue
        if mode == boot.RUN:
            boot.confirm(record)
            assert record[boot.HIGHEST] == max(highest, record[boot.COUNTERS + record[boot.SLOT]]), "it never falls"
            trials = 0
        if event in ("update", "bad"):
            boot.switch(record, record[boot.SLOT] ^ 1, next_counter, 3)
            if event == "bad":
                bad.add(next_counter)
            next_counter += 1
    for _ in range(boot.TRIALS + 1):
        slot, mode = boot.count_start(record)
    assert record[boot.COUNTERS + slot] not in bad and record[boot.COUNTERS + slot] > 0


def test_after_repeated_crashes_safe_mode_takes_turns_between_the_slots() -> None:
    record = [1, 0, True, 0, 5, 4, 5, 0, 3]
    starts = [boot.count_start(record) for _ in range(11)]
    assert starts == [(0, boot.RUN)] * 5 + [(0, boot.SAFE)] * 3 + [(1, boot.SAFE)] * 3
    boot.confirm(record)
    assert boot.count_start(record) == (0, boot.RUN)


def test_a_folder_is_a_slot_by_the_same_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted and taken up again; what is unpacked is what the manifest measures."""
    message = signed(model="linux")
    stream = message + b"".join(data for _, data in FILES)
    monkeypatch.setattr(linux_slots.FolderStore, "piece_bytes", 4096)
    first = update.Session(manifest_of(message), linux_slots.FolderStore(tmp_path, 1))
    for at in (0, 4096):
        first.take(at, stream[at:at + first.wanted()])
    again = update.Session(manifest_of(message), linux_slots.FolderStore(tmp_path, 1))
    assert again.offset
    write(again, stream)
    target = tmp_path / "slots" / "b"
    assert {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()} == {
        "manifest.cbor": message, **dict(FILES)}
    rows = [[name, len(data), hashlib.sha256(data).digest()] for name, data in FILES]
    assert manifest_of(message).measurement() == hashlib.sha256(cbor.encode(rows)).digest()
