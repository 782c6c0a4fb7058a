"""The Orno OR-WE-516, OR-WE-517: which value stands in which registers. Data, no code.

Reactive powers are kvar in the maker's table; one driver (Tasmota) takes them for var.

Addresses (from 0) and scales from (they agree):
  volkszaehler/mbmd@fb8f9c22f121 meters/rs485/orno3p.go
  arendst/Tasmota tasmota/tasmota_xnrg_energy/xnrg_17_ornowe517.ino
  tasmota/docs WE517 lines
  evcc-io/evcc@b29b49e3056e templates/definition/meter/orno.yaml
"""

MAKER = "Orno"
MODEL = "OR-WE-516, OR-WE-517"
LIMITS = (60, 6, 50)  # registers a read, hole crossed, ms between requests
SERIAL = (9600, "E")  # as shipped
# Largest plausible power (W), current (mA), voltage (mV), counter (Wh): 3 x 5(80) A, 3 x 100 A x 300 V with room for
# a third.
BOUNDS = (120000, 150000, 500000, 10000000000)
NUMBER = None
IDENTITY = None
ORDER = "msw"
NONE = ()

# label, OBIS name, unit, function, address, kind, numerator, denominator, is for billing; "-": has none
FIELDS = """
voltage_l1 32.7.0 mV 3 0x000E f32 1000 1 0
voltage_l2 52.7.0 mV 3 0x0010 f32 1000 1 0
voltage_l3 72.7.0 mV 3 0x0012 f32 1000 1 0
frequency 14.7.0 - 3 0x0014 f32 1000 1 0
current_l1 31.7.0 mA 3 0x0016 f32 1000 1 0
current_l2 51.7.0 mA 3 0x0018 f32 1000 1 0
current_l3 71.7.0 mA 3 0x001A f32 1000 1 0
active_power_total 16.7.0 W 3 0x001C f32 1000 1 1
active_power_l1 36.7.0 W 3 0x001E f32 1000 1 0
active_power_l2 56.7.0 W 3 0x0020 f32 1000 1 0
active_power_l3 76.7.0 W 3 0x0022 f32 1000 1 0
reactive_power_total 3.7.0 var 3 0x0024 f32 1000 1 0
reactive_power_l1 23.7.0 var 3 0x0026 f32 1000 1 0
reactive_power_l2 43.7.0 var 3 0x0028 f32 1000 1 0
reactive_power_l3 63.7.0 var 3 0x002A f32 1000 1 0
apparent_power_total 9.7.0 VA 3 0x002C f32 1000 1 0
apparent_power_l1 29.7.0 VA 3 0x002E f32 1000 1 0
apparent_power_l2 49.7.0 VA 3 0x0030 f32 1000 1 0
apparent_power_l3 69.7.0 VA 3 0x0032 f32 1000 1 0
power_factor_total 13.7.0 /1000 3 0x0034 f32 1000 1 0
power_factor_l1 33.7.0 /1000 3 0x0036 f32 1000 1 0
power_factor_l2 53.7.0 /1000 3 0x0038 f32 1000 1 0
power_factor_l3 73.7.0 /1000 3 0x003A f32 1000 1 0
energy_active_sum_total 15.8.0 Wh 3 0x0100 f32 1000 1 0
energy_active_sum_l1 35.8.0 Wh 3 0x0102 f32 1000 1 0
energy_active_sum_l2 55.8.0 Wh 3 0x0104 f32 1000 1 0
energy_active_sum_l3 75.8.0 Wh 3 0x0106 f32 1000 1 0
energy_active_import_total 1.8.0 Wh 3 0x0108 f32 1000 1 1
energy_active_import_l1 21.8.0 Wh 3 0x010A f32 1000 1 0
energy_active_import_l2 41.8.0 Wh 3 0x010C f32 1000 1 0
energy_active_import_l3 61.8.0 Wh 3 0x010E f32 1000 1 0
energy_active_export_total 2.8.0 Wh 3 0x0110 f32 1000 1 1
energy_active_export_l1 22.8.0 Wh 3 0x0112 f32 1000 1 0
energy_active_export_l2 42.8.0 Wh 3 0x0114 f32 1000 1 0
energy_active_export_l3 62.8.0 Wh 3 0x0116 f32 1000 1 0
energy_reactive_sum_total - varh 3 0x0118 f32 1000 1 0
energy_reactive_sum_l1 - varh 3 0x011A f32 1000 1 0
energy_reactive_sum_l2 - varh 3 0x011C f32 1000 1 0
energy_reactive_sum_l3 - varh 3 0x011E f32 1000 1 0
energy_reactive_import_total 3.8.0 varh 3 0x0120 f32 1000 1 0
energy_reactive_import_l1 23.8.0 varh 3 0x0122 f32 1000 1 0
energy_reactive_import_l2 43.8.0 varh 3 0x0124 f32 1000 1 0
energy_reactive_import_l3 63.8.0 varh 3 0x0126 f32 1000 1 0
energy_reactive_export_total 4.8.0 varh 3 0x0128 f32 1000 1 0
energy_reactive_export_l1 24.8.0 varh 3 0x012A f32 1000 1 0
energy_reactive_export_l2 44.8.0 varh 3 0x012C f32 1000 1 0
energy_reactive_export_l3 64.8.0 varh 3 0x012E f32 1000 1 0
energy_active_sum_t1 - Wh 3 0x0130 f32 1000 1 0
energy_active_import_t1 1.8.1 Wh 3 0x0132 f32 1000 1 0
energy_active_export_t1 2.8.1 Wh 3 0x0134 f32 1000 1 0
energy_active_sum_t2 - Wh 3 0x013C f32 1000 1 0
energy_active_import_t2 1.8.2 Wh 3 0x013E f32 1000 1 0
energy_active_export_t2 2.8.2 Wh 3 0x0140 f32 1000 1 0
"""
