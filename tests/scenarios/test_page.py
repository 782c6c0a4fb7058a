"""The first page of a running area in a real browser: what it shows is what the gateway says, in any light and size."""

from __future__ import annotations

import json
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
import pytest

from deploy.enroll import area_brokers
from deploy.gateway import replica_status
from deploy.supervisor import environment
from firmware.crypto.openssl import OpenSSLSigner
from firmware.wire import identity, topics
from gateway.api import views
from tests import needs
from tests.scenarios.browser import Browser
from tests.scenarios.test_demo import command

LOOKS = {"light": (1200, 900, "light"), "dark": (1200, 900, "dark"), "phone": (390, 844, "light"),
         "phone-dark": (390, 844, "dark")}


@pytest.fixture(scope="module")
def area(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a demo that has played two hours and keeps running."""
    needs.program("mosquitto")
    needs.browser()
    folder = tmp_path_factory.mktemp("page") / "demo"
    words = command(folder, "--hours", "2", "--meters", "6", "--replicas", "1", "--keep-running")
    with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, text=True) as playing:
        try:
            assert playing.stdout is not None
            assert json.loads(playing.stdout.readline())["good"]
            yield folder
        finally:
            playing.terminate()
            playing.wait(60)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(needs.browser(), tmp_path_factory.mktemp("browser")) as made:
        yield made


def home(area: Path) -> Path:
    return area / "area" / "replica-0"


@pytest.mark.slow
@pytest.mark.parametrize("look", LOOKS)
def test_page(area: Path, browser: Browser, tmp_path_factory: pytest.TempPathFactory, look: str) -> None:
    status = replica_status(home(area))
    browser.look(*LOOKS[look])
    browser.errors.clear()
    browser.open(f"http://{status['api']}/")
    path = tmp_path_factory.getbasetemp() / f"page-{look}.png"
    browser.picture(path)
    print(f"picture: {path}")
    assert all(point["power_w"] is not None for point in status["points"]), "single-phase meters have a power, too"
    for field in ("power_w", "height", "readings", "refused_total"):
        shown = browser.text(f"[data-field={field}]")
        assert int("".join(sign for sign in shown if sign.isdigit())) == abs(status[field]), (field, shown)
    assert browser.value("document.querySelectorAll('#points tr').length") == 6
    assert browser.value("document.documentElement.scrollWidth <= window.innerWidth"), "wider than the screen"
    assert browser.value(CONTRAST) >= 4.5, "WCAG 2.2, 1.4.3"
    assert browser.errors == []


def cells(browser: Browser) -> list[list[str]]:
    """Text, class and markup of every cell."""
    return list(browser.value("""[...document.querySelectorAll('td')]
        .map((one) => [one.textContent, one.className, one.innerHTML])"""))


@pytest.mark.slow
def test_market_witnesses_and_devices(area: Path, browser: Browser) -> None:
    """What the demo has traded, settled, co-signed and found, as the API says it."""
    api = f"http://{replica_status(home(area))['api']}/"
    browser.look(*LOOKS["light"])
    browser.open(api)
    market, settled, accounts, devices = (json.load(urllib.request.urlopen(f"{api}api/{name}", timeout=10))
                                          for name in ("market", "settlement", "accounts", "devices"))
    assert browser.text("#mechanism") == market["mechanism"] == "knn"
    assert settled["sum_mc"] == 0 and settled["bought_wh"] == settled["sold_wh"] > 0 and settled["trades"]
    assert [browser.text(f"#{name}") for name in ("sum", "turnover", "bought", "surplus")] == [
        "0.00000", views.money_text(settled["turnover_mc"]), views.energy_text(settled["bought_wh"]),
        views.energy_text(settled["surplus_wh"])]
    amounts = [views.money_text(one["amount_mc"]) for one in [*settled["points"], settled["grid"]]]
    assert browser.value("[...document.querySelectorAll('#settled tr')].map((row) => row.cells[row.cells.length - 2]"
                         ".innerText)") == amounts
    assert accounts["sum_mc"] == accounts["minted_mc"] > 0
    assert browser.value("document.querySelectorAll('#balances tr').length") == len(accounts["accounts"])
    witnesses = replica_status(home(area))["witnesses"]
    assert 0 < witnesses["k"] <= witnesses["n"]
    browser.wait_for(f"document.querySelector('[data-field=witnesses]').innerText === "
                     f"'{witnesses['k']} of {witnesses['n']}'")
    past = devices["alarms"]["past"][-1]
    assert (past["outcome"], past["item"] is not None, devices["alarms"]["raised"]) == ("MISMATCH", True, [])
    found = browser.value("[...document.querySelector('#past').lastElementChild.cells].map((cell) => cell.innerText)")
    assert found[:5] == [past["device"], past["outcome"], past["item"], past["kind"], views.number_text(past["offset"])]


@pytest.mark.slow
def test_the_script_mends_what_differs(area: Path, browser: Browser) -> None:
    """Numbers, dashes, times and their places are the same before and after the page refreshes itself."""
    browser.look(*LOOKS["light"])
    browser.open(f"http://{replica_status(home(area))['api']}/")
    before, tiles = cells(browser), browser.text(".tiles")
    assert len(before) > 6 * 7
    browser.value("document.querySelector('#points').firstElementChild.remove()")
    browser.wait_for("document.querySelectorAll('#points tr').length === 6")
    assert cells(browser) == before
    assert browser.text(".tiles") == tiles


@pytest.mark.slow
def test_refusals_appear_by_themselves(area: Path, browser: Browser) -> None:
    """An agent sends nonsense: the open page says so, by reason, without being loaded again."""
    browser.look(*LOOKS["light"])
    browser.open(f"http://{replica_status(home(area))['api']}/")
    assert "malformed" not in browser.text("#refused")
    browser.value("window.isTheSame = true")
    send_nonsense(area)
    browser.wait_for("document.querySelector('#refused').innerText.includes('malformed')")
    browser.wait_for("document.querySelector('[data-field=refused_total]').innerText === '1'")
    assert browser.value("window.isTheSame")


def send_nonsense(area: Path) -> None:
    """As the first agent, with its own certificate, on its own topic."""
    agent = area / "agent-1"
    kid = identity.kid_of(OpenSSLSigner.load(agent / "signing.key").public_key())
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="nonsense")
    client.tls_set(str(agent / "ca.crt"), str(agent / "tls.crt"), str(agent / "tls.key"),
                   tls_version=ssl.PROTOCOL_TLS_CLIENT)
    address = urlsplit(area_brokers(area / "area")[0])
    client.connect(address.hostname or "", address.port or 0)
    client.loop_start()
    client.publish(topics.agent_topic("demo", kid, "envelope"), b"nonsense", qos=1).wait_for_publish(20)
    client.disconnect()
    client.loop_stop()


# The least contrast of any text with what is behind it (relative luminance of WCAG 2.2).
CONTRAST = """
(() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => parts(colour).slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if ((parts(colour)[3] ?? 1) > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let least = 21;
  while (walker.nextNode()) {
    if (!walker.currentNode.data.trim()) continue;
    const one = walker.currentNode.parentElement;
    const pair = [light(getComputedStyle(one).color), light(behind(one))].sort((a, b) => b - a);
    least = Math.min(least, (pair[0] + 0.05) / (pair[1] + 0.05));
  }
  return least;
})()
"""
