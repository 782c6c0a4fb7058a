"""Makes the fields of an envelope of the usual shape from its bytes by regular expressions; None for any other bytes.

The plain decoders of `firmware.wire` are the definition and take 40 us for an envelope of one reading, as much as its
signature. These expressions spell out the part of the same language that meters really send: shortest heads, names
below 24 letters, no missing value. What they match, the plain decoder takes and reads alike; what they do not match is
not refused but handed to it, and it has the last word (tests/ingest/test_quick.py holds both to this). The expressions
only judge; a seal's seventeen fields are then read by cbor2 at once, which alone would take more than one spelling.
"""

import re
from functools import lru_cache
from hashlib import sha256

import cbor2

from firmware.wire import cbor, cose, merkle
from firmware.wire.reading import NAME_PREFIX
from firmware.wire.seal import ENVELOPE_BYTES, READINGS, Seal

# One unsigned integer in its shortest form; one integer of either sign.
_UNSIGNED = rb"[\x00-\x17]|\x18[\x18-\xff]|\x19(?!\x00)..|\x1a(?!\x00\x00)....|\x1b(?!\x00\x00\x00\x00).{8}"
_INTEGER = (rb"(?:[\x00-\x17\x20-\x37]|[\x18\x38][\x18-\xff]|[\x19\x39](?!\x00)..|[\x1a\x3a](?!\x00\x00)...."
            rb"|[\x1b\x3b](?!\x00\x00\x00\x00).{8})")
_NUMBER = b"(" + _UNSIGNED + b")"
_COUNT = b"(?:" + _UNSIGNED + b")"
_REGISTER = b"(?:" + _UNSIGNED + rb"|\xf6)"
_HASH = rb"\x58\x20.{32}"
_PAYLOAD = (rb"\x91\x01\x48.{8}" + 4 * _COUNT + 2 * _HASH + 3 * _COUNT + 2 * _REGISTER + 2 * _COUNT + 2 * _HASH)
# Tag 18, protected {1: -7}, unprotected {4: kid}, payload of 24..255 bytes, signature: wire.md, Who signs what. What is
# wanted of it stands at fixed places, counted from both ends; the empty group says where it ends.
_MESSAGE = rb"\xd2\x84\x43\xa1\x01\x26\xa1\x04\x48.{8}\x58." + _PAYLOAD + rb"\x58\x40.{64}()"
_SEAL = re.compile(_MESSAGE, re.DOTALL)
_KID, _PAYLOAD_SIZE, _PAYLOAD_AT, _AFTER_PAYLOAD = 9, 18, 19, 66

_LENGTHS = (5, 6, 4, 3, 7, 8, 2, 1, *range(9, 24))  # OBIS names such as 1.8.0 and 16.7.0 first
_LETTERS = b"|".join(re.escape(bytes((0x60 + n,))) + rb"[A-Za-z0-9\-:./_]{%d}" % n for n in _LENGTHS)
_NAME = rb"(?!\x62ms|\x63raw|\x67quality)(?:" + _LETTERS + rb")(?<!\.missing)"
_UNIT = rb"(?:\x62Wh|\x61W|\x62mV|\x62mA|\x62VA|\x63var|\x63VAh|\x64varh|\x65/1000)"
_ENTRY = (rb"(?:\xa3\x00" + _NAME + rb"\x01" + _UNIT + rb"\x02" + _INTEGER
          + rb"|\xa2\x00" + _NAME + rb"\x02" + _INTEGER + b")")
_BASE = (rb"\xa6\x00\x62ms\x01\x62ms\x02([\x00-\x17]|\x18[\x18-\xff]|\x19[\x01-\x03].)\x20\x18\x1a\x21"
         rb"(\x78.urn:dev:os:32473-[0-9a-f]{16}:[0-9]{1,10}:)\x22" + _NUMBER)
_TAIL = rb"\xa2\x00\x67quality\x02(?:" + _UNSIGNED + rb")\xa2\x00\x63raw\x08\x58\x20.{32}"
_SMALL_PACK = range(0x84, 0x98)  # array heads of 4..23 records, three of which are no entries
_new = tuple.__new__  # a named tuple without the call between
_STRING_HEADS = tuple(bytes(cbor.head(2, size)) for size in range(256))
_HALF_ORDER = (cose.ORDER >> 1).to_bytes(32, "big")


def split_envelope(data: bytes) -> tuple[bytes, list[bytes]] | None:
    """(seal message, readings) of an envelope whose parts are 24..65,535 bytes long."""
    size = len(data)
    if size > ENVELOPE_BYTES or data[:1] != b"\x82":
        return None
    seal, at = _string(data, 1)
    if seal is None or at >= size:
        return None
    head = data[at]
    if 0x81 <= head <= 0x97:
        count, at = head - 0x80, at + 1
    elif head == 0x98 and at + 1 < size and data[at + 1] > 23:
        count, at = data[at + 1], at + 2
    else:
        return None
    readings = []
    for _ in range(count):
        reading, at = _string(data, at)
        if reading is None:
            return None
        readings.append(reading)
    return (seal, readings) if at == size else None


def read_seal(message: bytes) -> tuple[bytes, bytes, Seal, bytes] | None:
    """(kid of the message, payload, Seal, signature) of a seal's COSE_Sign1."""
    if _SEAL.fullmatch(message) is None:
        return None
    end = len(message) - _AFTER_PAYLOAD
    if message[_PAYLOAD_SIZE] != end - _PAYLOAD_AT:
        return None
    payload = message[_PAYLOAD_AT:end]
    seal = _read_payload(payload)
    return None if seal is None else (message[_KID:_KID + 8], payload, seal, message[end + 2:])


