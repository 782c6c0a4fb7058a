"""Makes one poll of one unit out of requests, on a port that is passed in: the only place that waits for a meter.

A port has `framing` ("rtu" or "tcp"), `baud` (0: a network) and `gap_ms`; `clear()`, `write(data)`, `read(count,
wait_ms) -> bytes` (fewer than count when the time is over), `pause(ms)`, `close()`; `mark()` and `since_ms(mark)`. It
raises OSError when the line itself is broken. Nothing but `ask` writes to a port, and only what modbus.frame lets out.

Everything has a budget. A request is tried `attempts` times, each answer has `answer_ms` to come in whole, a unit that
does not answer one request is not asked the next, and a poll is over when it has cost `budget_ms` more than it usually
takes: so a unit in trouble delays the others on its line by no more than that.
"""

from collections import namedtuple

from firmware import modbus
from firmware.decode import NOT_IMPLEMENTED

ANSWER_BYTES = 540  # two frames, a late one and the right one; a babbling device is cut off here
REPLY_MS = 50  # within which a healthy meter begins to answer; what it takes longer is its budget's
# budget_ms is this part of the interval. A unit that dies, or is left out, moves the next one's poll by this and
# by its own usual poll: together below a tenth.
PATIENCE = 25

# One request as it went over the line; words: the list that answers it, or None with a reason.
Exchange = namedtuple("Exchange", ("request", "frame", "answer", "words", "reason"))


def poll(port, unit, requests, attempts, answer_ms, transaction=0, budget_ms=0):
    """Returns one Exchange per attempt, in bus order. requests: [(function, address, count)]; waits are real ms.

    budget_ms: what silence, slowness and second attempts may cost in all; 0: no limit.
    """
    exchanges: list = []
    mark, allowed_ms, wait_ms = port.mark(), budget_ms, answer_ms
    if budget_ms:
        allowed_ms -= port.gap_ms  # the one before the first request is over: whoever reads the clock kept it
        for _, _, count in requests:
            allowed_ms += modbus.usual_ms(count, port.baud, port.gap_ms, REPLY_MS)
    owed: list = []  # what kind of answers were given up, and may still come
    for function, address, count in requests:
        if (function, count) in owed:
            break  # a serial frame does not say which request it answers: that late one would be taken for this one's
        pdu = modbus.read_registers(function, address, count)
        usual_ms = modbus.usual_ms(count, port.baud, port.gap_ms, REPLY_MS)
        for _ in range(attempts):
            if budget_ms:
                wait_ms = allowed_ms - port.since_ms(mark) - usual_ms + REPLY_MS + (0 if exchanges else port.gap_ms)
                if wait_ms < REPLY_MS:
                    return exchanges
                wait_ms = min(answer_ms, wait_ms)
            transaction = transaction + 1 & 0xFFFF
            exchanges.append(_exchange(port, unit, (function, address, count), pdu, wait_ms, transaction))
            reason = exchanges[-1].reason
            if reason is None or reason.startswith(modbus.EXCEPTION):
                break
            if reason != "crc" and port.framing == modbus.RTU:
                owed.append((function, count))
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
        mark = port.mark()
        begin, missing = modbus.sift(port.framing, frame, received)
        while missing and len(received) < ANSWER_BYTES:
            more = port.read(missing, max(0, answer_ms - port.since_ms(mark)))
            received += more
            is_over = len(more) < missing
            begin, missing = modbus.sift(port.framing, frame, received)
            if is_over:
                break
        answer = received if missing else received[begin:]
        return frame, answer, modbus.answer_pdu(port.framing, frame, answer)
    except OSError:
        error = modbus.BadAnswer("port")
    except modbus.BadAnswer as bad:
        error = bad
        if bad.reason == "length" and port.framing == modbus.TCP:
            port.close()  # half a frame: nothing that follows in this stream could be told from its rest
    error.frame = frame
    error.received = received
    raise error


def registers_of(exchanges, requests):
    """Returns {(function, address): word or reason} for all `requests`; what was not asked has the last reason."""
    registers = {}
    reason = "not_asked"
    for exchange in exchanges:
        function, address, count = exchange.request
        words, reason = exchange.words, exchange.reason or "not_asked"
        is_blank = words is not None and min(words) == 0xFFFF  # what a device shows that has nothing there (yet)
        for index in range(count):
            registers[(function, address + index)] = NOT_IMPLEMENTED if is_blank else words[index] if words else reason
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
