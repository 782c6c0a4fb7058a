"""Makes Modbus requests (reading ones only) from addresses, and register words from answers; RTU and TCP framing.

Function codes 3, 4, 20 and 43/14 are all there is: no request that changes a device can be built (security.md T11).
Every check an answer must pass stands here, so words may be trusted to be the asked unit's, whole and unaltered on
the line. Sources: MODBUS Application Protocol V1.1b3; MODBUS over Serial Line V1.02 (RTU, CRC); MODBUS Messaging on
TCP/IP V1.0b (MBAP).
"""

import struct

try:
    from micropython import const
except ImportError:
    def const(value):
        return value

READ_HOLDING, READ_INPUT, READ_FILE, READ_IDENTITY = 3, 4, 20, 43
_IDENTITY_TYPE = const(14)  # MEI type of "read device identification"
REGISTERS = 125  # of one read, from the 253 bytes of a PDU
FILE_BYTES = 245  # what a read of file records may answer
UNITS = 247  # the highest address of a serial line; 0 is broadcast, which nobody answers
RTU, TCP = "rtu", "tcp"
MBAP_BYTES = 7
_TCP_BYTES = const(260)  # of a frame: 6 of the header, unit, PDU

# Why an answer was not taken; stands in a reading as the reason of a missing value, so the list is only added to.
FAULTS = ("no_answer", "crc", "unit", "function", "length", "transaction", "port")
EXCEPTION = "exception_"  # followed by the device's exception code


class BadAnswer(Exception):
    """An answer that gives no words: `reason` is one of FAULTS, or "exception_" and the code the device gave.

    frame, received: what went over the line, filled in by whoever owns the line.
    """

    def __init__(self, reason):
        super().__init__(reason)
        self.reason = reason
        self.frame = b""
        self.received = b""


def read_registers(function, address, count):
    """Returns the PDU that reads `count` registers from the 0-based `address` with function 3 or 4."""
    if function != READ_HOLDING and function != READ_INPUT:
        raise ValueError("function %r does not read registers" % function)
    if not 0 < count <= REGISTERS or not 0 <= address <= 0x10000 - count:
        raise ValueError("registers %r + %r" % (address, count))
    return struct.pack(">BHH", function, address, count)


def read_file(file, record, count):
    """Returns the PDU of function 20 for `count` registers of one file from `record`."""
    if not 0 < file <= 0xFFFF or not 0 <= record <= 9999 or not 0 < 2 * count + 2 <= FILE_BYTES:
        raise ValueError("file %r, record %r + %r" % (file, record, count))
    return struct.pack(">BBBHHH", READ_FILE, 7, 6, file, record, count)


def read_identity(category, first_object=0):
    """Returns the PDU of function 43/14: category 1 basic, 2 regular, 3 extended, 4 one object."""
    if not 1 <= category <= 4 or not 0 <= first_object <= 255:
        raise ValueError("category %r, object %r" % (category, first_object))
    return bytes((READ_IDENTITY, _IDENTITY_TYPE, category, first_object))


def is_reading(pdu):
    """Tells whether a PDU is one of the four that only read; `frame` refuses every other."""
    function = pdu[0] if pdu else 0
    if function == READ_HOLDING or function == READ_INPUT:
        return len(pdu) == 5
    if function == READ_FILE:
        return len(pdu) == 9
    return function == READ_IDENTITY and len(pdu) == 4 and pdu[1] == _IDENTITY_TYPE


def frame(framing, unit, pdu, transaction=0):
    """Returns the bytes for the line; ValueError for a PDU that could do more than read."""
    if not is_reading(pdu):
        raise ValueError("not a reading request: " + bytes(pdu).hex())
    if framing == RTU:
        if not 0 < unit <= UNITS:
            raise ValueError("unit %r" % unit)
        body = bytes((unit,)) + pdu
        return body + struct.pack("<H", crc16(body))
    if not 0 <= unit <= 255 or not 0 <= transaction <= 0xFFFF:
        raise ValueError("unit %r, transaction %r" % (unit, transaction))
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu


