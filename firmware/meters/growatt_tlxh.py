"""The Growatt MIN, MOD TL-X and TL-XH (3000 block): which value stands in which registers. Data, no code.

An inverter with a meter at the grid: 1.8.0 and 2.8.0 are the grid's, x.energy_generated_total is the inverter's own;
its power is negative while it generates. One source only: compare with the display.

Addresses (from 0) and scales from:
  Tinkerforge/esp32-firmware@06dd4a3314a7 software/src/modules/meters_modbus_tcp/growatt.py
"""

MAKER = "Growatt"
MODEL = "MIN, MOD TL-X and TL-XH (3000 block)"
LIMITS = (125, 40, 1000)  # registers a read, hole crossed, ms between requests
SERIAL = (9600, "N")  # as shipped
# Largest plausible power (W), current (mA), voltage (mV), counter (Wh): inverters of up to 50 kW with room for as
# much. Counters: 32 bits of 0.1 kWh.
BOUNDS = (100000, 200000, 700000, 100000000000)
NUMBER = None
IDENTITY = None
ORDER = "msw"
NONE = ()

# label, OBIS name, unit, function, address, kind, numerator, denominator, is for billing; "-": has none
FIELDS = """
pv_power_total - W 4 3001 u32 1 10 0
reactive_power_total 3.7.0 var 4 3021 u32 1 10 0
active_power_total 16.7.0 W 4 3023 s32 -1 10 1
frequency 14.7.0 - 4 3025 u16 10 1 0
voltage_l1 32.7.0 mV 4 3026 u16 100 1 0
current_l1 31.7.0 mA 4 3027 u16 100 1 0
apparent_power_l1 29.7.0 VA 4 3028 u32 1 10 0
voltage_l2 52.7.0 mV 4 3030 u16 100 1 0
current_l2 51.7.0 mA 4 3031 u16 100 1 0
apparent_power_l2 49.7.0 VA 4 3032 u32 1 10 0
voltage_l3 72.7.0 mV 4 3034 u16 100 1 0
current_l3 71.7.0 mA 4 3035 u16 100 1 0
apparent_power_l3 69.7.0 VA 4 3036 u32 1 10 0
grid_import_power - W 4 3041 u32 1 10 0
grid_export_power - W 4 3043 u32 1 10 0
load_power - W 4 3045 u32 1 10 0
energy_generated_total - Wh 4 3051 u32 100 1 0
energy_active_import_total 1.8.0 Wh 4 3069 u32 100 1 1
energy_active_export_total 2.8.0 Wh 4 3073 u32 100 1 1
energy_load_total - Wh 4 3077 u32 100 1 0
temperature_inverter - - 4 3093 u16 100 1 0
battery_soc - /1000 4 3171 u16 10 1 0
battery_discharge_power - W 4 3178 u32 1 10 0
battery_charge_power - W 4 3180 u32 1 10 0
"""
