"""The trader's file and its plans: what they mean, and that a mistake is told by file, line, key and what was meant."""

from pathlib import Path

import pytest

from deploy.trading import plans, quotes, table4
from deploy.trading.settings import load_settings
from gateway.config import ConfigError
from gateway.market.rules import Tariff

DAY_S = 1_781_913_600  # 2026-06-20T00:00Z
GOOD = '''ledger = "data"
until = "2026-06-21T00:00Z"
[[participant]]
folder = "la1"
point = 1
plan = "table4:LA1"
[[participant]]
folder = "mill"
name = "the mill"
point = 5
side = "sell"
flow = "GU"
form = 2
order_before_s = 7200
[[participant.fixed]]
from_hour = 8
to_hour = 10
wh = 2000
price_mc = 41000
[[participant.fixed]]
wh = 100
price_mc = 39000
'''


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "trade.toml"
    path.write_text(text)
    return path


def test_a_good_file(tmp_path: Path) -> None:
    found = load_settings(write(tmp_path, GOOD))
    assert (found.ledger, found.from_s, found.until_s) == (tmp_path / "data", 0, DAY_S + 86_400)
    first, second = found.participants
    assert (first.name, first.side, first.folder, first.point) == ("la1", "buy", tmp_path / "la1", 1)
    assert (second.name, second.side, second.form, second.order_before_s) == ("the mill", "sell", 2, 7200)
    wishes = [second.plan(DAY_S + hour * 3600, None) for hour in (7, 8, 9, 10)]
    assert wishes == [(100, 39000), (2000, 41000), (2000, 41000), (100, 39000)]


def test_the_papers_plan() -> None:
    """Bids by eq. 5, the microgrid's residual at the feed-in price; hour 0 at 00:00 UTC."""
    for name in table4.BUYERS:
        side, plan = plans.of_table4(name)
        for hour in range(24):
            assert side == "buy" and plan(DAY_S + hour * 3600, None) == (
                table4.expected_wh(hour)[name], table4.bids_mc(hour)[name])
    side, plan = plans.of_table4("MG")
    assert side == "sell" and plan(DAY_S + 9 * 3600, None) == (97_300, 38_000)


@pytest.mark.parametrize(("old", "new", "line", "key", "words"), [
    ('point = 1', 'pint = 1', 5, "participant[1].pint", "did you mean point"),
    ('point = 5', 'point = "5"', 10, "participant[2].point", "a whole number"),
    ('table4:LA1', 'table4:LA9', 6, "participant[1].plan", "LA1, LA2, LA3, MG"),
    ('table4:LA1', 'xls:a.xls', 6, "participant[1].plan", "table4:NAME or csv:FILE"),
    ('table4:LA1', 'csv:none.csv"\nside = "buy', 6, "participant[1].plan", "a file that can be read"),
    ('plan = "table4:LA1"', '', 3, "participant[1].plan", "either a plan or rows"),
    ('side = "sell"\n', '', 7, "participant[2].side", "one of buy, sell"),
    ('side = "sell"', 'side = "seller"', 11, "participant[2].side", "one of buy, sell"),
    ('point = 1\n', 'point = 1\nside = "sell"\n', 6, "participant[1].side", "buy"),
    ('"the mill"', '"la1"', 9, "participant[2].name", "each name once"),
    ('"2026-06-21T00:00Z"', '"tomorrow"', 2, "until", "Unix seconds or a time"),
    ('to_hour = 10', 'to_hour = 25', 17, "participant[2].fixed[1].to_hour", "from 1 to 24"),
    ('ledger = "data"\n', '', 0, "ledger", "a replica's data folder"),
])
def test_mistakes(tmp_path: Path, old: str, new: str, line: int, key: str, words: str) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ConfigError) as found:
        load_settings(path)
    assert (found.value.line, found.value.key) == (line, key), str(found.value)
    assert words in str(found.value) and str(path) in str(found.value)


def test_a_file_without_participants(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="participant"):
        load_settings(write(tmp_path, 'ledger = "data"\n'))


def test_a_csv_with_prices_and_default_quotes(tmp_path: Path) -> None:
    path, tariff = tmp_path / "plan.csv", Tariff(periods=[[0, 24, 102_500]], buyback=38_000)
    path.write_text("slot,wh,price_mc,all_wh\n2026-06-20T08:00Z,43250,40000,\n1781946000,43250,,173380\n"
                    "2026-06-20T10:00Z,0,1,\n")
    plan = plans.of_csv(path, "buy")
    assert plan(DAY_S + 8 * 3600, None) == (43250, 40000)
    quoted = quotes.order_price(43250, 173380, 102_500, 38_000)
    assert plan(DAY_S + 9 * 3600, tariff) == (43250, quoted) and quoted == 50_200, "LA1 at 09:00 of Table 4"
    assert plan(DAY_S + 9 * 3600, None) is None, "no tariff, no default quote"
    assert plan(DAY_S + 10 * 3600, tariff) is None and plan(DAY_S, tariff) is None
    path.write_text("slot,wh\n2026-06-20T08:00Z,43250\n")
    assert plans.of_csv(path, "sell")(DAY_S + 8 * 3600, tariff) == (43250, 38_000), "not below the feed-in price"


@pytest.mark.parametrize(("text", "line"), [
    ("slot,wh,prize\n", 1), ("slot,price_mc\n", 1), ("slot,wh,price_mc\nnoon,1,1\n", 2),
    ("slot,wh,price_mc\n0,1,1\n3600,-1,1\n", 3), ("slot,wh,price_mc\n0,1,\n", 2), ("slot,wh,price_mc\n0,,1\n", 2),
])
def test_a_csv_with_mistakes(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "plan.csv"
    path.write_text(text)
    with pytest.raises(ConfigError) as found:
        plans.of_csv(path, "buy")
    assert found.value.line == line
