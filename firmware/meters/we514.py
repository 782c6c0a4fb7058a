"""The Orno OR-WE-514, OR-WE-515: which value stands in which registers. Data, no code.

No import and export apart: one counter takes both. A point with this meter is sealed but has no register 1.8.0 to
trade or to bill by. Tariffs: WE-515 only.

Addresses (from 0) and scales from (they agree):
  volkszaehler/mbmd@fb8f9c22f121 meters/rs485/orno1p.go
  krecik0814/modbus-rpi presets/library/orno_or_we_514.json
  gituser-rk/orno-modbus-mqtt modbus-mqtt.py
  community table
"""

MAKER = "Orno"
MODEL = "OR-WE-514, OR-WE-515"
LIMITS = (60, 0, 50)  # registers a read, hole crossed, ms between requests
SERIAL = (9600, "E")  # as shipped
# Largest plausible power (W), current (mA), voltage (mV), counter (Wh): 230 V, 5(100) A: 100 A x 300 V.
BOUNDS = (30000, 120000, 500000, 10000000000)
NUMBER = None
IDENTITY = None
ORDER = "msw"
NONE = ()

# label, OBIS name, unit, function, address, kind, numerator, denominator, is for billing; "-": has none
FIELDS = """
frequency 14.7.0 - 3 0x0130 u16 10 1 0
voltage_l1 32.7.0 mV 3 0x0131 u16 10 1 0
current_l1 31.7.0 mA 3 0x0139 u32 1 1 0
active_power_l1 36.7.0 W 3 0x0140 s32 1 1 1
reactive_power_l1 23.7.0 var 3 0x0148 s32 1 1 0
apparent_power_l1 29.7.0 VA 3 0x0150 s32 1 1 0
power_factor_l1 33.7.0 /1000 3 0x0158 s16 1 1 0
energy_active_sum_total 15.8.0 Wh 3 0xA000 u32 10 1 1
energy_active_sum_t1 - Wh 3 0xA002 u32 10 1 0
energy_active_sum_t2 - Wh 3 0xA004 u32 10 1 0
energy_reactive_sum_total - varh 3 0xA01E u32 10 1 0
"""
