"""Makes readings, and their records, out of what the meters answered: functions over an agent.Agent.

A board loads this module for each poll's outcome, and drops it again.
"""

import hashlib

from firmware import bus, decode, meters, modbus, plausible, reading_records
from firmware.records import READING
from firmware.wire.reading import Reading


def plan(meter, group):
    """Returns the requests of a poll, [(function, address, count)]."""
    return modbus.plan(meters.fields_of(meter, group), meter.max_registers, meter.max_hole)


def has_details(meter):
    """Tells whether there is anything to poll beside the billing quantities."""
    return len(meters.fields_of(meter, meters.OTHER)) > 0


def on_words(agent, read, start_ms, quality, exchanges, now_ms, wait_ms):
    """Returns the duties that follow from the outcome of a Read duty, as agent.Agent.on_words says."""
    place = [place for place in agent.settings.places if place.point == read.point][0]
    schedule = agent.schedules[read.point]
    answered = False
    for exchange in exchanges:
        if exchange.reason is None or exchange.reason.startswith(modbus.EXCEPTION):
            answered = True
    if answered:
        if schedule.answered():
            agent.alarm("point %d (unit %d) answers again" % (place.point, place.unit))
    elif exchanges and schedule.silent(wait_ms):
        agent.alarm("point %d: unit %d on bus %d is silent (%s): asked now and then only; check its power, "
                    "wiring and address" % (place.point, place.unit, place.bus, exchanges[-1].reason))
    fields = meters.fields_of(place.meter, read.group)
    entries, implausible = decode.entries_of(fields, bus.registers_of(exchanges, read.requests))
    hasher = hashlib.sha256()
    for exchange in exchanges:
        for frame in (exchange.frame, exchange.answer):
            hasher.update(len(frame).to_bytes(2, "big"))
            hasher.update(frame)
    time_ms = agent.book.rising_time(place.point, start_ms)
    if read.group == meters.BILLING:
        schedule.seen, bits, texts = plausible.judge(schedule.seen, fields, entries, time_ms, place.meter.max_power_w)
        implausible |= bits
        for text in texts:
            agent.alarm("point %d: %s" % (place.point, text))
    reading = Reading(agent.settings.kid, place.point, time_ms, entries, quality | implausible, hasher.digest())
    if place.meter.type not in agent.tags:
        agent.tags[place.meter.type] = reading_records.tag_of(place.meter)
    seq = agent.emit(READING, reading_records.encode_reading(reading, place.meter.type, read.group,
                                                             agent.tags[place.meter.type]))
    agent.book.chains[place.point].add(seq, time_ms, read.group == meters.BILLING)
    agent.counts["readings"] += 1
    schedule.finish(read.group, now_ms)
    return agent.take()
