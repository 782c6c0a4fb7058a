"""Modbus frames cut out of bytes and made from answers: RTU (address, PDU, CRC) and TCP (MBAP header, PDU).

Only the envelope is known here; what the PDU means is pymodbus' business (`adapter.py`).
"""

from typing import NamedTuple

MAX_PDU = 253               # MODBUS Application Protocol V1.1b3, 4.1


class Request(NamedTuple):
    """A whole frame: `head` = what an answer must repeat before its PDU, `unit` = whom it is for."""

    frame: bytes
    head: bytes
    unit: int
    pdu: bytes


class Answer(NamedTuple):
    """What leaves for a request: `data` after `late_ms`, byte by byte every `drip_ms` if that is not 0; b"" = silence.

    `is_reset`: the connection is broken instead.
    """

    data: bytes
    late_ms: int = 0
    drip_ms: int = 0
    is_reset: bool = False


def crc16(data: bytes) -> bytes:
    """The two CRC bytes as they go on the wire, low byte first (Modbus over Serial Line V1.02, 6.2.2)."""
    crc = 0xFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc.to_bytes(2, "little")


def _crc_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0xA001 if byte & 1 else 0)
    return byte


CRC_TABLE = tuple(_crc_of_byte(byte) for byte in range(256))


def rtu_request(data: bytes) -> Request | None:
    """The frame that `data` is as a whole, None while or because it is none."""
    if not 4 <= len(data) <= MAX_PDU + 3 or crc16(data[:-2]) != data[-2:]:
        return None
    return Request(data, data[:1], data[0], data[1:-2])


def tcp_request(header: bytes, body: bytes) -> Request:
    """From the 7 bytes of the MBAP header and the PDU behind it."""
    return Request(header + body, header[:4], header[6], body)


def tcp_body_length(header: bytes) -> int | None:
    """Bytes that follow the 7 of the header, None if the header is not Modbus."""
    length = int.from_bytes(header[4:6], "big") - 1
    return length if header[2:4] == b"\0\0" and 1 <= length <= MAX_PDU else None


def exception_frame(request: Request, code: int, *, rtu: bool) -> bytes:
    """An exception answer: function code with the top bit set, then the code."""
    return answer_frame(request, request.unit, bytes((request.pdu[0] | 0x80, code)), rtu=rtu)


def answer_frame(request: Request, unit: int, pdu: bytes, *, rtu: bool) -> bytes:
    """The frame of a PDU, under any unit's number."""
    if rtu:
        body = bytes((unit,)) + pdu
        return body + crc16(body)
    return request.head + (len(pdu) + 1).to_bytes(2, "big") + bytes((unit,)) + pdu


def pdu_of(frame: bytes, *, rtu: bool) -> bytes:
    """The PDU of a whole frame."""
    return frame[1:-2] if rtu else frame[7:]
