"""Makes a device's evidence from what it holds: identity, table and files, read over Modbus (docs/security-device.md).

pymodbus' client, in the loop's thread: every wait is the loop's, and a device costs it some 0.2 ms of work a request.
Nothing that answers is believed: numbers are bounded before they are used, an answer of another length is none. A
device that does not answer, or whose files change while they are read, is tried again; then there is no data.
"""

import asyncio
import logging
from typing import Any, NamedTuple

from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU
from pymodbus.pdu.file_message import FileRecord

from firmware.wire import device as codec
from firmware.wire.device import Evidence, Side

logger = logging.getLogger("gridseal.devices")
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # it writes whole exchanges to stderr on every bad frame

ANSWER_S = 1.0  # 250 bytes at 9600 baud take 0.29 s
CONNECT_S = 3.0
TRIES = 3  # of one request: a frame may be lost on a serial line
PULLS = 2  # of one device in one check
BUDGET_S = 300.0  # of one check with all of its tries; an image of 128 KiB at 9600 baud takes three minutes
TABLE_REGISTER, ENTRY_REGISTERS = 0, 4
READ_REGISTERS = 120
PART_BYTES, PART_STEP = 20_000, 10
BUSY_CODES = (5, 6, 11)  # acknowledge, device busy, gateway target did not respond: worth another try
BAUD = 9600


class Target(NamedTuple):
    """Where a device is; port: tcp://host:port or a serial device."""

    name: str
    model: str
    port: str
    unit: int
    has_twin: bool
    baud: int = BAUD


class NoAnswer(Exception):
    """Nobody answered, or not with what was asked for."""


async def pull(target: Target, budget_s: float = BUDGET_S) -> Evidence:
    """The evidence; a side that could not be read within the budget is None. Raises nothing for what a device does."""
    sides: list[Side | None] = [None] * (1 + target.has_twin)
    try:
        async with asyncio.timeout(budget_s):
            await _pull_sides(target, sides)
    except TimeoutError:
        pass  # what was read whole by then stands
    return Evidence(target.name, target.model, sides)


async def _pull_sides(target: Target, sides: list[Side | None]) -> None:
    for _ in range(PULLS):
        client = _make_client(target)
        try:
            if not await asyncio.wait_for(client.connect(), CONNECT_S):
                continue
            for at, side in enumerate(sides):
                if side is None:
                    sides[at] = await _pull_side(client, target.unit + at)
        except (OSError, ModbusException, TimeoutError):
            continue
        except Exception:  # the library's, on bytes that a hostile device made up: no data, and never the replica's end
            logger.exception("device %s: its answers cannot be read", target.name)
            continue
        finally:
            client.close()
        if None not in sides:
            return


def _make_client(target: Target) -> Any:
    """reconnect_delay 0: a client that comes back by itself would outlive its pull."""
    if target.port.startswith("tcp://"):
        host, _, port = target.port.removeprefix("tcp://").rpartition(":")
        return AsyncModbusTcpClient(host.strip("[]"), port=int(port), timeout=ANSWER_S, retries=0, reconnect_delay=0)
    return AsyncModbusSerialClient(target.port, baudrate=target.baud, timeout=ANSWER_S, retries=0, reconnect_delay=0)


async def _pull_side(client: Any, unit: int) -> Side | None:
    try:
        objects = await _identify(client, unit)
        table = await _table(client, unit)
        files, room = [], codec.EVIDENCE_BYTES // codec.SIDES - 1024 * codec.FILES  # and what CBOR puts around them
        for role, number, length in table:
            data = await _file(client, unit, number, min(length, codec.FILE_BYTES, room))
            room -= len(data)
            files.append([role, number, data])
        if await _table(client, unit) != table:
            return None  # it is being filled just now
    except NoAnswer:
        return None
    return Side(objects, files)


async def _identify(client: Any, unit: int) -> list[str] | None:
    """[vendor, product code, revision]; None where a device does not know the function."""
    answer = await _ask(client.read_device_information, read_code=1, object_id=0, device_id=unit)
    if answer.isError():
        return None
    found = getattr(answer, "information", {})
    return [_text(found.get(number, b"")) for number in range(3)]


async def _table(client: Any, unit: int) -> list[tuple[int, int, int]]:
    """(role, file number, length) of the files, the first sixteen."""
    count = min((await _registers(client, unit, TABLE_REGISTER, 1))[0], codec.FILES)
    if not count:
        return []
    words = await _registers(client, unit, TABLE_REGISTER + 1, ENTRY_REGISTERS * count)
    return [(words[at], words[at + 1], words[at + 2] << 16 | words[at + 3])
            for at in range(0, len(words), ENTRY_REGISTERS)]


async def _registers(client: Any, unit: int, first: int, count: int) -> list[int]:
    answer = await _ask(client.read_holding_registers, first, count=count, device_id=unit)
    words = list(getattr(answer, "registers", ()))
    if answer.isError() or len(words) != count:
        raise NoAnswer("no table of files")
    return words


async def _file(client: Any, unit: int, number: int, length: int) -> bytes:
    """Up to `length` bytes; fewer when the device says that the file has ended."""
    data = bytearray()
    while len(data) < length:
        part, at = divmod(len(data), PART_BYTES)
        left = length - len(data)
        size = min(2 * READ_REGISTERS, PART_BYTES - at, left + left % 2)
        if number + PART_STEP * part > 0xFFFF:
            break
        record = FileRecord(file_number=number + PART_STEP * part, record_number=at // 2, record_length=size)
        answer = await _ask(client.read_file_record, [record], device_id=unit)
        if answer.isError():
            break
        found = b"".join(one.record_data for one in getattr(answer, "records", ()))
        if len(found) != size:
            raise NoAnswer(f"{size} bytes asked for, {len(found)} came")
        data += found
    return bytes(data[:length])


async def _ask(question: Any, *arguments: Any, **more: Any) -> ModbusPDU:
    """The answer, which may be a refusal of the device; NoAnswer when none comes."""
    for _ in range(TRIES):
        try:
            answer: ModbusPDU = await question(*arguments, **more)
        except (ModbusException, OSError):
            continue
        if not answer.isError() or getattr(answer, "exception_code", 0) not in BUSY_CODES:
            return answer
    raise NoAnswer("no answer")


def _text(found: object) -> str:
    """Of an object of the identity; the library gives a list where a device names an object twice."""
    text = found.decode("utf-8", "replace") if isinstance(found, bytes) else found if isinstance(found, str) else ""
    return text[:codec.NAME_BYTES]
