"""Eastron SDM120 and SDM630 maps: 32-bit floats, two input registers each, high word first, addresses 0-based.

From Eastron's "SDM120-Modbus" and "SDM630-Modbus Protocol" documents (register 30001 = address 0). Their limit of
40 values (80 registers) a read is theirs too. The documents leave holes between the registers; real meters of several
firmware versions answer a block read across them with zeros, and so does this one inside the spans below.
Serial number: holding registers 0xFC00-0xFC01, unsigned, high word first. No 43/14 on the real device: ours answers.
"""

from sim_hardware.meters.types import Field, MeterType

MAX_REGISTERS = 80

SDM120 = MeterType(
    name="sdm120", model="Eastron SDM120-Modbus", phases=1, baud=2400, max_registers=MAX_REGISTERS,
    spans=((0x0000, 80), (0x0156, 4)),
    identity={0: "Eastron", 1: "SDM120-Modbus", 2: "V2"},
    holding=((0xFC00, "serial"),),
    fields=(
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
    ),
)


def _per_phase(name: str, address: int, unit: str) -> tuple[Field, ...]:
    """Three registers in a row, one for each phase."""
    return tuple(Field(f"{name}_l{phase + 1}", address + 2 * phase, unit) for phase in range(3))


SDM630 = MeterType(
    name="sdm630", model="Eastron SDM630-Modbus", phases=3, baud=9600, max_registers=MAX_REGISTERS,
    spans=((0x0000, 80), (0x0054, 4), (0x00C8, 10), (0x00E0, 2), (0x00EA, 12), (0x0156, 40)),
    identity={0: "Eastron", 1: "SDM630-Modbus", 2: "V2"},
    holding=((0xFC00, "serial"),),
    fields=(
        *_per_phase("voltage", 0x0000, "V"),
        *_per_phase("current", 0x0006, "A"),
        *_per_phase("active_power", 0x000C, "W"),
        *_per_phase("apparent_power", 0x0012, "VA"),
        *_per_phase("reactive_power", 0x0018, "var"),
        *_per_phase("power_factor", 0x001E, "1"),
        *_per_phase("phase_angle", 0x0024, "deg"),
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
        *_per_phase("thd_voltage", 0x00EA, "%"),
        *_per_phase("thd_current", 0x00F0, "%"),
        Field("energy_active_sum_total", 0x0156, "kWh"),
        Field("energy_reactive_sum_total", 0x0158, "kvarh"),
        *_per_phase("energy_active_import", 0x015A, "kWh"),
        *_per_phase("energy_active_export", 0x0160, "kWh"),
        *_per_phase("energy_active_sum", 0x0166, "kWh"),
        *_per_phase("energy_reactive_import", 0x016C, "kvarh"),
        *_per_phase("energy_reactive_export", 0x0172, "kvarh"),
        *_per_phase("energy_reactive_sum", 0x0178, "kvarh"),
    ),
)
