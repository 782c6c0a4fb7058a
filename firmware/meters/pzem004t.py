"""The Peacefair PZEM-004T v3.0: which value stands in which registers. Data, no code.

Addresses and scales from (they agree):
  esphome/esphome at 33fdbbe30c4d esphome/components/pzemac/pzemac.cpp
  arendst/Tasmota tasmota/tasmota_xnrg_energy/xnrg_05_pzem_ac.ino
  krecik0814/modbus-rpi presets/library/peacefair_pzem_004t.json
"""

MAKER = "Peacefair"
MODEL = "PZEM-004T v3.0"
LIMITS = (10, 0, 100)  # registers a read (the maker's limit), hole crossed, ms between requests
SERIAL = (9600, "N")  # as shipped

# Peacefair PZEM-004T v3.0 with the 100 A clamp: its own range ends at 23 kW.
MAX_POWER_W = 25000
CURRENT_MA = 110000
VOLTAGE_MV = 500000
FREQUENCY_LOW_MHZ, FREQUENCY_HIGH_MHZ = 40000, 70000
ENERGY_WH = 10000000  # the counter returns to 0 at 9,999.99 kWh

BILLING, OTHER = "billing", "other"

# label, name, unit, function, address, kind, order, numerator, denominator, low, high, group
FIELDS = (
    ("voltage_l1", "32.7.0", "mV", 4, 0, "u16", "msw", 100, 1, 0, VOLTAGE_MV, OTHER),
    ("current_l1", "31.7.0", "mA", 4, 1, "u32", "lsw", 1, 1, -CURRENT_MA, CURRENT_MA, OTHER),
    ("active_power_l1", "36.7.0", "W", 4, 3, "u32", "lsw", 1, 10, -MAX_POWER_W, MAX_POWER_W, BILLING),
    ("energy_active_import_total", "1.8.0", "Wh", 4, 5, "u32", "lsw", 1, 1, 0, ENERGY_WH, BILLING),
    ("frequency", "14.7.0", None, 4, 7, "u16", "msw", 100, 1, FREQUENCY_LOW_MHZ, FREQUENCY_HIGH_MHZ, OTHER),
    ("power_factor_l1", "33.7.0", "/1000", 4, 8, "u16", "msw", 10, 1, -1000, 1000, OTHER),
)
