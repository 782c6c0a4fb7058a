"""The market by command, against a real gateway over Mosquitto at speed 600: orders, bids, mistakes, a trader."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.clock import SharedClock
from deploy.demo import world
from deploy.operator import Person
from deploy.supervisor import read_list
from deploy.trading import table4
from firmware.wire import ack, cose, seal, trading
from firmware.wire.errors import Refused
from gateway.ledger.proofs import prove_items
from gateway.ledger.reader import Reader
from tests import needs
from tests.trading.area import DAY_S, HOUR_S, TRADER, Area, process, running, until

SPEED = 600
MC = 100_000


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    """A sealed market at 00:00 that stands still between the tests' steps: anna, bert buy, mill sells, poor is poor."""
    needs.program("mosquitto")
    with running(tmp_path_factory.mktemp("blind"), speed=SPEED) as area:
        area.enroll("grid", "grid")
        area.enroll("lab", "laboratory")
        for point, name in enumerate(("anna", "bert", "mill", "poor"), 1):
            area.enroll(name)
            area.enroll(f"agent-{point}", point=point, owner=name)
        for name in ("anna", "bert"):
            area.top_up(name, "100")
        area.publish({"market": {"mechanism": "blind"}, "tariff": {"buyback": 39_000},
                      "vee": {"provisional_s": 600, "final_s": 1200}})
        yield area


def bid(area: Area, word: str, name: str, slot_s: int, wh: int = 4000, price: str = "0.45") -> tuple[int, dict]:
    what = ["--wh", str(wh), "--price", price] if word != "reveal" else []
    return area.type("market", word, area.home(name), "--slot", str(slot_s), *what)


def sell(area: Area, slot_s: int, wh: int = 5000, price: str = "0.38") -> str:
    return str(area.good("market", "order", area.home("mill"), "--slot", str(slot_s), "--side", "sell", "--wh", str(wh),
                         "--price", price, "--point", "3")["id"])


def next_slot(area: Area) -> int:
    return int(area.show()["slot_s"])


def test_money_needs_both_sides(blind: Area) -> None:
    before = blind.account("anna")
    words = ["account", "deposit", blind.home("anna"), "2.50", "--grid", blind.home("grid")]
    said = blind.good(*words, "--as", "owner")
    assert said["in_force"] is None and [one["side"] for one in said["signed"]] == ["owner"]
    assert blind.account("anna") == before, "one side's wish is none"
    code, said = blind.type(*words, "--as", "owner")
    assert code == 1 and said["signed"][0]["result"] == "duplicate" and said["in_force"] is False
    said = blind.good(*words)
    assert said["in_force"] is True and said["signed"][0]["result"] == "duplicate", "the owner had signed before"
    assert blind.account("anna")["deposit_mc"] - before["deposit_mc"] == 250_000
    blind.good("account", "withdraw", blind.home("anna"), "1.25", "--grid", blind.home("grid"), "--reference", "w-1")
    after = blind.account("anna")
    assert after["balance_mc"] == before["balance_mc"] - 125_000
    assert (after["lines"][-1]["kind"], after["lines"][-1]["reference"]) == ("withdraw", "w-1")
    code, said = blind.type("account", "withdraw", blind.home("anna"), "5000", "--grid", blind.home("grid"),
                            "--reference", "w-2")
    assert code == 1 and said["signed"][-1]["result"] == "insufficient_funds"
    listed = blind.good("account", "show", *blind.at)["accounts"]
    assert {one["address"] for one in listed} == {blind.kids["anna"], blind.kids["bert"]}


