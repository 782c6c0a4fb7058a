"""Answers a flashing tool as the chip's ROM loader does, and as the helper program (stub) that the tool puts into RAM.

Theory. Packets are framed by SLIP (RFC 1055). A request is 0, command, length (u16), checksum (u32), data; an answer is
1, command, length, value (u32), data, status. Espressif documents all of it ("Serial Protocol" in esptool's manual).
The ROM's status has four bytes and its MD5 is text, the stub's has two and its MD5 is binary; the stub starts when
MEM_END names an entry point and greets with "OHAI". Its code is not run: its behaviour is what is answered here.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterator

from sim_hardware.board.chips import Chip, jedec_id
from sim_hardware.board.nor import SECTOR_BYTES, NorFlash

FRAME = 0xC0
SYNC_DATA = b"\x07\x07\x12\x20" + 32 * b"\x55"
SYNC_VALUE = 0x20120707
SYNC_ANSWERS = 8  # the ROM answers one SYNC so often
CHECKSUM_SEED = 0xEF
PACKET_BYTES = 64 * 1024  # of one frame; the stub's largest block is 16 KiB
MAX_READ_BYTES = 64  # of READ_FLASH_SLOW
BAD_MESSAGE, BAD_CHECKSUM, BAD_LENGTH, BAD_DEFLATE = 5, 7, 0xC0, 0xC9
READ_ID, READ_ID_BIT = 0x9F, 1 << 18  # flash command; "user command" bit of the controller's first register
GREETING = b"OHAI"

FLASH_BEGIN, FLASH_DATA, FLASH_END, MEM_BEGIN, MEM_END, MEM_DATA, SYNC = 2, 3, 4, 5, 6, 7, 8
WRITE_REG, READ_REG, SPI_SET_PARAMS, SPI_ATTACH, READ_SLOW, CHANGE_BAUD = 9, 10, 11, 13, 14, 15
DEFLATE_BEGIN, DEFLATE_DATA, DEFLATE_END, MD5, SECURITY = 16, 17, 18, 19, 20
ERASE_ALL, ERASE_REGION, READ_FLASH, RUN = 0xD0, 0xD1, 0xD2, 0xD3


class Loader:
    """One chip in download mode: `receive` takes bytes of the line and gives the bytes that answer them."""

    def __init__(self, chip: Chip, flash: NorFlash) -> None:
        self.chip, self.flash = chip, flash
        self.is_stub = False
        self.commands: dict[int, int] = {}  # how often each came
        self._frames = Frames()
        self._registers = dict(chip.registers)
        self._at = self._end = self._erased_to = self._block_bytes = 0
        self._inflate = zlib.decompressobj()
        self._sending: Iterator[bytes] | None = None  # what READ_FLASH still has to send
        self._handlers = {
            SYNC: self._sync, READ_REG: self._read_register, WRITE_REG: self._write_register,
            SECURITY: self._security, FLASH_BEGIN: self._begin, FLASH_DATA: self._data, FLASH_END: self._nothing,
            DEFLATE_BEGIN: self._begin, DEFLATE_DATA: self._deflated, DEFLATE_END: self._nothing, MD5: self._md5,
            MEM_BEGIN: self._nothing, MEM_DATA: self._memory, MEM_END: self._run, READ_SLOW: self._read_slow,
            SPI_SET_PARAMS: self._nothing, SPI_ATTACH: self._nothing, CHANGE_BAUD: self._nothing}
        self._stub_handlers = {ERASE_ALL: self._erase_all, ERASE_REGION: self._erase_region,
                               READ_FLASH: self._read_flash, RUN: self._nothing}

    def is_idle(self) -> bool:
        """Is the line between two packets?"""
        return self._frames.is_idle()

    def receive(self, data: bytes) -> bytes:
        """Returns what the chip sends back; what is no packet gets no answer."""
        return b"".join(self._answer(packet) for packet in self._frames.feed(data))

    def _answer(self, packet: bytes) -> bytes:
        if self._sending is not None and len(packet) == 4:  # the count that acknowledges a piece of READ_FLASH
            return next(self._sending, b"")
        if len(packet) < 8 or packet[0] != 0:
            return b""
        _, command, length, checksum = struct.unpack_from("<BBHI", packet)
        body = packet[8:]
        if len(body) != length:  # bytes were lost on the way
            return self._reply(command, error=BAD_LENGTH if self.is_stub else BAD_MESSAGE)
        self._sending = None
        self.commands[command] = self.commands.get(command, 0) + 1
        handler = self._handlers.get(command) or (self._stub_handlers.get(command) if self.is_stub else None)
        if handler is None:
            return self._reply(command, error=BAD_MESSAGE)
        try:
            return handler(command, body, checksum)
        except (struct.error, ValueError):  # too short, or beyond the flash's end
            return self._reply(command, error=BAD_MESSAGE)

    def _reply(self, command: int, value: int = 0, data: bytes = b"", error: int = 0) -> bytes:
        status = bytes([1 if error else 0, error]) + (b"" if self.is_stub else b"\0\0")
        return frame(struct.pack("<BBHI", 1, command, len(data) + len(status), value) + data + status)

    def _nothing(self, command: int, _body: bytes, _checksum: int) -> bytes:
        return self._reply(command)

    def _sync(self, command: int, body: bytes, _checksum: int) -> bytes:
        if body != SYNC_DATA:
            return b""
        # a tool tells ROM and stub apart by this value: the stub's is 0
        return b"".join(self._reply(command, 0 if self.is_stub else SYNC_VALUE) for _ in range(SYNC_ANSWERS))

    def _security(self, command: int, _body: bytes, _checksum: int) -> bytes:
        if self.chip.security is None:
            return self._reply(command, error=BAD_MESSAGE)
        return self._reply(command, data=self.chip.security)

    def _read_register(self, command: int, body: bytes, _checksum: int) -> bytes:
        return self._reply(command, self._registers.get(struct.unpack_from("<I", body)[0], 0))

    def _write_register(self, command: int, body: bytes, _checksum: int) -> bytes:
        for address, value, mask, _delay_us in struct.iter_unpack("<IIII", body):
            self._registers[address] = self._registers.get(address, 0) & ~mask | value & mask
            if address == self.chip.spi and value & READ_ID_BIT:
                asked = self._registers.get(self.chip.spi + self.chip.user2_at, 0) & 0xFF
                self._registers[self.chip.spi + self.chip.words_at] = (
                    jedec_id(self.flash.size) if asked == READ_ID else 0)
                self._registers[address] = 0  # done
        return self._reply(command)

    def _begin(self, command: int, body: bytes, _checksum: int) -> bytes:
        """Remembers where data goes; of a deflated image the size is the inflated one. The ROM erases all of it now,
        the stub each sector when it is reached: after a pulled plug what lies behind is as it was."""
        size, _blocks, block_bytes, offset = struct.unpack_from("<IIII", body)
        if offset + size > self.flash.size or offset % SECTOR_BYTES:
            return self._reply(command, error=BAD_MESSAGE)
        self._at = self._erased_to = offset
        self._end, self._block_bytes = offset + size, block_bytes
        if not self.is_stub:
            self._erase_to(self._end)
        self._inflate = zlib.decompressobj()
        return self._reply(command)

    def _data(self, command: int, body: bytes, checksum: int) -> bytes:
        data, number = _block(body)
        if checksum != checksum_of(data):
            return self._reply(command, error=BAD_CHECKSUM)
        at = self._at + number * self._block_bytes
        self._erase_to(at + len(data))
        self.flash.program(at, data)
        return self._reply(command)

    def _deflated(self, command: int, body: bytes, checksum: int) -> bytes:
        data, _number = _block(body)
        if checksum != checksum_of(data):
            return self._reply(command, error=BAD_CHECKSUM)
        try:
            plain = self._inflate.decompress(data)
        except zlib.error:
            return self._reply(command, error=BAD_DEFLATE)
        if self._at + len(plain) > self._end + SECTOR_BYTES:
            return self._reply(command, error=BAD_DEFLATE)
        self._erase_to(self._at + len(plain))
        self.flash.program(self._at, plain)
        self._at += len(plain)
        return self._reply(command)

    def _erase_to(self, end: int) -> None:
        """Erases what is not yet erased of this write, up to `end`; never beyond what was asked for."""
        end = min(end, self._end)
        if end > self._erased_to:
            self.flash.erase(self._erased_to, end - self._erased_to)
            self._erased_to = (end + SECTOR_BYTES - 1) // SECTOR_BYTES * SECTOR_BYTES

    def _md5(self, command: int, body: bytes, _checksum: int) -> bytes:
        offset, size = struct.unpack_from("<II", body)
        found = hashlib.md5(self.flash.read(offset, size), usedforsecurity=False)
        return self._reply(command, data=found.digest() if self.is_stub else found.hexdigest().encode())

    def _memory(self, command: int, body: bytes, checksum: int) -> bytes:
        data, _number = _block(body)
        return self._reply(command, error=0 if checksum == checksum_of(data) else BAD_CHECKSUM)

    def _run(self, command: int, body: bytes, _checksum: int) -> bytes:
        stay, _entry = struct.unpack_from("<II", body)
        answer = self._reply(command)
        if stay == 0:
            self.is_stub = True
            answer += frame(GREETING)
        return answer

    def _read_slow(self, command: int, body: bytes, _checksum: int) -> bytes:
        offset, _size = struct.unpack_from("<II", body)
        return self._reply(command, data=self.flash.read(offset, MAX_READ_BYTES))

    def _erase_all(self, command: int, _body: bytes, _checksum: int) -> bytes:
        self.flash.erase(0, self.flash.size)
        return self._reply(command)

    def _erase_region(self, command: int, body: bytes, _checksum: int) -> bytes:
        offset, size = struct.unpack_from("<II", body)
        if offset % SECTOR_BYTES or size % SECTOR_BYTES:
            return self._reply(command, error=BAD_MESSAGE)
        self.flash.erase(offset, size)
        return self._reply(command)

    def _read_flash(self, command: int, body: bytes, _checksum: int) -> bytes:
        offset, size, block_bytes, _in_flight = struct.unpack_from("<IIII", body)
        data = self.flash.read(offset, size)
        pieces = [frame(data[at:at + block_bytes]) for at in range(0, size, block_bytes)]
        pieces.append(frame(hashlib.md5(data, usedforsecurity=False).digest()))
        self._sending = iter(pieces)
        return self._reply(command) + next(self._sending)


class Frames:
    """Takes bytes of a line apart into SLIP packets."""

    def __init__(self) -> None:
        self._buffer = bytearray()  # from a frame's first mark on
        self._looked = 1  # so far there is no second one

    def is_idle(self) -> bool:
        """Is the line between two packets?"""
        return not self._buffer

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._buffer += data
        while True:
            start = self._buffer.find(FRAME)
            del self._buffer[:start if start >= 0 else len(self._buffer)]
            end = self._buffer.find(FRAME, self._looked)
            if end < 0:
                self._looked = max(1, len(self._buffer))
                if self._looked > PACKET_BYTES:
                    self._buffer.clear()
                    self._looked = 1
                return
            packet = bytes(self._buffer[1:end])
            del self._buffer[:end if end == 1 else end + 1]  # two marks: the second begins a packet
            self._looked = 1
            if packet:
                yield packet.replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")


def frame(packet: bytes) -> bytes:
    """One SLIP packet as it goes over the line."""
    body = packet.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc")
    return b"\xc0" + body + b"\xc0"


def _block(body: bytes) -> tuple[bytes, int]:
    """(data, number) of a block command; ValueError when it is shorter than it says."""
    length, number, _, _ = struct.unpack_from("<IIII", body)
    if len(body) != 16 + length:
        raise ValueError("length")
    return body[16:], int(number)


def checksum_of(data: bytes) -> int:
    """All bytes and the seed, exclusive or; by halves, which is quicker than one by one."""
    value, length = int.from_bytes(data, "big"), len(data)
    while length > 1:
        length = (length + 1) // 2
        value = value >> 8 * length ^ value & (1 << 8 * length) - 1
    return value ^ CHECKSUM_SEED
