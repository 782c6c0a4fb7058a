"""Makes an ESP32 into an agent's board: flash partitions, UARTs, Wi-Fi, TLS, time servers, watchdog, one light.

It is board/micro.py with this chip's parts around it. `run` is what the starter (firmware/boot.py) hands over to; it
comes back when the chip is to be restarted. What needs pins is in esp32_uart.py and esp32_light.py; everything runs in
the tests on MicroPython, with modules in place of machine, network and esp32.
"""

import gc
import os

import firmware
from firmware import boot
from firmware.board import esp32_light, esp32_net, esp32_time, micro_port, trial
from firmware.board.micro import MicroBoard, drop
from firmware.crypto import known, p256
from firmware.crypto.signer import SoftwareSigner
from firmware.modbus import is_network
from firmware.wire import topics
from firmware.wire.seal import SLOT_B

MODEL = "esp32-4m"  # where the slot's manifest does not say another
JOURNAL = "journal"  # the partition's label
LATE_MS = 60000  # a poll so much too late is no progress
ANSWER_MS = 300000  # without an answer for so long, the light says so
STATUS_MS = 3600000  # between two writes of the status: flash wears out


class Esp32Board(MicroBoard):
    """settings: config.Config; folder: of the file system; clock: esp32_time.BoardClock; key32: the signing key.

    `seen`: boot.BUS and boot.BROKER, as soon as a meter has answered and a broker has taken the connection.
    """

    def __init__(self, settings, folder, clock, key32, say=print):
        super().__init__(clock, SoftwareSigner(key32, os.urandom), p256.verify_digest, folder + "/" + settings.data,
                         folder + "/" + settings.genesis,
                         [folder + "/" + name for name in (settings.ca, settings.tls_cert, settings.tls_key)], say)
        self.folder = folder
        self.clock = clock
        self.seen = 0
        self.is_linked = False
        self.answered_ms = None
        self.polled_ms = clock.monotonic_ms()
        self.updater = None
        self.facts: dict = {}  # for the status
        self._area = settings.area
        self._is_plain = settings.plain_mqtt
        self._update_topic = ""
        self._kid = b""
        self._status_ms = None

    def device(self):
        """The journal's partition: MicroPython's block protocol is what firmware/journal.py speaks."""
        from esp32 import Partition
        return Partition.find(Partition.TYPE_DATA, label=JOURNAL)[0]

    def measurement(self):
        """Of the running slot's files (board/measure.py)."""
        from firmware.board import measure
        found = measure.measure(firmware.__file__.rpartition("/")[0])
        drop("board.measure")
        return found

    def save_status(self, name, status):
        now_ms = self.clock.monotonic_ms()
        if self._status_ms is None or now_ms - self._status_ms >= STATUS_MS:
            self._status_ms = now_ms
            status.update(self.facts)
            super().save_status(name, status)

    def open_port(self, line, clock):
        if is_network(line.port):
            return micro_port.open_port(line, clock.speed)
        from firmware.board.esp32_uart import UartPort
        return UartPort(line)

    def start_link(self, urls, client_id, subscriptions, will_topic, will):
        self._kid = bytes.fromhex(client_id)
        self._update_topic = topics.agent_topic(self._area, self._kid, "update")
        super().start_link(urls, client_id, subscriptions + [self._update_topic], will_topic, will)
        if self._link is not None:
            self._link.allows_plain = self._is_plain
        plain = [url for url in urls if url.startswith("mqtt://")]
        self.facts["without_encryption"] = plain
        if plain:
            self.log("MQTT WITHOUT ENCRYPTION: who is on this network can read readings; signatures hold all the same")

    def wait(self, wait_ms):
        """As MicroBoard.wait; what comes on the topic `update` stays here."""
        events = []
        for event in super().wait(wait_ms):
            if event[0] == "message" and event[1] == self._update_topic:
                self._take_update(event[2])
                continue
            if event[0] == "words":
                self.polled_ms = self.clock.monotonic_ms()
                if [one for one in event[4] if one.words is not None]:
                    self.answered_ms = self.polled_ms
                    self.seen |= boot.BUS
            elif event[0] == "connected":
                self.is_linked = True
                self.seen |= boot.BROKER
            elif event[0] == "disconnected":
                self.is_linked = False
            events.append(event)
        return events

    def say_update(self, state, counter, text):
        """Tells whoever sends updates what became of one (firmware/update.py)."""
        from firmware import update
        self.publish(topics.agent_topic(self._area, self._kid, "query"),
                     update.encode_query(counter, 0, 0, state, text), None)
        if self.updater is None:
            drop("update", "romfs")

    def step_update(self):
        """Goes on with an update that is under way; True when the chip is to be restarted for it."""
        if self.updater is None:
            return False
        found = self.updater.step(self.clock.monotonic_ms())
        if found == "idle":
            self.updater = None
            drop("board.updating", "board.slots", "update", "romfs", "wire.genesis")
        return found == "restart"

    def _take_update(self, payload):
        from firmware.board import slots
        if self.updater is None:
            from firmware.board.updating import Updater
            self.updater = Updater(self, self._area, self._kid, slots.model() or MODEL, self._spare)
        self.updater.take(payload, slots.running_manifest(), self.clock.monotonic_ms())

    def _spare(self):
        from firmware.board import slots
        return slots.spare(self.folder)


