"""The Growatt MIC, MIN, MOD, MID TL-X (protocol 1.24): which value stands in which registers. Data, no code.

An inverter: what it generates counts as export, and its power is negative, as everywhere here. Silent at night.

Addresses (from 0) and scales from (they agree):
  esphome/esphome@33fdbbe30c4d esphome/components/growatt_solar/growatt_solar.cpp
  evcc-io/evcc@b29b49e3056e templates/definition/meter/growatt-min-tlxe.yaml
"""

MAKER = "Growatt"
MODEL = "MIC, MIN, MOD, MID TL-X (protocol 1.24)"
LIMITS = (125, 40, 1000)  # registers a read, hole crossed, ms between requests
SERIAL = (9600, "N")  # as shipped
# Largest plausible power (W), current (mA), voltage (mV), counter (Wh): inverters of up to 50 kW with room for as
# much. Counters: 32 bits of 0.1 kWh.
BOUNDS = (100000, 200000, 700000, 100000000000)
NUMBER = (3, 23, 5, "text")  # holding registers 23 to 27 of the protocol
IDENTITY = None
ORDER = "msw"
NONE = ()

# label, OBIS name, unit, function, address, kind, numerator, denominator, is for billing; "-": has none
FIELDS = """
status - - 4 0 u16 1 1 0
pv_power_total - W 4 1 u32 1 10 0
pv1_voltage - mV 4 3 u16 100 1 0
pv1_current - mA 4 4 u16 100 1 0
pv1_power - W 4 5 u32 1 10 0
pv2_voltage - mV 4 7 u16 100 1 0
pv2_current - mA 4 8 u16 100 1 0
pv2_power - W 4 9 u32 1 10 0
active_power_total 16.7.0 W 4 35 u32 -1 10 1
frequency 14.7.0 - 4 37 u16 10 1 0
voltage_l1 32.7.0 mV 4 38 u16 100 1 0
current_l1 31.7.0 mA 4 39 u16 100 1 0
apparent_power_l1 29.7.0 VA 4 40 u32 1 10 0
voltage_l2 52.7.0 mV 4 42 u16 100 1 0
current_l2 51.7.0 mA 4 43 u16 100 1 0
apparent_power_l2 49.7.0 VA 4 44 u32 1 10 0
voltage_l3 72.7.0 mV 4 46 u16 100 1 0
current_l3 71.7.0 mA 4 47 u16 100 1 0
apparent_power_l3 69.7.0 VA 4 48 u32 1 10 0
energy_generated_today - Wh 4 53 u32 100 1 0
energy_active_export_total 2.8.0 Wh 4 55 u32 100 1 1
temperature_inverter - - 4 93 u16 100 1 0
"""
