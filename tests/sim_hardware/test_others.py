"""Other people's tools read the simulated meters and see what the truth says: mbpoll, and pysunspec2's scan."""

from __future__ import annotations

import asyncio
import importlib
import re
import subprocess

import pytest

from sim_hardware.meters import TYPES, Field
from sim_hardware.simulator import Simulator
from sim_hardware.truth import SMALL_PER_UNIT, decode_row
from tests import needs
from tests.sim_hardware.bench import HandClock, meter, play, running, tcp

FORMS = {"f32": "float", "s32": "int", "u32": "int", "u16": "", "s16": ""}
SUNSPEC = [name for name in TYPES if name.startswith("sunspec")]
# What pysunspec2 calls the points of a model, and ours.
POINTS = {"W": "active_power_total", "Hz": "frequency", "WH": "energy_active_export_total",
          "TotWhImp": "energy_active_import_total", "TotWhExp": "energy_active_export_total",
          "TotWhInj": "energy_active_export_total", "TotWhAbs": "energy_active_import_total",
          "PhVphA": "voltage_l1", "VL1": "voltage_l1", "SoC": "state_of_charge"}


def truth_of(simulator: Simulator, point: int) -> dict[str, int]:
    one = next(found for found in simulator.meters if found.point == point)
    assert one.image is not None
    return decode_row(one.row(one.image))


def chosen(name: str) -> list[Field]:
    """One field of each form that mbpoll knows."""
    found: dict[str, Field] = {}
    for field in TYPES[name].fields:
        if field.form.split("_")[0] in FORMS:
            found.setdefault(field.form, field)
    return list(found.values())


@pytest.mark.parametrize("name", [name for name in TYPES if chosen(name)])
def test_mbpoll_sees_the_same(name: str) -> None:
    program = needs.program("mbpoll")

    async def scene() -> None:
        async with running(tcp(meter(1, 1, name, "generated:prosumer")), HandClock()) as bench:
            for field in chosen(name):
                kind, _, order = field.form.partition("_")
                table = "4" if 3 in TYPES[name].functions else "3"
                line = [program, "-m", "tcp", "-p", str(bench.address[1]), "-a", "1", "-0", "-r", str(field.address),
                        "-t", table + (":" + FORMS[kind] if FORMS[kind] else ""), "-c", "1", "-1", "-q",
                        bench.address[0]]
                if not order and field.words == 2:
                    line.insert(1, "-B")
                done = await asyncio.to_thread(subprocess.run, line, capture_output=True, text=True, timeout=10)
                shown = re.search(r"^\[\d+\]:\s+(\S+)", done.stdout, re.M)
                assert shown is not None, done.stdout + done.stderr
                raw = float(shown[1])
                raw -= 65536 if kind == "s16" and raw >= 32768 else 0       # mbpoll shows both readings of 16 bits
                value = field.sign * raw * SMALL_PER_UNIT[field.unit] / float(field.per_unit)
                wanted = truth_of(bench.simulator, 1)[field.name]
                assert abs(value - wanted) <= 1 + abs(wanted) * 1e-5, field.name    # mbpoll prints six digits
    play(scene())


@pytest.mark.parametrize("name", SUNSPEC)
def test_pysunspec2_finds_and_reads_the_same(name: str) -> None:
    try:
        client = importlib.import_module("sunspec2.modbus.client")
    except ImportError:
        needs.missing("pysunspec2", "pip install pysunspec2")

    def look(host: str, port: int) -> dict[str, float]:
        device = client.SunSpecModbusClientDeviceTCP(slave_id=1, ipaddr=host, ipport=port)
        try:
            device.scan()
            assert device.common[0].Mn.value == "Gridseal sim" and device.common[0].SN.value.startswith("SN2")
            values = {}
            for number, models in device.models.items():
                for point in ("SoC",) if number in (713, 802) else () if number in (1, 64999) else POINTS:
                    found = getattr(models[0], point, None) if isinstance(number, int) else None
                    if found is not None and found.cvalue is not None:
                        values[point] = found.cvalue
            return values
        finally:
            device.close()

    async def scene() -> None:
        async with running(tcp(meter(1, 1, name, "generated:prosumer")), HandClock()) as bench:
            values = await asyncio.to_thread(look, *bench.address)
            truth = truth_of(bench.simulator, 1)
            fields = {field.name: field for field in TYPES[name].fields}
            assert len(values) >= 4
            for point, value in values.items():
                field = fields[POINTS[point]]
                assert round(field.sign * value * SMALL_PER_UNIT[field.unit]) == truth[field.name], point
    play(scene())
