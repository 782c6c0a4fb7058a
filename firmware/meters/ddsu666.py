"""The Chint DDSU666: which value stands in which registers. Data, no code.

The -H version (Huawei) has another map. The meter takes function 3 and 4 alike.

Addresses (from 0) and scales from (they agree):
  arendst/Tasmota tasmota/tasmota_xnrg_energy/xnrg_11_ddsu666.ino
  OpenEMS/openems (newer revision) io.openems.edge.meter.chint.ddsu666/MeterChintDdsu666Impl.java
  tasmota/docs DDSU666 line
"""

MAKER = "Chint"
MODEL = "DDSU666"
LIMITS = (60, 4, 50)  # registers a read, hole crossed, ms between requests
SERIAL = (9600, "N")  # as shipped
# Largest plausible power (W), current (mA), voltage (mV), counter (Wh): 230 V, 5(80) A: 80 A x 300 V with room for a
# quarter.
BOUNDS = (30000, 120000, 500000, 10000000000)
NUMBER = None
IDENTITY = None
ORDER = "msw"
NONE = ()

# label, OBIS name, unit, function, address, kind, numerator, denominator, is for billing; "-": has none
FIELDS = """
voltage_l1 32.7.0 mV 3 0x2000 f32 1000 1 0
current_l1 31.7.0 mA 3 0x2002 f32 1000 1 0
active_power_l1 36.7.0 W 3 0x2004 f32 1000 1 1
reactive_power_l1 23.7.0 var 3 0x2006 f32 1000 1 0
power_factor_l1 33.7.0 /1000 3 0x200A f32 1000 1 0
frequency 14.7.0 - 3 0x200E f32 1000 1 0
energy_active_import_total 1.8.0 Wh 3 0x4000 f32 1000 1 1
energy_active_export_total 2.8.0 Wh 3 0x400A f32 1000 1 1
"""
