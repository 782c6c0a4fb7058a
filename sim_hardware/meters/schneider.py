"""Schneider Electric iEM3155 map: holding registers (function 3), high word first; documents count from 1, we from 0.

From the "iEM3100 / iEM3200 / iEM3300 series user manual" (DOCA0005EN), register list: floats from 3000 (A, V, kW,
kvar, kVA, Hz), energies as 64-bit integers of Wh from 3204 and, by phase, from 3518. Serial number: register 130, 32
bits. The real one answers 43/14 too.
"""

from sim_hardware.meters.types import Field, MeterType, per_phase

IEM3155 = MeterType(
    name="iem3155", model="Schneider Electric iEM3155", phases=3, baud=19200, parity="E", max_registers=125,
    functions=(3,), spans=((2999, 12), (3019, 18), (3053, 24), (3109, 2), (3203, 24), (3517, 12)),
    identity={0: "Schneider Electric", 1: "A9MEM3155", 2: "001.005"},
    holding=((129, "serial"),),
    fields=(
        *per_phase("current", 2999, "A"),
        Field("current_avg", 3009, "A"),
        Field("voltage_l12", 3019, "V"),
        Field("voltage_l23", 3021, "V"),
        Field("voltage_l31", 3023, "V"),
        *per_phase("voltage", 3027, "V"),
        Field("voltage_avg_ln", 3035, "V"),
        *per_phase("active_power", 3053, "kW"),
        Field("active_power_total", 3059, "kW"),
        Field("reactive_power_total", 3067, "kvar"),
        Field("apparent_power_total", 3075, "kVA"),
        Field("frequency", 3109, "Hz"),
        Field("energy_active_import_total", 3203, "Wh", "s64"),
        Field("energy_active_export_total", 3207, "Wh", "s64"),
        Field("energy_reactive_import_total", 3219, "varh", "s64"),
        Field("energy_reactive_export_total", 3223, "varh", "s64"),
        *per_phase("energy_active_import", 3517, "Wh", "s64", step=4),
    ),
)
