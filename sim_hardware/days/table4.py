"""A day of three enterprises and a wind microgrid, made from the figures of a published table.

Source: the paper on blind-auction trading in a distribution network (seed 003 of this project), Table 4: columns
"actual demand" of the load aggregators LA1, LA2, LA3 and "residual" of the microgrid, kWh in each hour.
The hours are local there; here hour 0 is played at 00:00 UTC, every day alike. The microgrid's residual is the energy
it has left to give (wind), hence export, negative. The energy of each hour is exactly the table's figure.
"""

# hour: LA1, LA2, LA3, MG residual; 10 Wh, that is the printed kWh times 100
HOURS_10WH = (
    (3_636, 4_058, 1_510, 16_050),    # 00:00
    (1_920, 4_187, 1_730, 16_580),    # 01:00
    (1_980, 4_392, 1_760, 15_920),    # 02:00
    (3_816, 4_684, 1_320, 14_550),    # 03:00
    (1_584, 4_578, 1_840, 14_890),    # 04:00
    (1_468, 4_577, 1_420, 14_710),    # 05:00
    (2_772, 4_046, 1_830, 14_180),    # 06:00
    (2_412, 4_160, 2_860, 12_860),    # 07:00
    (2_640, 4_766, 10_890, 11_170),    # 08:00
    (7_212, 5_639, 11_440, 9_730),    # 09:00
    (8_004, 5_963, 13_440, 8_910),    # 10:00
    (7_536, 5_750, 12_950, 7_640),    # 11:00
    (6_756, 6_126, 17_130, 6_970),    # 12:00
    (7_272, 5_324, 16_340, 6_040),    # 13:00
    (8_544, 5_135, 14_920, 5_840),    # 14:00
    (8_688, 6_270, 16_730, 6_170),    # 15:00
    (6_960, 5_016, 15_860, 6_730),    # 16:00
    (4_608, 5_873, 7_500, 7_780),    # 17:00
    (3_720, 4_911, 3_490, 9_240),    # 18:00
    (2_844, 5_027, 3_000, 10_920),    # 19:00
    (3_552, 4_158, 2_970, 11_980),    # 20:00
    (2_760, 5_312, 1_870, 12_400),    # 21:00
    (3_768, 5_310, 1_720, 13_210),    # 22:00
    (2_268, 3_003, 1_560, 13_980),    # 23:00
)
COLUMNS = {"LA1": (0, 1), "LA2": (1, 1), "LA3": (2, 1), "MG": (3, -1)}


class Table4Day:
    """The same 24 hours every day."""

    def __init__(self, column: str) -> None:
        index, sign = COLUMNS[column]
        self._segments = [(hour * 3600, sign * row[index] * 10_000) for hour, row in enumerate(HOURS_10WH)]

    def segments(self, day: int) -> list[tuple[int, int]]:
        """10 Wh in an hour is a mean power of 10 W = 10,000 mW."""
        return self._segments
