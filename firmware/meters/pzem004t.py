"""The Peacefair PZEM-004T v3.0: which value stands in which registers. Data, no code.

Addresses (from 0) and scales from (they agree):
  esphome/esphome at 33fdbbe30c4d esphome/components/pzemac/pzemac.cpp
  arendst/Tasmota tasmota/tasmota_xnrg_energy/xnrg_05_pzem_ac.ino
  krecik0814/modbus-rpi presets/library/peacefair_pzem_004t.json
"""

MAKER = "Peacefair"
MODEL = "PZEM-004T v3.0"
LIMITS = (10, 0, 100)  # registers a read, hole crossed, ms between requests
SERIAL = (9600, "N")  # as shipped
# Largest plausible power (W), current (mA), voltage (mV), counter (Wh): with the 100 A clamp its own range ends at 23
# kW; the counter returns to 0 at 9,999.99 kWh.
BOUNDS = (25000, 110000, 500000, 10000000)
NUMBER = None
IDENTITY = None
ORDER = "lsw"
NONE = ()

# label, OBIS name, unit, function, address, kind, numerator, denominator, is for billing; "-": has none
FIELDS = """
voltage_l1 32.7.0 mV 4 0 u16 100 1 0
current_l1 31.7.0 mA 4 1 u32 1 1 0
active_power_l1 36.7.0 W 4 3 u32 1 10 1
energy_active_import_total 1.8.0 Wh 4 5 u32 1 1 1
frequency 14.7.0 - 4 7 u16 100 1 0
power_factor_l1 33.7.0 /1000 4 8 u16 10 1 0
"""
