"""Chint DDSU666 and DTSU666 maps: 32-bit floats, high word first, functions 3 and 4 alike, addresses 0-based.

From Chint's manuals "DDSU666" and "DTSU666 series and DSSU666 series" (ZTY0.464.1448, table 11): the single-phase one
has V, A, kW; the three-phase one has tenths of V and W and thousandths of A, as floats, energies in kWh from 0x101E.
Holding registers: 0x0000 software version, 0x0006 and 0x0007 ratios of current (1) and voltage (0.1), 0x002D rate.
"""

from sim_hardware.meters.types import Field, MeterType, per_phase

DDSU666 = MeterType(
    name="ddsu666", model="Chint DDSU666", phases=1, baud=9600, max_registers=60, functions=(3, 4),
    spans=((0x2000, 16), (0x4000, 12)),
    identity={0: "Chint", 1: "DDSU666", 2: "V1"},
    holding=((0x0006, "unit"),),
    rollover_kwh=1_000_000,
    fields=(
        Field("voltage_l1", 0x2000, "V"),
        Field("current_l1", 0x2002, "A"),
        Field("active_power_l1", 0x2004, "kW"),
        Field("reactive_power_l1", 0x2006, "kvar"),
        Field("power_factor_l1", 0x200A, "1"),
        Field("frequency", 0x200E, "Hz"),
        Field("energy_active_import_total", 0x4000, "kWh"),
        Field("energy_active_export_total", 0x400A, "kWh"),
    ),
)

DTSU666 = MeterType(
    name="dtsu666", model="Chint DTSU666", phases=3, baud=9600, max_registers=80, functions=(3, 4),
    spans=((0x101E, 18), (0x2000, 70)),
    identity={0: "Chint", 1: "DTSU666", 2: "V1"},
    holding=((0x0000, 102), (0x0006, 1), (0x0007, 10), (0x002D, 3), (0x002E, "unit")),
    rollover_kwh=1_000_000,
    fields=(
        Field("energy_active_import_total", 0x101E, "kWh"),
        *per_phase("energy_active_import", 0x1020, "kWh"),
        Field("energy_active_export_total", 0x1028, "kWh"),
        *per_phase("energy_active_export", 0x102A, "kWh"),
        Field("voltage_l12", 0x2000, "V", "f32", 10),
        Field("voltage_l23", 0x2002, "V", "f32", 10),
        Field("voltage_l31", 0x2004, "V", "f32", 10),
        *per_phase("voltage", 0x2006, "V", "f32", 10),
        *per_phase("current", 0x200C, "A", "f32", 1000),
        Field("active_power_total", 0x2012, "W", "f32", 10),
        *per_phase("active_power", 0x2014, "W", "f32", 10),
        Field("reactive_power_total", 0x201A, "var", "f32", 10),
        *per_phase("reactive_power", 0x201C, "var", "f32", 10),
        Field("power_factor_total", 0x202A, "1", "f32", 1000),
        *per_phase("power_factor", 0x202C, "1", "f32", 1000),
        Field("frequency", 0x2044, "Hz", "f32", 100),
    ),
)
