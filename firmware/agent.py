"""Makes duties (read, append, sync, publish, trim, alarm) from words, acks and ticks: the meter agent without I/O.

Theory. Each point has a chain of seals with heights 1, 2, ...; a seal covers the readings since the one before. A
reading is appended to the journal as it comes; at the grid of `seal_every` and always at a slot boundary the readings
become a seal record under the next height. Only after a sync may a seal be signed and published, so a payload is fixed
for ever before anybody can see it: after a crash the same payload is rebuilt from the journal and signed again. Records
are given up only for an ack that the light node has proven. When overflow or damage takes unacked seals, no height is
used twice: the point starts a new run with the next height, says how many heights are lost, and seals what readings are
left once more.

What is needed at times only (polling.py, answers.py, headers.py, envelopes.py, losses.py, report.py, recovery.py) is
imported by the function that needs it, so that a board can drop it afterwards.

The journal is only read here; whoever obeys the duties writes it, each call's duties left to right and before the next
call. Records get consecutive numbers, so the agent knows each record's number as it asks for it.
"""

from collections import namedtuple

try:
    from micropython import const
except ImportError:
    def const(value):
        return value

from firmware import bus, sealing
from firmware.outbox import Outbox
from firmware.schedule import Schedule
from firmware.wire.errors import Refused

Read = namedtuple("Read", ("point", "bus", "unit", "group", "due_ms", "requests", "attempts", "budget_ms"))
Append = namedtuple("Append", ("kind", "payload", "seq"))
Sync = namedtuple("Sync", ())
Publish = namedtuple("Publish", ("point", "height"))
Trim = namedtuple("Trim", ("seq",))
Alarm = namedtuple("Alarm", ("text",))
ChangeBroker = namedtuple("ChangeBroker", ())
Progress = namedtuple("Progress", ("label_ms",))
SaveTrust = namedtuple("SaveTrust", ("data",))
Witness = namedtuple("Witness", ())

# One metering point to serve: its number, where its meter is, the meter's table and epoch.
Place = namedtuple("Place", ("point", "bus", "unit", "meter", "meter_epoch"))
# What an agent is told at its start. Times in ms of label, silence_ms of wait; measurement, configuration: 32 bytes.
Settings = namedtuple("Settings", (
    "kid", "area", "places", "interval_ms", "seal_every_ms", "details_ms", "silence_ms", "window", "outbox_limit",
    "measurement", "configuration"))

_ANOTHER = const(-1)  # no broker's number: whatever is connected next has seen nothing yet
_SAVE_TRUST_MS = const(10000)  # a wait: trust may be this old after a crash, the next ack renews it


