"""A bill is good in both verifiers, and nothing that differs from it is."""

import random
import time

import pytest

from firmware.crypto.openssl import verify_digest
from firmware.wire import cose, seal
from firmware.wire.errors import Refused
from gateway.ledger.bills import export_bill
from gateway.ledger.reader import Reader
from gateway.market import billing, records, rules
from tests.bill import forging, second_verifier
from tests.bill.forging import AFTER, BLOCKS, BORDERS, CHAINS
from tests.bill.month import Month, make_month
from tests.ledger.world import key

MUTATIONS = 1000
SEED = 20261120


@pytest.fixture(scope="module")
def small() -> Month:
    """Three slots, an account that buys in each."""
    return make_month(hours=3)


def product(data: bytes, genesis: bytes) -> int:
    """The product's total; Refused."""
    return billing.check_bill(data, genesis, verify_digest).total_mc


def refused_by_both(data: bytes, month: Month) -> str:
    """The product's reason; fails unless both verifiers refuse."""
    with pytest.raises((second_verifier.Bad, TypeError, ValueError, LookupError, StopIteration, OverflowError,
                        RecursionError)):
        second_verifier.check(data, month.genesis)
    with pytest.raises(Refused) as refusal:
        product(data, month.genesis)
    return str(refusal.value.reason)


def test_a_month_is_good_in_both_and_quick() -> None:
    month = make_month()
    began = time.process_time()
    report = billing.check_bill(month.bill, month.genesis, verify_digest)
    product_s = time.process_time() - began
    assert second_verifier.check(month.bill, month.genesis) == report.total_mc
    second_s = time.process_time() - began - product_s
    settled = [entry for entry in report.entries if entry.kind != records.TOP_UP]
    assert len(settled) == 720  # in hours of little wind the others bid more, and all is the grid's supply
    assert {entry.kind for entry in settled} == {records.TRADE, records.SUPPLY}
    assert not report.doubts and report.signers == 3 and len(report.qualities) == 720
    print(f"\na month, {len(month.bill):,} bytes: product {product_s:.2f} s, second verifier {second_s:.2f} s")
    assert product_s < 1 and second_s < 1


def test_every_account_of_the_area_has_a_good_bill(small: Month) -> None:
    reader = Reader.open(small.area.folder)
    try:
        for name in ("LA1", "LA2", "LA3", "MG", "grid"):
            data = export_bill(reader, key(name).kid, small.area.first_s, small.area.first_s + 3 * 3600)
            report = billing.check_bill(data, small.genesis, verify_digest)
            assert second_verifier.check(data, small.genesis) == report.total_mc
            assert report.total_mc == sum(entry.amount_mc for entry in report.entries) != 0
            assert bool(report.doubts) == (name == "grid")
    finally:
        reader.close()


def test_random_mutations_are_refused_by_both(small: Month) -> None:
    """A bit turned, a byte lost or put in, a cut: three of four outside of the two long lists of hashes."""
    chance = random.Random(SEED)
    fields = forging.fields_of(small)
    lists = [(small.bill.index(part[4]), len(part[4])) for part in (fields[6], fields[AFTER])]
    print(f"\nseed {SEED}")
    for number in range(MUTATIONS):
        at = chance.randrange(len(small.bill))
        while number % 4 and any(start <= at < start + length for start, length in lists):
            at = chance.randrange(len(small.bill))
        changed = bytearray(small.bill)
        kind = chance.choice(("bit", "bit", "bit", "byte", "lost", "more", "cut"))
        if kind == "bit":
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == "byte":
            changed[at] = (changed[at] + chance.randrange(1, 256)) % 256
        elif kind == "lost":
            del changed[at]
        elif kind == "more":
            changed.insert(at, chance.randrange(256))
        else:
            del changed[at:]
        if bytes(changed) != small.bill:
            refused_by_both(bytes(changed), small)


def _file_forgeries(small: Month) -> dict[str, tuple[bytes, str]]:
    """What anybody can do to the file: name -> (file, the product's reason)."""
    def changed(change) -> bytes:
        fields = forging.fields_of(small)
        change(fields)
        return forging.pack(fields)

    def other_key(fields):
        row = fields[BLOCKS][0][5][0]
        row[0] = forging.resigned(small, row[0], "stranger")

    def other_point(fields):
        places = {row[0]: row[2] for row in fields[BORDERS]}
        fields[BORDERS][0][2] = places[4]

    def other_quarter(fields):
        fields[BORDERS][0][2], fields[BORDERS][1][2] = fields[BORDERS][1][2], fields[BORDERS][0][2]

    def moved(fields):
        fields[4], fields[5] = fields[4] + 3600, fields[5] + 3600

    def lighter(fields):
        signed = fields[AFTER][1]
        fields[AFTER][1] = small.area.certificate(fields[AFTER][0], signers=[0, 1])
        assert signed != fields[AFTER][1]

    def spoilt_chain(fields):
        payload = seal.decode(fields[CHAINS][0][2][1])
        fields[CHAINS][0][2][1] = seal.encode(payload._replace(import_wh=(payload.import_wh or 0) + 1))

    def unmarked(fields):
        fields[BLOCKS][0][4][0] = 256 + 4

    def swapped_states(fields):
        fields[6], fields[AFTER] = fields[AFTER], fields[6]

    def foreign_witness(fields):
        payload = fields[AFTER][0]
        fields[11] = [cose.sign1(payload, key("stranger").kid, "witness", small.area.chain_id,
                                 key("stranger").signer.sign_digest)]

    return {
        "a seal signed by another key": (changed(other_key), "not_included"),
        "another point's seal": (changed(other_point), "not_its_point"),
        "borders exchanged": (changed(other_quarter), "wrong_times"),
        "a border left out": (changed(lambda fields: fields[BORDERS].pop(0)), "wrong_proof"),
        "a seal of the chain dropped": (changed(lambda fields: fields[CHAINS][0][2].pop(2)), "gap"),
        "a seal of the chain changed": (changed(spoilt_chain), "wrong_previous"),
        "the chain dropped": (changed(lambda fields: fields[CHAINS].pop(0)), "gap"),
        "the slots moved": (changed(moved), "outside_window"),
        "two of four signers": (changed(lighter), "too_few_signers"),
        "a result code changed": (changed(unmarked), "wrong_digest"),
        "another account named": (changed(lambda fields: fields.__setitem__(3, key("LA2").kid)), "wrong_proof"),
        "before and after exchanged": (changed(swapped_states), "outside_window"),
        "another chain named": (changed(lambda fields: fields.__setitem__(2, bytes(32))), "wrong_chain"),
        "a witness that is none": (changed(foreign_witness), "malformed"),
        "a record hidden": (changed(lambda fields: fields[AFTER][5].pop(0)), "wrong_proof"),
    }


