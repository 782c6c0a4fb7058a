"""Makes an agent run on a board: asks the Agent what to do, does it, tells it what happened.

Everything from outside is an object passed in: `board` (board/linux.py says what a board offers) and `clock`. One
worker for each bus reads meters, so a slow line costs only itself; what workers and the broker report comes back
through `board.wait` and is handled here, one after the other.
"""

try:
    from micropython import const
except ImportError:
    def const(value):
        return value

from firmware import agent as agent_module
from firmware.agent import Agent, Place, Settings, now_s_of
from firmware.journal import Journal
from firmware.lightnode import LightNode
from firmware.wire import cbor, topics
from firmware.wire.errors import Impossible, Refused

_WAIT_MS = const(1000)  # the longest sleep: the stop and a shared clock that was held are looked at so often
_HELD_MS = const(3)  # the shortest: label time stands still while a demo clock is held
_STATUS_MS = const(10000)  # a wait between two looks at the agent from outside
TRUST = "trust.cbor"
STATUS = "status.json"
# Modules that a board has no room for all the time: those of the start, and those of work that is done at times.
AT_TIMES = ("polling", "plausible", "answers", "headers", "envelopes", "losses", "report", "records",
            "reading_records", "tables", "decode", "meters", "crypto.p256_key", "handover", "wire.ack",
            "wire.certificate", "wire.epochs", "wire.voting", "wire.cose", "wire.reading", "wire.seal", "wire.witness")
ONCE = ("config", "own", "recovery", "facts", "ring", "trust", "wire.identity") + AT_TIMES
WITNESS = "witness"  # stands where an envelope's token has its point


