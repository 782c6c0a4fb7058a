"""The ABB B23, B24, A43, A44: which value stands in which registers. Data, no code.

Also the single-phase B21, with the other phases not available. Line voltages stand as L1-L2, L3-L2, L1-L3 in the
maker's manual: the labels follow the usual order; 5B08 and 5B0A have no sign, so both readings agree.

Addresses (from 0) and scales from (they agree):
  volkszaehler/mbmd@fb8f9c22f121 meters/rs485/abb.go
  victronenergy/dbus-modbus-client abb.py
  krecik0814/modbus-rpi presets/library/abb_a43_a44_b23_b24.json
"""

MAKER = "ABB"
MODEL = "B23, B24, A43, A44"
LIMITS = (125, 0, 50)  # registers a read, hole crossed, ms between requests
SERIAL = (19200, "E")  # no source states what is shipped: the Modbus standard's own; the meter's menu shows and sets it
# Largest plausible power (W), current (mA), voltage (mV), counter (Wh): B24 and A44 count through transformers: 3 x 6
# kA x 230 V. Counters have 64 bits.
BOUNDS = (4000000, 7000000, 700000, 10000000000000)
NUMBER = (3, 0x8900, 2, "u32")
IDENTITY = (3, 0x8960, 2, ((0x4232, 0x3120), (0x4232, 0x3320), (0x4232, 0x3420)))  # "B21 ", "B23 ", "B24 "
ORDER = "msw"
NONE = (("u16", 0xFFFF), ("s16", 0x7FFF), ("u32", 0xFFFFFFFF), ("s32", 0x7FFFFFFF),
        ("u64", 0xFFFFFFFFFFFFFFFF), ("s64", 0x7FFFFFFFFFFFFFFF))  # "not available"

# label, OBIS name, unit, function, address, kind, numerator, denominator, is for billing; "-": has none
FIELDS = """
energy_active_import_total 1.8.0 Wh 3 0x5000 u64 10 1 1
energy_active_export_total 2.8.0 Wh 3 0x5004 u64 10 1 1
energy_active_net_total - Wh 3 0x5008 s64 10 1 0
energy_reactive_import_total 3.8.0 varh 3 0x500C u64 10 1 0
energy_reactive_export_total 4.8.0 varh 3 0x5010 u64 10 1 0
energy_active_import_t1 1.8.1 Wh 3 0x5170 u64 10 1 0
energy_active_export_t1 2.8.1 Wh 3 0x5190 u64 10 1 0
energy_active_import_t2 1.8.2 Wh 3 0x5174 u64 10 1 0
energy_active_export_t2 2.8.2 Wh 3 0x5194 u64 10 1 0
energy_active_import_l1 21.8.0 Wh 3 0x5460 u64 10 1 0
energy_active_export_l1 22.8.0 Wh 3 0x546C u64 10 1 0
energy_active_import_l2 41.8.0 Wh 3 0x5464 u64 10 1 0
energy_active_export_l2 42.8.0 Wh 3 0x5470 u64 10 1 0
energy_active_import_l3 61.8.0 Wh 3 0x5468 u64 10 1 0
energy_active_export_l3 62.8.0 Wh 3 0x5474 u64 10 1 0
voltage_l1 32.7.0 mV 3 0x5B00 u32 100 1 0
voltage_l2 52.7.0 mV 3 0x5B02 u32 100 1 0
voltage_l3 72.7.0 mV 3 0x5B04 u32 100 1 0
voltage_l12 - mV 3 0x5B06 u32 100 1 0
voltage_l23 - mV 3 0x5B08 u32 100 1 0
voltage_l31 - mV 3 0x5B0A u32 100 1 0
current_l1 31.7.0 mA 3 0x5B0C u32 10 1 0
current_l2 51.7.0 mA 3 0x5B0E u32 10 1 0
current_l3 71.7.0 mA 3 0x5B10 u32 10 1 0
current_n 91.7.0 mA 3 0x5B12 u32 10 1 0
active_power_total 16.7.0 W 3 0x5B14 s32 1 100 1
active_power_l1 36.7.0 W 3 0x5B16 s32 1 100 0
active_power_l2 56.7.0 W 3 0x5B18 s32 1 100 0
active_power_l3 76.7.0 W 3 0x5B1A s32 1 100 0
reactive_power_total 3.7.0 var 3 0x5B1C s32 1 100 0
reactive_power_l1 23.7.0 var 3 0x5B1E s32 1 100 0
reactive_power_l2 43.7.0 var 3 0x5B20 s32 1 100 0
reactive_power_l3 63.7.0 var 3 0x5B22 s32 1 100 0
apparent_power_total 9.7.0 VA 3 0x5B24 s32 1 100 0
apparent_power_l1 29.7.0 VA 3 0x5B26 s32 1 100 0
apparent_power_l2 49.7.0 VA 3 0x5B28 s32 1 100 0
apparent_power_l3 69.7.0 VA 3 0x5B2A s32 1 100 0
frequency 14.7.0 - 3 0x5B2C u16 10 1 0
power_factor_total 13.7.0 /1000 3 0x5B3A s16 1 1 0
power_factor_l1 33.7.0 /1000 3 0x5B3B s16 1 1 0
power_factor_l2 53.7.0 /1000 3 0x5B3C s16 1 1 0
power_factor_l3 73.7.0 /1000 3 0x5B3D s16 1 1 0
"""
