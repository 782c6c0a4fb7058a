"""Makes one exception with a reason from a closed, numbered list, from whatever was wrong with an input.

A reason's number is its result code in a block (contracts) and stands in acks; new reasons are added at the end,
never renumbered. The text is what people and counters see.
"""

REASONS = (
    "accepted",  # 0 is never raised: it is the result code of what was taken
    "oversize", "malformed", "too_deep", "wrong_version", "unknown_topic",  # 1-5
    "not_enrolled", "revoked", "wrong_area", "wrong_topic", "not_its_point",  # 6-10
    "bad_signature", "high_s", "wrong_root", "wrong_count", "wrong_times",  # 11-15
    "wrong_previous", "fork", "gap", "duplicate", "wrong_meter_epoch",  # 16-20
    "wrong_chain", "wrong_height", "wrong_header", "wrong_epoch", "wrong_channel",  # 21-25
    "too_few_signers", "duplicate_signer", "unknown_signer", "wrong_set", "wrong_parent",  # 26-30
    "wrong_time", "not_included", "contradiction", "stale_sequence", "expired",  # 31-35
    "not_permitted", "unknown_type", "already_enrolled", "point_taken", "unknown_point",  # 36-40
    "not_accepted", "wrong_state", "wrong_key", "wrong_view", "wrong_digest",  # 41-45
    "outside_window", "conflicting_vote", "wrong_proof", "readings_missing", "busy",  # 46-50
    "wrong_reading", "not_trusted_genesis", "damaged", "unreadable",  # 51-54
    "both_sides", "wrong_price", "wrong_volume", "arbitrage",  # 55-58: of the market
    "insufficient_funds", "backdated", "wrong_mechanism", "no_rules",  # 59-62: of accounts, orders and rule sets
    "not_certified", "wrong_outcome", "evidence_missing",  # 63-65: of device checks
    "wrong_amount",  # 66, bills
)
NUMBERS = {name: number for number, name in enumerate(REASONS)}


class Refused(Exception):
    """An input from outside that is not taken: `reason` (one of REASONS) and the two values that disagreed."""

    def __init__(self, reason, expected=None, found=None):
        if reason not in NUMBERS:
            raise ValueError("unknown reason " + repr(reason))
        super().__init__(reason)
        self.reason = reason
        self.number = NUMBERS[reason]
        self.expected = expected
        self.found = found

    def __str__(self):
        if self.expected is None and self.found is None:
            return self.reason
        return "%s: expected %s, found %s" % (self.reason, _show(self.expected), _show(self.found))


class Impossible(Exception):
    """Something that cannot happen if this program is right (mpy-cross -O3 drops asserts, so firmware raises this)."""


def check(is_good, reason, expected=None, found=None):
    """Raises Refused(reason) unless `is_good`."""
    if not is_good:
        raise Refused(reason, expected, found)


def _show(value):
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    return repr(value)
