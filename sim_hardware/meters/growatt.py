"""Growatt inverters: input registers (function 4), 16- and 32-bit integers, high word first, addresses 0-based.

From "Growatt PV Inverter Modbus RS485 RTU Protocol" v1.24: the block of the TL-X from 0, and the one of the TL-X and
TL-XH from 3000 (with a meter at the grid and a battery). Power is positive where the inverter generates: what the
model gives back. Serial number: holding registers 23 to 27, ten letters.
"""

from collections.abc import Mapping

from sim_hardware.meters.types import Field, MeterType

STRING_MV = (612_300, 587_400)                  # the two strings of modules, about 16 of them each
INVERTER_MCEL = 41_500
CHARGE_PERCENT = 57


def _strings(values: Mapping[str, int]) -> dict[str, int]:
    """DC side: two strings that share what is generated 11 to 9."""
    power = max(0, -values["active_power_total"])
    more = {**values, "status": 1 if power else 0, "pv_power_total": power, "active_power_total": -power,
            "temperature_inverter": INVERTER_MCEL, "energy_generated_today": values["energy_active_export_today"]}
    for index, share in enumerate((power * 11 // 20, power - power * 11 // 20)):
        more[f"pv{index + 1}_voltage"] = STRING_MV[index]
        more[f"pv{index + 1}_power"] = share
        more[f"pv{index + 1}_current"] = share * 1000 // STRING_MV[index]
    return more


def _hybrid(values: Mapping[str, int]) -> dict[str, int]:
    """A house that takes what the grid gives, an inverter that gives what the grid takes; a tenth by the battery."""
    power = values["active_power_total"]
    return {**values, "pv_power_total": max(0, -power), "active_power_total": -max(0, -power),
            "grid_import_power": max(0, power), "grid_export_power": max(0, -power), "load_power": max(0, power),
            "battery_discharge_power": max(0, power) // 10, "battery_charge_power": max(0, -power) // 10,
            "energy_generated_total": values["energy_active_export_total"],
            "energy_load_total": values["energy_active_import_total"],
            "temperature_inverter": INVERTER_MCEL, "battery_soc": CHARGE_PERCENT * 1000}


def _grid(address: int) -> tuple[Field, ...]:
    """Voltage, current and apparent power of each phase."""
    return tuple(field for phase in range(3) for field in (
        Field(f"voltage_l{phase + 1}", address + 4 * phase, "V", "u16", 10),
        Field(f"current_l{phase + 1}", address + 4 * phase + 1, "A", "u16", 10),
        Field(f"apparent_power_l{phase + 1}", address + 4 * phase + 2, "VA", "u32", 10)))


RTU2 = MeterType(
    name="growatt_rtu2", model="Growatt MOD 8000TL3-X", phases=3, baud=9600, max_registers=125, functions=(4,),
    spans=((0, 125),),
    identity={0: "Growatt", 1: "MOD TL3-X", 2: "1.24"},
    holding=((23, ("serial", 5)),),
    prepare=_strings,
    day="generated:sun",
    fields=(
        Field("status", 0, "flag", "u16"),
        Field("pv_power_total", 1, "W", "u32", 10),
        Field("pv1_voltage", 3, "V", "u16", 10),
        Field("pv1_current", 4, "A", "u16", 10),
        Field("pv1_power", 5, "W", "u32", 10),
        Field("pv2_voltage", 7, "V", "u16", 10),
        Field("pv2_current", 8, "A", "u16", 10),
        Field("pv2_power", 9, "W", "u32", 10),
        Field("active_power_total", 35, "W", "u32", 10, -1),
        Field("frequency", 37, "Hz", "u16", 100),
        *_grid(38),
        Field("energy_generated_today", 53, "kWh", "u32", 10),
        Field("energy_active_export_total", 55, "kWh", "u32", 10),
        Field("temperature_inverter", 93, "Cel", "u16", 10),
    ),
)

TLXH = MeterType(
    name="growatt_tlxh", model="Growatt MOD 10KTL3-XH", phases=3, baud=9600, max_registers=125, functions=(4,),
    spans=((3000, 187),),
    identity={0: "Growatt", 1: "MOD TL3-XH", 2: "1.24"},
    prepare=_hybrid,
    day="generated:prosumer",
    fields=(
        Field("pv_power_total", 3001, "W", "u32", 10),
        Field("reactive_power_total", 3021, "var", "u32", 10),
        Field("active_power_total", 3023, "W", "s32", 10, -1),
        Field("frequency", 3025, "Hz", "u16", 100),
        *_grid(3026),
        Field("grid_import_power", 3041, "W", "u32", 10),
        Field("grid_export_power", 3043, "W", "u32", 10),
        Field("load_power", 3045, "W", "u32", 10),
        Field("energy_generated_total", 3051, "kWh", "u32", 10),
        Field("energy_active_import_total", 3069, "kWh", "u32", 10),
        Field("energy_active_export_total", 3073, "kWh", "u32", 10),
        Field("energy_load_total", 3077, "kWh", "u32", 10),
        Field("temperature_inverter", 3093, "Cel", "u16", 10),
        Field("battery_soc", 3171, "%", "u16"),
        Field("battery_discharge_power", 3178, "W", "u32", 10),
        Field("battery_charge_power", 3180, "W", "u32", 10),
    ),
)
