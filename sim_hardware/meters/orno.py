"""Orno OR-WE-514/515 and OR-WE-516/517 maps: holding registers (function 3), high word first, 9600 baud even parity.

From Orno's register lists. OR-WE-514: integers from 0x0130 (0.01 Hz, 0.01 V, 0.001 A, W), energies of both directions
together from 0xA000 in 0.01 kWh, by tariff in the 515. OR-WE-516: floats from 0x000E (V, Hz, A, kW, kvar, kVA),
energies from 0x0100 in kWh: sum, import, export, each total and by phase, then by tariff, ten registers apart.
"""

from sim_hardware.meters.types import Field, MeterType, per_phase

WE514 = MeterType(
    name="we514", model="Orno OR-WE-515", phases=1, baud=9600, parity="E", max_registers=60, functions=(3,),
    spans=((0x0130, 2), (0x0139, 2), (0x0140, 2), (0x0148, 2), (0x0150, 2), (0x0158, 1), (0xA000, 6), (0xA01E, 6)),
    identity={0: "Orno", 1: "OR-WE-515", 2: "V1"},
    holding=((0x0110, "unit"),),
    fields=(
        Field("frequency", 0x0130, "Hz", "u16", 100),
        Field("voltage_l1", 0x0131, "V", "u16", 100),
        Field("current_l1", 0x0139, "A", "u32", 1000),
        Field("active_power_l1", 0x0140, "W", "s32"),
        Field("reactive_power_l1", 0x0148, "var", "s32"),
        Field("apparent_power_l1", 0x0150, "VA", "s32"),
        Field("power_factor_l1", 0x0158, "1", "s16", 1000),
        Field("energy_active_sum_total", 0xA000, "kWh", "u32", 100),
        Field("energy_active_sum_t1", 0xA002, "kWh", "u32", 100),
        Field("energy_active_sum_t2", 0xA004, "kWh", "u32", 100),
        Field("energy_reactive_sum_total", 0xA01E, "kvarh", "u32", 100),
    ),
)


def _energy(name: str, address: int, unit: str) -> tuple[Field, ...]:
    return Field(name + "_total", address, unit), *per_phase(name, address + 2, unit)


WE516 = MeterType(
    name="we516", model="Orno OR-WE-516", phases=3, baud=9600, parity="E", max_registers=60, functions=(3,),
    spans=((0x000E, 46), (0x0100, 76)),
    identity={0: "Orno", 1: "OR-WE-516", 2: "V1"},
    holding=((0x0002, "unit"),),
    fields=(
        *per_phase("voltage", 0x000E, "V"),
        Field("frequency", 0x0014, "Hz"),
        *per_phase("current", 0x0016, "A"),
        Field("active_power_total", 0x001C, "kW"),
        *per_phase("active_power", 0x001E, "kW"),
        Field("reactive_power_total", 0x0024, "kvar"),
        *per_phase("reactive_power", 0x0026, "kvar"),
        Field("apparent_power_total", 0x002C, "kVA"),
        *per_phase("apparent_power", 0x002E, "kVA"),
        Field("power_factor_total", 0x0034, "1"),
        *per_phase("power_factor", 0x0036, "1"),
        *_energy("energy_active_sum", 0x0100, "kWh"),
        *_energy("energy_active_import", 0x0108, "kWh"),
        *_energy("energy_active_export", 0x0110, "kWh"),
        *_energy("energy_reactive_sum", 0x0118, "kvarh"),
        *_energy("energy_reactive_import", 0x0120, "kvarh"),
        *_energy("energy_reactive_export", 0x0128, "kvarh"),
        Field("energy_active_sum_t1", 0x0130, "kWh"),
        Field("energy_active_import_t1", 0x0132, "kWh"),
        Field("energy_active_export_t1", 0x0134, "kWh"),
        Field("energy_active_sum_t2", 0x013C, "kWh"),
        Field("energy_active_import_t2", 0x013E, "kWh"),
        Field("energy_active_export_t2", 0x0140, "kWh"),
    ),
)