def sift(framing, request, received):
    """Returns (begin, missing): where the answer to a request frame may begin in what was received so far, and how
    many more bytes it takes at least (0: whole, or beyond saving).

    Passed over are an echo of the request, on a serial line bytes that begin no answer to it (noise, another unit's
    late answer), on TCP whole answers to earlier requests.
    """
    if framing == TCP:
        return _sift_tcp(request, received)
    begin = 0
    if received and received[:len(request)] == request[:len(received)]:
        if len(received) < len(request):  # an echo so far, or an answer that begins like one
            left = len(request) - len(received)
            missing = _missing_at(request, received, 0)
            return 0, min(missing, left) if missing > 0 else left
        begin = len(request)
    while begin < len(received):
        missing = _missing_at(request, received, begin)
        if missing >= 0:
            return begin, missing
        begin += 1
    return begin, 5


def answer_pdu(framing, request, received):
    """Returns the answer's PDU after all checks against the request frame; BadAnswer with the reason."""
    if not received or received == request:  # nothing, or nothing but the echo
        raise BadAnswer("no_answer")
    if framing == TCP:
        pdu = _tcp_pdu(request, received)
        asked = request[MBAP_BYTES]
    else:
        pdu = _rtu_pdu(request, received)
        asked = request[1]
    if pdu[0] == asked | 0x80:
        raise BadAnswer(EXCEPTION + str(pdu[1]) if len(pdu) == 2 else "length")
    if pdu[0] != asked:
        raise BadAnswer("function")
    return pdu


def words_of(request_pdu, pdu):
    """Returns the list of 16-bit words that answer a read of registers or of one file."""
    if request_pdu[0] == READ_FILE:
        count = request_pdu[7] << 8 | request_pdu[8]
        if len(pdu) != 4 + 2 * count or pdu[1] != 2 * count + 2 or pdu[2] != 2 * count + 1 or pdu[3] != 6:
            raise BadAnswer("length")
        start = 4
    else:
        count = request_pdu[3] << 8 | request_pdu[4]
        if len(pdu) != 2 + 2 * count or pdu[1] != 2 * count:
            raise BadAnswer("length")
        start = 2
    return [pdu[at] << 8 | pdu[at + 1] for at in range(start, start + 2 * count, 2)]


def identity_of(pdu):
    """Returns ({object id: bytes}, next object id or None) of a 43/14 answer."""
    if len(pdu) < 7 or pdu[1] != _IDENTITY_TYPE:
        raise BadAnswer("length")
    objects = {}
    at = 7
    for _ in range(pdu[6]):
        if at + 2 > len(pdu) or at + 2 + pdu[at + 1] > len(pdu):
            raise BadAnswer("length")
        objects[pdu[at]] = bytes(pdu[at + 2:at + 2 + pdu[at + 1]])
        at += 2 + pdu[at + 1]
    if at != len(pdu):
        raise BadAnswer("length")
    return objects, pdu[5] if pdu[4] == 0xFF else None


def crc16(data):
    """Returns the CRC of Modbus over Serial Line 6.2.2 (polynomial A001 reflected, start FFFF); low byte goes first."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        crc = crc >> 4 ^ _NIBBLE[crc & 15]
        crc = crc >> 4 ^ _NIBBLE[crc & 15]
    return crc


def plan(fields, max_registers, max_hole):
    """Returns [(function, first address, count)] that read all `fields`, fewest requests first-fit, in rising order.

    fields: objects with function, address, count. Registers that are nobody's are crossed only up to `max_hole` of
    them in a row, because some devices answer a hole with exception 2. The same fields give the same plan in any
    order, and no value is ever torn over two requests, nor parted from the registers that say what it means.
    """
    spans = sorted([_span(field) for field in fields])
    blocks: list = []
    for function, start, end in spans:
        if end - start > max_registers:
            raise ValueError("a value of %d registers" % (end - start))
        if blocks:
            last_function, first, last_end = blocks[-1]
            joined = max(end, last_end)
            if function == last_function and start - last_end <= max_hole and joined - first <= max_registers:
                blocks[-1] = (function, first, joined)
                continue
        blocks.append((function, start, end))
    return [(function, first, end - first) for function, first, end in blocks]


def line_ms(byte_count, baud):
    """Returns the time of that many characters on a serial line, 11 bits each, rounded up to whole ms."""
    return (byte_count * 11000 + baud - 1) // baud


def silence_us(baud):
    """Returns t3.5, the silence that ends a frame: 3.5 characters, 1,750 us above 19200 baud."""
    return 1750 if baud > 19200 else (38500000 + baud - 1) // baud


def is_network(port):
    """Tells whether a bus is tcp://HOST:PORT or rtu+tcp://HOST:PORT (RTU frames through TCP), not a serial device."""
    return port.startswith("tcp://") or port.startswith("rtu+tcp://")