class Runner:
    """One agent on one board. `step` is the whole loop's body; `run` repeats it until `stop()` is true."""

    def __init__(self, config, board, clock):
        self._board = board
        self._clock = clock
        self._status_at_ms = clock.monotonic_ms() + _STATUS_MS
        self._events: list = []  # of our own making, to be handled before the board's
        self._is_closing = False
        self.config = config
        from firmware.wire import identity

        self.kid = identity.kid_of(board.signer.public_key())
        light = _light_node(board)
        self.journal = Journal(board.device())
        settings = Settings(
            self.kid, config.area, _places(config), config.interval_s * 1000, config.seal_every_s * 1000,
            config.details_every_s * 1000, config.silence_s * 1000, config.window, config.outbox, board.measurement(),
            config.hash)
        self.agent = Agent(settings, light, self.journal, board.signer, board.verify_digest, clock.now_ms())
        if self.agent.book.boot > 1 and not light.height:  # trust was lost, and with it what was signed
            light.keep_silent(clock.now_ms() // 1000)
        board.forget(*ONCE)
        board.log("agent %s, boot %d, area %s: %d points, journal from record %d to %d" % (
            self.kid.hex(), self.agent.book.boot, config.area, len(settings.places), self.journal.first_seq,
            self.journal.next_seq - 1))
        if light.speed != 1:
            board.log("this is a demo chain: its labels run at %d times real time" % light.speed)
        for number in range(len(config.buses)):
            board.start_bus(number, config.buses[number], clock)
        self._header_topic = topics.chain_header(config.area, light.channel)
        self._epochs = topics.chain_epoch(config.area, light.channel, "")
        board.start_link(config.brokers, self.kid.hex(),
                         [topics.agent_topic(config.area, self.kid, "ack"), self._header_topic, self._epochs + "+"],
                         topics.agent_topic(config.area, self.kid, "death"), cbor.encode([1, self.kid]))

    def run(self, stop):
        """Works until `stop()` is true; what was read by then is journalled and, if sealed, handed to the broker."""
        while not stop():
            self.step()
        self.close()

    def close(self):
        """Ends workers and link; what was read by then is journalled."""
        self._is_closing = True
        self._board.close()
        self._handle_events(0)
        self._obey(self.agent.tick(self._clock.now_ms(), self._clock.monotonic_ms()))
        self.journal.sync()
        self._write_status()

    def step(self):
        """One turn: do what is due, then wait for an event or for the next due label."""
        self._obey(self.agent.tick(self._clock.now_ms(), self._clock.monotonic_ms()))
        self._board.forget(*AT_TIMES)
        self._handle_events(0 if self._events else self._wait_ms())
        if self._clock.monotonic_ms() >= self._status_at_ms:
            self._status_at_ms = self._clock.monotonic_ms() + _STATUS_MS
            self._write_status()

    def _handle_events(self, wait_ms):
        events, self._events = self._events, []
        events.extend(self._board.wait(wait_ms))
        for event in events:
            self._obey(self._handle(event))
            self._board.forget(*AT_TIMES)

    def _wait_ms(self):
        due_ms = self.agent.next_ms()
        if due_ms is None:
            return _WAIT_MS
        return max(_HELD_MS, min(_WAIT_MS, (due_ms - self._clock.now_ms()) // self._clock.speed))

    def _handle(self, event):
        kind = event[0]
        clock = self._clock
        if kind == "words":
            _, read, start_ms, quality, exchanges = event
            self._board.keep_frames(read.point, start_ms, exchanges)
            return self.agent.on_words(read, start_ms, quality, exchanges, clock.now_ms(), clock.monotonic_ms())
        if kind == "message":
            if event[1].startswith(self._epochs):
                return self.agent.on_handover(event[2], now_s_of(clock.now_ms(), clock.quality()))
            take = self.agent.on_header if event[1] == self._header_topic else self.agent.on_ack
            return take(event[2], now_s_of(clock.now_ms(), clock.quality()), clock.monotonic_ms())
        if kind == "published":
            if event[1][0] == WITNESS:
                return self.agent.on_witness_published(event[1][1])
            return self.agent.on_published(event[1][0], event[1][1])
        if kind == "connected":
            birth = cbor.encode([1, self.kid, self.agent.book.boot])
            self._board.publish(topics.agent_topic(self.config.area, self.kid, "birth"), birth, None)
            return self.agent.on_connected(event[1])
        if kind == "disconnected":
            return self.agent.on_disconnected()
        if kind == "failed":
            raise event[1]
        if kind == "woken":
            return ()
        raise Impossible("event " + kind)

    def _obey(self, duties):
        """Does the duties in their order: a record is durable before anything signed over it is published."""
        for duty in duties:
            kind = type(duty)
            if kind is agent_module.Append:
                if self.journal.append(duty.kind, duty.payload) != duty.seq:
                    raise Impossible("record %d is not next" % duty.seq)
            elif kind is agent_module.Sync:
                self.journal.sync()
            elif kind is agent_module.Publish:
                made = self.agent.envelope(duty.point, duty.height)
                if made is not None:
                    self._board.publish(made[0], made[1], (duty.point, duty.height))
            elif kind is agent_module.Witness:
                made = self.agent.witness()
                if made is not None:
                    self._board.publish(made[0], made[1], (WITNESS, made[2]))
            elif kind is agent_module.Read:
                self._read(duty)
            elif kind is agent_module.Trim:
                self.journal.trim(duty.seq)
            elif kind is agent_module.Alarm:
                self._board.log(duty.text)
            elif kind is agent_module.Progress:
                self._clock.progress(duty.label_ms)
            elif kind is agent_module.SaveTrust:
                self._board.save(TRUST, duty.data)
            elif kind is agent_module.ChangeBroker:
                self._board.change_broker()

    def _read(self, read):
        if self._is_closing:
            return
        if read.attempts:
            self._board.read(read)
        else:  # the unit is dead and not probed now: the reading says so, the line is left alone
            self._events.append(("words", read, self._clock.now_ms(), self._clock.quality(), []))

    def _write_status(self):
        found = self.agent.status(self._clock.monotonic_ms())
        found["label_ms"] = self._clock.now_ms()
        self._board.save_status(STATUS, found)


def run(config, board, clock, stop):
    """Runs one agent until `stop()` is true. config: config.Config; board and clock: see above."""
    Runner(config, board, clock).run(stop)


def _places(config):
    """The points to serve, bus by bus, with tables as an agent keeps them."""
    places = []
    for number in range(len(config.buses)):
        for meter in config.buses[number].meters:
            places.append(Place(meter.point, number, meter.unit, config.tables[meter.type], meter.epoch))
    return tuple(places)


def _light_node(board):
    state = board.load(TRUST)
    try:
        return LightNode(board.genesis(), board.verify_digest, state)
    except Refused as refused:
        if state is None:
            raise
        board.log("the trust file is of no use (%s): trust starts from the genesis again" % refused)
        return LightNode(board.genesis(), board.verify_digest, None)
