"""The Eastron SDM72D-M: which value stands in which registers. Data, no code.

First version: no voltages and currents. 0x0500 and 0x0502 are powers; a sample that calls 0x0502 an energy is wrong.

Addresses (from 0) and scales from (they agree):
  volkszaehler/mbmd@fb8f9c22f121 meters/rs485/sdm72.go
  arendst/Tasmota tasmota/tasmota_xnrg_energy/xnrg_18_sdm72.ino
  esphome/esphome@33fdbbe30c4d esphome/components/sdm_meter/sdm_meter_registers.h
"""

MAKER = "Eastron"
MODEL = "SDM72D-M"
LIMITS = (80, 8, 100)  # registers a read, hole crossed, ms between requests
SERIAL = (9600, "N")  # as shipped
# Largest plausible power (W), current (mA), voltage (mV), counter (Wh): 3 x 10(100) A: 3 x 100 A x 300 V with room
# for a third. The display ends at 999,999.9 kWh.
BOUNDS = (120000, 150000, 500000, 10000000000)
NUMBER = (3, 0xFC00, 2, "u32")  # "Serial number" in Eastron's protocol documents
IDENTITY = None
ORDER = "msw"
NONE = ()

# label, OBIS name, unit, function, address, kind, numerator, denominator, is for billing; "-": has none
FIELDS = """
active_power_total 16.7.0 W 4 0x0034 f32 1 1 1
energy_active_import_total 1.8.0 Wh 4 0x0048 f32 1000 1 1
energy_active_export_total 2.8.0 Wh 4 0x004A f32 1000 1 1
energy_active_sum_total 15.8.0 Wh 4 0x0156 f32 1000 1 0
active_power_import_total - W 4 0x0500 f32 1 1 0
active_power_export_total - W 4 0x0502 f32 1 1 0
"""
