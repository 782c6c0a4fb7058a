"""The Chint DTSU666, DSSU666: which value stands in which registers. Data, no code.

Through transformers all values are the secondary side's: the ratio (IrAt, UrAt) belongs to the point, not to this
table. Where the energies stand is disputed between firmware versions (0x101E and 0x1028, or 0x401E and 0x4028):
compare with the display, and put the other addresses into a file of your own. The -H version (Huawei) has another
map. With three wires (DSSU666) phase voltages and the power factors mean nothing.

Addresses (from 0) and scales from (they agree):
  volkszaehler/mbmd@fb8f9c22f121 meters/rs485/dtsu666.go
  krecik0814/modbus-rpi presets/library/chint_dtsu666.json
  OpenEMS/openems (newer revision) io.openems.edge.meter.chint.dtsu666/MeterChintDtsu666Impl.java
  community scripts
"""

MAKER = "Chint"
MODEL = "DTSU666, DSSU666"
LIMITS = (80, 8, 50)  # registers a read, hole crossed, ms between requests
SERIAL = (9600, "N")  # as shipped
# Largest plausible power (W), current (mA), voltage (mV), counter (Wh): 5(80) A, or through transformers: 3 x 6 kA x
# 230 V.
BOUNDS = (4000000, 7000000, 700000, 10000000000)
NUMBER = None
IDENTITY = None
ORDER = "msw"
NONE = ()

# label, OBIS name, unit, function, address, kind, numerator, denominator, is for billing; "-": has none
FIELDS = """
voltage_l12 - mV 3 0x2000 f32 100 1 0
voltage_l23 - mV 3 0x2002 f32 100 1 0
voltage_l31 - mV 3 0x2004 f32 100 1 0
voltage_l1 32.7.0 mV 3 0x2006 f32 100 1 0
voltage_l2 52.7.0 mV 3 0x2008 f32 100 1 0
voltage_l3 72.7.0 mV 3 0x200A f32 100 1 0
current_l1 31.7.0 mA 3 0x200C f32 1 1 0
current_l2 51.7.0 mA 3 0x200E f32 1 1 0
current_l3 71.7.0 mA 3 0x2010 f32 1 1 0
active_power_total 16.7.0 W 3 0x2012 f32 1 10 1
active_power_l1 36.7.0 W 3 0x2014 f32 1 10 0
active_power_l2 56.7.0 W 3 0x2016 f32 1 10 0
active_power_l3 76.7.0 W 3 0x2018 f32 1 10 0
reactive_power_total 3.7.0 var 3 0x201A f32 1 10 0
reactive_power_l1 23.7.0 var 3 0x201C f32 1 10 0
reactive_power_l2 43.7.0 var 3 0x201E f32 1 10 0
reactive_power_l3 63.7.0 var 3 0x2020 f32 1 10 0
power_factor_total 13.7.0 /1000 3 0x202A f32 1 1 0
power_factor_l1 33.7.0 /1000 3 0x202C f32 1 1 0
power_factor_l2 53.7.0 /1000 3 0x202E f32 1 1 0
power_factor_l3 73.7.0 /1000 3 0x2030 f32 1 1 0
frequency 14.7.0 - 3 0x2044 f32 10 1 0
energy_active_import_total 1.8.0 Wh 3 0x101E f32 1000 1 1
energy_active_import_l1 21.8.0 Wh 3 0x1020 f32 1000 1 0
energy_active_import_l2 41.8.0 Wh 3 0x1022 f32 1000 1 0
energy_active_import_l3 61.8.0 Wh 3 0x1024 f32 1000 1 0
energy_active_export_total 2.8.0 Wh 3 0x1028 f32 1000 1 1
energy_active_export_l1 22.8.0 Wh 3 0x102A f32 1000 1 0
energy_active_export_l2 42.8.0 Wh 3 0x102C f32 1000 1 0
energy_active_export_l3 62.8.0 Wh 3 0x102E f32 1000 1 0
"""
