"""ABB B23 map: integers, high word first, holding registers (function 3), addresses 0-based.

From ABB's "B23/B24" and "A43/A44 User Manual", chapter "Communication with Modbus": total energies from 0x5000, by
tariff from 0x5170 and 0x5190, by phase from 0x5460, momentary values from 0x5B00; a quantity that a meter does not
have is all ones, or the largest positive number where there is a sign. This one has two of four tariffs.
"""

from collections.abc import Mapping
from dataclasses import replace

from sim_hardware.meters.types import Field, MeterType, per_phase

ENERGY = ("u64", 100)                           # steps of 0.01 kWh
POWER = ("s32", 100)


def _net(values: Mapping[str, int]) -> dict[str, int]:
    return {**values, "energy_active_net_total":
            values["energy_active_import_total"] - values["energy_active_export_total"]}


B23 = MeterType(
    name="b23", model="ABB B23", phases=3, baud=19200, parity="E", max_registers=125, functions=(3,),
    spans=((0x5000, 20), (0x5170, 16), (0x5190, 16), (0x5460, 24), (0x5B00, 64)),
    identity={0: "ABB", 1: "B23", 2: "1.20"},
    holding=((0x8900, "serial"), (0x8908, b"B1.20.0".ljust(16, b"\0")), (0x8960, b"B23 ")),
    prepare=_net,
    filler={address: 0xFFFF for start in (0x5178, 0x5198) for address in range(start, start + 8)},
    fields=(
        Field("energy_active_import_total", 0x5000, "kWh", *ENERGY),
        Field("energy_active_export_total", 0x5004, "kWh", *ENERGY),
        Field("energy_active_net_total", 0x5008, "kWh", "s64", 100),
        Field("energy_reactive_import_total", 0x500C, "kvarh", *ENERGY),
        Field("energy_reactive_export_total", 0x5010, "kvarh", *ENERGY),
        Field("energy_active_import_t1", 0x5170, "kWh", *ENERGY),
        Field("energy_active_import_t2", 0x5174, "kWh", *ENERGY),
        Field("energy_active_export_t1", 0x5190, "kWh", *ENERGY),
        Field("energy_active_export_t2", 0x5194, "kWh", *ENERGY),
        *per_phase("energy_active_import", 0x5460, "kWh", *ENERGY, step=4),
        *per_phase("energy_active_export", 0x546C, "kWh", *ENERGY, step=4),
        *per_phase("voltage", 0x5B00, "V", "u32", 10),
        Field("voltage_l12", 0x5B06, "V", "u32", 10),
        Field("voltage_l23", 0x5B08, "V", "u32", 10),
        Field("voltage_l31", 0x5B0A, "V", "u32", 10),
        *per_phase("current", 0x5B0C, "A", "u32", 100),
        Field("current_n", 0x5B12, "A", "u32", 100),
        Field("active_power_total", 0x5B14, "W", *POWER),
        *per_phase("active_power", 0x5B16, "W", *POWER),
        Field("reactive_power_total", 0x5B1C, "var", *POWER),
        *per_phase("reactive_power", 0x5B1E, "var", *POWER),
        Field("apparent_power_total", 0x5B24, "VA", *POWER),
        *per_phase("apparent_power", 0x5B26, "VA", *POWER),
        Field("frequency", 0x5B2C, "Hz", "u16", 100),
        Field("power_factor_total", 0x5B3A, "1", "s16", 1000),
        *per_phase("power_factor", 0x5B3B, "1", "s16", 1000, step=1),
    ),
)


def _not_available(fields: tuple[Field, ...]) -> dict[int, int]:
    """The registers of what a meter lacks: all ones, the highest bit clear where there is a sign."""
    return {field.address + at: 0x7FFF if field.form[0] == "s" and at == 0 else 0xFFFF
            for field in fields for at in range(field.words)}


# What the single-phase B21 of the same map has not got.
LACKING = tuple(field for field in B23.fields if field.name.endswith(("_l2", "_l3", "_l12", "_l23", "_l31", "_n")))

B21 = replace(
    B23, name="b21", model="ABB B21", phases=1, identity={0: "ABB", 1: "B21", 2: "1.20"},
    holding=(*B23.holding[:2], (0x8960, b"B21 ")), filler={**(B23.filler or {}), **_not_available(LACKING)},
    fields=tuple(field for field in B23.fields if field not in LACKING))
