"""Peacefair PZEM-004T v3 map: unsigned 16-bit words, 32-bit values low word first, addresses 0-based.

From Peacefair's "PZEM-004T V3.0 User Manual", tables of input and holding registers. The chip has no sign: power that
flows back is shown and counted as if it were taken, as the real one does (import and export in one counter).
Holding: 1 alarm threshold (W), 2 unit number. The real one has no 43/14: ours answers.
"""

from collections.abc import Mapping

from sim_hardware.meters.types import Field, MeterType

ALARM_W = 23_000        # highest power of the 100 A type: the threshold it is delivered with


def _without_sign(values: Mapping[str, int]) -> dict[str, int]:
    """What this chip makes of the model's values."""
    return {**values,
            "energy_active_import_total": values["energy_active_sum_total"],
            "alarm_power": 0xFFFF if abs(values["active_power_l1"]) > ALARM_W * 1000 else 0}


PZEM004T = MeterType(
    name="pzem004t", model="Peacefair PZEM-004T v3", phases=1, baud=9600, max_registers=10,
    spans=((0, 10),),
    identity={0: "Peacefair", 1: "PZEM-004T", 2: "V3.0"},
    holding=((1, ALARM_W), (2, "unit")),
    prepare=_without_sign,
    rollover_kwh=10_000,                        # "0 to 9999.99 kWh"
    fields=(
        Field("voltage_l1", 0, "V", "u16", 10),
        Field("current_l1", 1, "A", "u32_lsw", 1000),
        Field("active_power_l1", 3, "W", "u32_lsw", 10),
        Field("energy_active_import_total", 5, "kWh", "u32_lsw", 1000),
        Field("frequency", 7, "Hz", "u16", 10),
        Field("power_factor_l1", 8, "1", "u16", 100),
        Field("alarm_power", 9, "flag", "u16"),
    ),
)
