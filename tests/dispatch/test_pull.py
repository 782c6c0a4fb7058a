"""The pull over real Modbus: the whole device, its errors, lines that lose frames, and what a hostile device does."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from firmware.wire import device as codec
from gateway.dispatch import pull
from gateway.dispatch.pull import Target
from sim_hardware.bus import PtyBus, TcpBus
from sim_hardware.device_control import DeviceControl
from sim_hardware.frames import Request
from sim_hardware.security_device import Device, Kind
from tests.dispatch.plant import FILLING_ERRORS, KIND, Plant, evidence_of, new_device
from tests.sim_hardware.bench import HandClock, play

LONG = KIND._replace(software_bytes=24_001)


@contextlib.asynccontextmanager
async def served(device: Any) -> AsyncIterator[Target]:
    bus: TcpBus[Any] = TcpBus(device, lambda: None, "127.0.0.1", 0)
    facts = await bus.start()
    try:
        yield Target("bay-1", "ssc-100", f"tcp://{facts['tcp']}", 1, True)
    finally:
        await bus.stop()


def test_the_whole_device() -> None:
    async def scene() -> None:
        device, _ = new_device(LONG)
        async with served(device) as target:
            assert codec.encode_evidence(await pull.pull(target)) == codec.encode_evidence(evidence_of(device))
            alone = await pull.pull(target._replace(has_twin=False))
            assert len(alone.sides) == 1
    play(scene())


def test_over_a_serial_line(tmp_path: Path) -> None:
    async def scene() -> None:
        device = Device(KIND._replace(software_bytes=500), 1, has_twin=True, rtu=True)
        bus = PtyBus(device, lambda: None, str(tmp_path / "line"), 115200, "N", HandClock())
        await bus.start()
        try:
            target = Target("bay-1", "ssc-100", str(tmp_path / "line"), 1, True, 115200)
            assert codec.encode_evidence(await pull.pull(target)) == codec.encode_evidence(evidence_of(device))
        finally:
            await bus.stop()
    play(scene())


def test_the_ten_errors_and_some_hundred_polls() -> None:
    """What is pulled is judged as what was put in; unchanged, 300 polls are one evidence."""
    async def scene() -> None:
        plant = Plant()
        plant.certify_all()
        device, control = new_device()
        async with served(device) as target:
            for error, (line, outcome, item, kind, _) in FILLING_ERRORS.items():
                control.do(line)
                found = plant.judge_evidence(await pull.pull(target))
                assert (found.outcome, found.item, found.kind) == (outcome, item, kind), error
                control.do("repair")
            seen = set()
            for _ in range(300):
                evidence = await pull.pull(target)
                seen.add(codec.hash_of(codec.encode_evidence(evidence)))
                assert plant.judge_evidence(evidence).outcome == "MATCH"
            assert len(seen) == 1
    play(scene(), 60)


def test_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        monkeypatch.setattr(pull, "ANSWER_S", 0.05)
        device, control = new_device()
        async with served(device) as target:
            control.do("twin silent")
            first, twin = (await pull.pull(target)).sides
            assert first is not None and twin is None
        assert (await pull.pull(target)).sides == [None, None], "nobody listens any more"
        assert (await pull.pull(target._replace(port="/dev/does-not-exist"))).sides == [None, None]
    play(scene())


class Spoiled:
    """A device whose answers are spoiled; `spoil(number of the answer, answer)`."""

    def __init__(self, device: Device, spoil: Callable[[int, bytes], bytes]):
        self._device, self._spoil, self.count = device, spoil, 0

    def answer(self, request: Request) -> Coroutine[None, None, tuple[bytes, int]]:
        return self._answer(request)

    async def _answer(self, request: Request) -> tuple[bytes, int]:
        answer, late_ms = await self._device.answer(request)
        self.count += 1
        return self._spoil(self.count, answer), late_ms


def test_lost_and_spoiled_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every seventh answer is lost; a device that answers with other lengths has no data."""
    async def scene() -> None:
        monkeypatch.setattr(pull, "ANSWER_S", 0.05)
        device, _ = new_device(KIND._replace(software_bytes=2000))
        async with served(Spoiled(device, lambda number, answer: b"" if number % 7 == 0 else answer)) as target:
            assert codec.encode_evidence(await pull.pull(target)) == codec.encode_evidence(evidence_of(device))

        def shortened(number: int, answer: bytes) -> bytes:
            if len(answer) < 40 or answer[7] != 20:
                return answer
            body = answer[7:-2]
            body = bytes((body[0], body[1] - 2, body[2] - 2)) + body[3:]
            return answer[:4] + (len(body) + 1).to_bytes(2, "big") + answer[6:7] + body
        async with served(Spoiled(device, shortened)) as target:
            assert (await pull.pull(target)).sides == [None, None]
    play(scene())


