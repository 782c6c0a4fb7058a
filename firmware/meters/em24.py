"""The Carlo Gavazzi EM24-DIN (RS-485): which value stands in which registers. Data, no code.

Not the map of the EM24 with Ethernet. Import is 0x003E; 0x0042, which some take for it, is the counter that a person
can reset. Some units answer exception 2 for the export counters unless their application register (0x1101) is 7:
these values are missing then, and a person sets that register, not this agent. Register 11 alone is the
identification code, as second half of a 32-bit value it belongs to the voltage L3-L1.

Addresses (from 0) and scales from (they agree):
  volkszaehler/mbmd@fb8f9c22f121 meters/rs485/carlogavazzi-em24.go
  krecik0814/modbus-rpi presets/library/carlo_gavazzi_em24.json
  community VenusOS module EM24RTU
  OpenEMS fork CarloGavazzi EM series
  evcc-io/evcc@b29b49e3056e issue #31143 / PR #31736
"""

MAKER = "Carlo Gavazzi"
MODEL = "EM24-DIN (RS-485)"
LIMITS = (11, 0, 50)  # registers a read, hole crossed, ms between requests
SERIAL = (9600, "N")  # as shipped
# Largest plausible power (W), current (mA), voltage (mV), counter (Wh): through transformers up to 210 MW; 3 x 6 kA x
# 230 V here. Counters: 32 bits signed of 0.1 kWh.
BOUNDS = (4000000, 7000000, 700000, 200000000000)
NUMBER = (4, 0x1300, 7, "text")
IDENTITY = (4, 11, 1, ((70,), (71,), (72,), (73,)))  # AV9, AV2, AV5, AV6
ORDER = "lsw"
NONE = ()

# label, OBIS name, unit, function, address, kind, numerator, denominator, is for billing; "-": has none
FIELDS = """
voltage_l1 32.7.0 mV 4 0x0000 s32 100 1 0
voltage_l2 52.7.0 mV 4 0x0002 s32 100 1 0
voltage_l3 72.7.0 mV 4 0x0004 s32 100 1 0
voltage_l12 - mV 4 0x0006 s32 100 1 0
voltage_l23 - mV 4 0x0008 s32 100 1 0
voltage_l31 - mV 4 0x000A s32 100 1 0
current_l1 31.7.0 mA 4 0x000C s32 1 1 0
current_l2 51.7.0 mA 4 0x000E s32 1 1 0
current_l3 71.7.0 mA 4 0x0010 s32 1 1 0
active_power_l1 36.7.0 W 4 0x0012 s32 1 10 0
active_power_l2 56.7.0 W 4 0x0014 s32 1 10 0
active_power_l3 76.7.0 W 4 0x0016 s32 1 10 0
apparent_power_l1 29.7.0 VA 4 0x0018 s32 1 10 0
apparent_power_l2 49.7.0 VA 4 0x001A s32 1 10 0
apparent_power_l3 69.7.0 VA 4 0x001C s32 1 10 0
reactive_power_l1 23.7.0 var 4 0x001E s32 1 10 0
reactive_power_l2 43.7.0 var 4 0x0020 s32 1 10 0
reactive_power_l3 63.7.0 var 4 0x0022 s32 1 10 0
active_power_total 16.7.0 W 4 0x0028 s32 1 10 1
apparent_power_total 9.7.0 VA 4 0x002A s32 1 10 0
reactive_power_total 3.7.0 var 4 0x002C s32 1 10 0
power_factor_l1 33.7.0 /1000 4 0x0032 s16 1 1 0
power_factor_l2 53.7.0 /1000 4 0x0033 s16 1 1 0
power_factor_l3 73.7.0 /1000 4 0x0034 s16 1 1 0
power_factor_total 13.7.0 /1000 4 0x0035 s16 1 1 0
frequency 14.7.0 - 4 0x0037 s16 100 1 0
energy_active_import_total 1.8.0 Wh 4 0x003E s32 100 1 1
energy_active_import_l1 21.8.0 Wh 4 0x0046 s32 100 1 0
energy_active_import_l2 41.8.0 Wh 4 0x0048 s32 100 1 0
energy_active_import_l3 61.8.0 Wh 4 0x004A s32 100 1 0
energy_active_export_total 2.8.0 Wh 4 0x005C s32 100 1 1
energy_reactive_import_total 3.8.0 varh 4 0x0040 s32 100 1 0
energy_active_import_partial - Wh 4 0x0042 s32 100 1 0
energy_reactive_export_total 4.8.0 varh 4 0x005E s32 100 1 0
energy_active_import_t1 1.8.1 Wh 4 0x004C s32 100 1 0
energy_active_import_t2 1.8.2 Wh 4 0x004E s32 100 1 0
energy_active_import_t3 1.8.3 Wh 4 0x0050 s32 100 1 0
energy_active_import_t4 1.8.4 Wh 4 0x0052 s32 100 1 0
"""
