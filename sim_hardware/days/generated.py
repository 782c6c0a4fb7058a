"""Days that nobody measured, made from a seed: household load, sun, wind, and a household with a roof.

The shapes are ours, drawn to look like the real thing and to keep a market busy; they are no statistics of anybody.
One value per quarter of an hour; each day differs, and any day can be asked first.
"""

import math

from sim_hardware.chance import drift, pick, seed_of

QUARTER_S = 900
QUARTERS = 96
GENERATORS = ("household", "sun", "wind", "prosumer")

# Mean household power by hour, W: sleep, breakfast, work, cooking, evening.
HOUSEHOLD_W = (190, 170, 160, 155, 160, 210, 420, 610, 480, 340, 310, 380,
               560, 430, 320, 310, 380, 620, 910, 1020, 880, 690, 450, 270)
KETTLE_MW = 1_900_000       # something hot, now and then
SUN_PEAK_MW = 5_200_000     # a roof of 5.2 kW
SUN_STANDBY_MW = 4_000      # what the inverter takes at night
WIND_PEAK_MW = 20_000_000   # a small turbine of 20 kW
# Wind turbine: nothing below 3 m/s, cubic to full power at 12 m/s, off above 25 m/s; centimetres per second.
CUT_IN_CM_S, FULL_CM_S, CUT_OUT_CM_S = 300, 1200, 2500


class GeneratedDay:
    """`kind` of GENERATORS at one point; different points see different houses and roofs, but one weather."""

    def __init__(self, kind: str, seed: int, point: int) -> None:
        if kind not in GENERATORS:
            raise ValueError(f"unknown generator {kind!r}")
        self._kind = kind
        self._house = seed_of(seed, "household", point)
        self._roof = seed_of(seed, "roof", point)
        self._sky = seed_of(seed, "sky")
        self._wind = seed_of(seed, "wind")
        self._site = seed_of(seed, "site", point)

    def segments(self, day: int) -> list[tuple[int, int]]:
        """96 quarters of an hour."""
        power = {"household": self._household, "sun": self._sun, "wind": self._wind_power,
                 "prosumer": lambda d, q: self._household(d, q) + self._sun(d, q)}[self._kind]
        return [(quarter * QUARTER_S, power(day, quarter)) for quarter in range(QUARTERS)]

    def _household(self, day: int, quarter: int) -> int:
        index = day * QUARTERS + quarter
        hour, part = divmod(quarter, 4)
        mean_mw = (HOUSEHOLD_W[hour] * (4 - part) + HOUSEHOLD_W[(hour + 1) % 24] * part) * 250
        size = pick(self._house, -1, 600, 1500)             # per mille: small and large households
        mood = pick(self._house ^ 1, day, 800, 1200)        # per mille: quiet and busy days
        moment = pick(self._house ^ 2, index, 600, 1500)
        power = mean_mw * size * mood * moment // 10**9
        if pick(self._house ^ 3, index, 0, 99) < HOUSEHOLD_W[hour] // 80:
            power += KETTLE_MW * pick(self._house ^ 4, index, 300, 1000) // 1000
        return power

    def _sun(self, day: int, quarter: int) -> int:
        season = math.cos((day % 365.25 - 172) / 365.25 * 2 * math.pi)     # 1 in June, -1 in December, north
        half_s = (12 + 3 * season) * 1800                                  # half the day's length
        angle = (quarter * QUARTER_S + QUARTER_S // 2 - 43_200) / half_s
        if abs(angle) >= 1:
            return SUN_STANDBY_MW
        height = math.cos(angle * math.pi / 2) * (0.75 + 0.25 * season)
        clear = pick(self._sky, day, 250, 1000)             # per mille: this day's best sky
        cloud = drift(self._sky ^ 1, day * QUARTERS + quarter, 3, clear // 2, clear)
        size = pick(self._roof, 0, 500, 1000)
        return SUN_STANDBY_MW - int(height * SUN_PEAK_MW) * cloud * size // 10**6

    def _wind_power(self, day: int, quarter: int) -> int:
        index = day * QUARTERS + quarter
        speed = (drift(self._wind, index, 32, 150, 1300) + drift(self._wind ^ 1, index, 6, -200, 250)
                 + pick(self._site, index, -60, 60))
        if not CUT_IN_CM_S <= speed < CUT_OUT_CM_S:
            return 0
        share = min(speed, FULL_CM_S) ** 3 * 1000 // FULL_CM_S ** 3
        return -WIND_PEAK_MW * share // 1000