def test_a_device_that_lies_about_its_files() -> None:
    """Counts and lengths from outside cost bounded time and memory."""
    async def scene() -> None:
        device, control = new_device(KIND._replace(software_bytes=200))
        device.sides[0].words = lambda: [60_000, *([1, 1, 0xFFFF, 0xFFFF] * 31)]  # type: ignore[method-assign]
        async with served(device) as target:
            side = (await pull.pull(target._replace(has_twin=False))).sides[0]
            assert side is not None and len(side.files) == codec.FILES and codec.has_extra(side)
            assert all(len(data) <= 200 for _, _, data in side.files)
    play(scene())


def test_a_device_that_is_being_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        device, control = new_device(KIND._replace(software_bytes=2000))
        changes = iter(("truncate software 1500", "repair"))

        def meanwhile(number: int, answer: bytes) -> bytes:
            if number == 6:
                control.do(next(changes))
            return answer
        spoiled = Spoiled(device, meanwhile)
        async with served(spoiled) as target:
            assert codec.encode_evidence(await pull.pull(target)) == codec.encode_evidence(evidence_of(device))
    play(scene())


def test_a_hostile_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever bytes it answers with (headers kept, so that they get as far as possible), a pull only ever brings
    evidence of the right shape: an exception here would end the replica."""
    async def scene() -> None:
        monkeypatch.setattr(pull, "ANSWER_S", 0.02)
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # pymodbus' own, in its callbacks
        for seed in range(60):
            chance = random.Random(seed)
            device, control = new_device(KIND._replace(software_bytes=300))

            def spoil(number: int, answer: bytes, chance: random.Random = chance) -> bytes:
                data = bytearray(answer)
                for _ in range(chance.choice((0, 0, 0, 1, 2, 9))):
                    if len(data) > 8:
                        data[chance.randrange(8, len(data))] = chance.choice((0, 1, 2, 0x80, 0xFF, 0x41))
                if chance.random() < 0.05 and len(data) > 9:
                    body = data[7:chance.randrange(8, len(data))]
                    data = data[:4] + (len(body) + 1).to_bytes(2, "big") + data[6:7] + body
                return bytes(data)
            async with served(Spoiled(device, spoil)) as target:
                found = await pull.pull(target, 3)
            assert codec.decode_evidence(codec.encode_evidence(found)).device == "bay-1", seed
    play(scene(), 120)


def test_odd_identities() -> None:
    """An object named twice, an object that is no text, none at all."""
    for information in ({0: [b"a", b"b"], 1: b"\xff\xfe", 2: None}, {}, {1: "x" * 300}):
        texts = [pull._text(information.get(number)) for number in range(3)]
        assert all(isinstance(text, str) and len(text) <= 64 for text in texts)


def test_the_loop_goes_on_and_the_budget_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        device, control = new_device(Kind(1, "ssc-100", "2.0", "bay-1", 100_000))
        longest = 0.0

        async def watch() -> None:
            nonlocal longest
            while True:
                began = time.monotonic()
                await asyncio.sleep(0.001)
                longest = max(longest, time.monotonic() - began)
        watching = asyncio.create_task(watch())
        async with served(device) as target:
            assert None not in (await pull.pull(target)).sides
            assert longest < 0.25, "the loop was held"
            watching.cancel()
            control.do("silent")
            began = time.monotonic()
            assert (await pull.pull(target, 0.3)).sides == [None, None]
            assert time.monotonic() - began < 2
    play(scene())


def test_control_and_pull_are_two_ends() -> None:
    """A byte altered through the control port is the byte that the pull brings."""
    device, control = new_device()
    assert isinstance(control, DeviceControl) and control.do("tamper strategy 9") == "ok"

    async def scene() -> None:
        async with served(device) as target:
            side = (await pull.pull(target)).sides[0]
            assert codec.file_of(side, codec.STRATEGY) == device.sides[0].files[1].data
    play(scene())
