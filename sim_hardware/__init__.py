"""Simulated Modbus meters, made from a clock, a seed and a day of load, sun or wind.

Nothing of firmware, gateway or deploy is imported here, on purpose: the register maps are typed in a second time from
the makers' manuals, so that an error on either side shows when the two meet.
"""
