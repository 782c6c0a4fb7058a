"""Makes duties (read, append, sync, publish, trim, alarm) from words, acks and ticks: the meter agent without I/O.

Theory. Each point has a chain of seals with heights 1, 2, ...; a seal covers the readings since the one before. A
reading is appended to the journal as it comes; at the grid of `seal_every` and always at a slot boundary the readings
become a seal record under the next height. Only after a sync may a seal be signed and published, so a payload is fixed
for ever before anybody can see it: after a crash the same payload is rebuilt from the journal and signed again. Records
are given up only for an ack that the light node has proven. When overflow or damage takes unacked seals, no height is
used twice: the point starts a new run with the next height, says how many heights are lost, and seals what readings are
left once more.

The journal is only read here; whoever obeys the duties writes it, each call's duties left to right and before the next
call. Records get consecutive numbers, so the agent knows each record's number as it asks for it.
"""

import hashlib
from collections import namedtuple

from firmware import bus, decode, meters, modbus, records, sealing
from firmware.outbox import Outbox
from firmware.schedule import Schedule
from firmware.wire import ack as ack_codec
from firmware.wire import cose, merkle, topics, witness
from firmware.wire import reading as reading_codec
from firmware.wire import seal as seal_codec
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

ANOTHER = -1  # no broker's number: whatever is connected next has seen nothing yet
HINTS = {  # what to do about a refusal that does not go away by itself
    "not_enrolled": ": the operator has to approve this agent (enroll approve)",
    "revoked": ": this agent's key is no longer accepted; the operator knows why",
    "not_its_point": ": the point is enrolled for another agent",
    "wrong_meter_epoch": ": agent and operator have to tell the area that the meter was replaced (meter replace)",
    "wrong_area": ": area in the configuration is not the gateway's",
    "fork": ": this key has signed another seal for that height. Where the data folder was lost, restored or copied, a "
            "new key takes over (enroll replace)",
}
SAVE_TRUST_MS = 10000  # a wait: trust may be this old after a crash, the next ack renews it
# A wait between two headers of one witness interval that are checked: acks bring headers as well, and a certificate
# of three signatures keeps an ESP32 busy for seconds.
FOLLOW_MS = 10000


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
        self._journal = journal
        self._signer = signer
        self._verify_digest = verify_digest
        self._public_key = signer.public_key()
        self._tables = {place.meter.type: place.meter for place in settings.places}
        self._tags = {place.point: records.tag_of(place.meter) for place in settings.places}
        self._duties = []
        self._is_dirty = False
        self._done_ms = -1
        self._trust_saved_ms = None
        self._last_ack_ms = None
        self._broker = None
        self._followed_ms = None  # a wait: when the newest header from the header topic was checked
        self._is_witness_due = light.witnessed is not None  # what was noted before a crash may not have been sent
        self.book = sealing.Book(settings, light.parameters, journal, self.table)
        from firmware import recovery  # used once: a board drops it then

        recovery.recover(self.book, self.outbox)
        for text in recovery.begin(self.book, self._emit):
            self._alarm(text)
        self._schedules = {}
        self._places = {}
        for place in settings.places:
            last_ms = self.book.chains[place.point].last_billing_ms
            details_ms = settings.details_ms
            if details_ms and not meters.fields_of(place.meter, meters.OTHER):
                details_ms = 0  # a reading of nothing is none
            self._schedules[place.point] = Schedule(settings.interval_ms, details_ms, last_ms, now_ms)
            self._places[place.point] = place
        self._plans = {}

    def table(self, name):
        """Returns the Meter of a type, loaded once."""
        if name not in self._tables:
            self._tables[name] = meters.slim(meters.load(name))
        return self._tables[name]

    def tick(self, label_ms, wait_ms):
        """Returns what is to be done now: call it after start, after each event's duties, and when `next_ms` is due."""
        for in_trouble in (False, True):  # units in trouble come last: what they cost, they cost nobody else
            for place in self.settings.places:
                if self._schedules[place.point].is_in_trouble() is in_trouble:
                    self._poll_if_due(place, label_ms, wait_ms)
        for text in self.book.keep_heads(self._emit, self.outbox):
            self._alarm(text)
        made = self.book.close_due(self._emit, self.outbox, label_ms, self.is_connected)
        self.counts["sealed"] += made
        if self.outbox.wants_load():
            self.book.load(self.outbox)
        if self._is_dirty and (made or not self._is_polling()):  # one sync for a round of readings, if none is a seal's
            self._duties.append(Sync())
            self._is_dirty = False
        if self.is_connected:
            self._check_silence(wait_ms)
            for sealed in self.outbox.next_out(wait_ms):
                self._duties.append(Publish(sealed.point, sealed.height))
        if self.light.is_changed and (self._trust_saved_ms is None or wait_ms >= self._trust_saved_ms + SAVE_TRUST_MS):
            self._trust_saved_ms = wait_ms
            self._duties.append(SaveTrust(self.light.save()))
        done_ms = min([self._schedules[point].done_ms() for point in self._schedules])
        if done_ms > self._done_ms:
            self._done_ms = done_ms
            self._duties.append(Progress(done_ms))
        return self._take()

    def next_ms(self):
        """Returns the label at which the next poll is due (polls under way do not count), or None."""
        waiting = [self._schedules[point].due()[0] for point in self._schedules if not self._schedules[point].is_busy]
        return min(waiting) if waiting else None

    def on_words(self, read, start_ms, quality, exchanges, now_ms, wait_ms):
        """Takes the outcome of a Read duty: bus.Exchange list, label and clock state at the start of its first request.

        Returns duties. Whatever could not be read is missing with its reason; nothing old, nothing made up.
        """
        place = self._places[read.point]
        schedule = self._schedules[read.point]
        answered = is_bad = False
        for exchange in exchanges:
            if exchange.reason is None or exchange.reason.startswith(modbus.EXCEPTION):
                answered = True
            else:
                is_bad = True
        schedule.note(is_bad)
        if answered:
            if schedule.answered():
                self._alarm("point %d (unit %d) answers again" % (place.point, place.unit))
        elif exchanges and schedule.silent(wait_ms):
            self._alarm("point %d: unit %d on bus %d is silent (%s): asked now and then only; check its power, "
                        "wiring and address" % (place.point, place.unit, place.bus, exchanges[-1].reason))
        fields = meters.fields_of(place.meter, read.group)
        entries, implausible = decode.entries_of(fields, bus.registers_of(exchanges, read.requests))
        hasher = hashlib.sha256()
        for exchange in exchanges:
            for frame in (exchange.frame, exchange.answer):
                hasher.update(len(frame).to_bytes(2, "big"))
                hasher.update(frame)
        time_ms = self.book.rising_time(place.point, start_ms)
        reading = reading_codec.Reading(self.settings.kid, place.point, time_ms, entries, quality | implausible,
                                        hasher.digest())
        seq = self._emit(records.READING, records.encode_reading(reading, place.meter.type, read.group,
                                                                   self._tags[place.point]))
        self.book.chains[place.point].add(seq, time_ms, read.group == meters.BILLING)
        self.counts["readings"] += 1
        schedule.finish(read.group, now_ms)
        return self._take()

    def on_connected(self, broker):
        """The link to the broker of that number stands."""
        if self._broker is not None and broker != self._broker:
            self.outbox.send_all_again()
            self._is_witness_due = self.light.witnessed is not None
        self._broker = broker
        self.is_connected = True
        if self._is_witness_due and self.light.contradiction is None:
            self._duties.append(Witness())
        return self._take()

    def on_disconnected(self):
        self.is_connected = False
        self.outbox.lost_link()
        return self._take()

    def on_published(self, point, height):
        """The broker has taken an envelope, which promises nothing."""
        self.counts["published"] += 1
        self.outbox.published(point, height)
        return self._take()

    def on_witness_published(self, height):
        """The broker has taken the signature under the header of that height."""
        if self.light.witnessed is not None and witness.height_of(self.light.witnessed[0]) == height:
            self._is_witness_due = False
        return self._take()

    def on_header(self, data, now_s, wait_ms):
        """Takes the bytes of the header topic, as `on_ack`; the first header of a witness interval is signed."""
        try:
            found = witness.decode_header_message(data)
            is_first = self.light.may_witness(found.header)
            pair = self.light.pair_at(witness.height_of(found.header))
            if pair is None or pair[0] != found.header:
                is_due = self._followed_ms is None or wait_ms >= self._followed_ms + FOLLOW_MS
                if pair is None and not is_first and not is_due:
                    return self._take()
                self._followed_ms = wait_ms
                self._follow(found.header, found.certificate, now_s)
                pair = (found.header, found.certificate)
            if is_first:
                self._witness(pair)
        except Refused as refused:
            self.counts["bad_headers"] += 1
            text = "a header was not taken: %s" % refused
            if self.last_error != text:
                self._alarm(text)
        return self._take()

    def on_ack(self, data, now_s, wait_ms):
        """Takes the bytes of the `ack` topic; now_s: Unix seconds or None while the clock is not synchronised."""
        acked = self.counts["acked"]
        try:
            found = ack_codec.decode(data)
            if found.header:
                header = self._follow(found.header, found.certificate, now_s)
                for proof in found.proofs:
                    self._try_proof(header, proof, wait_ms)
            self._take_advice(found)
        except Refused as refused:
            self._refuse_ack(refused)
        if self.counts["acked"] > acked:
            self._duties.append(Trim(self.book.lowest_seq(self.outbox)))
        return self._take()

    def envelope(self, point, height):
        """Returns (topic, bytes) of a Publish duty, signed anew from the journal; None when it is no longer due."""
        sealed = self.outbox.find(point, height)
        if sealed is None:
            return None
        try:
            payload, readings = self.book.rebuild(sealed)
        except Refused as refused:
            self._alarm("point %d: seal %d cannot be read back (%s)" % (point, height, refused))
            self.outbox.drop(sealed)
            return None
        message = cose.sign1(payload, self.settings.kid, "seal", self.light.chain_id, self._signer.sign_digest)
        sealed.leaf = merkle.leaf_hash(message) if self._signer.deterministic else None
        return (topics.agent_topic(self.settings.area, self.settings.kid, "envelope"),
                seal_codec.encode_envelope(message, readings))

    def witness(self):
        """Returns (topic, bytes, height) of a Witness duty; None when nothing is to be signed any more."""
        if self.light.witnessed is None or self.light.contradiction is not None:
            return None
        header = self.light.witnessed[0]
        message = witness.sign(self.settings.kid, self.light.channel, header, self.light.chain_id,
                               self._signer.sign_digest)
        return (topics.agent_topic(self.settings.area, self.settings.kid, "witness"), message,
                witness.height_of(header))

    def status(self, wait_ms):
        """Returns what a person wants to know, as a plain dict."""
        dead = [point for point in sorted(self._schedules) if self._schedules[point].is_dead()]
        found: dict = dict(self.counts)
        found.update({
            "kid": self.settings.kid.hex(), "boot": self.book.boot, "connected": self.is_connected,
            "unacked": len(self.outbox.items), "more_in_journal": self.outbox.unloaded_seq is not None,
            "resent": self.outbox.resent, "silences": self.outbox.silences,
            "journal_sectors_used": self._journal.used_sectors(), "journal_dropped": self._journal.dropped,
            "journal_damaged": self._journal.damaged, "dead_points": dead,
            "missed_polls": sum([self._schedules[point].missed for point in self._schedules]),
            "heights": [[point, self.book.chains[point].height, self.book.chains[point].acked]
                        for point in sorted(self.book.chains)],
            "header_height": self.light.height, "contradiction": self.light.contradiction is not None,
            "witnessed_height": 0 if self.light.witnessed is None else witness.height_of(self.light.witnessed[0]),
            "last_ack_wait_ms": None if self._last_ack_ms is None else wait_ms - self._last_ack_ms,
            "last_error": self.last_error})
        return found

    def _is_polling(self):
        for point in self._schedules:
            if self._schedules[point].is_busy:
                return True
        return False

    def _poll_if_due(self, place, label_ms, wait_ms):
        schedule = self._schedules[place.point]
        due_ms, group = schedule.due()
        if schedule.is_busy or due_ms > label_ms:
            return
        schedule.is_busy = True
        attempts = schedule.attempts(wait_ms)
        self._duties.append(Read(place.point, place.bus, place.unit, group, due_ms, self._plan(place, group), attempts,
                                 self.settings.interval_ms // bus.PATIENCE))

    def _plan(self, place, group):
        key = (place.point, group)
        if key not in self._plans:
            fields = meters.fields_of(place.meter, group)
            self._plans[key] = modbus.plan(fields, place.meter.max_registers, place.meter.max_hole)
        return self._plans[key]

    def _follow(self, header, certificate, now_s):
        """Returns the Header that the light node has accepted; Refused as it says."""
        was_stopped = self.light.contradiction is not None
        try:
            return self.light.accept(header, certificate, now_s)
        except Refused:
            if self.light.contradiction is not None and not was_stopped:
                self._duties.append(SaveTrust(self.light.save()))
            if self.light.contradiction is not None:
                self._alarm("TWO VALID CERTIFICATES FOR ONE HEIGHT: the gateways contradict themselves; nothing is "
                            "trimmed or witnessed any more, both are kept in the trust file (gridseal audit)")
            raise

    def _witness(self, pair):
        """The intent is durable before the signature is made: a crash in between repeats it."""
        self.light.note_witness(pair[0], pair[1])
        self._duties.append(SaveTrust(self.light.save()))
        self._is_witness_due = True
        self.counts["witnessed"] += 1
        if self.is_connected:
            self._duties.append(Witness())

    def _try_proof(self, header, proof, wait_ms):
        """One proof that is no good takes nothing from the others."""
        try:
            self._take_proof(header, proof, wait_ms)
        except Refused as refused:
            self._refuse_ack(refused)

    def _refuse_ack(self, refused):
        self.counts["bad_acks"] += 1
        self._alarm("an ack was not taken: %s" % refused)

    def _take_proof(self, header, proof, wait_ms):
        """Trims what one proof covers; Refused when it proves nothing about a seal of ours."""
        chain = self.book.chains.get(proof.point)
        if chain is None:
            raise Refused("not_its_point", None, proof.point)
        if proof.height <= chain.acked:
            return
        sealed = self.outbox.find(proof.point, proof.height)
        if sealed is None:
            sealed = self.book.find(proof.point, proof.height)
        leaf = self._leaf_of(sealed, proof.signature)
        merkle.check_path(leaf, proof.index, proof.size, proof.path, header.root)
        self.counts["acked"] += proof.height - chain.acked
        self._last_ack_ms = wait_ms
        chain.acked = proof.height
        if chain.base is not None:
            chain.base = max(chain.base, proof.height)
        self.outbox.acked(proof.point, proof.height, wait_ms)
        self._emit(records.ACK, records.encode_ack(proof.point, proof.height))

    def _leaf_of(self, sealed, signature):
        """The leaf as committed: a signer with random nonces may have signed the same payload more than once."""
        if signature is None and sealed.leaf is not None:
            return sealed.leaf
        payload = self.book.rebuild(sealed)[0]
        if signature is None:
            message = cose.sign1(payload, self.settings.kid, "seal", self.light.chain_id, self._signer.sign_digest)
        else:
            signed = cose.Signed(self.settings.kid, payload, signature)
            cose.check(signed, "seal", self.light.chain_id, self._public_key, self._verify_digest)
            message = cose.assemble(self.settings.kid, payload, signature)
        return merkle.leaf_hash(message)

    def _take_advice(self, found):
        """Refusals and wanted ranges: believed as far as sending again goes, and trusted with nothing."""
        told = set()
        for refusal in found.refused:
            self.counts["refused"] += 1
            if (refusal.point, refusal.reason) not in told:  # a backlog is refused as a whole: one line says it
                told.add((refusal.point, refusal.reason))
                self._alarm("point %d, seal %d was refused: %s%s" % (
                    refusal.point, refusal.height, refusal.reason, HINTS.get(refusal.reason, "")))
        for wanted in found.wanted:
            chain = self.book.chains.get(wanted.point)
            if chain is None or wanted.first > wanted.last or wanted.first <= chain.acked:
                continue
            self.outbox.send_again(wanted.point, wanted.first, wanted.last)
            if self.book.answers_loss(wanted.point, wanted.first, self.outbox):
                self._alarm("point %d: seals from %d on are asked for and gone: they are declared lost, their "
                            "remaining readings are sealed again" % (wanted.point, wanted.first))

    def _check_silence(self, wait_ms):
        step = self.outbox.check_silence(wait_ms)
        if step == 1:
            self._alarm("no ack for %d envelopes yet: the oldest go out again" % len(self.outbox.items))
        elif step == 2:
            self._alarm("still no ack: changing the broker; are the gateways behind it running?")
            self._broker = ANOTHER
            self._duties.append(ChangeBroker())

    def _emit(self, kind, payload):
        """Asks for a record and returns the number it will have."""
        seq = self.book.next_seq
        self.book.next_seq = seq + 1
        self._duties.append(Append(kind, payload, seq))
        self._is_dirty = True
        return seq

    def _alarm(self, text):
        self.last_error = text
        self._duties.append(Alarm(text))

    def _take(self):
        duties = self._duties
        self._duties = []
        return duties


def now_s_of(label_ms, quality):
    """Returns the Unix seconds that a header's time is held against; None while the clock is not synchronised."""
    if quality & reading_codec.CLOCK_BITS == reading_codec.CLOCK_SYNCHRONISED:
        return label_ms // 1000
    return None