def test_what_is_not_allowed_is_told(blind: Area) -> None:
    slot_s = next_slot(blind)
    order = ["market", "order"]
    what = ["--slot", str(slot_s), "--wh", "10", "--price", "0.4"]
    for words, reason in (
            ([*order, blind.home("lab"), *what, "--side", "sell", "--point", "3"], "not_permitted"),
            ([*order, blind.home("anna"), *what, "--side", "sell", "--point", "3"], "not_its_point"),
            ([*order, blind.home("anna"), *what, "--side", "buy", "--point", "1"], "wrong_mechanism"),
            ([*order, blind.home("mill"), *what, "--side", "sell", "--point", "99"], "unknown_point"),
            ([*order, blind.home("mill"), "--slot", str(slot_s + 7), "--wh", "10", "--price", "0.4", "--side", "sell",
              "--point", "3"], "outside_window"),
            ([*order, blind.home("mill"), *what[:-1], "900", "--side", "sell", "--point", "3"], "wrong_price"),
            (["market", "commit", blind.home("anna"), *what], "outside_window"),  # its time has not come
            (["market", "cancel", blind.home("mill"), "ab" * 32], "not_included")):
        code, said = blind.type(*words)
        assert (code, said["result"]) == (1, reason), (words, said)
    code, said = blind.type("account", "top-up", blind.kids["anna"], "5", "--grid", blind.home("bert"), "--reference",
                            "mine")
    assert code == 1 and said["signed"][0]["result"] == "not_permitted"
    for words, text in (
            ([*order, blind.home("mill"), "--slot", "noon", "--wh", "1", "--price", "1", "--side", "sell", "--point",
              "3"], None),
            (["market", "order", str(blind.folder), *what, "--side", "sell", "--point", "3"], "identity.toml"),
            (["market", "reveal", blind.home("anna"), "--slot", str(slot_s + HOUR_S * 9)], "no sealed bid"),
            (["market", "cancel", blind.home("mill"), "zz"], "64 hexadecimal digits"),
            (["market", "show", "--slot", str(slot_s + 7), *blind.at], "a multiple of 3600"),
            (["market", "show", "--data", str(blind.folder)], "holds no ledger"),
            (["account", "top-up", blind.kids["anna"], "5", "--reference", "x"], "nobody to sign"),
            (["account", "show", "anna", *blind.at], "neither 16 hexadecimal digits nor"),
            (["enroll", "approve", blind.home("agent-1"), *blind.at, "--point", "1", "--owner", "nobody"],
             "neither 16 hexadecimal digits nor"),
            (["rules", "publish", "market", "--set", "gat_s=1", *blind.at], "did you mean gate_s?"),
            (["rules", "publish", "markt", *blind.at], "did you mean market?"),
            (["rules", "publish", "--set", "gate_s=1", *blind.at], "NAME=VALUE of one rule set")):
        if text is None:
            with pytest.raises(SystemExit, match="2"):
                blind.type(*words)
            continue
        code, said = blind.type(*words)
        assert code == 2 and text in said, (words, said)
    code, said = blind.type("rules", "publish", "market", "--set", "gate_s=700", *blind.at)
    assert code == 1 and "malformed" in said, "rules that contradict each other are not even sent"


def test_rules_are_amended_from_a_block_on(blind: Area) -> None:
    before = blind.good("rules", "show", "tariff", *blind.at)["rules"][0]
    said = blind.good("rules", "publish", "tariff", "--amend", "--set", "wheeling=2100", *blind.at)["published"][0]
    assert said["version"] == before["version"] + 1 and said["valid_from"] > said["height"]
    after = blind.good("rules", "show", "tariff", "--all", *blind.at)["rules"]
    assert after[-1]["values"] == {**before["values"], "wheeling": 2100} and after[-1]["hash"] == said["hash"]
    assert [one["version"] for one in after] == list(range(1, said["version"] + 1))
    path = blind.folder / "rules.toml"
    path.write_text("[tariff]\nwheeling = 2000\nbuy_back = 1\n")
    code, text = blind.type("rules", "publish", "--file", str(path), *blind.at)
    assert code == 2 and "rules.toml:3: tariff.buy_back" in text and "did you mean buyback?" in text
    path.write_text("[tariff]\nwheeling = 2000\nbuyback = 40000\n")
    said = blind.good("rules", "publish", "--file", str(path), *blind.at)["published"]
    assert [one["name"] for one in said] == ["tariff"]
    assert blind.good("rules", "show", "tariff", *blind.at)["rules"][0]["values"]["buyback"] == 40000
    code, text = blind.type("rules", "publish", "tariff", "--from-height", "1", *blind.at)
    assert code == 1 and text["published"][0]["result"] == "backdated"


