"""The page and its JSON over a real ledger and real HTTP: shapes, wrong questions, names that are markup."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api import views
from tests.scenarios.page import MARKUP, Page, make_area


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with Page(make_area(tmp_path_factory.mktemp("page") / "area")) as made:
        yield made


def get(page: Page, path: str) -> tuple[int, str, str]:
    """(code, content type, body)"""
    try:
        with urllib.request.urlopen(page.url + path, timeout=10) as answer:
            return answer.status, answer.headers["content-type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["content-type"], error.read().decode()


def get_json(page: Page, path: str) -> dict[str, Any]:
    code, kind, body = get(page, path)
    assert (code, kind) == (200, "application/json"), body
    found: dict[str, Any] = json.loads(body)
    return found


def test_market(page: Page) -> None:
    found = get_json(page, "api/market")
    first_s = page.area.first_s
    assert list(found) == ["is_running", "slot_length_s", "mechanism", "rules", "next_s", "traded_s", "open", "cleared"]
    assert found["mechanism"] == "knn" and found["slot_length_s"] == 3600 and found["is_running"]
    assert found["next_s"] == {"clear": first_s + 4 * 3600, "provisional": first_s + 2 * 3600,
                               "final": first_s + 2 * 3600}
    assert found["open"]["slot_s"] == first_s + 4 * 3600 and found["open"]["books"][0]["best_buy"] == 52_000
    assert found["cleared"]["slot_s"] == first_s + 3 * 3600 and len(found["cleared"]["trades"]) == 1
    old = get_json(page, f"api/market?slot={first_s}")
    assert old["open"] is None and old["cleared"]["wh"] == 7000 and len(old["cleared"]["trades"]) == 2
    assert get_json(page, f"api/market?slot={first_s + 5 * 3600}")["open"]["orders"] == 0


def test_settlement_and_accounts(page: Page) -> None:
    first_s = page.area.first_s
    found = get_json(page, "api/settlement")
    assert found == get_json(page, f"api/settlement?slot={first_s + 3600}")
    assert found["sum_mc"] == 0 and found["status"] == "final" and [row["point"] for row in found["points"]] == [
        1, 2, 3, 4]
    assert set(found["points"][0]) == {
        "point", "account", "import_wh", "export_wh", "quality", "bought_wh", "shortfall_wh", "sold_wh", "surplus_wh",
        "amount_mc"}
    assert get_json(page, f"api/settlement?slot={first_s}")["bought_wh"] == 4200 + 3000, "what was used"
    accounts = get_json(page, "api/accounts")
    assert accounts["sum_mc"] == accounts["minted_mc"] and len(accounts["accounts"]) == 4
    assert set(accounts["accounts"][0]) == {
        "address", "balance_mc", "credit", "scores", "role", "points", "available_mc", "deposit_mc", "held_mc",
        "spent_mc", "earned_mc", "entries", "deposit_free_s"}


def test_devices_and_their_alarms(page: Page) -> None:
    found = get_json(page, "api/devices")
    assert [row["device"] for row in found["devices"]] == ["bay-1", "bay-2"]
    raised, past = found["alarms"]["raised"], found["alarms"]["past"]
    assert [(row["device"], row["outcome"], row["item"], row["kind"], row["offset"]) for row in raised] == [
        ("bay-2", "MISMATCH", "settings", "value", 77)]
    assert raised[0]["since"] and raised[0]["alarm_height"] == found["devices"][1]["alarm_height"]
    assert [(row["device"], row["item"], row["kind"], row["offset"], row["became"]) for row in past] == [
        ("bay-1", "strategy", "truncated", 1000, "MATCH")]
    assert past[0]["since"] < past[0]["until"]
    told = [{"device": "bay-1", "state": "raised", "outcome": "NO_DATA", "item": None, "kind": views.OVERDUE,
             "offset": None, "since": "2026-01-01T00:01:22Z", "height": 13}, {"alarm": "evidence", "state": "raised"}]
    page.shown.changes = {"alarms_raised": told}
    try:
        raised = get_json(page, "api/devices")["alarms"]["raised"]
    finally:
        page.shown.changes = {}
    assert [(row["device"], row["outcome"], row["kind"]) for row in raised] == [
        ("bay-2", "MISMATCH", "value"), ("bay-1", "NO_DATA", "overdue")]


WRONG = ("", "-1", "1e9", "1.0", "0x10", " 1", "1 ", "1\n", "1\x00", "\x00", "٣", "１", "99999999999", "null", "<b>",
         "'", "../../x", "9" * 5000, "1&slot=1", "\ud800")


@pytest.mark.parametrize("path", ["", "api/market", "api/settlement"])
@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_slot_is_told_so(page: Page, path: str, text: str) -> None:
    asked = text if "&" in text else urllib.parse.quote(text.encode("utf-8", "surrogatepass"), safe="")
    code, kind, body = get(page, f"{path}?slot={asked}")
    assert (code, kind) == (400, "application/problem+json"), body
    assert json.loads(body)["detail"] == "a slot is named once, by its start in Unix seconds, at most ten digits"


def test_an_unknown_slot_is_not_found(page: Page) -> None:
    for slot_s in (0, 1, 3600, page.area.first_s - 3600, page.area.first_s + 1, 9_999_999_999):
        assert get(page, f"api/settlement?slot={slot_s}")[0] == 404
        assert get(page, f"api/market?slot={slot_s}")[0] == 404
        code, kind, body = get(page, f"?slot={slot_s}")
        assert code == 200 and "Nothing is settled of this slot." in body and "This slot is not cleared." in body
    assert get(page, f"api/settlement?slot={page.area.first_s + 7200}")[0] == 404


@settings(max_examples=150, deadline=None)
@given(path=st.sampled_from(["", "api/market", "api/settlement", "api/accounts", "api/devices", "api/status"]),
       query=st.one_of(st.binary(max_size=40), st.text("slot=&?%0123456789abf+;#", max_size=30).map(str.encode)))
def test_no_question_breaks_it(page: Page, path: str, query: bytes) -> None:
    code, _, body = get(page, f"{path}?{urllib.parse.quote(query, safe='=&%+;')}")
    assert code in (200, 400, 404), body


class Tags(HTMLParser):
    """Every tag, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_name_stands_for_one_place(page: Page) -> None:
    ids = re.findall(r' id="([^"]+)"', get(page, "")[2])
    assert len(ids) == len(set(ids)) > 30


