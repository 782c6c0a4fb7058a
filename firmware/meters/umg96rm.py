"""The Janitza UMG 96RM, UMG 604, UMG 806: which value stands in which registers. Data, no code.

Janitza's B23 and B24 have the same block. Function 3 and 4 alike in most; energies are floats in Wh: from 16.8 MWh on
a step is more than 1 Wh.

Addresses (from 0) and scales from (they agree):
  OpenEMS/openems@0e4ea8881f78 io.openems.edge.meter.janitza/.../umg96rme/MeterJanitzaUmg96rmeImpl.java
  Tinkerforge/esp32-firmware@06dd4a3314a7 software/src/modules/meters_modbus_tcp/janitza.py
  volkszaehler/mbmd@fb8f9c22f121 meters/rs485/janitza.go
  evcc-io/evcc@b29b49e3056e templates/definition/meter/janitza.yaml
"""

MAKER = "Janitza"
MODEL = "UMG 96RM, UMG 604, UMG 806"
LIMITS = (120, 2, 20)  # registers a read, hole crossed, ms between requests
SERIAL = (38400, "N")  # 38.4 kbit/s as in the UMG 96-S2 manual, 9; no source states the UMG 96RM's
# Largest plausible power (W), current (mA), voltage (mV), counter (Wh): 3 x 6 kA x 230 V.
BOUNDS = (4000000, 7000000, 700000, 10000000000000)
NUMBER = None
IDENTITY = None
ORDER = "msw"
NONE = ()

# label, OBIS name, unit, function, address, kind, numerator, denominator, is for billing; "-": has none
FIELDS = """
voltage_l1 32.7.0 mV 3 19000 f32 1000 1 0
voltage_l2 52.7.0 mV 3 19002 f32 1000 1 0
voltage_l3 72.7.0 mV 3 19004 f32 1000 1 0
voltage_l12 - mV 3 19006 f32 1000 1 0
voltage_l23 - mV 3 19008 f32 1000 1 0
voltage_l31 - mV 3 19010 f32 1000 1 0
current_l1 31.7.0 mA 3 19012 f32 1000 1 0
current_l2 51.7.0 mA 3 19014 f32 1000 1 0
current_l3 71.7.0 mA 3 19016 f32 1000 1 0
current_total 90.7.0 mA 3 19018 f32 1000 1 0
active_power_l1 36.7.0 W 3 19020 f32 1 1 0
active_power_l2 56.7.0 W 3 19022 f32 1 1 0
active_power_l3 76.7.0 W 3 19024 f32 1 1 0
active_power_total 16.7.0 W 3 19026 f32 1 1 1
apparent_power_l1 29.7.0 VA 3 19028 f32 1 1 0
apparent_power_l2 49.7.0 VA 3 19030 f32 1 1 0
apparent_power_l3 69.7.0 VA 3 19032 f32 1 1 0
apparent_power_total 9.7.0 VA 3 19034 f32 1 1 0
reactive_power_l1 23.7.0 var 3 19036 f32 1 1 0
reactive_power_l2 43.7.0 var 3 19038 f32 1 1 0
reactive_power_l3 63.7.0 var 3 19040 f32 1 1 0
reactive_power_total 3.7.0 var 3 19042 f32 1 1 0
power_factor_l1 33.7.0 /1000 3 19044 f32 1000 1 0
power_factor_l2 53.7.0 /1000 3 19046 f32 1000 1 0
power_factor_l3 73.7.0 /1000 3 19048 f32 1000 1 0
frequency 14.7.0 - 3 19050 f32 1000 1 0
rotation_field - - 3 19052 f32 1 1 0
energy_active_net_l1 - Wh 3 19054 f32 1 1 0
energy_active_net_l2 - Wh 3 19056 f32 1 1 0
energy_active_net_l3 - Wh 3 19058 f32 1 1 0
energy_active_net_total - Wh 3 19060 f32 1 1 0
energy_active_import_l1 21.8.0 Wh 3 19062 f32 1 1 0
energy_active_import_l2 41.8.0 Wh 3 19064 f32 1 1 0
energy_active_import_l3 61.8.0 Wh 3 19066 f32 1 1 0
energy_active_import_total 1.8.0 Wh 3 19068 f32 1 1 1
energy_active_export_l1 22.8.0 Wh 3 19070 f32 1 1 0
energy_active_export_l2 42.8.0 Wh 3 19072 f32 1 1 0
energy_active_export_l3 62.8.0 Wh 3 19074 f32 1 1 0
energy_active_export_total 2.8.0 Wh 3 19076 f32 1 1 1
energy_apparent_l1 - VAh 3 19078 f32 1 1 0
energy_apparent_l2 - VAh 3 19080 f32 1 1 0
energy_apparent_l3 - VAh 3 19082 f32 1 1 0
energy_apparent_total 9.8.0 VAh 3 19084 f32 1 1 0
energy_reactive_l1 - varh 3 19086 f32 1 1 0
energy_reactive_l2 - varh 3 19088 f32 1 1 0
energy_reactive_l3 - varh 3 19090 f32 1 1 0
energy_reactive_total - varh 3 19092 f32 1 1 0
energy_reactive_inductive_l1 - varh 3 19094 f32 1 1 0
energy_reactive_inductive_l2 - varh 3 19096 f32 1 1 0
energy_reactive_inductive_l3 - varh 3 19098 f32 1 1 0
energy_reactive_inductive_total - varh 3 19100 f32 1 1 0
energy_reactive_capacitive_l1 - varh 3 19102 f32 1 1 0
energy_reactive_capacitive_l2 - varh 3 19104 f32 1 1 0
energy_reactive_capacitive_l3 - varh 3 19106 f32 1 1 0
energy_reactive_capacitive_total - varh 3 19108 f32 1 1 0
thd_voltage_l1 32.7.124 /1000 3 19110 f32 10 1 0
thd_voltage_l2 52.7.124 /1000 3 19112 f32 10 1 0
thd_voltage_l3 72.7.124 /1000 3 19114 f32 10 1 0
thd_current_l1 31.7.124 /1000 3 19116 f32 10 1 0
thd_current_l2 51.7.124 /1000 3 19118 f32 10 1 0
thd_current_l3 71.7.124 /1000 3 19120 f32 10 1 0
"""