class Watch:
    """What else is done in each turn of the agent's loop: network, time, the judgement on this start, light, watchdog.

    agent: with next_ms, or None in safe mode; wdt: machine.WDT, fed only where the loop does what is due.
    """

    def __init__(self, board, agent, wdt, wifi, keeper, judge, light):
        self._board = board
        self._agent = agent
        self._wdt = wdt
        self._wifi = wifi
        self._keeper = keeper
        self._judge = judge
        self._light = light
        self._news = judge.news() if judge is not None else None  # (state, version counter) to be told to the sender

    def is_over(self):
        """True when the chip is to be restarted."""
        board = self._board
        now_ms = board.clock.monotonic_ms()
        self._keeper.step(self._wifi.step(now_ms))
        if self._is_progress(now_ms):
            self._wdt.feed()
        if self._judge is not None:
            found = self._judge.step(now_ms)
            if found == trial.FAILED:
                return True
            if found == trial.CONFIRMED:
                self._news = self._judge.news()
        if self._news is not None and board.is_linked:
            board.say_update(self._news[0], self._news[1], "")
            self._news = None
        self._light.show("safe" if self._agent is None else esp32_light.name_of(self._found(now_ms)))
        return board.step_update()

    def _is_progress(self, now_ms):
        if self._agent is None:
            return True
        due_ms = self._agent.next_ms()
        return (due_ms is not None and self._board.clock.now_ms() - due_ms < LATE_MS) \
            or now_ms - self._board.polled_ms < LATE_MS

    def _found(self, now_ms):
        """Names of esp32_light.ORDER that hold now."""
        board = self._board
        found = []
        if board.updater is not None:
            found.append("update")
        if self._judge is not None and self._judge.is_on_trial:
            found.append("trial")
        if not self._wifi.is_up:
            found.append("wifi")
        if not board.is_linked:
            found.append("broker")
        if board.answered_ms is None or now_ms - board.answered_ms > ANSWER_MS:
            found.append("meter")
        if not board.clock.quality():
            found.append("clock")
        return found


def begin(folder, say=print):
    """Returns (settings, board, wifi, keeper, light, watchdog) of the file system's settings. BadConfig."""
    from machine import WDT
    from network import WLAN

    from firmware.board import esp32_start
    wdt = WDT(timeout=boot.WATCHDOG_MS)
    settings = esp32_start.load_config(folder)
    light = esp32_light.Light(settings.led)
    nic = WLAN(WLAN.IF_STA)
    clock = esp32_time.BoardClock()
    if settings.data not in os.listdir(folder or "/"):
        os.mkdir(folder + "/" + settings.data)
    board = Esp32Board(settings, folder, clock, esp32_start.key(folder, nic), say)
    wifi = esp32_net.Wifi(nic, esp32_start.networks(folder), board.log, os.urandom)
    hosts = settings.ntp or [url.partition("://")[2].rpartition(":")[0] for url in settings.brokers]
    keeper = esp32_time.TimeKeeper(clock, hosts, esp32_time.ask_ntp, esp32_time.set_rtc, board.log)
    drop("board.esp32_start", "config", "own")
    return settings, board, wifi, keeper, light, wdt


def run(folder=""):
    """Runs the agent until the chip is to be restarted; exceptions are crashes, which the starter counts."""
    settings, board, wifi, keeper, light, wdt = begin(folder)
    judge = trial.Trial(folder + "/" + boot.NAME, board, board.clock.monotonic_ms())
    _wait_for_time(board.clock, wifi, keeper, wdt)
    from firmware import main
    runner = main.Runner(settings, board, board.clock)
    keeper.floor_s = max(keeper.floor_s, newest_s(runner.agent.light))
    slot = 1 if firmware.__file__.startswith(boot.POINTS[1]) else 0
    board.facts["slot"] = "ab"[slot]
    runner.agent.book.flags = SLOT_B if slot else 0
    gc.collect()
    known.equip(runner.agent.light, gc.mem_free())  # type: ignore[attr-defined]  # a board's
    free_bytes = gc.mem_free()  # type: ignore[attr-defined]  # a board's
    gc.threshold(free_bytes // 2)  # type: ignore[attr-defined]  # from here on little stays, and collecting takes time
    watch = Watch(board, runner.agent, wdt, wifi, keeper, judge, light)
    runner.run(watch.is_over)


def newest_s(light):
    """The time of the newest header that q replicas have signed: time servers that say less are wrong."""
    from firmware.wire import header
    pair = light.pair_at(light.height)
    return header.decode(pair[0]).time_s if pair is not None else 0


WAIT_TIME_MS = 15000  # a reading's time is worth this wait; after it the agent starts without


def _wait_for_time(clock, wifi, keeper, wdt):
    import time
    end_ms = clock.monotonic_ms() + WAIT_TIME_MS
    while not clock.is_set() and clock.monotonic_ms() < end_ms:
        keeper.step(wifi.step(clock.monotonic_ms()))
        wdt.feed()
        time.sleep_ms(50)  # type: ignore[attr-defined]  # a board's
