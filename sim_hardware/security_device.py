"""A simulated security and stability control device, made from a seed, a model, a version and a device's name.

Its register map is ours, since no public one exists (docs/security-device.md):

    43/14            objects 0 vendor, 1 product code (the model), 2 revision (the version)
    FC 20            file 1 software image, 2 strategy, 3 settings, 4 serial text (the device's name); a record is a
                     register of two bytes, up to 120 of them a read; beyond 20,000 bytes file n goes on in n + 10
    FC 3, register 0 number of files, then four registers each: role, file number, length in bytes (high word first)

An A/B twin answers at unit + 1 with files of its own. What people do wrong when they fill such a device, and what
somebody could do on purpose, are methods of `Device`; `repair` undoes all of it.
"""

from collections.abc import Coroutine, Mapping, Sequence
from typing import NamedTuple

from sim_hardware.adapter import Desk
from sim_hardware.chance import mix, pick, seed_of
from sim_hardware.errors import SimError
from sim_hardware.frames import Request, exception_frame
from sim_hardware.units import IDENTIFY, ILLEGAL_ADDRESS, ILLEGAL_FUNCTION, ILLEGAL_VALUE, READ_HOLDING

VENDOR = "gridseal simulator"
SOFTWARE, STRATEGY, SETTINGS, SERIAL = ROLES = (1, 2, 3, 4)
ROLE_NAMES = {"software": SOFTWARE, "strategy": STRATEGY, "settings": SETTINGS, "serial": SERIAL}
EXTRA_ROLE = 5
READ_FILE = 20
FILE_REGISTERS = 120        # of one read: 245 bytes of an answer hold 121
PART_BYTES = 20_000         # record numbers end at 9999 (MODBUS Application Protocol V1.1b3, 6.14)
PART_STEP = 10
SOFTWARE_BYTES = 24_001     # goes on in file 11 and ends in half a register
STRATEGY_LINES, SETTING_LINES = 48, 64
MAX_BYTES = 1 << 20


class File(NamedTuple):
    """An entry of the device's table."""

    role: int
    number: int
    data: bytes


class Kind(NamedTuple):
    """What a device is made from; the same seed and kind are the same files anywhere."""

    seed: int
    model: str
    version: str
    device: str
    software_bytes: int = SOFTWARE_BYTES


