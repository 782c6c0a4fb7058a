"""Eastron SDM maps: 32-bit floats, two input registers each, high word first, addresses 0-based.

From Eastron's "SDM120-Modbus", "SDM230-Modbus", "SDM630-Modbus" and "SDM72D" protocol documents (register 30001 =
address 0). The limit of 40 values (80 registers) a read is theirs too. Displays end at 999,999 kWh, then start again.
The documents leave holes between the registers; real meters of several firmware versions answer a block read across
them with zeros, and so does this one inside the spans below.
Serial number: holding registers 0xFC00-0xFC01, unsigned, high word first. No 43/14 on the real device: ours answers.
"""

from collections.abc import Mapping

from sim_hardware.meters.types import Field, MeterType, per_phase

MAX_REGISTERS = 80
ROLLOVER_KWH = 1_000_000
ONE_PHASE = (
    Field("voltage_l1", 0x0000, "V"),
    Field("current_l1", 0x0006, "A"),
    Field("active_power_l1", 0x000C, "W"),
    Field("apparent_power_l1", 0x0012, "VA"),
    Field("reactive_power_l1", 0x0018, "var"),
    Field("power_factor_l1", 0x001E, "1"),
    Field("phase_angle_l1", 0x0024, "deg"),
    Field("frequency", 0x0046, "Hz"),
    Field("energy_active_import_total", 0x0048, "kWh"),
    Field("energy_active_export_total", 0x004A, "kWh"),
    Field("energy_reactive_import_total", 0x004C, "kvarh"),
    Field("energy_reactive_export_total", 0x004E, "kvarh"),
    Field("energy_active_sum_total", 0x0156, "kWh"),
    Field("energy_reactive_sum_total", 0x0158, "kvarh"),
)

SDM120 = MeterType(
    name="sdm120", model="Eastron SDM120-Modbus", phases=1, baud=2400, max_registers=MAX_REGISTERS,
    spans=((0x0000, 80), (0x0156, 4)),
    identity={0: "Eastron", 1: "SDM120-Modbus", 2: "V2"},
    holding=((0xFC00, "serial"),),
    rollover_kwh=ROLLOVER_KWH,
    fields=ONE_PHASE,
)

SDM230 = MeterType(
    name="sdm230", model="Eastron SDM230-Modbus", phases=1, baud=2400, max_registers=MAX_REGISTERS,
    spans=((0x0000, 80), (0x0156, 4)),
    identity={0: "Eastron", 1: "SDM230-Modbus", 2: "V2"},
    holding=((0xFC00, "serial"),),
    rollover_kwh=ROLLOVER_KWH,
    fields=ONE_PHASE,
)


