"""A running area that finds what was altered: four replicas, a simulated device on Modbus, alarms over Mosquitto."""

import json
import queue
import random
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from paho.mqtt import client as paho

from deploy import cli, enroll
from deploy.device import certify_files
from deploy.errors import NoAnswer
from deploy.operator import Outcome, Person
from firmware.wire import device as codec
from firmware.wire import topics
from gateway.dispatch.certified import Certified
from gateway.ledger import files
from sim_hardware.device_command import export
from sim_hardware.security_device import Kind
from tests import needs
from tests.dispatch.plant import FILLING_ERRORS
from tests.node.cluster import AREA, CLOCK, ENVIRONMENT, QUICK, Cluster, until

KIND = Kind(7, "ssc-100", "2.0", "bay-1", 21_001)
INTERVAL_S = 1
# Beyond the interval: the pull itself, ordering, and publishing, of a dozen processes on two busy cores.
MARGIN_S = 10.0
PULLER = 2


class Plant:
    """The area, the device's control port, people, and the operator's view of the alarms."""

    def __init__(self, folder: Path):
        self.device = subprocess.Popen(
            [sys.executable, "-P", "-m", "deploy.cli", "sim", "security-device", "--json", "--twin", "--seed", "7",
             "--device", "bay-1", "--software-bytes", str(KIND.software_bytes), "--control", "127.0.0.1:0"],
            stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        assert self.device.stdout is not None
        ready = json.loads(self.device.stdout.readline())
        self._control = ready["control"]
        self.folder = folder
        self.cluster = Cluster(folder / "area", 4, {**QUICK, "time_ahead_s": 60})
        with open(self.cluster.home(PULLER) / "gateway.toml", "a") as toml:
            toml.write(f'\n[[device]]\nname = "bay-1"\nmodel = "ssc-100"\nport = "tcp://{ready["buses"][0]["tcp"]}"\n'
                       f'unit = 1\ntwin = true\ncheck_interval_s = {INTERVAL_S}\n')
        self.alarms: queue.Queue[dict[str, Any]] = queue.Queue()
        self.people: dict[str, Person] = {}

    def start(self) -> None:
        self.cluster.start()
        home = self.cluster.folder / "operator"
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, "alarms")
        self._client.tls_set(str(self.cluster.folder / "ca" / "ca.crt"), str(home / "tls.crt"), str(home / "tls.key"),
                             tls_version=ssl.PROTOCOL_TLS_CLIENT)
        self._client.on_message = lambda client, data, message: self.alarms.put(
            {"topic": message.topic, **json.loads(message.payload)})
        self._client.on_connect = lambda client, *rest: client.subscribe(topics.alarm(AREA, "#"), 1)
        address = urlsplit(self.cluster.broker_url)
        self._client.connect(address.hostname or "", address.port or 0)
        self._client.loop_start()
        for role in ("laboratory", "manufacturer", "regulator"):
            home = self.folder / role
            enroll.make_person(home, (self.cluster.folder / "genesis.cbor").read_bytes(), AREA, role,
                               [self.cluster.broker_url])
            _, leaf, outcome = enroll.approve_request(
                Person(self.cluster.folder), (home / "request.cbor").read_bytes(), [], "", [self.cluster.broker_url],
                role=role)
            assert outcome.code == 0
            (home / "tls.crt").write_bytes(leaf)
            (home / "ca.crt").write_bytes((self.cluster.folder / "ca" / "ca.crt").read_bytes())
            self.people[role] = Person.open(home)

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self.cluster.stop()
        self.device.terminate()
        self.device.wait(10)

    def send(self, who: str, kind: int, body: list[Any]) -> Outcome:
        person = self.people[who]
        return person.submit(AREA, person.sign(kind, body, CLOCK), person.brokers)

    def body(self, kind: Kind) -> list[Any]:
        """A version's files, exported by the manufacturer, handed to one replica."""
        place = self.folder / f"files {kind.model} {kind.version} {kind.device}"
        export(kind, place)
        return certify_files(self.people["laboratory"], place, kind.model, kind.version, kind.device,
                             [self.cluster.home(0)])

    def certify(self, kind: Kind) -> None:
        body = self.body(kind)
        assert self.send("laboratory", codec.CERTIFY, body).code == 0
        for role in codec.ENDORSERS:
            assert self.send(role, codec.ENDORSE, [codec.certify_hash(body), role]).code == 0

    def do(self, line: str) -> None:
        host, _, port = self._control.rpartition(":")
        with socket.create_connection((host, int(port)), 5) as line_to:
            line_to.sendall(line.encode() + b"\n")
            assert line_to.makefile().readline() == "ok\n", line

    def next_alarm(self, wait_s: float = INTERVAL_S + MARGIN_S) -> dict[str, Any]:
        try:
            return self.alarms.get(timeout=wait_s)
        except queue.Empty:
            raise AssertionError(f"no alarm in {wait_s} s: {self.row()} {self.cluster.log(PULLER)}") from None

    def raised(self, outcome: str, item: str | None, kind: str | None, wait_s: float = INTERVAL_S + MARGIN_S
               ) -> dict[str, Any]:
        """The alarm of a finding. A pull that was under way while somebody altered the device saw half of it, and may
        have told that first; the next one tells the whole."""
        found = []
        for _ in range(2):
            found.append(alarm := self.next_alarm(wait_s))
            assert alarm["state"] == "raised"
            if (alarm["outcome"], alarm["item"], alarm["kind"]) == (outcome, item, kind):
                return alarm
        raise AssertionError(f"no {outcome} {item} {kind}: {found}")

    def cleared(self) -> None:
        """The next message says so; a pull that was under way while somebody repaired may have brought another."""
        while (alarm := self.next_alarm())["state"] != "cleared":
            assert alarm["device"] == "bay-1"
        until("all have that block", lambda: all(
            (row := self.row(index))["outcome"] == "MATCH" and row["since"] >= alarm["since"] for index in range(4)))

    def row(self, index: int = 0) -> dict[str, Any]:
        rows: list[dict[str, Any]] = json.loads(self.cluster.get(index, "/api/devices")[1])["devices"]
        return next((row for row in rows if row["device"] == "bay-1"), {})


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    needs.program("mosquitto")
    made = Plant(tmp_path_factory.mktemp("plant"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_one_device_from_unknown_to_certified(plant: Plant) -> None:
    """In the order of its life: unknown, two of three endorsements, in force, altered anywhere, repaired."""
    alarm = plant.next_alarm()
    assert alarm == {**alarm, "topic": f"gridseal/1/{AREA}/alarm/bay-1", "device": "bay-1", "state": "raised",
                     "outcome": "UNKNOWN_DEVICE", "item": None, "kind": None, "offset": None}
    body = plant.body(KIND)
    found = plant.send("manufacturer", codec.CERTIFY, body)
    assert found.reason == "not_permitted" and found.height > 0, "in a block, with its result code"
    assert plant.send("laboratory", codec.CERTIFY, body).code == 0
    version = codec.certify_hash(body)
    assert plant.send("manufacturer", codec.ENDORSE, [version, "manufacturer"]).code == 0
    reports = plant.row()["reports"]
    until("another report", lambda: plant.row()["reports"] > reports + 1)
    assert plant.row()["outcome"] == "UNKNOWN_DEVICE" and not plant.row()["in_force"], "two of three"
    assert plant.send("regulator", codec.ENDORSE, [version, "regulator"]).code == 0
    plant.cleared()
    assert plant.row()["outcome"] == "MATCH" and plant.row()["in_force"]
    for seed in range(3):
        chance = random.Random(seed)
        item, size = chance.choice((("software", KIND.software_bytes), ("strategy", 1500), ("settings", 1200),
                                    ("serial", 5)))
        offset = chance.randrange(size)
        plant.do(f"tamper {item} {offset}")
        began = time.monotonic()
        alarm = plant.next_alarm()
        assert (alarm["device"], alarm["state"], alarm["item"], alarm["offset"]) == ("bay-1", "raised", item, offset)
        print(f"seed {seed}: {item} at {offset}: alarm after {time.monotonic() - began:.2f} s")
        plant.do("repair")
        plant.cleared()


@pytest.mark.slow
def test_the_ten_filling_errors(plant: Plant) -> None:
    """Ten alarms, each with the right outcome and kind; between them and after them none."""
    for kind in (KIND._replace(version="1.0"), KIND._replace(version="2.0", device="bay-2"),
                 KIND._replace(model="ssc-200", version="3.0", device="bay-9")):
        plant.certify(kind)
    plant.certify(KIND._replace(version="3.0"))
    plant.do("install 3.0")
    until("the new version", lambda: plant.row()["outcome"] == "MATCH" and not plant.row()["alarm"])
    while not plant.alarms.empty():
        plant.alarms.get()
    for error, (line, outcome, item, kind_of, offset) in FILLING_ERRORS.items():
        plant.do(line.replace("version 1.0", "version 2.0"))
        alarm = plant.raised(outcome, item, kind_of)
        assert offset is None or alarm["offset"] == offset, error
        plant.do("repair")
        plant.cleared()
    before = plant.row()
    until("quiet reports", lambda: plant.row()["reports"] >= before["reports"] + 3)
    assert plant.alarms.empty() and plant.row()["changes"] == before["changes"]


def test_every_replica_holds_the_evidence(plant: Plant) -> None:
    plant.do("tamper settings 3")
    alarm = plant.next_alarm()
    plant.do("repair")
    plant.cleared()
    evidence = next(change["evidence"] for change in reversed(plant.row()["changes"])
                    if change["offset"] == alarm["offset"])
    for index in range(4):
        reader = plant.cluster.ledger(index)
        data = files.read(reader.store, bytes.fromhex(evidence))
        assert data is not None and codec.hash_of(data).hex() == evidence
        side = codec.decode_evidence(data).sides[0]
        assert side is not None and codec.file_of(side, codec.SETTINGS)[3] == 1 + export_byte(plant, 3)
        reader.close()
    roots = until("equal states", lambda: len({plant.cluster.status(index)["state_root"] for index in range(4)}) == 1)
    assert roots


def export_byte(plant: Plant, offset: int) -> int:
    return (plant.folder / "files ssc-100 2.0 bay-1" / "settings.bin").read_bytes()[offset]


@pytest.mark.slow
def test_an_area_that_decides_nothing(plant: Plant) -> None:
    """Two of four are down: the pulling replica speaks for itself; the chain does as soon as it can again."""
    for index in (0, 1):
        plant.cluster.kill(index)
    plant.do("tamper settings 40")
    alarm = plant.next_alarm(40)
    assert (alarm["state"], alarm["item"], alarm["offset"], alarm["height"]) == ("raised", "settings", 40, None)
    for index in (0, 1):
        plant.cluster.start_replica(index)
    for index in (0, 1):
        plant.cluster.wait_ready(index)
    while (alarm := plant.next_alarm(60))["height"] is None:
        assert alarm["offset"] == 40
    assert alarm["state"] == "raised" and alarm["offset"] == 40
    plant.do("repair")
    plant.cleared()


def test_only_the_operator_reads_alarms(plant: Plant) -> None:
    """A retained alarm is there; whoever else subscribes gets the chain's header, which comes after, and no alarm."""
    heard: queue.Queue[str] = queue.Queue()
    home = plant.folder / "laboratory"
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, "curious")
    client.tls_set(str(home / "ca.crt"), str(home / "tls.crt"), str(home / "tls.key"),
                   tls_version=ssl.PROTOCOL_TLS_CLIENT)
    client.on_message = lambda client, data, message: heard.put(message.topic)
    client.on_connect = lambda client, *rest: client.subscribe(
        [(topics.alarm(AREA, "#"), 1), (topics.chain_header(AREA, "trade"), 1)])
    address = urlsplit(plant.cluster.broker_url)
    client.connect(address.hostname or "", address.port or 0)
    client.loop_start()
    try:
        assert heard.get(timeout=10) == topics.chain_header(AREA, "trade")
    finally:
        client.disconnect()
        client.loop_stop()


def test_silence_is_an_alarm_too(plant: Plant) -> None:
    plant.do("silent")
    plant.raised("NO_DATA", None, None, 30)
    assert plant.cluster.status(1)["alarms_raised"][0]["outcome"] == "NO_DATA"
    plant.do("repair")
    plant.cleared()


def test_a_lying_replica(plant: Plant) -> None:
    """One replica's own key under digests that are not those of the evidence: nobody brings it forward, no block."""
    cluster = plant.cluster
    liar = Person.__new__(Person)
    liar.folder = cluster.folder
    liar._take(cluster.home(3), "replica", cluster.folder / "genesis.cbor", cluster.folder / "ca" / "ca.crt")
    row = plant.row()
    report = codec.Report("bay-1", [bytes(32)] * 3, "MISMATCH", None, CLOCK.now_ms() // 1000 + 2,
                          bytes.fromhex(row["evidence"]), "software", None, ["ssc-100", "bay-1"], edition(plant), 900)
    signed = liar.sign(codec.REPORT, codec.report_body(report), CLOCK)
    with pytest.raises(NoAnswer):
        liar.submit(AREA, signed, [cluster.broker_url], 4)
    for index in range(4):
        refused = cluster.status(index)["refused_by_agent"].get(liar.kid.hex(), {})
        assert refused.get("wrong_digest", 0) > 0, (index, refused, cluster.log(index))
    assert plant.row()["outcome"] == row["outcome"] == "MATCH"
    reports = plant.row()["reports"]
    until("reports go on", lambda: plant.row()["reports"] > reports)


def edition(plant: Plant) -> int:
    reader = plant.cluster.ledger(0)
    try:
        return Certified(reader.state_value).edition
    finally:
        reader.close()


def test_commands(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    """check pulls by itself, history reads the ledger, certify and endorse say what came of them."""
    home = str(plant.cluster.home(PULLER))
    code = cli.main(["device", "check", home, "bay-1", "--json"])
    assert (json.loads(capsys.readouterr().out)["outcome"], code) == ("MATCH", 0)
    plant.do("tamper strategy 8")
    assert cli.main(["device", "check", home, "bay-1"]) == 1
    assert capsys.readouterr().out.startswith("bay-1: MISMATCH of strategy")
    plant.next_alarm()
    plant.do("repair")
    plant.cleared()
    assert cli.main(["device", "history", str(plant.cluster.folder), "bay-1"]) == 0
    said = capsys.readouterr().out
    assert "MISMATCH of strategy: value at byte 8" in said and "no alarm" in said
    assert cli.main(["device", "check", home, "bay-7"]) == 2
    assert cli.main(["device", "history", home, "bay-7"]) == 2
    lab, place = str(plant.folder / "laboratory"), plant.folder / "files"
    export(KIND._replace(version="8.0"), place)
    words = ["device", "certify", lab, "--files", str(place), "--model", "ssc-100", "--release", "8.0", "--json"]
    capsys.readouterr()
    assert cli.main([*words, "--area-folder", str(plant.cluster.folder)]) == 0
    version = json.loads(capsys.readouterr().out)["version"]
    assert cli.main(["device", "endorse", str(plant.folder / "regulator"), version]) == 0
    assert cli.main(["device", "endorse", lab, version, "--json"]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["result"] in ("malformed", "not_permitted")
    assert cli.main(["device", "endorse", lab, "00"]) == 2
