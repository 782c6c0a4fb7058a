"""Makes an area's agents run a signed package: sends it over MQTT, in stages, and watches their self-tests.

The agents ask for each piece (topic `query`), so this end holds nothing but the package. A stage begins when everybody
of the one before has confirmed its self-test; one that went back to its old version ends the roll-out. What an agent
says on `query` is not signed: the proof that it runs the version is its seals on the chain (`gridseal update status`).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import queue
import ssl
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt

from deploy.enroll import area_brokers, area_name
from deploy.errors import NoAnswer
from deploy.operator import Person
from firmware import update
from firmware.wire import cbor, topics
from firmware.wire.errors import Refused

CONNECT_S = 10.0
OFFER_S = 10.0  # the offer is repeated until the agent asks for something
SILENT_S = 120.0  # an agent that asks for nothing for so long is not there
TRIAL_S = 420.0  # its self-test takes five minutes at most, and it has to start before
PIECE_BYTES = 32 * 1024  # of one message at most, whatever somebody wants
PERCENT = 10  # of the agents in the second stage


class End(NamedTuple):
    """What became of one agent: update.CONFIRMED, RUNS, FAILED, REFUSED, or "silent"; text: why."""

    kid: bytes
    state: str
    text: str

    @property
    def is_good(self) -> bool:
        return self.state in (update.CONFIRMED, update.RUNS)


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    send = actions.add_parser("send", help="roll a signed package out: one agent, then some, then all",
                              epilog="example: gridseal update send agent-7.update --area-folder area")
    send.add_argument("package", type=Path)
    send.add_argument("--area-folder", type=Path, required=True, metavar="DIR", help="made by gateway init")
    send.add_argument("--agent", action="append", default=[], metavar="KID", help="only this one; repeat (default: all "
                      "enrolled agents that do not run it yet, in stages)")
    send.add_argument("--percent", type=int, default=PERCENT, help=f"of the second stage (default {PERCENT})")
    send.add_argument("--json", action="store_true", help="one JSON object instead of text")
    send.set_defaults(run=_send)


class Courier:
    """A connection that offers one package to agents and gives them the pieces they ask for."""

    def __init__(self, person: Person, area: str, brokers: list[str], manifest: bytes, stream: bytes,
                 counter: int) -> None:
        """NoAnswer when no broker answers."""
        self._area, self._counter, self._stream = area, counter, stream
        self._mark = update.mark_of(manifest)
        self._offer = cbor.encode([update.VERSION, "offer", manifest])
        self._inbox: queue.Queue[tuple[bytes, tuple[Any, ...]]] = queue.Queue()
        self._client = _connect(person, area, brokers, self._take)

    def __enter__(self) -> Courier:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def serve(self, kids: Iterable[bytes], say: Callable[[str], None] = print, silent_s: float = SILENT_S,
              trial_s: float = TRIAL_S, offer_s: float = OFFER_S) -> list[End]:
        """Offers to these agents until each has come to an end."""
        ends: dict[bytes, End] = {}
        waiting = {kid: time.monotonic() + silent_s for kid in kids}
        offered: dict[bytes, float] = {}
        installed: set[bytes] = set()
        while len(ends) < len(waiting):
            now = time.monotonic()
            for kid, limit in waiting.items():
                if kid in ends:
                    continue
                if now > limit:
                    ends[kid] = End(kid, "silent", "no self-test was confirmed" if kid in installed else "")
                elif kid not in installed and now - offered.get(kid, -offer_s) >= offer_s:
                    offered[kid] = now
                    self._publish(kid, self._offer)
            try:
                kid, (counter, offset, size, state, text) = self._inbox.get(timeout=0.2)
            except queue.Empty:
                continue
            if kid not in waiting or kid in ends:
                continue
            if state == update.WANT and counter == self._counter:
                offered[kid] = time.monotonic()
                waiting[kid] = time.monotonic() + silent_s
                piece = self._stream[offset:offset + min(size, PIECE_BYTES)]
                self._publish(kid, cbor.encode([update.VERSION, "data", counter, offset, piece]))
            elif state == update.INSTALLED and counter == self._counter:
                installed.add(kid)
                waiting[kid] = time.monotonic() + trial_s
                say(f"{kid.hex()}: it is whole and starts; its self-test follows")
            elif (state in (update.RUNS, update.REFUSED) and offset == self._mark) or (
                    kid in installed and state in (update.CONFIRMED, update.FAILED) and counter == self._counter):
                ends[kid] = End(kid, state, text)
        return list(ends.values())

    def _publish(self, kid: bytes, message: bytes) -> None:
        self._client.publish(topics.agent_topic(self._area, kid, "update"), message, qos=1)

    def _take(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        with contextlib.suppress(Refused):  # whoever else speaks on such a topic
            _, kid, kind = topics.parse(message.topic)
            if kind == "query":
                self._inbox.put((kid, update.decode_query(bytes(message.payload))))


def stages(kids: list[bytes], percent: int) -> list[list[bytes]]:
    """One agent, then so many percent of all (at least one), then the rest."""
    first = min(1, len(kids))
    second = first + max(1, len(kids) * percent // 100)
    return [part for part in (kids[:first], kids[first:second], kids[second:]) if part]


def versions(area_folder: Path) -> list[tuple[bytes, bytes | None]]:
    """(kid, measurement of its newest seal on the chain) of all enrolled agents."""
    from gateway.ledger.reader import Reader
    found: list[tuple[bytes, bytes | None]] = []
    with contextlib.closing(Reader.open(area_folder / "replica-0" / "data")) as ledger:
        for kid, record in ledger.agents():
            if record.role == "agent" and record.revoked_height is None:
                seals = (entry for point in record.points for entry in itertools.islice(ledger.seals(kid, point), 1))
                newest = max(seals, key=lambda entry: entry.seal.last_ms, default=None)
                found.append((bytes(kid), None if newest is None else newest.seal.measurement))
    return found


def _send(args: argparse.Namespace) -> int:
    from deploy import update as packages
    package = packages.read(args.package)
    if not package.is_signed:
        raise ValueError(f"{args.package} is not signed: gridseal update sign")
    manifest = packages.check_package(package, (args.area_folder / "genesis.cbor").read_bytes())
    if args.agent:
        plan = [[bytes.fromhex(text) for text in args.agent]]
    else:
        wanted = packages.contents(package).measurement
        plan = stages([kid for kid, running in versions(args.area_folder) if running != wanted], args.percent)
    ends: list[End] = []

    def say(text: str) -> None:
        if not args.json:
            print(text, flush=True)

    with Courier(Person(args.area_folder), area_name(args.area_folder), area_brokers(args.area_folder),
                 package.manifest, package.stream, manifest.counter) as courier:
        for number, kids in enumerate(plan, 1):
            say(f"stage {number} of {len(plan)}: {len(kids)} agent{'s' if len(kids) > 1 else ''}")
            for end in courier.serve(kids, say):
                say(f"{end.kid.hex()}: {end.state}{': ' + end.text if end.text else ''}")
                ends.append(end)
            if not all(end.is_good for end in ends):
                say("stopped here: the others keep their version")
                break
    if args.json:
        print(json.dumps({"agents": [[end.kid.hex(), end.state, end.text] for end in ends],
                          "left_out": sum(map(len, plan)) - len(ends)}))
    elif not plan:
        print("every enrolled agent runs it already")
    return 0 if all(end.is_good for end in ends) and sum(map(len, plan)) == len(ends) else 1


def _connect(person: Person, area: str, brokers: list[str], take: Callable[..., None]) -> mqtt.Client:
    problems = []
    for url in brokers:
        ready: queue.Queue[bool] = queue.Queue()
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"{person.kid.hex()}-update")
        client.on_message = take
        client.on_subscribe = lambda *_args, told=ready: told.put(True)
        client.on_connect = lambda made, *_args: made.subscribe(topics.all_agents(area, "query"), 1)
        address = urlsplit(url)
        if address.scheme == "mqtts":
            client.tls_set(str(person.folder / "ca" / "ca.crt"), str(person.home / "tls.crt"),
                           str(person.home / "tls.key"), tls_version=ssl.PROTOCOL_TLS_CLIENT)
        try:
            client.connect(address.hostname or "", address.port or 8883, 30)
            client.loop_start()
            ready.get(timeout=CONNECT_S)
            return client
        except (OSError, queue.Empty) as error:
            client.loop_stop()
            problems.append(f"{url}: {error or 'no answer'}")
    raise NoAnswer("no broker of this area answers: " + "; ".join(problems))