SDM630 = MeterType(
    name="sdm630", model="Eastron SDM630-Modbus", phases=3, baud=9600, max_registers=MAX_REGISTERS,
    spans=((0x0000, 80), (0x0054, 4), (0x00C8, 10), (0x00E0, 2), (0x00EA, 12), (0x0156, 40)),
    identity={0: "Eastron", 1: "SDM630-Modbus", 2: "V2"},
    holding=((0xFC00, "serial"),),
    rollover_kwh=ROLLOVER_KWH,
    fields=(
        *per_phase("voltage", 0x0000, "V"),
        *per_phase("current", 0x0006, "A"),
        *per_phase("active_power", 0x000C, "W"),
        *per_phase("apparent_power", 0x0012, "VA"),
        *per_phase("reactive_power", 0x0018, "var"),
        *per_phase("power_factor", 0x001E, "1"),
        *per_phase("phase_angle", 0x0024, "deg"),
        Field("voltage_avg_ln", 0x002A, "V"),
        Field("current_avg", 0x002E, "A"),
        Field("current_total", 0x0030, "A"),
        Field("active_power_total", 0x0034, "W"),
        Field("apparent_power_total", 0x0038, "VA"),
        Field("reactive_power_total", 0x003C, "var"),
        Field("power_factor_total", 0x003E, "1"),
        Field("phase_angle_total", 0x0042, "deg"),
        Field("frequency", 0x0046, "Hz"),
        Field("energy_active_import_total", 0x0048, "kWh"),
        Field("energy_active_export_total", 0x004A, "kWh"),
        Field("energy_reactive_import_total", 0x004C, "kvarh"),
        Field("energy_reactive_export_total", 0x004E, "kvarh"),
        Field("active_power_demand", 0x0054, "W"),
        Field("active_power_demand_max", 0x0056, "W"),
        Field("voltage_l12", 0x00C8, "V"),
        Field("voltage_l23", 0x00CA, "V"),
        Field("voltage_l31", 0x00CC, "V"),
        Field("current_n", 0x00E0, "A"),
        *per_phase("thd_voltage", 0x00EA, "%"),
        *per_phase("thd_current", 0x00F0, "%"),
        Field("energy_active_sum_total", 0x0156, "kWh"),
        Field("energy_reactive_sum_total", 0x0158, "kvarh"),
        *per_phase("energy_active_import", 0x015A, "kWh"),
        *per_phase("energy_active_export", 0x0160, "kWh"),
        *per_phase("energy_active_sum", 0x0166, "kWh"),
        *per_phase("energy_reactive_import", 0x016C, "kvarh"),
        *per_phase("energy_reactive_export", 0x0172, "kvarh"),
        *per_phase("energy_reactive_sum", 0x0178, "kvarh"),
    ),
)


def _both_ways(values: Mapping[str, int]) -> dict[str, int]:
    """The first SDM72D shows what it takes and what it gives as two powers."""
    power = values["active_power_total"]
    return {**values, "active_power_import_total": max(power, 0), "active_power_export_total": max(-power, 0)}


SDM72D = MeterType(
    name="sdm72d", model="Eastron SDM72D-M", phases=3, baud=9600, max_registers=MAX_REGISTERS,
    spans=((0x0034, 2), (0x0048, 4), (0x0156, 2), (0x0500, 4)),
    identity={0: "Eastron", 1: "SDM72D-M", 2: "V1"},
    holding=((0xFC00, "serial"),),
    rollover_kwh=ROLLOVER_KWH,
    prepare=_both_ways,
    fields=(
        Field("active_power_total", 0x0034, "W"),
        Field("energy_active_import_total", 0x0048, "kWh"),
        Field("energy_active_export_total", 0x004A, "kWh"),
        Field("energy_active_sum_total", 0x0156, "kWh"),
        Field("active_power_import_total", 0x0500, "W"),
        Field("active_power_export_total", 0x0502, "W"),
    ),
)

SDM72D_V2 = MeterType(
    name="sdm72dv2", model="Eastron SDM72D-M-2", phases=3, baud=9600, max_registers=MAX_REGISTERS,
    spans=((0x0000, 80), (0x0156, 4)),
    identity={0: "Eastron", 1: "SDM72D-M-2", 2: "V2"},
    holding=((0xFC00, "serial"),),
    rollover_kwh=ROLLOVER_KWH,
    fields=(
        *per_phase("voltage", 0x0000, "V"),
        *per_phase("current", 0x0006, "A"),
        *per_phase("active_power", 0x000C, "W"),
        *per_phase("apparent_power", 0x0012, "VA"),
        *per_phase("reactive_power", 0x0018, "var"),
        *per_phase("power_factor", 0x001E, "1"),
        Field("active_power_total", 0x0034, "W"),
        Field("apparent_power_total", 0x0038, "VA"),
        Field("reactive_power_total", 0x003C, "var"),
        Field("power_factor_total", 0x003E, "1"),
        Field("frequency", 0x0046, "Hz"),
        Field("energy_active_import_total", 0x0048, "kWh"),
        Field("energy_active_export_total", 0x004A, "kWh"),
        Field("energy_active_sum_total", 0x0156, "kWh"),
        Field("energy_reactive_sum_total", 0x0158, "kvarh"),
    ),
)
