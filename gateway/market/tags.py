"""Makes the 32-bit sequence word that tags a credit asset in a coin transaction (colored coins), and reads it.

Source: 004, eqs. (3)-(6), with the shift that the paper's (5) lacks (papers.md, defects 7 and 8): taken as printed the
padding would be up to 2^4032. Bits 0-5 are the tag, bits 6-11 the exponent of the padding:

    (3)  tag = sequence & 0x3F                    0x25 makes an asset, 0x33 hands it on
    (5)  N = (sequence & 0x0FC0) >> 6
    (6)  padding = 2^N, 0 for N = 0
    (4)  value of the output = padding + Ve       Ve: what the output is worth in the asset

The padding lifts small asset values over the least amount that a coin network carries.
"""

from typing import NamedTuple

GENESIS, TRANSFER = 0x25, 0x33
TAGS = (GENESIS, TRANSFER)
TAG_MASK, PADDING_MASK, PADDING_SHIFT = 0x3F, 0x0FC0, 6
LARGEST_EXPONENT = PADDING_MASK >> PADDING_SHIFT
WORD_BOUND = 1 << 32


class Tag(NamedTuple):
    """What a sequence word says."""

    kind: int       # GENESIS or TRANSFER
    exponent: int   # 0..63

    @property
    def padding(self) -> int:
        """Eq. (6)."""
        return 1 << self.exponent if self.exponent else 0


def encode(tag: Tag) -> int:
    """Returns the sequence word, its upper 20 bits 0; ValueError for what no word can say."""
    if tag.kind not in TAGS or not 0 <= tag.exponent <= LARGEST_EXPONENT:
        raise ValueError(f"a tag of {TAGS} and an exponent of 0..{LARGEST_EXPONENT}, not {tag}")
    return tag.exponent << PADDING_SHIFT | tag.kind


def decode(word: int) -> Tag | None:
    """Returns what an input's sequence word says, None where it is not an asset's; ValueError above 32 bits."""
    if not 0 <= word < WORD_BOUND:
        raise ValueError(f"a word of 32 bits, not {word}")
    kind = word & TAG_MASK
    return Tag(kind, (word & PADDING_MASK) >> PADDING_SHIFT) if kind in TAGS else None


def output_value(tag: Tag, asset_value: int) -> int:
    """Returns what the output carries in coin units, eq. (4)."""
    if asset_value < 0:
        raise ValueError(f"an asset's value from 0, not {asset_value}")
    return tag.padding + asset_value


def asset_value(tag: Tag, value: int) -> int:
    """Returns Ve, eq. (4) the other way round; 0 where the output carries less than the padding: it has no asset."""
    return max(0, value - tag.padding)


def padded(kind: int, value: int, least: int) -> Tag:
    """Returns the tag with the smallest padding that lifts `value` to `least` coin units; ValueError if none does."""
    for exponent in range(LARGEST_EXPONENT + 1):
        tag = Tag(kind, exponent)
        if output_value(tag, value) >= least:
            return tag
    raise ValueError(f"no padding lifts {value} to {least}")
