"""Makes retained MQTT messages from alarms: raised and cleared, by name; of devices, of witnesses, of anything.

Every replica comes to the same alarms from the same blocks, and so to the same message. The one whose report it was
publishes at once; the others wait a while each in its turn, and stay silent when the message is there by then. An alarm
that stands is published again from time to time: a retained message that nobody looked at rings no bell.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from firmware.wire import topics

ALARMS = 512  # devices of an area, and as many others
TURN_MS = 3000  # real time between one replica's turn to publish and the next one's
REPEAT_S = 3600  # label time after which an alarm that still stands is raised again
TICK_S = 0.2
RAISED, CLEARED = "raised", "cleared"


class Clock(Protocol):
    """As `deploy.clock.Clock`."""

    def now_ms(self) -> int: ...

    def monotonic_ms(self) -> int: ...


class Alarm:
    """The newest message of one name, and what is still to be done about it."""

    def __init__(self, facts: Mapping[str, Any], due_ms: int):
        self.facts = dict(facts)
        self.payload = json.dumps(self.facts, separators=(",", ":")).encode()
        self.due_ms: int | None = due_ms  # real time at which to publish; None: done
        self.repeat_ms = 0  # label time of the next repetition

    @property
    def is_raised(self) -> bool:
        return self.facts["state"] == RAISED


class Alarms:
    """All methods in the loop's thread. publish(topic, payload): retained."""

    def __init__(self, area: str, index: int, clock: Clock, publish: Callable[[str, bytes], None]):
        self._area, self._index, self._clock, self._publish = area, index, clock, publish
        self._alarms: dict[str, Alarm] = {}
        self._seen: dict[str, bytes] = {}

    def tell(self, name: str, facts: Mapping[str, Any], is_ours: bool = True) -> None:
        """An alarm's newest facts, with "state"; nothing happens when they are the ones that were told before.

        name: 1 to 32 of a-z, 0-9 and '-', as a device's; is_ours: this replica speaks first."""
        known = self._alarms.get(name)
        if known is not None and known.facts == facts:
            return
        if known is None and len(self._alarms) >= ALARMS:
            return
        now_ms = self._clock.monotonic_ms()
        alarm = Alarm(facts, now_ms if is_ours else now_ms + TURN_MS * (self._index + 1))
        if self._seen.get(name) == alarm.payload:
            alarm.due_ms = None
        alarm.repeat_ms = self._clock.now_ms() + REPEAT_S * 1000
        self._alarms[name] = alarm
        self.tick()

    def note(self, name: str, text: str, since: str) -> None:
        """An alarm in words, which stays until somebody has looked at it: evidence against somebody, say."""
        self.tell(name, {"alarm": name, "state": RAISED, "text": text, "since": since})

    def seen(self, name: str, payload: bytes) -> None:
        """What is published under an alarm's name, by whomever."""
        if name in self._alarms or len(self._seen) < ALARMS:
            self._seen[name] = payload
        alarm = self._alarms.get(name)
        if alarm is not None and alarm.payload == payload:
            alarm.due_ms, alarm.repeat_ms = None, self._clock.now_ms() + REPEAT_S * 1000

    def raised(self) -> list[dict[str, Any]]:
        """The facts of all alarms that stand."""
        return [alarm.facts for _, alarm in sorted(self._alarms.items()) if alarm.is_raised]

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()

    def tick(self) -> None:
        """Publishes what is due."""
        now_ms, label_ms = self._clock.monotonic_ms(), self._clock.now_ms()
        for name, alarm in self._alarms.items():
            if alarm.is_raised and label_ms >= alarm.repeat_ms:
                alarm.repeat_ms = label_ms + REPEAT_S * 1000
                alarm.due_ms = now_ms + TURN_MS * self._index  # the first of those that run
            if alarm.due_ms is not None and now_ms >= alarm.due_ms:
                alarm.due_ms = None
                self._publish(topics.alarm(self._area, name), alarm.payload)