def test_names_stay_text(page: Page) -> None:
    """Whatever comes from outside: an area's name, refusals, alarms, a correction's reason, a device's finding."""
    plain = Tags()
    plain.feed(get(page, "")[2])
    told = [{"device": MARKUP, "outcome": MARKUP, "item": MARKUP, "kind": views.OVERDUE, "offset": None,
             "since": MARKUP, "height": 1}]
    page.shown.changes = {"area": MARKUP, "kind": MARKUP, "alarms": [MARKUP], "refused": {MARKUP: 1},
                          "time": MARKUP, "header_hash": MARKUP, "chain_id": MARKUP, "alarms_raised": told,
                          "witnesses": {"k": MARKUP, "n": MARKUP, "height": 1}}
    try:
        found = Tags()
        found.feed(get(page, "")[2])
    finally:
        page.shown.changes = {}
    assert not {"img", "svg", "iframe"} & set(found.tags) and found.tags.count("script") == 1
    assert found.tags.count("tr") == plain.tags.count("tr") + 1 and found.text.count(MARKUP) >= 12


def test_numbers_are_whole_ones_in_json_and_exact_on_the_page(page: Page) -> None:
    body = get(page, "")[2]
    for text in ("\u22122.66400", "2.28458", "0.00000", "9\u202f995.53000", "99.993", "3.999", "0.54670"):
        assert text in body, text
    for path in ("api/market", "api/settlement", "api/accounts"):
        assert not [one for one in json.dumps(get_json(page, path)).replace(",", " ").split() if "." in one]


@pytest.mark.parametrize(("made", "wanted"), [
    (views.money_text(0), "0.00000"), (views.money_text(-1), "\u22120.00001"), (views.money_text(None), "–"),
    (views.money_text(10**18 + 7), "10\u202f000\u202f000\u202f000\u202f000.00007"),
    (views.energy_text(1), "0.001"), (views.energy_text(-12_345_678), "\u221212\u202f345.678"),
    (views.credit_text(96_428), "96.428"), (views.zone_text(0), "UTC"), (views.zone_text(-16_200), "UTC\u221204:30"),
    (views.slot_text(1_767_232_800, 3600, 3600), "2026-01-01 03:00–04:00"),
    (views.left_text(7_265, 0), "2:01:05"), (views.left_text(5, 6_000), "0:00:00"), (views.local_text(10**15), ""),
])
def test_texts(made: str, wanted: str) -> None:
    assert made == wanted
