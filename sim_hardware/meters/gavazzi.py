"""Carlo Gavazzi EM24-DIN and EM340 maps: signed integers, low word first, functions 3 and 4 alike, addresses 0-based.

From Carlo Gavazzi's "EM24-DIN Communication Protocol" and "EM330 EM340 ET330 ET340 Communication Protocol" (300001 =
address 0): 0.1 V, 0.001 A, 0.1 W, 0.1 kWh. Two maps that share their first half only. A read of register 11 alone
gives the identification code, although it is the second half of the voltage L3-L1. At most 11 registers a read for the
EM24, 50 for the EM340.
"""

from collections.abc import Mapping

from sim_hardware.meters.types import MJ_PER_KWH, Field, MeterType, per_phase

EM24_AV9, EM24_E1 = 70, 1648
SHARED = (
    *per_phase("voltage", 0x00, "V", "s32_lsw", 10),
    Field("voltage_l12", 0x06, "V", "s32_lsw", 10),
    Field("voltage_l23", 0x08, "V", "s32_lsw", 10),
    Field("voltage_l31", 0x0A, "V", "s32_lsw", 10),
    *per_phase("current", 0x0C, "A", "s32_lsw", 1000),
    *per_phase("active_power", 0x12, "W", "s32_lsw", 10),
    *per_phase("apparent_power", 0x18, "VA", "s32_lsw", 10),
    *per_phase("reactive_power", 0x1E, "var", "s32_lsw", 10),
    Field("active_power_total", 0x28, "W", "s32_lsw", 10),
    Field("apparent_power_total", 0x2A, "VA", "s32_lsw", 10),
    Field("reactive_power_total", 0x2C, "var", "s32_lsw", 10),
)


def _since_reset(values: Mapping[str, int]) -> dict[str, int]:
    """The counter that a person can reset: here at every 1,000 kWh."""
    return {**values, "energy_active_import_partial": values["energy_active_import_total"] % (1000 * MJ_PER_KWH)}


EM24 = MeterType(
    name="em24", model="Carlo Gavazzi EM24-DIN AV9", phases=3, baud=9600, max_registers=11, functions=(3, 4),
    holding_functions=(3, 4), spans=((0x00, 100),),
    identity={0: "Carlo Gavazzi", 1: "EM24-DIN AV9", 2: "V1"},
    holding=((0x0303, 0x0102), (0x1300, ("serial", 7))),
    alone={11: EM24_AV9},
    prepare=_since_reset,
    fields=(
        *SHARED,
        *per_phase("power_factor", 0x32, "1", "s16", 1000, step=1),
        Field("power_factor_total", 0x35, "1", "s16", 1000),
        Field("frequency", 0x37, "Hz", "s16", 10),
        Field("energy_active_import_total", 0x3E, "kWh", "s32_lsw", 10),
        Field("energy_reactive_import_total", 0x40, "kvarh", "s32_lsw", 10),
        Field("energy_active_import_partial", 0x42, "kWh", "s32_lsw", 10),
        *per_phase("energy_active_import", 0x46, "kWh", "s32_lsw", 10),
        Field("energy_active_import_t1", 0x4C, "kWh", "s32_lsw", 10),
        Field("energy_active_import_t2", 0x4E, "kWh", "s32_lsw", 10),
        Field("energy_active_import_t3", 0x50, "kWh", "s32_lsw", 10),
        Field("energy_active_import_t4", 0x52, "kWh", "s32_lsw", 10),
        Field("energy_active_export_total", 0x5C, "kWh", "s32_lsw", 10),
        Field("energy_reactive_export_total", 0x5E, "kvarh", "s32_lsw", 10),
    ),
)

EM340 = MeterType(
    name="em340", model="Carlo Gavazzi EM340", phases=3, baud=9600, max_registers=50, functions=(3, 4),
    holding_functions=(3, 4), spans=((0x00, 84), (0x60, 6)),
    identity={0: "Carlo Gavazzi", 1: "EM340", 2: "V2"},
    holding=((0x0302, 0x0100), (0x0304, 0x0103), (0x5000, ("serial", 7))),
    alone={11: EM24_E1},
    fields=(
        *SHARED,
        *per_phase("power_factor", 0x2E, "1", "s16", 1000, step=1),
        Field("power_factor_total", 0x31, "1", "s16", 1000),
        Field("frequency", 0x33, "Hz", "s16", 10),
        Field("energy_active_import_total", 0x34, "kWh", "s32_lsw", 10),
        Field("energy_reactive_import_total", 0x36, "kvarh", "s32_lsw", 10),
        Field("active_power_demand", 0x38, "W", "s32_lsw", 10),
        Field("active_power_demand_max", 0x3A, "W", "s32_lsw", 10),
        *per_phase("energy_active_import", 0x40, "kWh", "s32_lsw", 10),
        Field("energy_active_import_t1", 0x46, "kWh", "s32_lsw", 10),
        Field("energy_active_import_t2", 0x48, "kWh", "s32_lsw", 10),
        Field("energy_active_export_total", 0x4E, "kWh", "s32_lsw", 10),
        Field("energy_reactive_export_total", 0x50, "kvarh", "s32_lsw", 10),
        *per_phase("energy_active_export", 0x60, "kWh", "s32_lsw", 10),
    ),
)
