"""Makes predictions of how long each bus takes for a round of polls, from a configuration, and refuses what cannot be.

Added up are, in the order in which firmware/bus.py spends them: the silence before each request, the characters of
request and answer at the line's speed, and what a meter takes to begin its answer. The worst round has one meter in
trouble, which costs its retries and no more than its budget. All times are in ms of real time.
"""

from collections import namedtuple

from firmware import bus, config, meters, modbus
from firmware.schedule import ATTEMPTS

REPLY_MS = bus.REPLY_MS
# Of an interval, at least so many times answer_ms: two polls of a meter are half an interval apart, and an answer may
# be late by as much as it was waited for. RTU frames do not say which request they answer.
ANSWERS = 4
REQUEST_BYTES, ANSWER_BYTES = 8, 5  # of a read; the answer has two more for each register

# One bus: how many points; the requests of a round; ms of a round when all is well, of one with a meter in trouble, and
# of the other quantities (0: none are read); problem: why it cannot be, else None.
Line = namedtuple("Line", ("port", "points", "requests", "usual_ms", "worst_ms", "details_ms", "problem"))


def predict(settings, reply_ms=REPLY_MS):
    """Returns a Line for each bus of a Config."""
    return [_line(settings, line, reply_ms) for line in settings.buses]


def check(settings, is_one_thread=False, reply_ms=REPLY_MS):
    """Raises config.BadConfig for the first bus whose worst round does not fit into the interval.

    is_one_thread: a board that polls all its buses in turn, so that their rounds add up.
    """
    lines = predict(settings, reply_ms)
    for number in range(len(lines)):
        if lines[number].problem is not None:
            raise config.BadConfig("bus[%d]" % number, lines[number].problem)
    together_ms = sum([line.worst_ms + line.details_ms for line in lines])
    if is_one_thread and len(lines) > 1 and together_ms > settings.interval_s * 1000:
        raise config.BadConfig("bus", "all buses of this board are read in turn, which takes %s s, and interval_s is "
                               "%d: raise interval_s to %d or more" % (
                                   _seconds(together_ms), settings.interval_s, _up(together_ms)))


def describe(line, settings):
    """Returns one line of text about a Line."""
    text = "predicted: %s s for a round of %d requests (%s s with a meter in trouble), every %d s" % (
        _seconds(line.usual_ms), line.requests, _seconds(line.worst_ms), settings.interval_s)
    if line.details_ms:
        text += "; %s s for the other quantities, every %d s" % (_seconds(line.details_ms), settings.details_every_s)
    return text


def _line(settings, line, reply_ms):
    interval_ms = settings.interval_s * 1000
    plans, details, trouble_ms = [], [], 0
    for row in line.meters:
        table = config.table(row.type, settings.own)
        plans.append((row.gap_ms, _plan(table, meters.BILLING)))
        details.append((row.gap_ms, _plan(table, meters.OTHER) if settings.details_every_s else []))
        usual_ms = _round_ms(line, plans[-1:], reply_ms)
        trouble_ms = max(trouble_ms, _trouble_ms(line, row, plans[-1][1], interval_ms) - usual_ms)
    if len(line.meters) == 1:
        trouble_ms = 0  # nobody else waits, and the meter itself is asked again at its next turn
    usual_ms, details_ms = _round_ms(line, plans, reply_ms), _round_ms(line, details, reply_ms)
    return Line(line.port, len(line.meters), sum([len(plan) for _, plan in plans]), usual_ms, usual_ms + trouble_ms,
                details_ms, _problem(settings, line, usual_ms + trouble_ms, details_ms))


def _problem(settings, line, worst_ms, details_ms):
    most_ms = settings.interval_s * 1000 // ANSWERS
    if line.answer_ms > most_ms and not line.port.startswith("tcp://"):
        return ("%s waits %d ms for an answer (answer_ms), and interval_s is %d: set answer_ms to %d or less, since an "
                "answer that comes late could be taken for the next reading's" % (
                    line.port, line.answer_ms, settings.interval_s, most_ms))
    if worst_ms + details_ms <= settings.interval_s * 1000:
        return None
    what = "" if not details_ms else " with the other quantities in between"
    remedy = "raise interval_s to %d or more" % _up(worst_ms + details_ms)
    if details_ms and worst_ms <= settings.interval_s * 1000:
        remedy += ", or set details_every_s to 0"
    if not modbus.is_network(line.port):
        remedy += ", or set its meters to more than %d baud" % line.baud
    if len(line.meters) > 1:
        remedy += ", or move some of its %d meters to another bus" % len(line.meters)
    return "%s takes %s s for a round%s, and interval_s is %d: %s" % (
        line.port, _seconds(worst_ms + details_ms), what, settings.interval_s, remedy)


def _plan(table, group):
    return modbus.plan(meters.fields_of(table, group), table.max_registers, table.max_hole)


def _round_ms(line, plans, reply_ms):
    """A round when all is well. plans: [(silence that a meter wants, its requests)] in bus order.

    Before a meter's first request it is silent as long as this one and the one before want; before the first of all
    it has been.
    """
    found = last_gap_ms = 0
    is_first = True
    for gap_ms, plan in plans:
        for _, _, count in plan:
            found += _exchange_ms(line, count, reply_ms)
            if not is_first:
                found += max(_silence_ms(line), gap_ms, last_gap_ms)
            is_first = False
            last_gap_ms = gap_ms
    return found


def _trouble_ms(line, row, plan, interval_ms):
    """The longest that a poll can take: every attempt fails as late as it may, or its time is over before that."""
    attempts_ms = allowed_ms = 0
    baud = _baud(line)
    for _, _, count in plan:
        usual_ms = modbus.usual_ms(count, baud, row.gap_ms, bus.REPLY_MS)
        allowed_ms += usual_ms
        attempts_ms += ATTEMPTS * (usual_ms - bus.REPLY_MS + line.answer_ms)
    return min(attempts_ms, allowed_ms + interval_ms // bus.PATIENCE)


def _exchange_ms(line, count, reply_ms):
    """From a request's first character to the last of its answer; between both the line is silent for t3.5 at least."""
    baud = _baud(line)
    if not baud:
        return reply_ms
    bits = (REQUEST_BYTES + ANSWER_BYTES + 2 * count) * (10 if line.parity == "N" else 11)
    return (bits * 1000 + baud - 1) // baud + _silence_ms(line) + reply_ms


def _silence_ms(line):
    baud = _baud(line)
    return (modbus.silence_us(baud) + 999) // 1000 if baud else 0


def _baud(line):
    """0 where frames take no time that counts: Modbus TCP. What stands behind a gateway box, nobody has said."""
    return 0 if line.port.startswith("tcp://") else line.baud


def _seconds(ms):
    return "%d.%d" % (ms // 1000, ms % 1000 // 100)


def _up(ms):
    return -(-ms // 1000)
