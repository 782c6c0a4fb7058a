"""Rules of misbehaviour, made from one line of text each: what is done to which messages, how often.

    KIND [NUMBER] [up|down] [topic FILTER] [every N | chance PERMILLE] [times N]

up: from clients to the broker (default: both ways); topic: an MQTT filter, for kinds that act on messages; every third
and a chance of 333 in 1000 differ in that the first can be counted on; times: after so many the rule has done its work.
"""

from dataclasses import dataclass

from sim_hardware.broker.packets import topic_matches
from sim_hardware.chance import pick, seed_of
from sim_hardware.errors import SimError

UP, DOWN = "up", "down"
# kind: (what its number is or "", default, lowest, highest, does it act on messages only, what it does)
KINDS: dict[str, tuple[str, int, int, int, bool, str]] = {
    "drop": ("", 0, 0, 0, True, "a message is lost"),
    "swallow": ("", 0, 0, 0, True, "a message is acknowledged (PUBACK) and lost"),
    "duplicate": ("COPIES", 1, 1, 1000, True, "a message comes so many times more"),
    "reorder": ("PLACES", 1, 1, 1000, True, "a message comes after so many later ones"),
    "rewrite": ("BITS", 1, 1, 1000, True, "so many bits of a message's payload are another"),
    "replay": ("MS", 1000, 0, 10**8, True, "a message comes again so much later"),
    "delay": ("MS", 500, 0, 10**7, False, "everything from here on comes so much later, in order"),
    "stall": ("", 0, 0, 0, False, "nothing more is passed on; the connection stays open"),
    "half-close": ("", 0, 0, 0, False, "one way of the connection is closed, the other stays open"),
    "close": ("", 0, 0, 0, False, "the connection is reset"),
}


@dataclass
class Rule:
    """One rule and how often it has been asked and applied."""

    kind: str
    number: int
    way: str | None
    topic: str | None
    every: int
    permille: int
    times: int | None
    text: str
    seed: int = 0
    asked: int = 0
    applied: int = 0

    def applies(self, way: str, topic: str | None) -> bool:
        """Is it for this packet? topic: None for what is not a message."""
        if self.way not in (None, way) or (self.times is not None and self.applied >= self.times):
            return False
        if topic is None and (KINDS[self.kind][4] or self.topic is not None):
            return False
        if topic is not None and self.topic is not None and not topic_matches(topic, self.topic):
            return False
        self.asked += 1
        is_due = self.asked % self.every == 0 and pick(self.seed, self.asked, 0, 999) < self.permille
        self.applied += is_due
        return is_due


def parse_rule(text: str, seed: int = 1) -> Rule:
    """A Rule of its line; SimError `fault` says what was expected."""
    words = text.split()
    if not words or words[0] not in KINDS:
        raise SimError("fault", f"expected one of {kinds_text()}; found {text!r}")
    name, default, low, high = KINDS[words[0]][:4]
    rule = Rule(words[0], default, None, None, 1, 1000, None, " ".join(words))
    at = 1
    if at < len(words) and words[at].isdecimal():
        if not name:
            raise SimError("fault", f"{words[0]} has no number, found {words[at]!r}")
        rule.number = _number(words[at], low, high, f"{name} of {words[0]}")
        at += 1
    while at < len(words):
        word = words[at]
        value = words[at + 1] if at + 1 < len(words) else ""
        if word in (UP, DOWN):
            rule.way, at = word, at + 1
            continue
        if word == "topic" and value:
            rule.topic = value
        elif word == "every":
            rule.every = _number(value, 1, 10**9, word)
        elif word == "chance":
            rule.permille = _number(value, 0, 1000, word)
        elif word == "times":
            rule.times = _number(value, 1, 10**9, word)
        else:
            raise SimError("fault", f"expected up, down, topic FILTER, every N, chance PERMILLE or times N; found "
                           f"{word!r} in {text!r}")
        at += 2
    if rule.kind == "swallow":
        rule.way = UP  # a client acknowledges for itself
    rule.seed = seed_of(seed, rule.text)
    return rule


def kinds_text() -> str:
    return ", ".join(f"{kind} {KINDS[kind][0]}".strip() for kind in KINDS)


def _number(text: str, low: int, high: int, what: str) -> int:
    if not text.isdecimal() or not low <= int(text) <= high:
        raise SimError("fault", f"{what}: expected {low}..{high}, found {text!r}")
    return int(text)
