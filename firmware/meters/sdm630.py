"""The Eastron SDM630-Modbus: which value stands in which registers. Data, no code.

Addresses and scales from (they agree):
  volkszaehler/mbmd at fb8f9c22f121 meters/rs485/sdm.go
  esphome/esphome at 33fdbbe30c4d esphome/components/sdm_meter/sdm_meter_registers.h
  arendst/Tasmota tasmota/tasmota_xnrg_energy/xnrg_10_sdm630.ino
  OpenEMS/openems at 0e4ea8881f78 io.openems.edge.meter.eastron/.../sdm630/MeterEastronSdm630Impl.java
"""

MAKER = "Eastron"
MODEL = "SDM630-Modbus"
LIMITS = (80, 8, 100)  # registers a read (the maker's limit), hole crossed, ms between requests
SERIAL = (9600, "N")  # as shipped

# Eastron SDM630: 3 x 10(100) A; 3 x 100 A x 300 V with room for a third.
MAX_POWER_W = 120000
CURRENT_MA = 200000
VOLTAGE_MV = 500000
FREQUENCY_LOW_MHZ, FREQUENCY_HIGH_MHZ = 40000, 70000
ENERGY_WH = 10000000000  # the display ends at 999,999.9 kWh; a transformer ratio adds a digit

BILLING, OTHER = "billing", "other"

