"""Makes one poll of one unit out of requests, on a port that is passed in: the only place that waits for a meter.

A port has `framing` ("rtu" or "tcp"), `clear()`, `write(data)`, `read(count, wait_ms) -> bytes` (fewer than count when
the time is over) and `pause(ms)`; it raises OSError when the line itself is broken. Everything has a budget: a request
is tried `attempts` times, and a unit that does not answer one request is not asked the next.
"""

from collections import namedtuple

from firmware import modbus

ANSWER_BYTES = 270  # more than any frame: a babbling device is cut off here

# One request as it went over the line; words: the list that answers it, or None with a reason.
Exchange = namedtuple("Exchange", ("request", "frame", "answer", "words", "reason"))


def poll(port, unit, requests, attempts, answer_ms, transaction=0):
    """Returns one Exchange per attempt, in bus order. requests: [(function, address, count)]; waits are real ms."""
    exchanges = []
    for function, address, count in requests:
        pdu = modbus.read_registers(function, address, count)
        for _ in range(attempts):
            transaction = transaction + 1 & 0xFFFF
            exchanges.append(_exchange(port, unit, (function, address, count), pdu, answer_ms, transaction))
            if exchanges[-1].reason is None or exchanges[-1].reason.startswith(modbus.EXCEPTION):
                break
        if exchanges[-1].reason in ("no_answer", "port"):
            break
    return exchanges


def ask(port, unit, pdu, answer_ms, transaction=1):
    """Returns (frame, answer frame, answer PDU) of one request; BadAnswer with what came as its `received`."""
    frame = modbus.frame(port.framing, unit, pdu, transaction)
    received = b""
    try:
        port.clear()
        port.write(frame)
        missing = modbus.missing_count(port.framing, received)
        while missing and len(received) < ANSWER_BYTES:
            more = port.read(missing, answer_ms)
            received += more
            if len(more) < missing:
                break
            missing = modbus.missing_count(port.framing, received)
        return frame, received, modbus.answer_pdu(port.framing, frame, received)
    except OSError:
        error = modbus.BadAnswer("port")
    except modbus.BadAnswer as bad:
        error = bad
    error.frame = frame
    error.received = received
    raise error


def registers_of(exchanges, requests):
    """Returns {(function, address): word or reason} for all `requests`; what was not asked has the last reason."""
    registers = {}
    reason = "not_asked"
    for exchange in exchanges:
        function, address, count = exchange.request
        reason = exchange.reason or "not_read"
        for index in range(count):
            registers[(function, address + index)] = exchange.words[index] if exchange.words else reason
    for function, address, count in requests:
        for at in range(address, address + count):
            if (function, at) not in registers:
                registers[(function, at)] = reason
    return registers


def _exchange(port, unit, request, pdu, answer_ms, transaction):
    try:
        frame, answer, answer_pdu = ask(port, unit, pdu, answer_ms, transaction)
    except modbus.BadAnswer as bad:
        return Exchange(request, bad.frame, bad.received, None, bad.reason)
    try:
        return Exchange(request, frame, answer, modbus.words_of(pdu, answer_pdu), None)
    except modbus.BadAnswer as bad:
        return Exchange(request, frame, answer, None, bad.reason)