def software_of(kind: Kind) -> bytes:
    """The image: a header that says what it is, then bytes that depend on seed, model and version."""
    head = f"{kind.model} {kind.version}\n".encode()
    seed = seed_of(kind.seed, "software", kind.model, kind.version)
    body = b"".join(mix(seed ^ mix(block)).to_bytes(8, "big") for block in range(kind.software_bytes // 8 + 1))
    return (head + body)[:kind.software_bytes]


def strategy_of(kind: Kind) -> bytes:
    """The strategy table: which feeders are shed at which frequency and power; depends on seed, model and version."""
    seed = seed_of(kind.seed, "strategy", kind.model, kind.version)
    lines = [f"strategy {kind.model} {kind.version}"]
    lines += [f"{line:02d} below {pick(seed, 2 * line, 48_000, 49_800)} mHz shed {pick(seed, 2 * line + 1, 1, 400)} MW"
              for line in range(STRATEGY_LINES)]
    return ("\n".join(lines) + "\n").encode()


def settings_of(kind: Kind) -> bytes:
    """The setting values of one bay; depends on seed, model and device, not on the version."""
    seed = seed_of(kind.seed, "settings", kind.model, kind.device)
    lines = [f"settings {kind.model} {kind.device}"]
    lines += [f"setting {line:02d} = {pick(seed, line, 0, 65_535)}" for line in range(SETTING_LINES)]
    return ("\n".join(lines) + "\n").encode()


def factory_files(kind: Kind) -> list[File]:
    """The files as the manufacturer loads them."""
    return [File(SOFTWARE, 1, software_of(kind)), File(STRATEGY, 2, strategy_of(kind)),
            File(SETTINGS, 3, settings_of(kind)), File(SERIAL, 4, kind.device.encode())]


class Side:
    """One of the two computers of a device, or the only one."""

    def __init__(self, kind: Kind) -> None:
        self.files = factory_files(kind)
        self.is_silent = False

    def words(self) -> list[int]:
        """The holding registers from 0 on."""
        words = [len(self.files)]
        for file in self.files:
            words += [file.role, file.number, len(file.data) >> 16, len(file.data) & 0xFFFF]
        return words

    def read(self, number: int, record: int, count: int) -> bytes | int:
        """`count` registers of a file from `record` on, or an exception code; an odd end is filled with a zero."""
        if not 1 <= count <= FILE_REGISTERS:
            return ILLEGAL_VALUE
        for file in self.files:
            part, rest = divmod(number - file.number, PART_STEP)
            if rest or part < 0 or record + count > PART_BYTES // 2:
                continue
            begin = part * PART_BYTES + 2 * record
            end = begin + 2 * count
            if end <= len(file.data) + len(file.data) % 2:
                return file.data[begin:end].ljust(2 * count, b"\0")
        return ILLEGAL_ADDRESS

    def place_of(self, role: int) -> int:
        """The index of a role's file; SimError when it is not there."""
        for at, file in enumerate(self.files):
            if file.role == role:
                return at
        raise SimError("device", f"there is no {_name(role)} file now")


class Device:
    """A device and its twin, if it has one; sits on a bus as `Units` does. Methods that alter it take sides: (0, 1) for
    both, (1,) for the twin alone."""

    def __init__(self, kind: Kind, unit: int, *, has_twin: bool, rtu: bool) -> None:
        if not 1 <= unit <= 247 - has_twin:
            raise SimError("device", f"unit: expected 1..{247 - has_twin}, found {unit}")
        if not 64 <= kind.software_bytes <= MAX_BYTES:
            raise SimError("device", f"software: expected 64..{MAX_BYTES} bytes, found {kind.software_bytes}")
        self.kind, self.unit, self.rtu = kind, unit, rtu
        self.answered = 0
        self._has_twin = has_twin
        self._identities: dict[int, Mapping[int, str]] = {}
        self.sides: list[Side] = []
        self.repair()
        self._desk: Desk | None = None      # made with the first request: pymodbus' server wants a running loop

    # On the bus.

    def answer(self, request: Request) -> Coroutine[None, None, tuple[bytes, int]]:
        """What goes out for one request: (bytes, extra ms); b"" = silence."""
        return self._answer(request)

    async def _answer(self, request: Request) -> tuple[bytes, int]:
        side = self._side(request.unit)
        if side is None or side.is_silent or request.pdu[0] & 0x80:
            return b"", 0
        self.answered += 1
        code = _refusal(request.pdu)
        if code:
            return exception_frame(request, code, rtu=self.rtu), 0
        if self._desk is None:
            self._desk = Desk(self._read, self._identities, rtu=self.rtu, read_file=self._read_file)
        return await self._desk.answer(request.frame, lambda: None), 0

    def _side(self, unit: int) -> Side | None:
        at = unit - self.unit
        return self.sides[at] if 0 <= at < len(self.sides) else None

    def _read(self, unit: int, function: int, address: int, count: int) -> Sequence[int] | int:
        side = self._side(unit)
        words = side.words() if side else []
        return words[address:address + count] if address + count <= len(words) else ILLEGAL_ADDRESS

    def _read_file(self, unit: int, number: int, record: int, count: int) -> bytes | int:
        side = self._side(unit)
        return side.read(number, record, count) if side else ILLEGAL_ADDRESS

    # What may go wrong with it.

    def tamper(self, role: int, offset: int, sides: Sequence[int] = (0, 1)) -> None:
        """One byte of a file becomes another."""
        for side in self._chosen(sides):
            at = side.place_of(role)
            data = bytearray(side.files[at].data)
            if not 0 <= offset < len(data):
                raise SimError("device", f"offset: expected 0..{len(data) - 1}, found {offset}")
            data[offset] = (data[offset] + 1) % 256
            side.files[at] = side.files[at]._replace(data=bytes(data))

    def swap(self, first: int, second: int, sides: Sequence[int] = (0, 1)) -> None:
        """Two files lie in each other's place."""
        for side in self._chosen(sides):
            one, two = side.place_of(first), side.place_of(second)
            datas = side.files[one].data, side.files[two].data
            side.files[one] = side.files[one]._replace(data=datas[1])
            side.files[two] = side.files[two]._replace(data=datas[0])

    def truncate(self, role: int, length: int, sides: Sequence[int] = (0, 1)) -> None:
        """The file ends early; the device's table says so."""
        for side in self._chosen(sides):
            at = side.place_of(role)
            if not 0 <= length < len(side.files[at].data):
                raise SimError("device", f"length: expected less than {len(side.files[at].data)}, found {length}")
            side.files[at] = side.files[at]._replace(data=side.files[at].data[:length])

    def load(self, role: int, kind: Kind, sides: Sequence[int] = (0, 1)) -> None:
        """The file of that role of another version, model or device."""
        data = next(file.data for file in factory_files(kind) if file.role == role)
        for side in self._chosen(sides):
            at = side.place_of(role)
            side.files[at] = side.files[at]._replace(data=data)

    def run_version(self, version: str, sides: Sequence[int] = (0, 1)) -> None:
        """Software and strategy of another version, and its number at 43/14."""
        for role in (SOFTWARE, STRATEGY):
            self.load(role, self.kind._replace(version=version), sides)
        self._identify(self.kind._replace(version=version), sides)

    def become(self, kind: Kind, sides: Sequence[int] = (0, 1)) -> None:
        """Another device, whole, at this address."""
        for side in self._chosen(sides):
            side.files = factory_files(kind)
        self._identify(kind, sides)

    def drop(self, role: int, sides: Sequence[int] = (0, 1)) -> None:
        """A file is not there."""
        for side in self._chosen(sides):
            del side.files[side.place_of(role)]

    def add_extra(self, sides: Sequence[int] = (0, 1)) -> None:
        """A file that nobody certified lies beside the others."""
        for side in self._chosen(sides):
            side.files.append(File(EXTRA_ROLE, EXTRA_ROLE, b"left by a visitor\n"))

    def silence(self, sides: Sequence[int] = (0, 1)) -> None:
        """No answer any more."""
        for side in self._chosen(sides):
            side.is_silent = True

    def repair(self) -> None:
        """Everything as the manufacturer loaded it."""
        self.sides = [Side(self.kind) for _ in range(1 + self._has_twin)]
        self._identify(self.kind, (0, 1))

    def install(self, version: str) -> None:
        """A new version is loaded for good: `repair` comes back to it."""
        self.kind = self.kind._replace(version=version)
        self.repair()

    def _chosen(self, sides: Sequence[int]) -> list[Side]:
        chosen = [self.sides[at] for at in sides if at < len(self.sides)]
        if not chosen:
            raise SimError("device", "this device has no twin")
        return chosen

    def _identify(self, kind: Kind, sides: Sequence[int]) -> None:
        for at in sides:
            if at < len(self.sides):
                self._identities[self.unit + at] = {0: VENDOR, 1: kind.model, 2: kind.version}


def role_called(name: str) -> int:
    """software, strategy, settings or serial; SimError for anything else."""
    if name not in ROLE_NAMES:
        raise SimError("device", f"expected one of {', '.join(ROLE_NAMES)}, found {name!r}")
    return ROLE_NAMES[name]


def _name(role: int) -> str:
    return next((name for name, number in ROLE_NAMES.items() if number == role), str(role))


def _refusal(pdu: bytes) -> int:
    """The exception code that the device gives before it looks at its files, 0 for none."""
    if pdu[0] not in (READ_HOLDING, READ_FILE, IDENTIFY):
        return ILLEGAL_FUNCTION
    if pdu[0] == READ_HOLDING:
        return 0 if len(pdu) == 5 and 1 <= int.from_bytes(pdu[3:5], "big") <= 125 else ILLEGAL_VALUE
    if pdu[0] == IDENTIFY:
        return 0 if len(pdu) == 4 else ILLEGAL_VALUE
    return 0 if len(pdu) >= 2 and len(pdu) == 2 + pdu[1] and pdu[1] and pdu[1] % 7 == 0 else ILLEGAL_VALUE