def test_a_receipt_proves_its_own_transaction_only(blind: Area) -> None:
    """A gateway that lies says of ours what a block says of another."""
    person = Person.open(Path(blind.home("mill")))
    body = trading.cancel_body(bytes(32))
    sent, other = (cose.parse(person.sign(trading.CANCEL, body, SharedClock(blind.clock[1]))) for _ in range(2))
    with person.line(person.area, person.brokers) as line:
        outcome = line.submit(cose.assemble(*sent))
        with contextlib.closing(Reader.open(blind.data)) as reader:
            place = reader.transaction_place(seal.payload_hash(sent.payload))
            assert place is not None and (outcome.height, outcome.reason) == (place[1], "not_included")
            proof = prove_items(reader, place[0], place[1], [place[2]])
        (item,) = proof.items

        def receipt(signed: cose.Signed, **changes: object) -> bytes:
            made = ack.ItemProof(seal.payload_hash(signed.payload), signed.signature, place[2], item.size, item.path)
            return ack.encode_receipt(ack.Receipt(proof.header, proof.certificate, proof.meta, proof.meta_path,
                                                  proof.results, [made._replace(**changes)]))

        assert line.read(receipt(sent), sent) == outcome
        assert line.read(receipt(sent), other) is None
        for forged, signed in ((receipt(other), other), (receipt(sent, path=[]), sent),
                               (receipt(sent, signature=other.signature), sent), (receipt(sent, size=1), sent)):
            with pytest.raises(Refused, match="not_included"):
                line.read(forged, signed)


def test_a_sealed_slot_with_one_bid_that_is_never_opened(blind: Area) -> None:
    slot_s = next_slot(blind)
    before = {name: blind.account(name) for name in ("anna", "bert")}
    order_id = sell(blind, slot_s)
    blind.good("market", "cancel", blind.home("mill"), order_id)
    assert blind.type("market", "cancel", blind.home("mill"), order_id)[1]["result"] == "not_included"
    order_id = sell(blind, slot_s)
    blind.run_to(slot_s - 890)
    for name, price in (("anna", "0.45"), ("bert", "0.50")):
        assert bid(blind, "commit", name, slot_s, price=price)[0] == 0
    code, said = bid(blind, "commit", "poor", slot_s)
    assert (code, said["result"]) == (1, "insufficient_funds")
    assert bid(blind, "commit", "anna", slot_s)[0] == 0, "the same again is the same transaction"
    code, text = bid(blind, "commit", "anna", slot_s, price="0.46")
    assert code == 2 and "there is a bid already" in text
    book = blind.show(slot_s)["book"]
    assert [one["revealed"] for one in book["bids"]] == [False, False] and book["bids"][0]["price"] is None
    assert [one["id"] for one in book["orders"]] == [order_id]
    assert bid(blind, "reveal", "anna", slot_s)[1]["result"] == "outside_window"
    blind.run_to(slot_s - 590)
    assert bid(blind, "reveal", "anna", slot_s)[0] == 0
    assert bid(blind, "commit", "poor", slot_s)[1]["result"] == "outside_window"
    blind.run_to(slot_s - 300)
    until("the slot is cleared", lambda: blind.show(slot_s)["cleared"] is not None)
    assert bid(blind, "reveal", "bert", slot_s)[1]["result"] == "outside_window"
    code, said = blind.type("market", "order", blind.home("mill"), "--slot", str(slot_s), "--side", "sell", "--wh", "1",
                            "--price", "0.4", "--point", "3")
    assert (code, said["result"]) == (1, "outside_window"), "the gate is closed"
    found = blind.show(slot_s)
    assert found["cleared"]["mechanism"] == "blind" and found["book"] == {"orders": [], "bids": []}
    assert [(one["wh"], one["price"], one["buyer"], one["seller"]) for one in found["cleared"]["trades"]] == [
        (4000, 45_000, blind.kids["anna"], blind.kids["mill"])]
    anna, bert = blind.account("anna"), blind.account("bert")
    assert anna["held_mc"] - before["anna"]["held_mc"] == 4000 * 45_000 // 1000
    assert bert["balance_mc"] - before["bert"]["balance_mc"] == -MC, "the deposit of one currency unit is lost"
    assert bert["lines"][-1]["kind"] == "forfeit" and bert["held_mc"] == before["bert"]["held_mc"]
    assert blind.account("grid")["lines"][-1]["amount_mc"] == MC, "and the grid has it"
    assert found["settlement"] is None
    everybody = blind.good("account", "show", *blind.at)
    assert everybody["sum_mc"] == everybody["minted_mc"] > 0
    again = blind.good("market", "recompute", str(found["cleared"]["height"]), "--data", str(blind.data))
    assert again["verdict"] == "good"


