"""The SMA Sunny Boy, Sunny Tripower (SMA Modbus profile): which value stands in which registers. Data, no code.

An inverter: what it generates counts as export, and its power is negative. An installer has to switch Modbus on.

Addresses (from 0) and scales from (they agree):
  evcc-io/evcc@b29b49e3056e templates/definition/meter/sma-inverter-modbus.yaml
  Tinkerforge/esp32-firmware@06dd4a3314a7 software/src/modules/meters_modbus_tcp/sma.py
"""

MAKER = "SMA"
MODEL = "Sunny Boy, Sunny Tripower (SMA Modbus profile)"
LIMITS = (125, 0, 0)  # registers a read, hole crossed, ms between requests
SERIAL = (9600, "N")  # Modbus TCP only, unit 3; SunSpec answers at unit 126
# Largest plausible power (W), current (mA), voltage (mV), counter (Wh): inverters of up to 110 kW with room for as
# much. Counter: 64 bits of Wh.
BOUNDS = (200000, 400000, 700000, 100000000000000)
NUMBER = (3, 30057, 2, "u32")
IDENTITY = None
ORDER = "msw"
NONE = (("s32", 0x80000000), ("u64", 0xFFFFFFFFFFFFFFFF))  # at night: no data, not zero

# label, OBIS name, unit, function, address, kind, numerator, denominator, is for billing; "-": has none
FIELDS = """
active_power_total 16.7.0 W 4 30775 s32 -1 1 1
energy_active_export_total 2.8.0 Wh 3 30513 u64 1 1 1
"""
