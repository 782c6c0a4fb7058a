"""Makes the judgement on a start out of what has worked since: confirmed, failed, or not yet; for every board.

A version on trial has TRIAL_MS for its self-test: every expected part (boot.BUS: a meter has answered; boot.BROKER: a
broker has taken the connection) and one signature that verifies. What did not work before the switch is not asked of
it. A confirmed version is good once it has run for GOOD_MS: its starts are then counted from 0 again.
"""

import hashlib

from firmware import boot

TRIAL_MS = 300000
GOOD_MS = 60000
CONFIRMED, FAILED = "confirmed", "failed"


class Trial:
    """path: the boot record; board: with signer, verify_digest, and `seen`, the bits of what has worked."""

    def __init__(self, path, board, now_ms):
        self._path = path
        self._board = board
        self._start_ms = now_ms
        self.record = boot.load(path)
        self.is_on_trial = self.record is not None and not self.record[boot.IS_CONFIRMED]
        self._is_over = self.record is None

    def step(self, now_ms):
        """Returns CONFIRMED or FAILED once, when it is known, else None. FAILED: the other slot is to be started."""
        if self._is_over:
            return None
        if not self.is_on_trial:
            if now_ms - self._start_ms < GOOD_MS:
                return None
        elif self.record[boot.EXPECTED] & ~self._board.seen:
            if now_ms - self._start_ms < TRIAL_MS:
                return None
            return self._go_back("self-test: %s" % missing(self.record[boot.EXPECTED] & ~self._board.seen))
        elif not signs(self._board):
            return self._go_back("self-test: a signature that does not verify")
        self._is_over = True
        was_on_trial, self.is_on_trial = self.is_on_trial, False
        record = boot.load(self._path)
        if record is None or record[:boot.TRIES] != self.record[:boot.TRIES]:
            return None  # an update has been switched to meanwhile
        self.record = record
        if boot.confirm(record):
            boot.save(self._path, record)
        return CONFIRMED if was_on_trial else None

    def news(self):
        """What whoever sends updates should hear of this start: (CONFIRMED or FAILED, version counter), or None."""
        record = self.record
        if record is None or self.is_on_trial:
            return None
        if record[boot.FAILED] > record[boot.HIGHEST]:
            return FAILED, record[boot.FAILED]
        return (CONFIRMED, record[boot.HIGHEST]) if self._is_over else None

    def _go_back(self, why):
        self._is_over = True
        self._board.log("version %d goes: %s" % (self.record[boot.COUNTERS + self.record[boot.SLOT]], why))
        boot.go_back(self.record)
        boot.save(self._path, self.record)
        return FAILED


def missing(bits):
    """What the bits of EXPECTED name, for people."""
    names = ["no meter answers"] if bits & boot.BUS else []
    if bits & boot.BROKER:
        names.append("no broker takes the connection")
    return ", ".join(names)


def signs(board):
    """Tells whether this version can make a signature that it accepts itself."""
    digest = hashlib.sha256(b"gridseal self-test").digest()
    return board.verify_digest(board.signer.public_key(), digest, board.signer.sign_digest(digest))
