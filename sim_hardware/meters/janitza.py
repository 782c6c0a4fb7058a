"""Janitza UMG 96RM map: 32-bit floats, high word first, functions 3 and 4 alike, addresses 0-based and decimal.

From Janitza's "Modbus addresses and formulary UMG 96RM", the block of floats from 19000 that its meters share: V, A,
W, VA, var, cos phi, Hz, rotation field, then energies in Wh (net, consumed, delivered, apparent, reactive, inductive,
capacitive; each L1, L2, L3, sum), then distortion in per cent.
"""

from collections.abc import Mapping

from sim_hardware.meters.types import Field, MeterType, per_phase

ENDS = ("_l1", "_l2", "_l3", "_total")


def _more(values: Mapping[str, int]) -> dict[str, int]:
    """Net, inductive and capacitive counters and the rotation field (1: right) under this maker's names."""
    more = dict(values)
    for end in ENDS:
        more["energy_active_net" + end] = values["energy_active_import" + end] - values["energy_active_export" + end]
        more["energy_reactive" + end] = values["energy_reactive_sum" + end]
        more["energy_reactive_inductive" + end] = values["energy_reactive_import" + end]
        more["energy_reactive_capacitive" + end] = values["energy_reactive_export" + end]
    more["rotation_field"] = 1
    return more


def _energy(name: str, address: int, unit: str) -> tuple[Field, ...]:
    return tuple(Field(name + end, address + 2 * index, unit) for index, end in enumerate(ENDS))


UMG96RM = MeterType(
    name="umg96rm", model="Janitza UMG 96RM", phases=3, baud=38400, max_registers=120, functions=(3, 4),
    spans=((19000, 122),),
    identity={0: "Janitza", 1: "UMG 96RM", 2: "1.0"},
    prepare=_more,
    fields=(
        *per_phase("voltage", 19000, "V"),
        Field("voltage_l12", 19006, "V"),
        Field("voltage_l23", 19008, "V"),
        Field("voltage_l31", 19010, "V"),
        *per_phase("current", 19012, "A"),
        Field("current_total", 19018, "A"),
        *per_phase("active_power", 19020, "W"),
        Field("active_power_total", 19026, "W"),
        *per_phase("apparent_power", 19028, "VA"),
        Field("apparent_power_total", 19034, "VA"),
        *per_phase("reactive_power", 19036, "var"),
        Field("reactive_power_total", 19042, "var"),
        *per_phase("power_factor", 19044, "1"),
        Field("frequency", 19050, "Hz"),
        Field("rotation_field", 19052, "flag"),
        *_energy("energy_active_net", 19054, "Wh"),
        *_energy("energy_active_import", 19062, "Wh"),
        *_energy("energy_active_export", 19070, "Wh"),
        *_energy("energy_apparent", 19078, "VAh"),
        *_energy("energy_reactive", 19086, "varh"),
        *_energy("energy_reactive_inductive", 19094, "varh"),
        *_energy("energy_reactive_capacitive", 19102, "varh"),
        *per_phase("thd_voltage", 19110, "%"),
        *per_phase("thd_current", 19116, "%"),
    ),
)
