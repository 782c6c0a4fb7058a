"""Runs a fleet against real brokers: publishes what is due, keeps what is not acked, counts what comes back.

Over TLS each agent has a connection of its own, under its own certificate, as real ones have; a plain broker (for
trials) carries all of them in one. Acks are believed: this is a load, no light node. What a gateway says it wants is
sent again, and so is what stays unacked for RESEND_S.
"""

import asyncio
import contextlib
import ssl
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import cbor2
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from sim_hardware.errors import SimError
from sim_hardware.fleet import wire
from sim_hardware.fleet.fleet import Envelope, Fleet
from sim_hardware.fleet.folder import Home
from sim_hardware.units import Clock

RESEND_S = 60
KEPT = 100_000  # envelopes that wait for their ack; the oldest go first
LATENCIES = 100_000
CONNECT_S = 20.0
LOOK_S = 0.05
BURST = 1000  # envelopes handed to the broker's client before it is looked at again


class Traffic:
    """The connections and the count of everything."""

    def __init__(self, home: Home, fleet: Fleet, clock: Clock, broker: str | None = None) -> None:
        self.fleet = fleet
        self.counts: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.misdeeds: Counter[str] = Counter()
        self.latencies_ms: deque[int] = deque(maxlen=LATENCIES)
        self.unacked: OrderedDict[tuple[int, int], tuple[Envelope, int, int]] = OrderedDict()
        self._home, self._clock, self._url = home, clock, broker or home.brokers[0]
        self._lock = threading.Lock()
        self._numbers = {agent.key.kid.hex(): agent.number for agent in fleet.agents}
        self._again: deque[Envelope] = deque()
        self._clients: list[paho.Client] = []

    def connect(self) -> None:
        """All connections stand when it returns; SimError `listen` otherwise."""
        where = urlsplit(self._url)
        is_tls = where.scheme == "mqtts"
        agents = range(len(self.fleet.agents)) if is_tls else (None,)
        waiting = []
        for number in agents:
            stands = threading.Event()
            client = paho.Client(CallbackAPIVersion.VERSION2, client_id=self._client_id(number))
            client.max_inflight_messages_set(1000)
            if is_tls and number is not None:
                folder = self._home.agent(number)
                if not (folder / "tls.crt").exists():
                    raise SimError("config", f"{folder} has no certificate: the operator has not enrolled it yet "
                                   "(gridseal sim fleet enroll)")
                context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
                context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
                client.tls_set_context(context)
            client.on_connect = self._on_connect(number, stands)
            client.on_message = self._on_message
            client.on_publish = self._on_publish
            try:
                client.connect(where.hostname or "", where.port or 1883, keepalive=60)
            except OSError as error:
                raise SimError("listen", f"{self._url}: {error}") from error
            client.loop_start()
            self._clients.append(client)
            waiting.append(stands)
        for stands in waiting:
            if not stands.wait(CONNECT_S):
                raise SimError("listen", f"{self._url}: no connection within {CONNECT_S:.0f} s")

    def close(self) -> None:
        for client in self._clients:
            client.disconnect()
            client.loop_stop()

    async def run(self, stop: asyncio.Event, seconds: int | None, say: Callable[[dict[str, Any]], None],
                  every_s: int = 10) -> None:
        """Sends what is due until `stop`, or for so many seconds of real time; `say` gets the counts now and then."""
        loop = asyncio.get_running_loop()
        end = None if seconds is None else loop.time() + seconds
        said = loop.time()
        while not stop.is_set() and (end is None or loop.time() < end):
            for number, made in enumerate(self.fleet.due(self._clock.now_ms())):
                self._send(made)
                if number % BURST == BURST - 1:
                    await asyncio.sleep(0)
            self._send_again()
            if loop.time() >= said + every_s:
                said = loop.time()
                say(self.report())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_S)

    async def settle(self, wait_s: float) -> bool:
        """Waits until everything honest is acked; False after the time."""
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_s
        while self.unacked and loop.time() < end:
            self._send_again()
            await asyncio.sleep(LOOK_S)
        return not self.unacked

    def report(self) -> dict[str, Any]:
        """Counts so far; latencies from the first sending to the ack, in ms of real time."""
        with self._lock:
            found = sorted(self.latencies_ms)
            return {"sent": self.counts["sent"], "bytes": self.counts["bytes"], "again": self.counts["again"],
                    "puback": self.counts["puback"], "acked": self.counts["acked"], "unacked": len(self.unacked),
                    "given_up": self.counts["given_up"],
                    "misdeeds": dict(self.misdeeds), "refused": dict(self.refused),
                    "ack_ms": {str(share): found[len(found) * share // 100] for share in (50, 95, 99)} if found else {}}

    def _send(self, made: Envelope) -> None:
        now = self._clock.monotonic_ms()
        with self._lock:
            self.counts["sent"] += 1
            self.counts["bytes"] += len(made.data)
            if made.misdeed:
                self.misdeeds[made.misdeed] += 1
            else:
                self.unacked[made.point, made.height] = (made, now, now)
                if len(self.unacked) > KEPT:
                    self.unacked.popitem(last=False)
                    self.counts["given_up"] += 1
        self._client(made.agent).publish(made.topic, made.data, 1)

    def _send_again(self) -> None:
        now = self._clock.monotonic_ms()
        with self._lock:
            todo = list(self._again)
            self._again.clear()
            while self.unacked:
                place, (made, first, last) = next(iter(self.unacked.items()))
                if now < last + RESEND_S * 1000:
                    break
                self.unacked[place] = (made, first, now)
                self.unacked.move_to_end(place)
                todo.append(made)
            self.counts["again"] += len(todo)
        for made in todo:
            self._client(made.agent).publish(made.topic, made.data, 1)

    def _client(self, agent: int) -> paho.Client:
        return self._clients[agent if len(self._clients) > 1 else 0]

    def _client_id(self, number: int | None) -> str:
        return f"fleet-{self._home.plan.seed}" if number is None else self.fleet.agents[number].key.kid.hex()

    def _on_connect(self, number: int | None, stands: threading.Event) -> Callable[..., None]:
        area = self._home.plan.area
        topics = [wire.topic(area, agent.key.kid, "ack") for agent in self.fleet.agents
                  if number in (None, agent.number)]

        def connected(client: paho.Client, *_: object) -> None:
            for at in range(0, len(topics), 100):
                client.subscribe([(topic, 1) for topic in topics[at:at + 100]])
            stands.set()

        return connected

    def _on_publish(self, *_: object) -> None:
        self.counts["puback"] += 1

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        agent = self._numbers.get(message.topic.split("/")[3])
        try:
            _, _, _, proofs, refused, wanted = cbor2.loads(bytes(message.payload))
        except (ValueError, cbor2.CBORDecodeError):
            self.counts["bad_acks"] += 1
            return
        if agent is None:
            return
        now = self._clock.monotonic_ms()
        with self._lock:
            for row in proofs:
                self._acked(row[0], row[1], now)
            for _point, _height, reason in refused:
                self.refused[reason] += 1
            for point, first, last in wanted:
                for height in range(first, min(last, first + BURST) + 1):
                    kept = self.unacked.get((point, height))
                    if kept is not None:
                        self._again.append(kept[0])

    def _acked(self, point: int, height: int, now: int) -> None:
        """That height and all below it are on the ledger."""
        while (found := self.unacked.pop((point, height), None)) is not None:
            self.counts["acked"] += 1
            self.latencies_ms.append(now - found[1])
            height -= 1