def test_a_trader_killed_between_commit_and_reveal_goes_on(blind: Area) -> None:
    """The broker is killed as well; both are back before the gate."""
    slot_s = next_slot(blind)
    sell(blind, slot_s)
    config = blind.folder / "trade.toml"
    config.write_text(f'ledger = "{blind.data}"\nfrom = {slot_s}\nuntil = {slot_s + 1}\n[[participant]]\n'
                      f'folder = "anna"\npoint = 1\nside = "buy"\n[[participant.fixed]]\nwh = 3000\nprice_mc = 47000\n')
    assert blind.good("market", "trade", str(config), "--check")["participants"][0]["kid"] == blind.kids["anna"]
    note = blind.folder / "anna" / "market" / f"{slot_s}.json"
    log = blind.folder / "trader.log"
    words = ["market", "trade", str(config), "--json", *blind.clock]
    with process(log, *words) as first:
        blind.run_to(slot_s - 850)
        until("it has committed", lambda: note.exists() and _codes(note) == {"commit": 0})
        code, text = bid(blind, "commit", "anna", slot_s + HOUR_S)
        assert code == 1 and "another trader" in text, "a nonce must not be overwritten"
        first.send_signal(signal.SIGKILL)
        first.wait(10)
    nonce = json.loads(note.read_text())["nonce"]
    assert blind.show(slot_s)["book"]["bids"][0]["revealed"] is False
    with process(log, *words) as second:
        os.kill(next(row["pid"] for row in read_list(blind.area) if row["kind"] == "broker"), signal.SIGKILL)
        blind.run_to(slot_s - 580)
        until("it ends, since no slot is left", lambda: second.poll() is not None)
        assert second.returncode == 0
    assert json.loads(note.read_text())["nonce"] == nonce and _codes(note) == {"commit": 0, "reveal": 0}
    (line,) = [json.loads(text) for text in log.read_text().splitlines() if text.startswith("{")]
    assert (line["result"], line["slot_s"], line["price_mc"], line["wh"]) == ("accepted", slot_s, 47_000, 3000)
    assert set(line["steps"]) == {"commit", "reveal"}
    (found,) = blind.show(slot_s)["book"]["bids"]
    assert (found["id"], found["price"], found["wh"]) == (line["id"], 47_000, 3000)
    blind.run_to(slot_s)
    until("the slot is cleared", lambda: blind.show(slot_s)["cleared"] is not None)
    assert [(one["wh"], one["price"]) for one in blind.show(slot_s)["cleared"]["trades"]] == [(3000, 47_000)]


def _codes(note: Path) -> dict[str, int]:
    return {name: step["code"] for name, step in json.loads(note.read_text())["steps"].items()}


