"""Makes what a start has to know (heads, acks, boots, epochs, configurations) out of the journal's records.

The other half of records.py, and needed once: a board drops it when the agent runs.
"""

from firmware.records import Head, hash_at, numbers, read_many, read_number


def decode_head(payload):
    """Returns the Head."""
    values, at = read_many(payload, 0, 5)
    values.append(hash_at(payload, at))
    return Head(*values)


def decode_ack(payload):
    """Returns [point, height]."""
    return read_many(payload, 0, 2)[0]


def encode_epoch(point, meter_epoch):
    """Returns the record that from here on a point's readings are of the meter of that epoch."""
    return numbers((point, meter_epoch))


def decode_epoch(payload):
    """Returns [point, meter epoch]."""
    return read_many(payload, 0, 2)[0]


def decode_boot(payload):
    return read_number(payload, 0)[0]


def decode_configuration(payload):
    """Returns (boot, measurement, configuration)."""
    boot, at = read_number(payload, 0)
    return boot, hash_at(payload[:at + 32], at), hash_at(payload, at + 32)
