"""Makes numbers of reasons and reasons of numbers: the closed list of why an input is refused (`errors.Refused`).

A reason's number is its result code in a block (contracts) and stands in acks; new reasons are added at the end,
never renumbered. The text is what people and counters see. A list of its own, because a board refuses by name and has
no RAM for names it never says.
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