def usual_ms(count, baud, gap_ms, reply_ms):
    """Returns how long a read of `count` registers takes: silence before it, both frames, reply_ms of thinking.

    baud 0: a network, where frames take no time that counts here.
    """
    if not baud:
        return gap_ms + reply_ms
    return max(gap_ms, (silence_us(baud) + 999) // 1000) + line_ms(13 + 2 * count, baud) + reply_ms


def _span(field):
    """(function, first address, end) of a field with its scale and its guard (meters.Special), if it has them."""
    first, end = field.address, field.address + field.count
    special = getattr(field, "special", None)
    if special is not None:
        for at in (special.scale_at, None if special.guard is None else special.guard[0]):
            if at is not None:
                first, end = min(first, at), max(end, at + 1)
    return field.function, first, end


def _rtu_pdu(request, received):
    if len(received) < 5 or len(received) != _whole(received):
        raise BadAnswer("length")
    if struct.unpack("<H", received[-2:])[0] != crc16(received[:-2]):
        raise BadAnswer("crc")
    if received[0] != request[0]:
        raise BadAnswer("unit")
    return received[1:-2]


def _tcp_pdu(request, received):
    if len(received) < MBAP_BYTES + 2 or received[2] or received[3]:
        raise BadAnswer("length")
    if len(received) != 6 + (received[4] << 8 | received[5]):
        raise BadAnswer("length")
    if received[:2] != request[:2]:
        raise BadAnswer("transaction")
    if received[6] != request[6]:
        raise BadAnswer("unit")
    return received[MBAP_BYTES:]


def _sift_tcp(request, received):
    begin = 0
    while True:
        length = len(received) - begin
        if length < MBAP_BYTES + 2:
            return begin, MBAP_BYTES + 2 - length
        whole = 6 + (received[begin + 4] << 8 | received[begin + 5])
        if received[begin + 2] or received[begin + 3] or not MBAP_BYTES + 2 <= whole <= _TCP_BYTES:
            return begin, 0  # out of step
        if length < whole or (received[begin:begin + 2] == request[:2] and received[begin:begin + whole] != request):
            return begin, max(0, whole - length)
        begin += whole


def _missing_at(request, received, at):
    """How many more bytes the answer needs if it begins at `at` on a serial line; -1: it does not."""
    length = len(received) - at
    if received[at] != request[0]:
        return -1
    if length < 2:
        return 4
    function = received[at + 1]
    if function == request[1] | 0x80:
        return max(0, 5 - length)
    if function != request[1]:
        return -1
    if function != READ_IDENTITY:
        if length < 3:
            return 3
        count = 2 * (request[-4] << 8 | request[-3])
        if received[at + 2] != (count + 2 if function == READ_FILE else count):
            return -1
    return max(0, _whole(received[at:]) - length)


def _whole(received):
    """How long a serial line's frame is by what its first bytes say, with CRC."""
    function = received[1]
    if function & 0x80:
        return 5
    return _identity_end(received) + 2 if function == READ_IDENTITY else 5 + received[2]


def _identity_end(received):
    """Where the objects of a 43/14 answer end (before the CRC), as far as its bytes so far can tell."""
    at = 8
    if len(received) < at:
        return at
    for _ in range(received[7]):
        if len(received) < at + 2:
            return at + 2
        at += 2 + received[at + 1]
    return at


def _nibble_table():
    table = []
    for value in range(16):
        for _ in range(4):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
        table.append(value)
    return tuple(table)


_NIBBLE = _nibble_table()
