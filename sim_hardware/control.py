"""A control port on loopback, made from the units of all buses: faults are switched while the simulator runs.

One line in, one line out, words parted by spaces:

    units                       JSON: [{"bus", "unit", "point", "type", "fault"}, ...]
    fault TARGET FAULT          ok; TARGET = UNIT, BUS:UNIT (buses count from 0) or point:POINT; FAULT as in faults.py
    help                        this, on one line

An answer that begins with "error" says what was wrong. No password: it binds to loopback only and can but disturb a
simulator.
"""

import asyncio
import ipaddress
import json
from collections.abc import Sequence

from sim_hardware.errors import SimError
from sim_hardware.faults import kinds_text, parse_fault
from sim_hardware.units import Place, Units

MAX_LINE = 1024
HELP = f"units | fault UNIT|BUS:UNIT|point:POINT FAULT | help; FAULT is one of {kinds_text()}"


class Control:
    """The listener; `do` is the whole protocol."""

    def __init__(self, address: tuple[str, int], buses: Sequence[Units]) -> None:
        self._address, self._buses = address, buses
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        try:
            loopback = ipaddress.ip_address("127.0.0.1" if address[0] == "localhost" else address[0]).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise SimError("config", f"control: expected a loopback address, found {address[0]!r}")

    async def start(self) -> str:
        """Listen; "host:port" in use."""
        host, port = self._address
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=MAX_LINE)
        except OSError as error:
            raise SimError("listen", f"{host}:{port}: {error.strerror or error}") from error
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def do(self, line: str) -> str:
        """The answer to one line."""
        words = line.split()
        if words == ["units"]:
            return json.dumps([{"bus": index, "unit": unit, "point": place.meter.point, "type": place.meter.type.name,
                                "fault": str(place.fault)}
                               for index, bus in enumerate(self._buses) for unit, place in bus.places.items()])
        if words == ["help"]:
            return HELP
        if len(words) >= 3 and words[0] == "fault":
            try:
                bus, place = self._find(words[1])
                place.fault = parse_fault(" ".join(words[2:]), rtu=bus.rtu, network=bus.network)
            except SimError as error:
                return f"error {error.detail}"
            return "ok"
        return f"error expected {HELP}"

    def _find(self, target: str) -> tuple[Units, Place]:
        kind, _, number = target.rpartition(":")
        found = [(bus, place) for index, bus in enumerate(self._buses) for place in bus.places.values()
                 if (str(place.meter.point) if kind == "point" else str(place.meter.unit)) == number
                 and kind in ("", "point", str(index))]
        if len(found) == 1:
            return found[0]
        raise SimError("fault", f"expected one meter, {target!r} is {len(found)}; see: units")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            return
        self._tasks.add(task)
        try:
            while line := await reader.readline():
                writer.write((self.do(line.decode("utf-8", "replace")) + "\n").encode())
                await writer.drain()
        except (ConnectionError, ValueError):       # ValueError: a line beyond MAX_LINE
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
