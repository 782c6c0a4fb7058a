"""The Eastron SDM120-Modbus: which value stands in which registers. Data, no code.

Addresses (from 0) and scales from (they agree):
  volkszaehler/mbmd at fb8f9c22f121 meters/rs485/sdm120.go
  arendst/Tasmota tasmota/tasmota_xnrg_energy/xnrg_08_sdm120.ino
  OpenEMS/openems at 0e4ea8881f78 io.openems.edge.meter.eastron/.../sdm120/MeterEastronSdm120Impl.java
  evcc-io/evcc at b29b49e3056e templates/definition/meter/eastron-sdm120.yaml
"""

MAKER = "Eastron"
MODEL = "SDM120-Modbus"
LIMITS = (80, 8, 100)  # registers a read, hole crossed, ms between requests
SERIAL = (2400, "N")  # as shipped
# Largest plausible power (W), current (mA), voltage (mV), counter (Wh): 230 V, 5(45) A: 45 A x 300 V with room for a
# half. The display ends at 999,999.9 kWh; a ratio adds a digit.
BOUNDS = (20000, 80000, 500000, 10000000000)
NUMBER = (3, 0xFC00, 2, "u32")  # "Serial number" in Eastron's protocol documents
IDENTITY = None
ORDER = "msw"
NONE = ()

# label, OBIS name, unit, function, address, kind, numerator, denominator, is for billing; "-": has none
FIELDS = """
voltage_l1 32.7.0 mV 4 0x0000 f32 1000 1 0
current_l1 31.7.0 mA 4 0x0006 f32 1000 1 0
active_power_l1 36.7.0 W 4 0x000C f32 1 1 1
apparent_power_l1 29.7.0 VA 4 0x0012 f32 1 1 0
reactive_power_l1 23.7.0 var 4 0x0018 f32 1 1 0
power_factor_l1 33.7.0 /1000 4 0x001E f32 1000 1 0
frequency 14.7.0 - 4 0x0046 f32 1000 1 0
energy_active_import_total 1.8.0 Wh 4 0x0048 f32 1000 1 1
energy_active_export_total 2.8.0 Wh 4 0x004A f32 1000 1 1
energy_reactive_import_total 3.8.0 varh 4 0x004C f32 1000 1 0
energy_reactive_export_total 4.8.0 varh 4 0x004E f32 1000 1 0
energy_active_sum_total 15.8.0 Wh 4 0x0156 f32 1000 1 0
energy_reactive_sum_total - varh 4 0x0158 f32 1000 1 0
"""
