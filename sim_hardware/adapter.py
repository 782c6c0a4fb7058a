"""Answers to Modbus frames, made from requests by pymodbus' own server; the only file here that knows pymodbus.

pymodbus (>=3.16,<4) moved its server interface in every minor version, so everything we use of it stands here.
Ways round its defects as of 3.16.1:
* The server's own listener is not used: it loses the first of two requests that arrive together, and it cannot send
  a half or late frame. Our bus owns the socket or pty; one pymodbus request handler per bus gets whole frames, one at
  a time, over a transport made of two method calls (`_Loop`).
* Its register store is replaced: an absent unit would be answered with exception 4, and registers would be copied
  into it one value at a time while here each request is answered from one immutable image.
* Its 43/14 identity is one per process; `_identity_request` answers per unit.
* Its own FC 20 takes a request's registers for bytes and answers with a dummy text; `_file_request` reads files.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from pymodbus.constants import ExcCodes
from pymodbus.exceptions import NoSuchIdException
from pymodbus.pdu import ExceptionResponse, ModbusPDU
from pymodbus.pdu.file_message import FileRecord, ReadFileRecordRequest, ReadFileRecordResponse
from pymodbus.pdu.mei_message import ReadDeviceInformationRequest, ReadDeviceInformationResponse
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

logging.getLogger("pymodbus").setLevel(logging.CRITICAL)    # it writes whole exchanges to stderr on every bad frame

# Longest wait for pymodbus to answer one frame; it needs about 0.1 ms. Reached only if it drops a frame silently.
ANSWER_S = 2.0

# read(unit, function code, address, count) -> words, or an exception code
Read = Callable[[int, int, int, int], Sequence[int] | int]
# read(unit, file number, record number, registers) -> bytes, or an exception code
ReadFile = Callable[[int, int, int, int], bytes | int]
FILE_BYTES = 245            # of an answer to FC 20 (MODBUS Application Protocol V1.1b3, 6.14)


class Desk:
    """pymodbus' server without its listener: `await answer(frame)` is the answer's frame, or b"" for silence.

    `rtu` chooses the framing (address + PDU + CRC, or MBAP + PDU). `identities` = {unit: {object id: text}}.
    `read_file` answers FC 20 where there are files.
    """

    def __init__(self, read: Read, identities: Mapping[int, Mapping[int, str]], *, rtu: bool,
                 read_file: ReadFile | None = None) -> None:
        custom: list[type[ModbusPDU]] = [_identity_request(identities)]
        if read_file is not None:
            custom.append(_file_request(read_file))
        server = (ModbusSerialServer(_placeholder(), port="unused", ignore_missing_devices=True, custom_pdu=custom)
                  if rtu else ModbusTcpServer(_placeholder(), ignore_missing_devices=True, custom_pdu=custom))
        server.context = _Context(read)                     # type: ignore[assignment]
        self._handler = server.callback_new_connection()
        self._transport = _Loop(self._sent)
        self._handler.connection_made(self._transport)
        self._turn = asyncio.Lock()
        self._answer: asyncio.Future[bytes] | None = None

    async def answer(self, frame: bytes, before: Callable[[], None]) -> bytes:
        """Answer one whole frame. `before` runs when the frame's turn has come, to set the image it is read from."""
        async with self._turn:
            before()
            self._answer = asyncio.get_running_loop().create_future()
            self._handler.data_received(frame)
            try:
                async with asyncio.timeout(ANSWER_S):
                    return await self._answer
            except TimeoutError:
                self._handler.recv_buffer = b""
                return b""
            finally:
                self._answer = None

    def _sent(self, data: bytes) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(bytes(data))


class _Loop(asyncio.Transport):
    """A transport whose other end is a Python function."""

    def __init__(self, sent: Callable[[bytes], None]) -> None:
        super().__init__()
        self._sent = sent

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._sent(bytes(data))

    def close(self) -> None:
        """Nothing to close: the bus owns the socket or pty."""


