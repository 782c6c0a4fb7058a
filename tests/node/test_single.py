"""Checks one replica alone (n = 1, the same code): page and API over real HTTP, kill -9, wrong starts."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from html.parser import HTMLParser

import pytest

from deploy.operator import check_receipt
from firmware.crypto.openssl import verify_digest
from firmware.wire import ack, certificate, cose, header, merkle, seal, transaction
from gateway.api.app import is_own_name
from tests.node.cluster import ENVIRONMENT, Cluster, committed, until


@pytest.fixture(scope="module")
def area(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("area"), 1)
    try:
        cluster.start()
        cluster.enrol(1, 2).publish(5)
        cluster.wait_seals(10)
        yield cluster
    finally:
        cluster.stop()


def get_json(area, path):
    code, body, headers = area.get(0, path)
    assert code == 200, body
    assert headers["content-type"] == "application/json"
    return json.loads(body)


def test_status_has_what_the_contract_names(area):
    shown = get_json(area, "/api/status")
    assert shown == get_json(area, "/status") | {key: shown[key] for key in (
        "now_ms", "time", "lag_ms", "lag_s", "bytes_written", "brokers", "votes_bytes", "votes_written")}
    assert (shown["index"], shown["view"], shown["is_primary"], shown["active"]) == (0, 0, True, True)
    assert (shown["readings"], shown["seals"], shown["transactions"]) == (10, 10, 1)
    assert shown["certified_height"] == shown["height"] > 0 and shown["n"] == shown["height"]
    assert shown["pid"] == area.processes[0].pid
    assert shown["bytes_written"] > 0 and shown["votes_bytes"] > 0
    assert shown["kind"] == "One signer: tamper-evident, not Byzantine."
    assert [one["url"] for one in shown["brokers"]] == [area.broker_url]
    points = {one["point"]: one for one in shown["points"]}
    assert set(points) == {1, 2}
    assert points[2]["power_w"] == 232 and points[2]["import_wh"] == 1005 and points[2]["export_wh"] == 0
    assert points[2]["kid"] == area.meters[0].kid.hex() and points[2]["height"] == 5


def test_block_has_the_bytes_that_a_verifier_wants(area):
    top = get_json(area, "/api/status")["height"]
    seals = []
    previous = header.hash_of(area.ledger(0).header("trade", 0))
    for height in range(1, top + 1):
        shown = get_json(area, f"/api/v1/blocks/{height}")
        raw = bytes.fromhex(shown["header"])
        certificate.check_certificate(certificate.decode(bytes.fromhex(shown["certificate"])), raw,
                                      area.genesis.members, 0, "trade", area.chain_id, verify_digest)
        assert header.decode(raw).previous == previous and shown["height"] == height and shown["signers"] == [0]
        previous = header.hash_of(raw)
        seals += [one for one in shown["items"] if one["kind"] == "seal"]
    places = sorted((one["point"], one["height"]) for one in seals)
    assert places == [(point, height) for point in (1, 2) for height in range(1, 6)]
    assert all((one["result"], one["marks"]) == ("marked", ["late"]) for one in seals)  # read 1,000 s ago
    assert get_json(area, "/api/status")["marked"] == {"late": 10}


def test_transaction_and_seal_are_found_with_a_receipt_that_checks(area):
    block = next(one for height in range(1, 99) if (one := get_json(area, f"/api/v1/blocks/{height}"))["items"])
    enrol = block["items"][0]
    assert (enrol["kind"], enrol["name"], enrol["type"], enrol["result"]) == (
        "transaction", "enrol", transaction.ENROL, "accepted")
    shown = get_json(area, f"/api/v1/transactions/{enrol['payload_hash']}")
    receipt = ack.decode_receipt(bytes.fromhex(shown["receipt"]))
    assert check_receipt(receipt, receipt.items[0], area.genesis, area.chain_id) == (block["height"], 0)
    for one in area.ledger(0).seals(area.meters[0].kid, 1):
        payload_hash = seal.payload_hash(cose.parse(one.leaf).payload)
        found = get_json(area, f"/api/v1/transactions/{payload_hash.hex()}")
        assert (found["block"], found["point"], found["height"]) == (one.height, 1, one.seal.height)
        inclusion = found["inclusion"]
        raw = bytes.fromhex(get_json(area, f"/api/v1/blocks/{one.height}")["header"])
        merkle.check_path(merkle.leaf_hash(one.leaf), inclusion["index"], inclusion["size"],
                          [bytes.fromhex(step) for step in inclusion["path"]], header.decode(raw).root)


@pytest.mark.parametrize(("path", "code", "detail"), [
    ("/api/v1/blocks/999999", 404, "no such block here"),
    ("/api/v1/blocks/0", 404, "no such block here"),
    ("/api/v1/blocks/1?channel=nothing", 404, "no such block here"),
    ("/api/v1/blocks/-1", 400, "a height is a whole number"),
    ("/api/v1/blocks/99999999999", 400, "a height is a whole number"),
    ("/api/v1/transactions/" + "0" * 64, 404, "not in the ledger"),
    ("/api/v1/transactions/" + "G" * 64, 400, "a payload hash is 64 lower-case hex digits"),
    ("/files/app.py", 404, "no such page"),
    ("/files/..%2fapp.py", 404, "Not Found"),
    ("/nothing", 404, "Not Found"),
])
def test_wrong_questions_get_a_problem_and_nothing_else(area, path, code, detail):
    found, body, headers = area.get(0, path)
    assert (found, headers["content-type"]) == (code, "application/problem+json")
    assert json.loads(body)["detail"] == detail and json.loads(body)["status"] == code


def test_nobody_can_reach_the_page_by_a_name_of_his_own(area):
    for host, code in (("evil.example", 421), ("evil.example:80", 421), ("127.0.0.1.evil.example", 421), ("", 421),
                       ("localhost", 200), ("127.0.0.1:1", 200), ("[::1]:7200", 200)):
        assert area.get(0, "/api/status", {"Host": host})[0] == code, host
    assert is_own_name("[::1]") and not is_own_name("localhost.evil") and not is_own_name("evil:1]")


class Tags(HTMLParser):
    """Every tag with its attributes, and the text."""

    def __init__(self):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_page_shows_the_numbers_and_obeys_its_own_policy(area):
    code, body, headers = area.get(0, "/")
    assert code == 200 and headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff" and "server" not in headers
    page = Tags()
    page.feed(body.decode())
    shown = get_json(area, "/api/status")
    for wanted in ("gridseal home", "tamper-evident", shown["header_hash"], area.meters[0].kid.hex(), "this one"):
        assert wanted in re.sub(r"\s+", " ", page.text), wanted
    fields = {attributes["data-field"] for _, attributes in page.tags if "data-field" in attributes}
    assert fields >= {"power_w", "height", "readings", "refused_total", "lag_s"} and fields <= set(shown)
    assert ("meta", "viewport") in {(tag, attributes.get("name")) for tag, attributes in page.tags}
    for tag, attributes in page.tags:  # nothing inline: the policy would not run it
        assert tag != "style" and "style" not in attributes and not any(name.startswith("on") for name in attributes)
        assert tag != "script" or attributes.get("src")
        for name in ("src", "href"):
            if name in attributes:
                target = attributes[name] or ""
                assert target.startswith(("/files/", "#")), target
                if target.startswith("#"):
                    assert target[1:] in {attributes.get("id") for _, attributes in page.tags}, target
                else:
                    assert area.get(0, target)[0] == 200
    assert b"prefers-color-scheme: dark" in area.get(0, "/files/page.css")[1]


def test_script_takes_all_that_it_shows_from_the_page(area):
    page, script = area.get(0, "/")[1].decode(), area.get(0, "/files/page.js")[1].decode()
    wanted = set(re.findall(r'getElementById\("(\w+)"\)', script))
    assert wanted == {"now", "link"} and all(f'id="{one}"' in page for one in wanted)
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids)) >= 20
    assert not re.findall(r"innerHTML|outerHTML|eval\(|Function\(|document\.write", script)


def test_health(area):
    assert area.get(0, "/livez")[:2] == (200, b"alive\n")
    assert area.get(0, "/readyz")[:2] == (200, b"ready\n")


def test_killed_alone_it_comes_back_with_everything(area):
    before = get_json(area, "/api/status")
    for _ in range(3):
        area.meters[0].publish(1)
        area.kill(0)
        area.start_replica(0)
    area.wait_ready(0)
    area.wait_seals(16)
    after = get_json(area, "/api/status")
    assert after["height"] > before["height"]
    reader = area.ledger(0)
    for point in (1, 2):
        assert committed(reader, area.meters[0], point) == area.meters[0].readings[point]


def test_full_disk_ends_it_and_nothing_acked_is_lost(area):
    """security.md T41, in short: the process ends with 1, so that whoever runs it tries again; nothing is damaged."""
    assert area.end(0) == 0
    sizes = [path.stat().st_size for path in (area.home(0) / "data").iterdir() if path.name != "evidence.cbor"]
    area.start_replica(0, max(sizes) + 8192)
    area.wait_ready(0)
    seals = area.status(0)["seals"]
    sent = 0
    while area.processes[0].poll() is None and sent < 500:
        area.meters[0].publish(1)
        sent += 1
        time.sleep(0.01)
    assert area.processes[0].wait(20) == 1, area.log(0)
    assert "gateway.node.Broken" in area.log(0)
    area.start_replica(0)
    area.wait_ready(0)
    area.wait_seals(seals + 2 * sent)
    reader = area.ledger(0)
    for point in (1, 2):
        assert committed(reader, area.meters[0], point) == area.meters[0].readings[point]


def run_replica(home):
    command = [sys.executable, "-P", "-m", "deploy.cli", "gateway", "run", str(home)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, timeout=60)


@pytest.mark.parametrize(("change", "complaint"), [
    (("ack_interval_s = 1", "ack_intervall_s = 1"), b"gateway.toml:13: ack_intervall_s: expected a known key, found an "
     b"unknown one; did you mean ack_interval_s?"),
    (('api = "127.0.0.1', 'api = "0.0.0.0'), b"gateway.toml:6: api: expected an address"),
    (('ca = "../ca/ca.crt"', 'ca = "../ca/none.crt"'), b"expected files that can be read"),
])
def test_wrong_configuration_ends_with_2_and_the_line(area, tmp_path, change, complaint):
    shutil.copytree(area.home(0), tmp_path / "replica-0", ignore=shutil.ignore_patterns("data", "guard.json"))
    path = tmp_path / "replica-0" / "gateway.toml"
    source = path.read_text().replace('"../', f'"{area.folder}/')
    change = tuple(one.replace('"../', f'"{area.folder}/') for one in change)
    assert change[0] in source
    path.write_text(source.replace(*change))
    ended = run_replica(tmp_path / "replica-0")
    assert ended.returncode == 2 and complaint in ended.stderr, ended.stderr


def test_key_of_another_is_refused(area, tmp_path):
    shutil.copytree(area.home(0), tmp_path / "replica-0", ignore=shutil.ignore_patterns("data", "guard.json"))
    path = tmp_path / "replica-0" / "gateway.toml"
    path.write_text(path.read_text().replace('"../', f'"{area.folder}/'))
    shutil.copy(area.folder / "operator" / "signing.key", tmp_path / "replica-0" / "signing.key")
    ended = run_replica(tmp_path / "replica-0")
    assert ended.returncode == 2 and b"expected the key of a member" in ended.stderr, ended.stderr


def test_restored_backup_does_not_vote_and_says_why(area, tmp_path):
    """security.md T31: yesterday's disk."""
    data, newest, backup = area.home(0) / "data", tmp_path / "newest", tmp_path / "backup"
    assert area.end(0) == 0
    shutil.copytree(data, backup)
    area.start_replica(0)
    area.wait_ready(0)
    assert area.end(0) == 0
    data.rename(newest)
    backup.rename(data)
    ended = run_replica(area.home(0))
    assert ended.returncode == 1 and b"older than its guard" in ended.stderr, ended.stderr
    shutil.rmtree(data)
    ended = run_replica(area.home(0))  # no data at all: it has promised things that nobody knows any more
    assert ended.returncode == 1 and b"older than its guard" in ended.stderr, ended.stderr
    shutil.rmtree(data)
    newest.rename(data)
    area.start_replica(0)
    area.wait_ready(0)


def test_damaged_ledger_is_named_and_does_not_start(area, tmp_path):
    """security.md T39, in short: the store is changed by hand."""
    assert area.end(0) == 0
    data, spare = area.home(0) / "data", tmp_path / "data"
    shutil.copytree(data, spare)
    database = sqlite3.connect(data / "ledger.db")
    changed = database.execute("UPDATE state SET record = zeroblob(length(record)) WHERE substr(key, 1, 6) = ?",
                               (b"point/",))
    database.commit()
    database.close()
    assert changed.rowcount == 2
    ended = run_replica(area.home(0))
    assert ended.returncode == 1 and b"table state" in ended.stderr and b"damaged" in ended.stderr, ended.stderr
    shutil.rmtree(data)
    spare.rename(data)
    area.start_replica(0)
    area.wait_ready(0)
    until("it stands where it stood", lambda: area.status(0)["seals"] >= 16)
