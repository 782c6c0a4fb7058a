"""SunSpec: devices are found and walked, and every value of every model reads as the simulated device shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from firmware import bus, config, decode, meters, modbus, own, sunspec
from firmware.board.linux_bus import open_port
from sim_hardware.meters import TYPES
from tests.firmware.served import ON_PTY, Served
from tests.sim_hardware.bench import MIDNIGHT_MS as MIDNIGHT
from tests.sim_hardware.bench import meter

DEVICES = {name: 1 + index for index, name in enumerate(name for name in TYPES if name.startswith("sunspec_"))}
# What each device must be found to be: where it begins, its models (the vendor's is skipped).
FOUND = {
    "sunspec_101": (40000, [101]), "sunspec_102": (50000, [102]), "sunspec_103": (40000, [103, 802]),
    "sunspec_201": (0, [201]), "sunspec_202": (40000, [202]), "sunspec_203": (40000, [203]),
    "sunspec_204": (50000, [204]), "sunspec_701": (40000, [701, 713])}
# Our names for what the simulator calls otherwise.
SAME = {"power_factor_total": "power_factor_percent", **{
    f"power_factor_l{phase}": f"power_factor_percent_l{phase}" for phase in (1, 2, 3)},
        "energy_reactive_q1_total": "energy_reactive_import_total",
        "energy_reactive_q4_total": "energy_reactive_export_total"}
# What these devices do not implement.
MISSING = {
    "sunspec_101": set(), "sunspec_102": set(), "sunspec_103": {"battery_state"},
    "meter": {"voltage_avg_ll", "energy_apparent_export_total", "energy_apparent_import_total",
              "energy_reactive_q2_total", "energy_reactive_q3_total"},
    "sunspec_701": {"voltage_avg_ll", "energy_reactive_export_total", "energy_reactive_import_total",
                    "state_of_health"}}


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    on_tcp = tuple(meter(unit, unit, name, "generated:prosumer") for name, unit in DEVICES.items())
    on_pty = tuple(meter(ON_PTY + unit, unit, name) for name, unit in DEVICES.items())
    one = Served(tmp_path_factory.mktemp("sunspec"), MIDNIGHT + 12 * 3_600_000, on_tcp, on_pty)
    yield one
    one.close()


def reader(port: object, unit: int) -> Callable[[int, int], list[int] | None]:
    def read(address: int, count: int) -> list[int] | None:
        return bus.poll(port, unit, [(3, address, count)], 1, 1000)[-1].words
    return read


@pytest.mark.parametrize("line", ["tcp", "pty"])
@pytest.mark.parametrize("name", DEVICES)
def test_discovered_and_read_as_it_shows(devices: Served, name: str, line: str) -> None:
    port = open_port(config.Bus(devices.ports[line], 9600, "N", 0, 1000, ()))
    unit = DEVICES[name]
    try:
        device = sunspec.discover(reader(port, unit))
        assert device is not None
        assert (device.base, [number for number, _ in device.models]) == FOUND[name]
        assert (device.maker, device.model, device.version) == ("Gridseal sim", TYPES[name].model, "1.0")
        assert device.others == (64999,) and device.number.startswith("SN2")
        table = own.make("found", {"maker": device.maker, "model": device.model, "sunspec": [
            {"model": number, "address": address} for number, address in device.models]})
        requests = modbus.plan(table.fields, table.max_registers, table.max_hole)
        entries, quality = decode.entries_of(table.fields, bus.registers_of(
            bus.poll(port, unit, requests, 1, 1000), requests))
        truth = devices.truth(unit if line == "tcp" else ON_PTY + unit)
    finally:
        port.close()
    missing = {field.label for field, entry in zip(table.fields, entries) if entry.missing == "not_implemented"}
    assert missing == MISSING.get(name, MISSING["meter"]) - {"battery_state"} and quality == 0
    for field, entry in zip(table.fields, entries):
        if field.label == "status":
            assert entry.value in (3, 4)
        elif field.label == "battery_state":
            assert entry.value == 3
        elif field.label not in missing:
            label = field.label if field.label in truth else SAME[field.label]
            assert entry.value == truth[label], field.label


def test_no_sunspec_is_none_and_a_broken_device_ends_the_walk() -> None:
    assert sunspec.discover(lambda address, count: None) is None
    assert sunspec.discover(lambda address, count: [0] * count) is None
    asked = []

    def endless(address: int, count: int) -> list[int]:
        asked.append(address)
        return [0x5375, 0x6E53] if address == 40000 else [5, 0]
    device = sunspec.discover(endless)
    assert device is not None and device.models == () and len(asked) <= 70
    device = sunspec.discover(lambda address, count: [0x5375, 0x6E53] if address == 40000 else [103, 49])
    assert device is not None and device.models == (), "too short for what its number promises"


def test_solaredge_begins_like_this() -> None:
    """The first bytes that SolarEdge inverters answer, as two open drivers keep them (unit 2, 40000, 9 registers)."""
    frame = bytes.fromhex("000200000015020312 53756e53 0001 0041 536f6c617245646765 20".replace(" ", ""))
    assert frame[9:13] == b"SunS"
    words = [frame[at] << 8 | frame[at + 1] for at in range(9, 27, 2)]
    registers = {40000 + at: word for at, word in enumerate(words)}
    registers.update({40004 + at: word for at, word in enumerate(words[4:] + [0] * 61)})
    registers.update({40069: 0xFFFF, 40070: 0})
    device = sunspec.discover(lambda address, count: [registers.get(at, 0) for at in range(address, address + count)])
    assert device is not None and (device.base, device.maker) == (40000, "SolarEdge")


def test_another_model_in_its_place_gives_no_value() -> None:
    """A device whose models moved after an update: everything is missing, nothing wrong is read."""
    table = own.make("found", {"maker": "a", "model": "b", "sunspec": [{"model": 203, "address": 40069}]})
    registers: dict[tuple[int, int], int | str] = {(3, at): 1 for at in range(40069, 40180)}
    entries, _ = decode.entries_of(table.fields, registers)
    assert {entry.missing for entry in entries} == {"moved"}
    registers[3, 40069] = 203
    entries, _ = decode.entries_of(table.fields, registers)
    assert {entry.missing for entry in entries} == {None}


def test_billing_is_one_request_with_its_scales() -> None:
    for model, end in ((103, 27), (203, 55), (701, 121)):
        table = own.make("found", {"maker": "a", "model": "b", "sunspec": [{"model": model, "address": 40069}]})
        assert modbus.plan(meters.fields_of(table, meters.BILLING), 125, 0) == [(3, 40069, end)]
