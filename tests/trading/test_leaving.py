"""A person leaves the market, a slot is corrected: by command, against a real gateway over Mosquitto."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.trading.area import HOUR_S, Area, running

MC = 100_000


@pytest.fixture(scope="module")
def area(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    """A market at 00:00 that stands still between the steps: anna buys, mill sells; no meter sends anything."""
    needs.program("mosquitto")
    with running(tmp_path_factory.mktemp("leaving"), speed=600) as made:
        made.enroll("grid", "grid")
        made.enroll("desk", "dispatcher")
        for point, name in enumerate(("anna", "mill"), 1):
            made.enroll(name)
            made.enroll(f"agent-{point}", point=point, owner=name)
        made.top_up("anna", "100")
        made.publish({"vee": {"provisional_s": 600, "final_s": 1200}})
        yield made


def order(area: Area, name: str, slot_s: int, side: str, point: int) -> tuple[int, dict]:
    return area.type("market", "order", area.home(name), "--slot", str(slot_s), "--side", side, "--wh", "4000",
                     "--price", "0.45", "--point", str(point))


def correct(area: Area, point: int, slot_s: int, *words: str, person: str | None = None) -> tuple[int, dict]:
    who = ["--person", area.home(person)] if person else area.at
    return area.type("market", "correct", str(point), "--slot", str(slot_s), "--reason", "read on site", *words, *who)


def test_leave_and_correct(area: Area) -> None:
    slot_s = int(area.show()["slot_s"])
    assert [order(area, *row)[0] for row in (("anna", slot_s, "buy", 1), ("mill", slot_s, "sell", 2),
                                             ("anna", slot_s + HOUR_S, "buy", 1))] == [0, 0, 0]
    area.good("account", "deposit", area.home("anna"), "2.50", "--grid", area.home("grid"))
    area.run_to(slot_s - 290)
    for words, reason in ((["--point", "2"], "not_its_point"), (["--point", "9"], "unknown_point")):
        code, said = area.type("account", "leave", area.home("anna"), *words)
        assert (code, said["result"]) == (1, reason)
    assert area.type("account", "leave", area.home("desk"))[1]["result"] == "not_permitted"
    said = area.good("account", "leave", area.home("anna"), "--point", "1")
    assert said["result"] == "accepted" and said["point"] == 1
    assert area.type("account", "leave", area.home("anna"))[1]["result"] == "duplicate"
    assert order(area, "anna", slot_s + HOUR_S, "buy", 1)[1]["result"] == "not_permitted"
    shown = area.account("anna")
    assert shown["open"] == [] and (shown["deposit_mc"], shown["deposit_free_s"]) == (250_000, slot_s + HOUR_S)
    assert len(area.show(slot_s)["cleared"]["trades"]) == 1

    area.run_to(slot_s + HOUR_S + 30)
    evidence = Path(area.folder / "photo.jpg")
    evidence.write_bytes(b"register 4711")
    code, said = correct(area, 1, slot_s, "--import", "5000", "--export", "0", "--evidence", str(evidence))
    assert code == 0 and said["evidence"] == hashlib.sha256(b"register 4711").hexdigest()
    assert correct(area, 2, slot_s, "--import", "0", "--export", "3000", person="desk")[0] == 0
    for point, reason in ((2, "duplicate"), (7, "unknown_point")):
        code, said = correct(area, point, slot_s, "--export", "3000")
        assert (code, said["result"]) == (1, reason)
    assert correct(area, 1, slot_s + HOUR_S, "--import", "1")[1]["result"] == "outside_window", "it is not over"
    assert correct(area, 1, slot_s, "--import", "1", person="mill")[1]["result"] == "not_permitted"
    for words, text in (([], "--missing alone"), (["--import", "1", "--missing"], "--missing alone"),
                        (["--import", "1", "--reason", "x" * 201], "--reason: one to 200"),
                        (["--import", "1", "--evidence", "no-such-file"], "no-such-file")):
        code, complained = correct(area, 1, slot_s, *words)
        assert code == 2 and text in complained, (words, complained)
    code, complained = correct(area, 1, slot_s + 7, "--import", "1")
    assert code == 2 and "a multiple of 3600" in complained
    with pytest.raises(SystemExit, match="2"):
        correct(area, 1, slot_s, "--import", "-4")

    area.run_to(slot_s + HOUR_S + 1300)
    settled = area.show(slot_s)["settlement"]
    assert settled["status"] == "final" and settled["sum_mc"] == 0
    assert [(one["import_wh"], one["export_wh"], one["quality"]) for one in settled["points"]] == [
        (5000, 0, "substituted"), (0, 3000, "substituted")]
    shown = area.account("anna")
    assert (shown["deposit_mc"], shown["held_mc"], shown["deposit_free_s"]) == (0, 0, None)
    # 3,000 Wh at 0.45 + 0.02, 2,000 Wh at 0.615
    assert shown["balance_mc"] == 100 * MC - 141_000 - 123_000
    assert correct(area, 1, slot_s, "--import", "4000", "--quality", "measured")[0] == 0
    after = area.account("anna")
    assert after["balance_mc"] - shown["balance_mc"] == 61_500 and after["lines"][-1]["kind"] == "correction"
    report = area.good("market", "report", *area.at, "--feeder", "1:2")
    assert (report["slots"], report["wh"], report["rings"]) == (1, 4000, [])
    assert report["concentration"]["period"]["buyer"] == area.kids["anna"]
    assert report["feeders"][0]["deviation_wh"] == 4000 + 3000, "as if mill, which feeds in, hung behind anna's meter"
    assert after["lines"][-1]["reference"] == "read on site" and area.show(slot_s)["settlement"]["sum_mc"] == 0