class Agent:
    """The state of one device; `light` a LightNode, `journal` to read, `signer`, `now_ms`: label at the start."""

    def __init__(self, settings, light, journal, signer, verify_digest, now_ms):
        self.settings = settings
        self.counts = {"readings": 0, "sealed": 0, "published": 0, "acked": 0, "refused": 0, "lost": 0, "bad_acks": 0,
                       "bad_headers": 0, "witnessed": 0}
        self.last_error = ""
        self.is_connected = False
        self.light = light
        self.outbox = Outbox(settings.outbox_limit, settings.window, settings.silence_ms)
        self.journal = journal
        self.signer = signer
        self.verify_digest = verify_digest
        self.public_key = signer.public_key()
        self._tables = {place.meter.type: place.meter for place in settings.places}
        self.duties = []
        self._is_dirty = False
        self._done_ms = -1
        self._trust_saved_ms = None
        self.last_ack_ms = None
        self._broker = None
        self.followed_ms = None  # a wait: when the newest header from the header topic was checked
        self.is_witness_due = light.witnessed is not None  # what was noted before a crash may not have been sent
        self.book = sealing.Book(settings, light.parameters, journal, self.table)
        from firmware import polling, recovery

        recovery.recover(self.book, self.outbox)
        for text in recovery.begin(self.book, self.emit):
            self.alarm(text)
        self.schedules = {}
        for place in settings.places:
            last_ms = self.book.chains[place.point].last_billing_ms
            details_ms = settings.details_ms
            if details_ms and not polling.has_details(place.meter):
                details_ms = 0  # a reading of nothing is none
            self.schedules[place.point] = Schedule(settings.interval_ms, details_ms, last_ms, now_ms)
        self._plans = {}
        self.tags = {}  # by type of meter: what its records begin with

    def table(self, name):
        """Returns the Meter of a type, loaded once."""
        if name not in self._tables:
            from firmware import meters
            from firmware.tables import slim

            self._tables[name] = slim(meters.load(name))
        return self._tables[name]

    def tick(self, label_ms, wait_ms):
        """Returns what is to be done now: call it after start, after each event's duties, and when `next_ms` is due."""
        for place in self.settings.places:
            self._poll_if_due(place, label_ms, wait_ms)
        for text in self.book.keep_heads(self.emit, self.outbox):
            self.alarm(text)
        made = self.book.close_due(self.emit, self.outbox, label_ms, self.is_connected)
        self.counts["sealed"] += made
        if self.outbox.wants_load():
            from firmware import losses

            losses.load(self.book, self.outbox)
        if self._is_dirty and (made or not self._is_polling()):  # one sync for a round of readings, if none is a seal's
            self.duties.append(Sync())
            self._is_dirty = False
        if self.is_connected:
            self._check_silence(wait_ms)
            for sealed in self.outbox.next_out(wait_ms):
                self.duties.append(Publish(sealed.point, sealed.height))
        if self.light.is_changed and (self._trust_saved_ms is None or wait_ms >= self._trust_saved_ms + _SAVE_TRUST_MS):
            self._trust_saved_ms = wait_ms
            self.duties.append(SaveTrust(self.light.save()))
        done_ms = min([self.schedules[point].done_ms() for point in self.schedules])
        if done_ms > self._done_ms:
            self._done_ms = done_ms
            self.duties.append(Progress(done_ms))
        return self.take()

    def next_ms(self):
        """Returns the label at which the next poll is due (polls under way do not count), or None."""
        waiting = [self.schedules[point].due()[0] for point in self.schedules if not self.schedules[point].is_busy]
        return min(waiting) if waiting else None

    def on_words(self, read, start_ms, quality, exchanges, now_ms, wait_ms):
        """Takes the outcome of a Read duty: bus.Exchange list, label and clock state at the start of its first request.

        Returns duties. Whatever could not be read is missing with its reason; nothing old, nothing made up.
        """
        from firmware import polling

        return polling.on_words(self, read, start_ms, quality, exchanges, now_ms, wait_ms)

    def on_connected(self, broker):
        """The link to the broker of that number stands."""
        if self._broker is not None and broker != self._broker:
            self.outbox.send_all_again()
            self.is_witness_due = self.light.witnessed is not None
        self._broker = broker
        self.is_connected = True
        if self.is_witness_due and self.light.contradiction is None:
            self.duties.append(Witness())
        return self.take()

    def on_disconnected(self):
        self.is_connected = False
        self.outbox.lost_link()
        return self.take()

    def on_published(self, point, height):
        """The broker has taken an envelope, which promises nothing."""
        self.counts["published"] += 1
        self.outbox.published(point, height)
        return self.take()

    def on_witness_published(self, height):
        """The broker has taken the signature under the header of that height."""
        from firmware import headers

        return headers.on_witness_published(self, height)

    def on_header(self, data, now_s, wait_ms):
        """Takes the bytes of the header topic, as `on_ack`; the first header of a witness interval is signed."""
        from firmware import headers

        return headers.on_header(self, data, now_s, wait_ms)

    def on_handover(self, data, now_s):
        """Takes the bytes of an epoch's topic: the gateways' next set of validators."""
        from firmware import headers

        return headers.on_handover(self, data, now_s)

    def on_ack(self, data, now_s, wait_ms):
        """Takes the bytes of the `ack` topic; now_s: Unix seconds or None while the clock is not synchronised."""
        from firmware import answers

        return answers.on_ack(self, data, now_s, wait_ms)

    def envelope(self, point, height):
        """Returns (topic, bytes) of a Publish duty, signed anew from the journal; None when it is no longer due."""
        sealed = self.outbox.find(point, height)
        if sealed is None:
            return None
        from firmware import envelopes

        try:
            return envelopes.envelope(self.book, sealed, self.light, self.signer)
        except Refused as refused:
            self.alarm("point %d: seal %d cannot be read back (%s)" % (point, height, refused))
            self.outbox.drop(sealed)
            return None

    def witness(self):
        """Returns (topic, bytes, height) of a Witness duty; None when nothing is to be signed any more."""
        from firmware import headers

        return headers.witness_message(self)

    def status(self, wait_ms):
        """Returns what a person wants to know, as a plain dict."""
        from firmware import report

        return report.status(self, wait_ms)

    def _is_polling(self):
        for point in self.schedules:
            if self.schedules[point].is_busy:
                return True
        return False

    def _poll_if_due(self, place, label_ms, wait_ms):
        schedule = self.schedules[place.point]
        due_ms, group = schedule.due()
        if schedule.is_busy or due_ms > label_ms:
            return
        schedule.is_busy = True
        attempts = schedule.attempts(wait_ms)
        self.duties.append(Read(place.point, place.bus, place.unit, group, due_ms, self._plan(place, group), attempts,
                                 self.settings.interval_ms // bus.PATIENCE))

    def _plan(self, place, group):
        key = (place.point, group)
        if key not in self._plans:
            from firmware import polling

            self._plans[key] = polling.plan(place.meter, group)
        return self._plans[key]

    def _check_silence(self, wait_ms):
        step = self.outbox.check_silence(wait_ms)
        if step == 1:
            self.alarm("no ack for %d envelopes yet: the oldest go out again" % len(self.outbox.items))
        elif step == 2:
            self.alarm("still no ack: changing the broker; are the gateways behind it running?")
            self._broker = _ANOTHER
            self.duties.append(ChangeBroker())

    def emit(self, kind, payload):
        """Asks for a record and returns the number it will have."""
        seq = self.book.next_seq
        self.book.next_seq = seq + 1
        self.duties.append(Append(kind, payload, seq))
        self._is_dirty = True
        return seq

    def alarm(self, text):
        self.last_error = text
        self.duties.append(Alarm(text))

    def take(self):
        duties = self.duties
        self.duties = []
        return duties


def now_s_of(label_ms, quality):
    """Returns the Unix seconds that a header's time is held against; None while the clock is not synchronised."""
    if quality & 3 == 2:  # reading.CLOCK_BITS, CLOCK_SYNCHRONISED
        return label_ms // 1000
    return None
