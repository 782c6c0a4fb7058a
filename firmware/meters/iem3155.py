"""The Schneider Electric iEM3150 to iEM3355: which value stands in which registers. Data, no code.

The documents count registers from 1, the wire from 0: 3028 is 3027 here. iEM3150, 3250 and 3350 have no export,
reactive and apparent values.

Addresses (from 0) and scales from (they agree):
  volkszaehler/mbmd@fb8f9c22f121 meters/rs485/iem3000.go
  arendst/Tasmota tasmota/tasmota_xnrg_energy/xnrg_16_iem3000.ino
  krecik0814/modbus-rpi presets/library/schneider_iem3000.json
"""

MAKER = "Schneider Electric"
MODEL = "iEM3150 to iEM3355"
LIMITS = (125, 2, 50)  # registers a read, hole crossed, ms between requests
SERIAL = (19200, "E")  # as shipped
# Largest plausible power (W), current (mA), voltage (mV), counter (Wh): iEM32xx and iEM33xx: through transformers, 3
# x 6 kA x 230 V. Counters have 64 bits.
BOUNDS = (4000000, 7000000, 700000, 10000000000000)
NUMBER = (3, 129, 2, "u32")  # "Serial Number", register 130 of the documents, which count from 1
IDENTITY = None
ORDER = "msw"
NONE = (("s64", 0x8000000000000000),)  # the maker's custom for what a variant lacks; a float is NaN then

# label, OBIS name, unit, function, address, kind, numerator, denominator, is for billing; "-": has none
FIELDS = """
current_l1 31.7.0 mA 3 2999 f32 1000 1 0
current_l2 51.7.0 mA 3 3001 f32 1000 1 0
current_l3 71.7.0 mA 3 3003 f32 1000 1 0
current_avg - mA 3 3009 f32 1000 1 0
voltage_l12 - mV 3 3019 f32 1000 1 0
voltage_l23 - mV 3 3021 f32 1000 1 0
voltage_l31 - mV 3 3023 f32 1000 1 0
voltage_l1 32.7.0 mV 3 3027 f32 1000 1 0
voltage_l2 52.7.0 mV 3 3029 f32 1000 1 0
voltage_l3 72.7.0 mV 3 3031 f32 1000 1 0
voltage_avg_ln 12.7.0 mV 3 3035 f32 1000 1 0
active_power_l1 36.7.0 W 3 3053 f32 1000 1 0
active_power_l2 56.7.0 W 3 3055 f32 1000 1 0
active_power_l3 76.7.0 W 3 3057 f32 1000 1 0
active_power_total 16.7.0 W 3 3059 f32 1000 1 1
reactive_power_total 3.7.0 var 3 3067 f32 1000 1 0
apparent_power_total 9.7.0 VA 3 3075 f32 1000 1 0
frequency 14.7.0 - 3 3109 f32 1000 1 0
energy_active_import_total 1.8.0 Wh 3 3203 s64 1 1 1
energy_active_export_total 2.8.0 Wh 3 3207 s64 1 1 1
energy_reactive_import_total 3.8.0 varh 3 3219 s64 1 1 0
energy_reactive_export_total 4.8.0 varh 3 3223 s64 1 1 0
energy_active_import_l1 21.8.0 Wh 3 3517 s64 1 1 0
energy_active_import_l2 41.8.0 Wh 3 3521 s64 1 1 0
energy_active_import_l3 61.8.0 Wh 3 3525 s64 1 1 0
"""
