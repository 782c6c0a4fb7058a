"""The page of an area with a market in a real browser: a slot from its gate to its settlement, accounts, witnesses, a
device's alarm; kept fresh while somebody reads it, in any light and size, by keyboard alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware.wire import device as codec
from gateway.api import views
from tests import needs
from tests.scenarios.browser import Browser
from tests.scenarios.page import MARKUP, Page, make_area, report
from tests.scenarios.test_page import CONTRAST, LOOKS

ROWS = "[...document.querySelectorAll('#{} tr')].map((row) => [...row.cells].map((cell) => cell.innerText))"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(needs.browser(), tmp_path_factory.mktemp("browser")) as made:
        yield made


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    browser.errors.clear()
    browser.look(*LOOKS["light"])
    with Page(make_area(tmp_path / "area")) as made:
        yield made
        assert browser.errors == []
        browser.ask("Page.navigate", url="about:blank")  # before there is nobody to answer
    made.area.ledger.close()


def rows(browser: Browser, name: str) -> list[list[str]]:
    return list(browser.value(ROWS.format(name)))


@pytest.mark.parametrize("look", LOOKS)
def test_every_part_in_every_look(page: Page, browser: Browser, tmp_path: Path, look: str) -> None:
    browser.look(*LOOKS[look])
    browser.open(page.url)
    browser.picture(tmp_path / f"market-{look}.png")
    print(f"picture: {tmp_path}/market-{look}.png")
    assert browser.value("document.documentElement.scrollWidth <= window.innerWidth"), "wider than the screen"
    assert browser.value(CONTRAST) >= 4.5, "WCAG 2.2, 1.4.3"
    assert browser.text("#mechanism") == "knn"
    assert [browser.text(f"#{name}") for name in ("price", "reference", "volume", "trades-made", "orders")] == [
        "0.52000", "0.54670", "1.500", "1", "3"]
    assert "2026-01-01 05:00–06:00 UTC+01:00" in browser.text("#market")
    assert len(rows(browser, "trades")) == 1
    settled = rows(browser, "settled")
    assert settled[0][:9] == ["1", "5.125", "0.000", "measured", "3.999", "1.126", "–", "–", "\u22122.66400"]
    assert settled[-1][:1] + settled[-1][2:3] == ["grid", "1.94867"] and len(settled) == 5
    assert browser.text("#sum") == "0.00000"
    assert "2026-01-01 03:00–04:00 UTC+01:00, final in block" in browser.text("#settlement-title")
    ben = next(row for row in rows(browser, "balances") if row[1] == "10\u202f005.97458")
    assert ben[2:4] == ["–", "99.993"], "credit of buying and of selling"
    assert "3 of 4" in browser.text(".tiles") and "light nodes co-signed block" in browser.text(".tiles")
    assert rows(browser, "raised")[0][:5] == ["bay-2", "MISMATCH", "settings", "value", "77"]
    assert rows(browser, "past")[0][:5] == ["bay-1", "MISMATCH", "strategy", "truncated", "1\u202f000"]
    assert browser.text("#alarms") == "bay-2: MISMATCH settings"


def test_it_follows_the_ledger_and_leaves_the_reader_alone(page: Page, browser: Browser) -> None:
    """A slot is cleared, one settled, one device mended and another altered, while somebody reads."""
    browser.open(page.url)
    browser.value("window.isTheSame = true; document.querySelector('#settlement nav a').focus(); 0")
    browser.value("window.kept = document.activeElement; document.querySelector('#settled tr').title = 'x'; 0")
    area = page.area
    area.run_day({point: [(1_000, 0)] for point in (1, 2, 3, 4)}, area.first_s + 2 * 3600, is_final=False)
    area.finish(area.first_s + 2 * 3600)
    report(area, "bay-2", codec.MATCH)
    report(area, "bay-1", codec.NO_DATA)
    page.shown.set_clock(area.now_s)
    page.shown.changes = {"witnesses": {"k": 4, "n": 4, "height": 40}}
    browser.wait_for("document.querySelector('#settlement-title').innerText.includes('2026-01-01 04:00')")
    browser.wait_for("document.querySelector('#alarms').innerText === 'bay-1: NO_DATA'")
    assert rows(browser, "settled")[0][1] == "1.000" and browser.text("#sum") == "0.00000"
    assert [row[0] for row in rows(browser, "past")] == ["bay-2", "bay-1"]
    assert "4 of 4" in browser.text(".tiles")
    assert browser.value("window.isTheSame && document.activeElement === window.kept"), "focus stays where it was"
    assert browser.value("document.querySelector('#settled tr').title") == "", "what the page does not say goes"


def test_the_gates_clock_runs_between_two_answers(page: Page, browser: Browser) -> None:
    """Labels run sixty times faster: the countdown moves by itself, as fast as they do; it stands where they are held,
    and at zero."""
    gate_s = page.area.first_s + 4 * 3600 - 300
    page.shown.changes = {"speed": 60}
    page.shown.set_clock(gate_s - 1000, 60)
    browser.open(page.url)
    browser.value("window.seen = new Set(); new MutationObserver(() => seen.add(document.querySelector("
                  "'[data-until-s]').innerText)).observe(document.body, {subtree: true, characterData: true, "
                  "childList: true}); 0")
    browser.wait_for("seen.size >= 8")
    seen = sorted(browser.value("[...seen]"), reverse=True)
    assert seen[0] < "0:16:40" and all("0:10:00" < one for one in seen[:8]), seen
    page.shown.set_clock(gate_s - 100)
    browser.wait_for("document.querySelector('[data-until-s]').innerText === '0:01:40' && rate === 0")
    assert browser.value("seen.clear(), new Promise((done) => setTimeout(() => done(seen.size), 700))") == 0
    page.shown.set_clock(gate_s + 5)
    browser.wait_for("document.querySelector('[data-until-s]').innerText === '0:00:00'")


def test_by_keyboard_from_slot_to_slot(page: Page, browser: Browser) -> None:
    browser.open(page.url)
    for _ in range(40):  # as many Tabs as it takes, in the page's own order
        press(browser, "Tab")
        if browser.value("document.activeElement.innerText") == "Slot before":
            break
    assert browser.value("getComputedStyle(document.activeElement).outlineStyle") != "none", "one sees where one is"
    press(browser, "Enter")
    browser.wait_for("document.querySelector('#settlement-title')?.innerText.includes('2026-01-01 02:00')")
    assert rows(browser, "settled")[0][4] == "4.200" and browser.text("#volume") == "7.000"
    assert browser.value("[...document.querySelectorAll('.scroll')].every((one) => one.tabIndex === 0)")
    browser.wait_for("document.querySelector('#settlement nav').innerText.includes('Newest')")
    browser.open(f"{page.url}?slot=0")
    assert "Nothing is settled of this slot." in browser.text("#settlement")


def test_markup_in_names_stays_text_also_after_the_script_was_there(page: Page, browser: Browser) -> None:
    told = [{"device": MARKUP, "outcome": MARKUP, "item": None, "kind": views.OVERDUE, "offset": None, "since": MARKUP,
             "height": 1}]
    browser.open(page.url)
    page.shown.changes = {"alarms": [MARKUP], "alarms_raised": told, "refused": {MARKUP: 1}, "area": MARKUP}
    page.area.correct(1, page.area.first_s + 3600, 6_000, 0, reason=MARKUP)
    assert page.area.block() == ["accepted"]
    browser.wait_for("document.querySelector('#refused').innerText.includes('onerror')")
    browser.wait_for("document.querySelector('#settlement').innerText.includes('onerror')")
    for _ in range(2):
        assert browser.text("#refused td") == MARKUP and MARKUP in browser.text("#raised") + browser.text("h1")
        assert browser.value("document.querySelectorAll('img, svg, body script').length") == 0
        browser.open(page.url)


def test_without_an_answer_it_says_so(page: Page, browser: Browser) -> None:
    browser.open(page.url)
    browser.ask("Network.enable")
    offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.ask("Network.emulateNetworkConditions", **offline)
    browser.wait_for("document.querySelector('#link').innerText.startsWith('No answer')")
    assert rows(browser, "settled")
    browser.ask("Network.emulateNetworkConditions", **{**offline, "offline": False})
    browser.wait_for("document.querySelector('#link').innerText === ''")
    browser.errors[:] = [one for one in browser.errors if "ERR_INTERNET_DISCONNECTED" not in one]


def press(browser: Browser, name: str) -> None:
    """A key, down and up."""
    code = {"Tab": 9, "Enter": 13}[name]
    text = {"text": "\r"} if name == "Enter" else {}
    browser.ask("Input.dispatchKeyEvent", type="keyDown", key=name, code=name, windowsVirtualKeyCode=code, **text)
    browser.ask("Input.dispatchKeyEvent", type="keyUp", key=name, code=name, windowsVirtualKeyCode=code)
