"""The Eastron SDM72D-M-2: which value stands in which registers. Data, no code.

Addresses (from 0) and scales from (they agree):
  volkszaehler/mbmd@fb8f9c22f121 meters/rs485/sdm72v2.go
  evcc-io/evcc@b29b49e3056e templates/definition/meter/eastron-sdm72v2_630.yaml
"""

MAKER = "Eastron"
MODEL = "SDM72D-M-2"
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
voltage_l1 32.7.0 mV 4 0x0000 f32 1000 1 0
voltage_l2 52.7.0 mV 4 0x0002 f32 1000 1 0
voltage_l3 72.7.0 mV 4 0x0004 f32 1000 1 0
current_l1 31.7.0 mA 4 0x0006 f32 1000 1 0
current_l2 51.7.0 mA 4 0x0008 f32 1000 1 0
current_l3 71.7.0 mA 4 0x000A f32 1000 1 0
active_power_l1 36.7.0 W 4 0x000C f32 1 1 0
active_power_l2 56.7.0 W 4 0x000E f32 1 1 0
active_power_l3 76.7.0 W 4 0x0010 f32 1 1 0
apparent_power_l1 29.7.0 VA 4 0x0012 f32 1 1 0
apparent_power_l2 49.7.0 VA 4 0x0014 f32 1 1 0
apparent_power_l3 69.7.0 VA 4 0x0016 f32 1 1 0
reactive_power_l1 23.7.0 var 4 0x0018 f32 1 1 0
reactive_power_l2 43.7.0 var 4 0x001A f32 1 1 0
reactive_power_l3 63.7.0 var 4 0x001C f32 1 1 0
power_factor_l1 33.7.0 /1000 4 0x001E f32 1000 1 0
power_factor_l2 53.7.0 /1000 4 0x0020 f32 1000 1 0
power_factor_l3 73.7.0 /1000 4 0x0022 f32 1000 1 0
active_power_total 16.7.0 W 4 0x0034 f32 1 1 1
apparent_power_total 9.7.0 VA 4 0x0038 f32 1 1 0
reactive_power_total 3.7.0 var 4 0x003C f32 1 1 0
power_factor_total 13.7.0 /1000 4 0x003E f32 1000 1 0
frequency 14.7.0 - 4 0x0046 f32 1000 1 0
energy_active_import_total 1.8.0 Wh 4 0x0048 f32 1000 1 1
energy_active_export_total 2.8.0 Wh 4 0x004A f32 1000 1 1
energy_active_sum_total 15.8.0 Wh 4 0x0156 f32 1000 1 0
energy_reactive_sum_total - varh 4 0x0158 f32 1000 1 0
"""
