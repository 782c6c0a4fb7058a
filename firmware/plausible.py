"""Makes quality bits, and words for a person, from what a meter's counters did since its last billing reading.

A value that its meter really shows is never replaced or left out: it is marked. A counter that fell, or rose faster
than the meter's largest power explains, is IMPLAUSIBLE (once: the readings after it follow from it). Counters that
stand still while the power that is shown would have moved them are STALE: such a meter answers with old registers.
A checksum sees neither.
"""

try:
    from micropython import const
except ImportError:
    def const(value):
        return value

from firmware.wire.reading import IMPLAUSIBLE, STALE

COUNTERS = ("1.8.0", "2.8.0", "15.8.0")
POWERS = ("16.7.0", "36.7.0")
WATT_MS_PER_WH = 3600000
_JUMP_WH = const(1000)  # a rise up to here is believed in any time: registers of some meters move in such steps
_STILL_WH = const(50)  # less than this that did not show says nothing; 3 steps of a register, where these are larger
_SCALED_WH = const(100)  # a step of a counter whose scale stands in another register
_LONGEST_MS = const(900000)  # power is not believed to have lasted longer than this between two readings


def judge(seen, fields, entries, time_ms, max_power_w):
    """Returns (seen for the next time, quality bits, texts of alarms).

    seen: None at first, then what the last call gave. fields, entries: of one billing reading, in one order.
    """
    values = [None, None, None]
    power_w = None
    step_wh = 1
    for field, entry in zip(fields, entries):
        if entry.value is None:
            continue
        if entry.name in COUNTERS:
            values[COUNTERS.index(entry.name)] = entry.value
            step_wh = max(step_wh, _step_wh(field, entry.value))
        elif entry.name in POWERS:
            power_w = entry.value
    if seen is None:
        return (time_ms, tuple(values), power_w, 0), 0, []
    last_ms, old, last_power_w, unseen = seen
    if values == [None, None, None]:
        return seen, 0, []
    bits, texts = _moved(old, values, time_ms - last_ms, max_power_w)
    if values != list(old) or not _is_counted(values, last_power_w):
        unseen = 0
    else:
        was_still = unseen >= max(_STILL_WH, 3 * step_wh) * WATT_MS_PER_WH
        unseen += abs(last_power_w) * min(_LONGEST_MS, time_ms - last_ms)
        if unseen >= max(_STILL_WH, 3 * step_wh) * WATT_MS_PER_WH:
            bits |= STALE
            if not was_still:
                texts.append("its counters stand still at %d W: it may be answering with old values" % last_power_w)
    kept = tuple([before if value is None else value for value, before in zip(values, old)])
    return (time_ms, kept, last_power_w if power_w is None else power_w, unseen), bits, texts


def _moved(old, values, elapsed_ms, max_power_w):
    bits = 0
    texts = []
    for name, before, value in zip(COUNTERS, old, values):
        if before is None or value is None:
            continue
        if value < before:
            bits |= IMPLAUSIBLE
            texts.append("register %s fell from %d to %d Wh: it has begun again, or this is another meter (gridseal "
                         "meter replace)" % (name, before, value))
        elif (value - before - _JUMP_WH) * WATT_MS_PER_WH > max_power_w * elapsed_ms:
            bits |= IMPLAUSIBLE
            texts.append("register %s rose by %d Wh within %d s, more than %d W can" % (
                name, value - before, elapsed_ms // 1000, max_power_w))
    return bits, texts


def _is_counted(values, power_w):
    """Whether a power in this direction moves a counter that was read."""
    if not power_w:
        return False
    return values[2] is not None or values[0 if power_w > 0 else 1] is not None


def _step_wh(field, value):
    """The smallest step of a counter, as well as one can tell: a float's last bit or 10 Wh, its register's unit."""
    if field.kind[0] == "f":
        return max(10, abs(value) >> 22)
    if field.special is not None and field.special.scale_at is not None:
        return _SCALED_WH
    return field.numerator // field.denominator
