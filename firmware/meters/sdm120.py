"""The Eastron SDM120-Modbus: which value stands in which registers. Data, no code.

Addresses and scales from (they agree):
  volkszaehler/mbmd at fb8f9c22f121 meters/rs485/sdm120.go
  arendst/Tasmota tasmota/tasmota_xnrg_energy/xnrg_08_sdm120.ino
  OpenEMS/openems at 0e4ea8881f78 io.openems.edge.meter.eastron/.../sdm120/MeterEastronSdm120Impl.java
  evcc-io/evcc at b29b49e3056e templates/definition/meter/eastron-sdm120.yaml
"""

MAKER = "Eastron"
MODEL = "SDM120-Modbus"
LIMITS = (80, 8, 100)  # registers a read (the maker's limit), hole crossed, ms between requests
SERIAL = (2400, "N")  # as shipped

# Eastron SDM120M: 230 V, 5(45) A; 45 A x 300 V with room for a half.
MAX_POWER_W = 20000
CURRENT_MA = 80000
VOLTAGE_MV = 500000
FREQUENCY_LOW_MHZ, FREQUENCY_HIGH_MHZ = 40000, 70000
ENERGY_WH = 10000000000  # the display ends at 999,999.9 kWh; a transformer ratio adds a digit

BILLING, OTHER = "billing", "other"

# label, name, unit, function, address, kind, order, numerator, denominator, low, high, group
FIELDS = (
    ("voltage_l1", "32.7.0", "mV", 4, 0, "f32", "msw", 1000, 1, 0, VOLTAGE_MV, OTHER),
    ("current_l1", "31.7.0", "mA", 4, 6, "f32", "msw", 1000, 1, -CURRENT_MA, CURRENT_MA, OTHER),
    ("active_power_l1", "36.7.0", "W", 4, 12, "f32", "msw", 1, 1, -MAX_POWER_W, MAX_POWER_W, BILLING),
    ("apparent_power_l1", "29.7.0", "VA", 4, 18, "f32", "msw", 1, 1, -MAX_POWER_W, MAX_POWER_W, OTHER),
    ("reactive_power_l1", "23.7.0", "var", 4, 24, "f32", "msw", 1, 1, -MAX_POWER_W, MAX_POWER_W, OTHER),
    ("power_factor_l1", "33.7.0", "/1000", 4, 30, "f32", "msw", 1000, 1, -1000, 1000, OTHER),
    ("frequency", "14.7.0", None, 4, 70, "f32", "msw", 1000, 1, FREQUENCY_LOW_MHZ, FREQUENCY_HIGH_MHZ, OTHER),
    ("energy_active_import_total", "1.8.0", "Wh", 4, 72, "f32", "msw", 1000, 1, 0, ENERGY_WH, BILLING),
    ("energy_active_export_total", "2.8.0", "Wh", 4, 74, "f32", "msw", 1000, 1, 0, ENERGY_WH, BILLING),
    ("energy_reactive_import_total", "3.8.0", "varh", 4, 76, "f32", "msw", 1000, 1, -ENERGY_WH, ENERGY_WH, OTHER),
    ("energy_reactive_export_total", "4.8.0", "varh", 4, 78, "f32", "msw", 1000, 1, -ENERGY_WH, ENERGY_WH, OTHER),
    ("energy_active_sum_total", "15.8.0", "Wh", 4, 342, "f32", "msw", 1000, 1, 0, ENERGY_WH, OTHER),
    ("energy_reactive_sum_total", "x.energy_reactive_sum_total", "varh", 4, 344, "f32",
     "msw", 1000, 1, -ENERGY_WH, ENERGY_WH, OTHER),
)
