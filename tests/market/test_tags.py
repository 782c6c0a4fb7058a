"""Tags of credit assets: the paper's two words, the shift it lacks, and every word there and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.market.tags import GENESIS, TRANSFER, Tag, asset_value, decode, encode, output_value, padded

tags = st.builds(Tag, st.sampled_from((GENESIS, TRANSFER)), st.integers(0, 63))


def test_the_words_of_the_paper() -> None:
    """004: 100101 makes, 110011 hands on (the print's 11011 is a digit short: papers.md, defect 7)."""
    assert GENESIS == 0b100101 and TRANSFER == 0b110011
    assert encode(Tag(TRANSFER, 10)) == 0x2B3
    assert decode(0x2B3) == Tag(TRANSFER, 10) and Tag(TRANSFER, 10).padding == 1024
    assert Tag(GENESIS, 0).padding == 0 and Tag(GENESIS, 1).padding == 2


@given(tags, st.integers(0, (1 << 20) - 1), st.integers(0, 1 << 50))
def test_there_and_back(tag: Tag, upper: int, value: int) -> None:
    assert decode(encode(tag)) == tag
    assert decode(upper << 12 | encode(tag)) == tag  # the upper bits are the coin network's
    assert asset_value(tag, output_value(tag, value)) == value


@given(st.integers(0, (1 << 32) - 1))
def test_no_word_is_read_as_what_it_is_not(word: int) -> None:
    tag = decode(word)
    assert tag is None or encode(tag) == word & 0xFFF


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_the_smallest_padding(value: int, least: int) -> None:
    tag = padded(TRANSFER, value, least)
    assert output_value(tag, value) >= least
    assert tag.exponent == 0 or output_value(Tag(TRANSFER, tag.exponent - 1), value) < least


def test_refuses_what_no_word_can_say() -> None:
    for wrong in (lambda: encode(Tag(0x11, 0)), lambda: encode(Tag(GENESIS, 64)), lambda: decode(1 << 32),
                  lambda: decode(-1), lambda: output_value(Tag(GENESIS, 1), -1), lambda: padded(GENESIS, 0, 1 << 64)):
        with pytest.raises(ValueError):
            wrong()
    assert asset_value(Tag(GENESIS, 10), 1000) == 0
