"""Repeatable chance, made from a seed and a place: the same question always has the same answer.

A stream of random numbers would have to be replayed from its start after every restart. A hash of (seed, what, when)
can be asked at any step in any order, which is what makes a meter recomputable in the middle of a day.
"""

MASK = (1 << 64) - 1


def mix(value: int) -> int:
    """64 well-stirred bits of any integer: the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def seed_of(*parts: int | str) -> int:
    """One 64-bit seed of several parts; made once per meter and quantity, not per step."""
    seed = 0
    for part in parts:
        if isinstance(part, str):
            part = int.from_bytes(part.encode(), "big") + len(part)
        while True:                             # 64 bits at a time, so that long names count whole
            seed = mix(seed ^ mix(part & MASK))
            part >>= 64
            if part in (0, -1):
                break
    return seed


def pick(seed: int, index: int, low: int, high: int) -> int:
    """An integer in low..high inclusive, even enough for a simulator (bias below 2^-40 for spans below 2^24)."""
    return low + mix(seed ^ mix(index & MASK)) % (high - low + 1)


def drift(seed: int, position: int, spacing: int, low: int, high: int) -> int:
    """A value that wanders slowly: `pick` at every multiple of `spacing`, straight lines in integers between."""
    knot, offset = divmod(position, spacing)
    first = pick(seed, knot, low, high)
    second = pick(seed, knot + 1, low, high)
    return first + (second - first) * offset // spacing
