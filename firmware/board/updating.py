"""Makes an update out of the messages on an agent's topic `update`, while it goes on metering; for every board.

Loaded with the first message, dropped when nothing is under way. The agent asks piece by piece (topic `query`), so
whoever sends need not know where it stands; what was lost on the way is asked for again.
"""

from firmware import boot, update
from firmware.wire import cose, genesis, topics
from firmware.wire.errors import Refused, check

ASK_MS = 10000  # without an answer the same piece is asked for again
SILENT_MS = 300000  # nobody sends: dropped; what is in the slot stays, and the same offer goes on there
OFFER_MS = 5000  # between two offers that are looked at: a signature keeps an ESP32 busy
RESTART_MS = 3000  # for the last word to reach the broker


class Updater:
    """board: with genesis, verify_digest, publish, log, `seen`; model: what manifests must name.

    spare: a function that returns (store of the spare slot, boot record, the record's path).
    """

    def __init__(self, board, area, kid, model, spare):
        self._board = board
        self._topic = topics.agent_topic(area, kid, "query")
        self._model = model
        self._spare = spare
        self._session: update.Session | None = None
        self._mark = 0  # of the newest offer
        self._running = 0  # the counter of the version that runs
        self._heard_ms = self._asked_ms = 0
        self._offered_ms = None
        self._restart_ms = None

    def take(self, payload, running_manifest, now_ms):
        """Takes a message of the topic `update`; running_manifest: bytes of the slot's that runs, or None."""
        self._heard_ms = now_ms
        if self._restart_ms is not None:
            return
        try:
            kind, fields = update.decode_message(payload)
            if kind == "offer":
                self._on_offer(fields[0], running_manifest, now_ms)
            elif self._session is not None and fields[:2] == [self._session.manifest.counter, self._session.offset]:
                self._session.take(fields[1], fields[2])
                self._go_on(now_ms)  # what comes twice is not answered, or it would come for ever
        except Refused as refused:
            self._refuse(str(refused))
        except OSError as error:
            self._refuse("flash: %s" % error)

    def step(self, now_ms):
        """Returns "restart" when the other slot is to be started, "idle" when nothing is under way, else None."""
        if self._restart_ms is not None:
            return "restart" if now_ms >= self._restart_ms else None
        if self._session is None or now_ms - self._heard_ms > SILENT_MS:
            return "idle"
        if now_ms - self._asked_ms > ASK_MS:
            self._ask(now_ms)
        return None

    def _on_offer(self, message, running_manifest, now_ms):
        if self._session is not None and self._session.manifest.message == message:
            self._ask(now_ms)
            return
        self._mark = update.mark_of(message)
        if message == running_manifest:
            self._say(0, self._mark, 0, update.RUNS, "")
            return
        if self._offered_ms is not None and now_ms - self._offered_ms < OFFER_MS:
            return
        self._offered_ms = now_ms
        self._session = None
        data = self._board.genesis()
        manifest = update.Manifest(message, genesis.chain_id(data), update.keys_of(data), self._board.verify_digest)
        check(manifest.model == self._model, "not_permitted", self._model, manifest.model)
        store, record, _ = self._spare()
        check(record[boot.IS_CONFIRMED], "busy", "a version that was confirmed", "one on trial")
        self._running = max(record[boot.COUNTERS + (store.slot ^ 1)], counter_of(running_manifest))
        update.check_counter(manifest.counter, self._running, record[boot.HIGHEST], record[boot.FAILED])
        self._board.log("update %d: %d bytes are on their way" % (manifest.counter, manifest.size))
        self._session = update.Session(manifest, store)
        self._go_on(now_ms)

    def _go_on(self, now_ms):
        session = self._session
        if session is None or session.offset is not None:
            self._ask(now_ms)
            return
        session.finish()
        manifest = session.manifest
        store, record, path = self._spare()
        record[boot.COUNTERS + (store.slot ^ 1)] = self._running  # what to go back to
        boot.switch(record, store.slot, manifest.counter, self._board.seen & (boot.BUS | boot.BROKER))
        boot.save(path, record)
        self._board.log("update %d is whole: it is started now" % manifest.counter)
        self._say(manifest.counter, manifest.size, manifest.size, update.INSTALLED, "")
        self._restart_ms = now_ms + RESTART_MS

    def _ask(self, now_ms):
        session = self._session
        if session is None:
            return
        self._asked_ms = now_ms
        self._say(session.manifest.counter, session.offset, session.wanted(), update.WANT, "")

    def _refuse(self, text):
        self._session = None
        self._board.log("update refused: " + text)
        self._say(0, self._mark, 0, update.REFUSED, text)

    def _say(self, counter, offset, size, state, text):
        self._board.publish(self._topic, update.encode_query(counter, offset, size, state, text), None)


def counter_of(message):
    """The counter of a manifest that lies in a slot, 0 where there is none to be read."""
    try:
        return update.cbor.decode(cose.parse(message).payload)[2] if message else 0
    except Refused:
        return 0
