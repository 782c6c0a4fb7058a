"""Makes and reads MQTT topic names: gridseal/1/<area>/<kid>/<kind> and the gateways' chain and live topics."""

from firmware.wire.errors import Refused

PREFIX = "gridseal/1"
AGENT_WRITES = ("birth", "death", "envelope", "tx", "witness", "query")
AGENT_READS = ("ack", "reply", "update", "config")
TOPIC_BYTES = 128
AREA_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789-"  # no wildcard, separator or space can hide in an area's name


def agent_topic(area, kid, kind):
    """Returns the topic of an agent (kid: 8 bytes) and one of the kinds above."""
    if kind not in AGENT_WRITES and kind not in AGENT_READS:
        raise ValueError("no such kind: " + kind)
    return "%s/%s/%s/%s" % (PREFIX, area, bytes(kid).hex(), kind)


def all_agents(area, kind):
    """Returns the subscription of a replica for one kind from every agent of its area."""
    return "%s/%s/+/%s" % (PREFIX, area, kind)


def chain_header(area, channel):
    """Returns the retained topic of the newest header (witness.encode_header_message)."""
    return "%s/%s/chain/%s/header" % (PREFIX, area, channel)


def chain_epoch(area, channel, epoch):
    """Returns the retained topic of the handover that an epoch began with (epochs.encode); "+": of all of them."""
    return "%s/%s/chain/%s/epoch/%s" % (PREFIX, area, channel, epoch)


def live(area, point):
    """Returns the retained topic of a point's newest accepted reading (JSON, for display)."""
    return "%s/%s/live/%d" % (PREFIX, area, point)


def alarm(area, name):
    """Returns the retained topic of an alarm (JSON, for people and their tools); name: a device's, or what it is of."""
    return "%s/%s/alarm/%s" % (PREFIX, area, name)


def parse(topic):
    """Returns (area, kid, kind) of an agent's topic; Refused `unknown_topic` for any other."""
    if len(topic) <= TOPIC_BYTES:
        parts = topic.split("/")
        if len(parts) == 5 and parts[0] + "/" + parts[1] == PREFIX and is_area(parts[2]) and len(parts[3]) == 16:
            if parts[4] in AGENT_WRITES or parts[4] in AGENT_READS:
                for letter in parts[3]:
                    if letter not in "0123456789abcdef":
                        raise Refused("unknown_topic", "a kid", topic)
                return parts[2], bytes.fromhex(parts[3]), parts[4]
    raise Refused("unknown_topic", PREFIX + "/<area>/<kid>/<kind>", topic[:TOPIC_BYTES])


def is_area(text):
    """Tells whether `text` may name an area: 1 to 32 of a-z, 0-9 and '-'."""
    if not 0 < len(text) <= 32:
        return False
    for letter in text:
        if letter not in AREA_LETTERS:
            return False
    return True