def test_a_slot_from_orders_to_settlement(tmp_path: Path) -> None:
    """Two participants' meters, agents and orders; one order by hand, one by a trader that the clock waits for."""
    needs.program("mosquitto")
    buses = [world.Bus(f"agent-{number}", owner, False, 9600, (world.Point(number, 1, "sdm630", f"table4:{day}", 4),))
             for number, owner, day in ((1, "anna", "LA1"), (2, "mill", "MG"))]
    names = ("agent-1", "agent-2", TRADER)
    start_s, slot_s = DAY_S + HOUR_S // 2, DAY_S + HOUR_S
    with contextlib.ExitStack() as held:
        area = held.enter_context(running(tmp_path, speed=SPEED, start_s=start_s, participants=names))
        ports = _start_meters(held, area, buses)
        for name in ("grid", "anna", "mill"):
            area.enroll(name, "grid" if name == "grid" else "participant")
        for bus in buses:
            _start_agent(held, area, bus, ports[bus.name])
        area.top_up("anna", "100")
        area.publish({"tariff": {"periods": [[0, 24, 60_000]], "buyback": 38_000, "wheeling": 2_000},
                      "vee": {"provisional_s": 600, "final_s": 1200}})
        area.good("market", "order", area.home("mill"), "--slot", "2026-06-20T01:00Z", "--side", "sell", "--wh",
                         "165800", "--price", "0.38", "--point", "2")
        config = tmp_path / "trade.toml"
        config.write_text(f'ledger = "{area.data}"\n[[participant]]\nfolder = "anna"\nname = "LA1"\npoint = 1\n'
                          'plan = "table4:LA1"\n')
        log = tmp_path / "trader.log"
        held.enter_context(process(log, "market", "trade", str(config), "--json", *area.clock, "--clock-name", TRADER))
        area.run_to(slot_s + HOUR_S + 1500)
        until("the slot is final", lambda: (area.show(slot_s)["settlement"] or {}).get("status") == "final")
        found, anna, mill = area.show(slot_s), area.account("anna"), area.account("mill")
    first = json.loads(log.read_text().splitlines()[0])
    assert (first["slot_s"], first["result"], first["price_mc"], first["wh"]) == (
        slot_s, "accepted", table4.bids_mc(1)["LA1"], table4.expected_wh(1)["LA1"])
    (trade,) = found["cleared"]["trades"]
    assert (trade["wh"], trade["buyer"], trade["seller"]) == (16_760, area.kids["anna"], area.kids["mill"])
    price = trade["price"]
    assert 38_000 <= price <= table4.bids_mc(1)["LA1"] and found["cleared"]["mechanism"] == "knn"
    used, generated = table4.actual_wh(1)["LA1"], table4.residual_wh(1)
    energies = {one["point"]: one for one in found["settlement"]["points"]}
    assert abs(energies[1]["import_wh"] - used) <= 4 and abs(energies[2]["export_wh"] - generated) <= 4
    assert {one["quality"] for one in energies.values()} == {"measured"}
    (settled,) = found["settlement"]["trades"]
    assert found["settlement"]["sum_mc"] == 0 and (anna["entries"], mill["entries"]) == (2, 1)
    # 004's rule by hand, mc times Wh / 1000: m = min(used, generated), retail 0.6, wheeling 0.02, buyback 0.38
    used, generated = energies[1]["import_wh"], energies[2]["export_wh"]
    assert settled["matched_wh"] == used < generated
    assert abs(settled["buyer_mc"] + used * (price + 2_000) / 1000) <= 1
    assert abs(settled["seller_mc"] - (used * price + (generated - used) * 38_000) / 1000) <= 1
    assert (anna["balance_mc"], mill["balance_mc"]) == (100 * MC + settled["buyer_mc"], settled["seller_mc"])
    assert anna["scores"]["buying"] == mill["scores"]["selling"] == 1


def _start_meters(held: contextlib.ExitStack, area: Area, buses: list[world.Bus]) -> dict[str, str]:
    path, log = area.folder / "meters.toml", area.folder / "meters.log"
    path.write_text(world.simulator_file(area.folder, buses, 1, area.folder / "truth.csv"))
    held.enter_context(process(log, "sim", "meter", "--config", str(path), "--json", *area.clock))
    until("the meters run", lambda: log.read_text().startswith("{") and "\n" in log.read_text())
    facts = json.loads(log.read_text().splitlines()[0])["buses"]
    return {bus.name: "tcp://" + fact["tcp"] for bus, fact in zip(buses, facts, strict=True)}


def _start_agent(held: contextlib.ExitStack, area: Area, bus: world.Bus, port: str) -> None:
    home, point = Path(area.home(bus.name)), bus.points[0]
    area.good("enroll", "request", str(home), *area.at)
    brokers = [(area.area / "broker-0" / "address").read_text().strip()]
    (home / "meter.toml").write_text(world.meter_file("home", brokers, bus, port))
    area.good("enroll", "approve", str(home), *area.at, "--point", f"{point.number}:{point.ratio}/1", "--owner",
              area.home(bus.owner))
    held.enter_context(process(area.folder / f"{bus.name}.log", "meter", "run", str(home), *area.clock, "--clock-name",
                               bus.name))