# label, name, unit, function, address, kind, order, numerator, denominator, low, high, group
FIELDS = (
    ("voltage_l1", "32.7.0", "mV", 4, 0, "f32", "msw", 1000, 1, 0, VOLTAGE_MV, OTHER),
    ("voltage_l2", "52.7.0", "mV", 4, 2, "f32", "msw", 1000, 1, 0, VOLTAGE_MV, OTHER),
    ("voltage_l3", "72.7.0", "mV", 4, 4, "f32", "msw", 1000, 1, 0, VOLTAGE_MV, OTHER),
    ("current_l1", "31.7.0", "mA", 4, 6, "f32", "msw", 1000, 1, -CURRENT_MA, CURRENT_MA, OTHER),
    ("current_l2", "51.7.0", "mA", 4, 8, "f32", "msw", 1000, 1, -CURRENT_MA, CURRENT_MA, OTHER),
    ("current_l3", "71.7.0", "mA", 4, 10, "f32", "msw", 1000, 1, -CURRENT_MA, CURRENT_MA, OTHER),
    ("active_power_l1", "36.7.0", "W", 4, 12, "f32", "msw", 1, 1, -MAX_POWER_W, MAX_POWER_W, OTHER),
    ("active_power_l2", "56.7.0", "W", 4, 14, "f32", "msw", 1, 1, -MAX_POWER_W, MAX_POWER_W, OTHER),
    ("active_power_l3", "76.7.0", "W", 4, 16, "f32", "msw", 1, 1, -MAX_POWER_W, MAX_POWER_W, OTHER),
    ("apparent_power_l1", "29.7.0", "VA", 4, 18, "f32", "msw", 1, 1, -MAX_POWER_W, MAX_POWER_W, OTHER),
    ("apparent_power_l2", "49.7.0", "VA", 4, 20, "f32", "msw", 1, 1, -MAX_POWER_W, MAX_POWER_W, OTHER),
    ("apparent_power_l3", "69.7.0", "VA", 4, 22, "f32", "msw", 1, 1, -MAX_POWER_W, MAX_POWER_W, OTHER),
    ("reactive_power_l1", "23.7.0", "var", 4, 24, "f32", "msw", 1, 1, -MAX_POWER_W, MAX_POWER_W, OTHER),
    ("reactive_power_l2", "43.7.0", "var", 4, 26, "f32", "msw", 1, 1, -MAX_POWER_W, MAX_POWER_W, OTHER),
    ("reactive_power_l3", "63.7.0", "var", 4, 28, "f32", "msw", 1, 1, -MAX_POWER_W, MAX_POWER_W, OTHER),
    ("power_factor_l1", "33.7.0", "/1000", 4, 30, "f32", "msw", 1000, 1, -1000, 1000, OTHER),
    ("power_factor_l2", "53.7.0", "/1000", 4, 32, "f32", "msw", 1000, 1, -1000, 1000, OTHER),
    ("power_factor_l3", "73.7.0", "/1000", 4, 34, "f32", "msw", 1000, 1, -1000, 1000, OTHER),
    ("active_power_total", "16.7.0", "W", 4, 52, "f32", "msw", 1, 1, -MAX_POWER_W, MAX_POWER_W, BILLING),
    ("apparent_power_total", "9.7.0", "VA", 4, 56, "f32", "msw", 1, 1, -MAX_POWER_W, MAX_POWER_W, OTHER),
    ("reactive_power_total", "3.7.0", "var", 4, 60, "f32", "msw", 1, 1, -MAX_POWER_W, MAX_POWER_W, OTHER),
    ("power_factor_total", "13.7.0", "/1000", 4, 62, "f32", "msw", 1000, 1, -1000, 1000, OTHER),
    ("frequency", "14.7.0", None, 4, 70, "f32", "msw", 1000, 1, FREQUENCY_LOW_MHZ, FREQUENCY_HIGH_MHZ, OTHER),
    ("energy_active_import_total", "1.8.0", "Wh", 4, 72, "f32", "msw", 1000, 1, 0, ENERGY_WH, BILLING),
    ("energy_active_export_total", "2.8.0", "Wh", 4, 74, "f32", "msw", 1000, 1, 0, ENERGY_WH, BILLING),
    ("voltage_avg_ln", "12.7.0", "mV", 4, 42, "f32", "msw", 1000, 1, 0, VOLTAGE_MV, OTHER),
    ("current_avg", "x.current_avg", "mA", 4, 46, "f32", "msw", 1000, 1, -CURRENT_MA, CURRENT_MA, OTHER),
    ("current_total", "90.7.0", "mA", 4, 48, "f32", "msw", 1000, 1, -CURRENT_MA, CURRENT_MA, OTHER),
    ("energy_reactive_import_total", "3.8.0", "varh", 4, 76, "f32", "msw", 1000, 1, -ENERGY_WH, ENERGY_WH, OTHER),
    ("energy_reactive_export_total", "4.8.0", "varh", 4, 78, "f32", "msw", 1000, 1, -ENERGY_WH, ENERGY_WH, OTHER),
    ("voltage_l12", "x.voltage_l12", "mV", 4, 200, "f32", "msw", 1000, 1, 0, VOLTAGE_MV, OTHER),
    ("voltage_l23", "x.voltage_l23", "mV", 4, 202, "f32", "msw", 1000, 1, 0, VOLTAGE_MV, OTHER),
    ("voltage_l31", "x.voltage_l31", "mV", 4, 204, "f32", "msw", 1000, 1, 0, VOLTAGE_MV, OTHER),
    ("current_n", "91.7.0", "mA", 4, 224, "f32", "msw", 1000, 1, -CURRENT_MA, CURRENT_MA, OTHER),
    ("energy_active_sum_total", "15.8.0", "Wh", 4, 342, "f32", "msw", 1000, 1, 0, ENERGY_WH, OTHER),
    ("energy_reactive_sum_total", "x.energy_reactive_sum_total", "varh", 4, 344, "f32",
     "msw", 1000, 1, -ENERGY_WH, ENERGY_WH, OTHER),
    ("energy_active_import_l1", "21.8.0", "Wh", 4, 346, "f32", "msw", 1000, 1, 0, ENERGY_WH, OTHER),
    ("energy_active_import_l2", "41.8.0", "Wh", 4, 348, "f32", "msw", 1000, 1, 0, ENERGY_WH, OTHER),
    ("energy_active_import_l3", "61.8.0", "Wh", 4, 350, "f32", "msw", 1000, 1, 0, ENERGY_WH, OTHER),
    ("energy_active_export_l1", "22.8.0", "Wh", 4, 352, "f32", "msw", 1000, 1, 0, ENERGY_WH, OTHER),
    ("energy_active_export_l2", "42.8.0", "Wh", 4, 354, "f32", "msw", 1000, 1, 0, ENERGY_WH, OTHER),
    ("energy_active_export_l3", "62.8.0", "Wh", 4, 356, "f32", "msw", 1000, 1, 0, ENERGY_WH, OTHER),
    ("energy_active_sum_l1", "35.8.0", "Wh", 4, 358, "f32", "msw", 1000, 1, 0, ENERGY_WH, OTHER),
    ("energy_active_sum_l2", "55.8.0", "Wh", 4, 360, "f32", "msw", 1000, 1, 0, ENERGY_WH, OTHER),
    ("energy_active_sum_l3", "75.8.0", "Wh", 4, 362, "f32", "msw", 1000, 1, 0, ENERGY_WH, OTHER),
    ("energy_reactive_import_l1", "23.8.0", "varh", 4, 364, "f32", "msw", 1000, 1, -ENERGY_WH, ENERGY_WH, OTHER),
    ("energy_reactive_import_l2", "43.8.0", "varh", 4, 366, "f32", "msw", 1000, 1, -ENERGY_WH, ENERGY_WH, OTHER),
    ("energy_reactive_import_l3", "63.8.0", "varh", 4, 368, "f32", "msw", 1000, 1, -ENERGY_WH, ENERGY_WH, OTHER),
    ("energy_reactive_export_l1", "24.8.0", "varh", 4, 370, "f32", "msw", 1000, 1, -ENERGY_WH, ENERGY_WH, OTHER),
    ("energy_reactive_export_l2", "44.8.0", "varh", 4, 372, "f32", "msw", 1000, 1, -ENERGY_WH, ENERGY_WH, OTHER),
    ("energy_reactive_export_l3", "64.8.0", "varh", 4, 374, "f32", "msw", 1000, 1, -ENERGY_WH, ENERGY_WH, OTHER),
)