class _Context:
    """What pymodbus calls its datastore: asks `read` and turns exception codes into pymodbus' enumeration."""

    def __init__(self, read: Read) -> None:
        self._read = read

    async def async_getValues(self, unit: int, function: int, address: int, count: int = 1  # noqa: N802
                              ) -> list[int] | ExcCodes:
        words = self._read(unit, function, address, count)
        return ExcCodes(words) if isinstance(words, int) else list(words)

    async def async_setValues(self, unit: int, function: int, address: int, values: list[int]  # noqa: N802
                              ) -> ExcCodes:
        return ExcCodes.ILLEGAL_FUNCTION                    # nothing here can be written

    def device_ids(self) -> list[int]:
        return []


def _placeholder() -> SimDevice:
    """The constructors want a device; it is replaced before the first request."""
    return SimDevice(id=1, simdata=[SimData(0, values=[0], datatype=DataType.REGISTERS)])


def _identity_request(identities: Mapping[int, Mapping[int, str]]) -> type[ModbusPDU]:
    class Identity(ReadDeviceInformationRequest):
        """43/14 for one unit of this bus (MODBUS Application Protocol V1.1b3, 6.21)."""

        sub_function_code = -1                              # or the decoder swaps in the library's own class

        @classmethod
        def decode_sub_function_code(cls, data: bytes) -> int:
            return -1

        def decode(self, data: bytes) -> None:
            self.interface, self.read_code, self.object_id = data[0], data[1], data[2]

        async def datastore_update(self, context: object, device_id: int) -> ModbusPDU:
            if device_id not in identities:
                raise NoSuchIdException(str(device_id))
            objects = dict(identities[device_id])
            if self.interface != 14 or not objects:
                return ExceptionResponse(43, ExcCodes.ILLEGAL_FUNCTION)
            if self.read_code == 4:                         # one object
                if self.object_id not in objects:
                    return ExceptionResponse(43, ExcCodes.ILLEGAL_ADDRESS)
                objects = {self.object_id: objects[self.object_id]}
            elif self.read_code in (1, 2, 3):               # basic, regular, extended: objects up to the level's last
                last = {1: 0x02, 2: 0x7F, 3: 0xFF}[self.read_code]
                objects = {number: text for number, text in objects.items() if number <= last}
            else:
                return ExceptionResponse(43, ExcCodes.ILLEGAL_VALUE)
            return ReadDeviceInformationResponse(read_code=self.read_code, information=objects, dev_id=device_id,
                                                 transaction_id=self.transaction_id)

    return Identity


def _file_request(read_file: ReadFile) -> type[ModbusPDU]:
    class FileRequest(ReadFileRecordRequest):
        """FC 20 for the units of this bus (MODBUS Application Protocol V1.1b3, 6.14)."""

        def decode(self, data: bytes) -> None:
            self.groups = [(data[at], *(int.from_bytes(data[at + 1 + 2 * word:at + 3 + 2 * word], "big")
                                        for word in range(3))) for at in range(1, len(data), 7)]

        async def datastore_update(self, context: object, device_id: int) -> ModbusPDU:
            if not self.groups or any(len(group) != 4 or group[0] != 6 for group in self.groups):
                return ExceptionResponse(20, ExcCodes.ILLEGAL_ADDRESS)
            if sum(2 + 2 * group[3] for group in self.groups) > FILE_BYTES:
                return ExceptionResponse(20, ExcCodes.ILLEGAL_VALUE)
            records = []
            for _, file, record, count in self.groups:
                found = read_file(device_id, file, record, count)
                if isinstance(found, int):
                    return ExceptionResponse(20, ExcCodes(found))
                records.append(FileRecord(record_data=found))
            return ReadFileRecordResponse(records=records, dev_id=device_id, transaction_id=self.transaction_id)

    return FileRequest
