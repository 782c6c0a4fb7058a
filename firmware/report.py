"""Makes what a person wants to know about an agent. A board loads this module for each report, and drops it again."""

from firmware.wire.witness import height_of


def status(agent, wait_ms):
    """Returns what a person wants to know, as a plain dict."""
    dead = [point for point in sorted(agent.schedules) if agent.schedules[point].is_dead()]
    found: dict = dict(agent.counts)
    found.update({
        "kid": agent.settings.kid.hex(), "boot": agent.book.boot, "connected": agent.is_connected,
        "unacked": len(agent.outbox.items), "more_in_journal": agent.outbox.unloaded_seq is not None,
        "resent": agent.outbox.resent, "silences": agent.outbox.silences,
        "journal_sectors_used": agent.journal.used_sectors(), "journal_dropped": agent.journal.dropped,
        "journal_damaged": agent.journal.damaged, "dead_points": dead,
        "missed_polls": sum([agent.schedules[point].missed for point in agent.schedules]),
        "heights": [[point, agent.book.chains[point].height, agent.book.chains[point].acked]
                    for point in sorted(agent.book.chains)],
        "header_height": agent.light.height, "contradiction": agent.light.contradiction is not None,
        "witnessed_height": 0 if agent.light.witnessed is None else height_of(agent.light.witnessed[0]),
        "last_ack_wait_ms": None if agent.last_ack_ms is None else wait_ms - agent.last_ack_ms,
        "last_error": agent.last_error})
    return found