def read_single(data: bytes) -> tuple[bytes, bytes, bytes, Seal, bytes, list[bytes]] | None:
    """(seal message, kid, payload, Seal, signature, [reading]) of an envelope with one reading, as most
    are: `split_envelope`, `read_seal` and `are_readings_of` in one expression."""
    size = len(data)
    if size < 5:
        return None
    at = 7 + (data[2] << 8 | data[3])  # heads of envelope and seal, the seal, heads of the array and the reading
    if at >= size or data[at] not in _SMALL_PACK:
        return None
    match = _single(data[at] - 0x83).fullmatch(data)
    if match is None:
        return None
    end = at - 3 - _AFTER_PAYLOAD
    if match.end(1) != at - 3 or data[at - 1] != size - at or data[4 + _PAYLOAD_SIZE] != end - 4 - _PAYLOAD_AT:
        return None
    payload = data[4 + _PAYLOAD_AT:end]
    seal = _read_payload(payload)
    if seal is None:
        return None
    milliseconds, name, seconds = match.group(2, 3, 4)
    part_ms, first_ms = _value(milliseconds), seal.first_ms
    if (seal.count != 1 or part_ms > 999 or first_ms != seal.last_ms or _value(seconds) * 1000 + part_ms != first_ms
            or name != _name_of(seal.kid, seal.point)):
        return None
    return data[4:at - 3], data[4 + _KID:12 + _KID], payload, seal, data[end + 2:at - 3], [data[at:]]


def are_readings_of(seal: Seal, readings: list[bytes]) -> bool:
    """True when every reading is a pack of the seal's kid and point and the times rise from its first to its last.

    False says nothing: the plain decoder then finds what is wrong, or that nothing is.
    """
    name = _name_of(seal.kid, seal.point)
    last_ms = -1
    for data in readings:
        if not data or data[0] not in _SMALL_PACK:
            return False
        match = _pack(data[0] - 0x83).fullmatch(data)
        if match is None:
            return False
        milliseconds, found, seconds = match.groups()
        part_ms = _value(milliseconds)
        time_ms = _value(seconds) * 1000 + part_ms
        if found != name or part_ms > 999 or time_ms <= last_ms or (last_ms < 0 and time_ms != seal.first_ms):
            return False
        last_ms = time_ms
    return last_ms == seal.last_ms


def root(readings: list[bytes]) -> bytes:
    """The same as `merkle.root`."""
    if len(readings) == 1:
        return sha256(b"\x00" + readings[0]).digest()
    return merkle.root_of_hashes([sha256(b"\x00" + data).digest() for data in readings])


def digest(payload: bytes, kind: str, chain_id: bytes) -> bytes:
    """The same 32 bytes as `cose.digest`, from a prefix made once."""
    size = len(payload)
    head = _STRING_HEADS[size] if size < 256 else cbor.head(2, size)
    return sha256(_prefix(kind, chain_id) + head + payload).digest()


def has_low_s(signature: bytes) -> bool:
    """The same as `cose.is_low_s`."""
    return signature[32:] <= _HALF_ORDER


def _string(data: bytes, at: int) -> tuple[bytes | None, int]:
    """(byte string, its end) at `at`; (None, 0) for any other head than 58 and 59, not the shortest, or a short one."""
    head = data[at:at + 3]
    if len(head) < 3:
        return None, 0
    if head[0] == 0x58 and head[1] > 23:
        start, end = at + 2, at + 2 + head[1]
    elif head[0] == 0x59 and head[1]:
        start = at + 3
        end = start + (head[1] << 8 | head[2])
    else:
        return None, 0
    return (data[start:end], end) if end <= len(data) else (None, 0)


def _read_payload(payload: bytes) -> Seal | None:
    """The Seal of a payload that _PAYLOAD matches, unless its fields contradict one another."""
    seal = _new(Seal, cbor2.loads(payload))
    if seal.height <= seal.lost or not 0 < seal.count <= READINGS or seal.first_ms > seal.last_ms:
        return None
    return seal


def _value(head: bytes) -> int:
    return head[0] if len(head) == 1 else int.from_bytes(head[1:], "big")


@lru_cache(4096)  # one entry a point of the area
def _name_of(kid: bytes, point: int) -> bytes:
    return cbor.encode(f"{NAME_PREFIX}{kid.hex()}:{point}:")


@lru_cache(len(_SMALL_PACK))
def _pack(entries: int) -> re.Pattern[bytes]:
    return re.compile(_pack_text(entries), re.DOTALL)


@lru_cache(len(_SMALL_PACK))
def _single(entries: int) -> re.Pattern[bytes]:
    return re.compile(rb"\x82\x59.." + _MESSAGE + rb"\x81\x58." + _pack_text(entries), re.DOTALL)


def _pack_text(entries: int) -> bytes:
    return re.escape(bytes((0x83 + entries,))) + _BASE + _ENTRY + b"{%d}" % entries + _TAIL


@lru_cache(64)
def _prefix(kind: str, chain_id: bytes) -> bytes:
    """The Sig_structure up to the payload's head (RFC 9052, section 4.4)."""
    external = cose.external_data(kind, chain_id)
    return b"\x84\x6aSignature1\x43\xa1\x01\x26" + cbor.head(2, len(external)) + external
