"""`market report` over a day that a real ledger has settled: twenty households on a feeder, a ring, a large seller."""

import json
import random
from pathlib import Path

import pytest

from deploy import cli
from gateway.ledger.ledger import Ledger
from gateway.market import records
from tests.contracts.settling import Area
from tests.ledger.world import key
from tests.market.test_surveillance import households

HOUSES, TRANSFORMER, THIEF = 20, 21, 7
FEEDER = f"{TRANSFORMER}:" + ",".join(str(point) for point in range(1, HOUSES + 1))


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the ledger; house 7 reports a tenth less than it draws, the transformer's meter sees 2 % losses."""
    folder = tmp_path_factory.mktemp("day")
    owners = {point: f"house {point}" for point in range(1, HOUSES + 1)} | {TRANSFORMER: "grid"}
    area = Area(folder, list(owners), owners)
    loads = households(random.Random(2026), HOUSES)
    energies = {point: [(wh * 9 // 10 if point == THIEF else wh, 0) for wh in row] for point, row in loads.items()}
    energies[TRANSFORMER] = [(sum(row[at] for row in loads.values()) * 51 // 50, 0) for at in range(24)]
    for at in range(3):
        for seller, buyer in ((1, 2), (2, 3), (3, 1)):
            area.trade(area.first_s + at * 3600, buyer, seller, 50_000, 1000)
    for buyer, wh in ((4, 700), (5, 200), (6, 100)):
        area.trade(area.first_s + 5 * 3600, buyer, 8, 50_000, wh)
    assert set(area.block()) == {"accepted"}
    area.run_day(energies)
    area.ledger.close()
    return folder


def report(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(["market", "report", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_day(day: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = report(capsys, "--data", str(day), "--feeder", FEEDER, "--json")
    found = json.loads(out)
    assert (code, found["slots"], found["trades"], found["wh"]) == (0, 24, 12, 10_000)
    ring, = found["rings"]
    kids = [key(f"house {point}").kid.hex() for point in (1, 2, 3)]
    first = kids.index(min(kids))
    assert ring == {"owners": kids[first:] + kids[:first], "flows": [3000] * 3, "trades": 9, "share": 1000}
    slot = found["concentration"]["slots"][-1]
    assert (slot["seller"], slot["seller_share"], slot["wh"]) == (key("house 8").kid.hex(), 1000, 1000)
    assert (slot["buyer"], slot["buyer_share"]) == (key("house 4").kid.hex(), 700)
    assert [row["seller_share"] for row in found["concentration"]["slots"][:3]] == [333] * 3
    assert found["concentration"]["period"]["seller_share"] == 300
    one, rest = found["feeders"]  # the slots begin an hour or two after local midnight
    assert (one["feeder"], one["slots"] + rest["slots"]) == (TRANSFORMER, 24) and rest["best"] is None
    assert one["deviation_wh"] == one["supplied_wh"] - one["members_wh"] > 0
    assert one["best"]["is_named"] and (one["best"]["point"], one["best"]["direction"]) == (THIEF, "import")
    assert 90 <= one["best"]["share"] <= 110

    code, out, _ = report(capsys, "--data", str(day), "--feeder", FEEDER)
    assert code == 0 and "wash trades: 1 ring of owners" in out and kids[0] in out
    assert f"POINT {THIEF} reports 1" in out and "too little import" in out and "feeder 21:" in out


def test_a_part_of_it(day: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_ledger = Ledger.open(day)
    data = with_ledger.state_value(records.CALENDAR_KEY)
    assert data is not None
    end_s = records.decode_calendar(data).final_s
    with_ledger.close()
    first_s = end_s - 24 * 3600
    code, out, _ = report(capsys, "--data", str(day), "--from", str(first_s + 3600), "--to", str(first_s + 7200),
                          "--json")
    found = json.loads(out)
    assert (code, found["slots"], found["trades"], found["feeders"]) == (0, 1, 3, [])
    assert found["rings"][0]["flows"] == [1000] * 3
    code, out, _ = report(capsys, "--data", str(day), "--from", str(first_s + 6 * 3600))
    assert code == 0 and "no rings" in out and "nothing was traded" in out


@pytest.mark.parametrize("words", ["market report", "market correct", "account leave"])
def test_help_shows_an_example(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([*words.split(), "--help"])
    assert f"example: gridseal {words} " in capsys.readouterr().out


def test_wrong_questions_are_told(day: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--data", str(day)]
    for words, text in (([*at, "--feeder", "21:1,99"], "no point 99"), ([*at, "--period", "2019-01"], "none of this"),
                        ([*at, "--period", "May"], "a month (2026-05)"), (["--data", str(day / "x")], "no ledger"),
                        ([*at, "--tolerance", "1000"], "a tolerance of 0 to 999")):
        code, _, complained = report(capsys, *words)
        assert code == 2 and text in complained, (words, complained)
    for wrong in ("21", "21:", "21:1,1", "21:21", "a:b"):
        with pytest.raises(SystemExit, match="2"):
            report(capsys, *at, "--feeder", wrong)
        assert "as 21:1,2,3" in capsys.readouterr().err
