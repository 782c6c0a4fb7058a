"""A plant to test with: people of three roles, simulated devices whose files are certified, and their judgement."""

from collections.abc import Sequence
from typing import Any

from firmware.wire import cbor, transaction
from firmware.wire import device as codec
from gateway.dispatch import records
from gateway.dispatch.certified import Certified
from gateway.dispatch.judge import Judgement, judge
from sim_hardware.device_control import DeviceControl
from sim_hardware.security_device import Device, Kind, factory_files
from tests.contracts.table import Table
from tests.ledger.world import START_S, World, key

KIND = Kind(7, "ssc-100", "2.0", "bay-1", 3001)  # a short image: ten thousand digests are made here
PEOPLE = ("laboratory", "manufacturer", "regulator")

# What people do wrong when they fill a device (dispatch.md), as lines for its control port, and what must come of it.
FILLING_ERRORS: dict[str, tuple[str, str, str, str, int | None]] = {
    # error: (line, outcome, item, kind, offset where it is known beforehand)
    "older version": ("version 1.0", "NOT_CURRENT", "software", "other version", None),
    "another bay's settings": ("settings-of bay-2", "MISMATCH", "settings", "other device", None),
    "files swapped": ("swap software strategy", "MISMATCH", "software", "swapped", None),
    "truncated": ("truncate strategy 1000", "MISMATCH", "strategy", "truncated", 1000),
    "one value": ("tamper settings 77", "MISMATCH", "settings", "value", 77),
    "wrong device": ("become bay-2", "UNKNOWN_DEVICE", "serial", "other device", 4),
    "missing file": ("drop strategy", "MISMATCH", "strategy", "missing", None),
    "right file for the wrong model": ("model ssc-200", "MISMATCH", "software", "other model", None),
    "one of A/B twins differing": ("twin tamper software 2000", "MISMATCH", "software", "twin", 2000),
    "an extra file": ("extra", "MISMATCH", "files", "extra", None),
}


class Plant:
    """A chain (without meters unless some are named): `table` is its state, `stored` what is kept by hash."""

    def __init__(self, agents: Sequence[tuple[str, Sequence[int]]] = ()) -> None:
        self.world = World(agents=agents)
        self.table = Table(self.world)
        self.stored: dict[bytes, bytes] = {}
        self.time_s = START_S + 60
        for name in PEOPLE:
            self.enrol(name, name)

    def enrol(self, name: str, role: str) -> None:
        body = transaction.enrol_body(self.world.request(name, role), key("operator").kid, [], "")
        assert self.table.run(self.world.tx(transaction.ENROL, body)) == ["accepted"]

    @property
    def certified(self) -> Certified:
        return Certified(self.table.get)

    def run(self, kind: int, body: list[Any], sender: str) -> str:
        return self.table.run(self.world.tx(kind, body, sender), time_s=self.time_s)[0]

    def certify_body(self, kind: Kind, has_device: bool = True) -> list[Any]:
        """The body for a device as its manufacturer loaded it; its files are kept."""
        digests = []
        for file in factory_files(kind)[:3]:
            preimage = codec.preimage(file.role, kind.model, kind.device, file.data)
            digests.append(codec.digest_of(file.role, kind.model, kind.device, file.data))
            self.stored[digests[-1]] = preimage
        if not has_device:
            return [kind.model, kind.version, None, digests[0], digests[1], None]
        return [kind.model, kind.version, kind.device, *digests]

    def certify(self, kind: Kind, has_device: bool = True, endorsers: Sequence[str] = PEOPLE[1:]) -> bytes:
        """Certified and endorsed by these; returns the version's hash."""
        body = self.certify_body(kind, has_device)
        assert self.run(codec.CERTIFY, body, "laboratory") == "accepted"
        for role in endorsers:
            assert self.run(codec.ENDORSE, [codec.certify_hash(body), role], role) == "accepted"
        return codec.certify_hash(body)

    def certify_all(self) -> None:
        """What the ten filling errors are measured against: an older and the newest version, two bays, two models."""
        for kind in (KIND._replace(version="1.0"), KIND, KIND._replace(device="bay-2"),
                     KIND._replace(model="ssc-200", device="bay-9")):
            self.certify(kind)

    def judge(self, device: Device, name: str = "bay-1", model: str = "ssc-100") -> tuple[Judgement, bytes]:
        """The judgement on what a device holds, and the evidence; over the evidence's bytes, as everywhere."""
        data = codec.encode_evidence(evidence_of(device, name, model))
        return judge(codec.decode_evidence(data), self.certified, self.stored.get), data

    def judge_evidence(self, evidence: codec.Evidence) -> Judgement:
        return judge(codec.decode_evidence(codec.encode_evidence(evidence)), self.certified, self.stored.get)

    def report(self, found: Judgement, evidence: bytes, sender: str | None = None, device: str = "bay-1",
               **changes: Any) -> str:
        """The verdict on a replica's report."""
        self.time_s += 1
        body = codec.Report(device, found.digests, found.outcome, found.kind, self.time_s, codec.hash_of(evidence),
                            found.item, found.offset, found.identity, self.certified.edition, 900)
        name = sender or "replica 0"
        return self.run(codec.REPORT, codec.report_body(body._replace(**changes)), name)

    def record(self, device: str = "bay-1") -> records.DeviceRecord:
        found = self.certified.report_of(device)
        assert found is not None
        return found


def new_device(kind: Kind = KIND, has_twin: bool = True) -> tuple[Device, DeviceControl]:
    device = Device(kind, 1, has_twin=has_twin, rtu=False)
    return device, DeviceControl(("127.0.0.1", 0), device)


def evidence_of(device: Device, name: str = "bay-1", model: str = "ssc-100") -> codec.Evidence:
    """What a faithful pull brings."""
    sides: list[Any] = []
    for at, side in enumerate(device.sides):
        objects = [device._identities[device.unit + at][number] for number in range(3)]
        sides.append(None if side.is_silent else codec.Side(objects, [list(file) for file in side.files]))
    return codec.Evidence(name, model, sides)


def size_of(plant: Plant) -> int:
    """Bytes of all that the devices keep in the state."""
    keys = [records.REGISTRY_KEY, *(records.device_key(name) for name in plant.certified.registry.devices)]
    return sum(len(plant.table.get(one) or b"") for one in keys) + len(cbor.encode(plant.certified.registry.pending))
