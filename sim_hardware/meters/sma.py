"""SMA inverter: two values of the SMA Modbus profile (unit 3, TCP), high word first, functions 3 and 4 alike.

From SMA's "Modbus interface" technical information: register 30057 serial number, 30513 total yield (64 bits, Wh),
30775 power on the grid's side (32 bits with sign, W, positive where it generates). At night the real one answers with
its "no value" words; this one always has values.
"""

from sim_hardware.meters.types import Field, MeterType

SMA = MeterType(
    name="sma", model="SMA Sunny Tripower", phases=3, baud=9600, max_registers=125, functions=(3, 4),
    holding_functions=(3, 4), spans=((30513, 4), (30775, 2)),
    identity={0: "SMA", 1: "Sunny Tripower", 2: "3.0"},
    holding=((30057, "serial"),),
    day="generated:sun",
    fields=(
        Field("energy_active_export_total", 30513, "Wh", "u64"),
        Field("active_power_total", 30775, "W", "s32", 1, -1),
    ),
)