def _cluster_forgeries(small: Month) -> dict[str, tuple[bytes, str]]:
    """What even all replicas together cannot sign: name -> (file, the product's reason)."""
    def trade(found, at=0):
        return forging.entry_of(found, small, records.TRADE, at)

    def dearer(found):
        trade(found)[2] -= 1
        forging.account_of(found, small)[1] -= 1

    def rounded_down(found):
        """Every amount cut instead of rounded: a cent here and there."""
        for at in range(3):
            trade(found, at)[2] -= 1
            forging.account_of(found, small)[1] -= 1

    def unbalanced(found):
        forging.account_of(found, small)[1] -= 100

    def other_price(found):
        found[records.clearing_key(small.area.first_s)][9][0][8] += 1000
        found[records.clearing_key(small.area.first_s)][9][1][8] += 1000
        found[records.clearing_key(small.area.first_s)][9][2][8] += 1000

    def other_tariff(found):
        row = found[records.rules_key("tariff")][0]
        row[3] = rules.make("tariff", {"wheeling": 5000})
        row[2] = rules.digest(row[3])

    def other_tariff_without_hash(found):
        found[records.rules_key("tariff")][0][3] = rules.make("tariff", {"wheeling": 5000})

    def more_energy(found):
        for row in found[records.slot_key(small.area.first_s)][4]:
            if row[0] == 1:
                row[1] += 1000

    def other_meter(found):
        found[records.meter_key(1)][0][0][5] = 2

    def moved_entry(found):
        trade(found)[5] = small.area.first_s + 3600

    def dropped_entry(found):
        account = forging.account_of(found, small)
        last = found.pop(records.entry_key(small.account, account[8]))
        account[8] -= 1
        account[1] -= last[2]

    def unsettled(found):
        found[records.CALENDAR_KEY][2] -= 3600

    def doubled_entry(found):
        account = forging.account_of(found, small)
        copy = list(found[records.entry_key(small.account, account[8])])
        account[8] += 1
        copy[0] = account[8]
        account[1] += copy[2]
        found[records.entry_key(small.account, account[8])] = copy

    return {name: (forging.by_cluster(small, change), reason) for name, change, reason in (
        ("one mc more", dearer, "wrong_amount"), ("another rounding", rounded_down, "wrong_amount"),
        ("a balance without a line", unbalanced, "wrong_amount"), ("another price", other_price, "wrong_amount"),
        ("another tariff", other_tariff, "wrong_amount"),
        ("another tariff under the old hash", other_tariff_without_hash, "wrong_digest"),
        ("more energy", more_energy, "wrong_amount"), ("another ratio", other_meter, "wrong_amount"),
        ("a line in another slot", moved_entry, "wrong_amount"), ("a line dropped", dropped_entry, "wrong_amount"),
        ("a line twice", doubled_entry, "duplicate"), ("a slot not settled", unsettled, "outside_window"))}


def test_forgeries_are_refused_by_both_for_the_right_reason(small: Month) -> None:
    forgeries = {**_file_forgeries(small), **_cluster_forgeries(small)}
    assert len(forgeries) >= 20
    found = {name: refused_by_both(data, small) for name, (data, _) in forgeries.items()}
    assert found == {name: reason for name, (_, reason) in forgeries.items()}


def test_the_forger_changes_nothing_by_itself(small: Month) -> None:
    """A cluster's bill without a lie is good: so it is the lie that is refused."""
    data = forging.by_cluster(small, lambda found: None)
    assert product(data, small.genesis) == second_verifier.check(data, small.genesis)


def test_the_second_verifier_is_short_and_alone() -> None:
    text = open(second_verifier.__file__, encoding="utf-8").read()
    assert text.count("\n") <= 300
    imported = [line.split()[1].split(".")[0] for line in text.splitlines()
                if line.startswith(("import ", "from "))]
    assert set(imported) == {"hashlib", "sys", "cryptography"}
