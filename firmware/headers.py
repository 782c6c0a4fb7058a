"""Makes duties out of block headers that gateways publish, and the signatures of a witness under them.

Functions over an agent.Agent. A board loads this module when a header comes, and drops it again.
"""

from firmware.agent import SaveTrust, Witness
from firmware.wire.errors import Refused

# A wait between two headers of one witness interval that are checked: acks bring headers as well, and a certificate
# of three signatures keeps an ESP32 busy for seconds.
FOLLOW_MS = 10000


def on_header(agent, data, now_s, wait_ms):
    """Takes the bytes of the header topic, as `on_ack`; the first header of a witness interval is signed."""
    from firmware.wire import witness

    try:
        found = witness.decode_header_message(data)
        is_first = agent.light.may_witness(found.header)
        pair = agent.light.pair_at(witness.height_of(found.header))
        if pair is None or pair[0] != found.header:
            is_due = agent.followed_ms is None or wait_ms >= agent.followed_ms + FOLLOW_MS
            if pair is None and not is_first and not is_due:
                return agent.take()
            agent.followed_ms = wait_ms
            follow(agent, found.header, found.certificate, now_s)
            pair = (found.header, found.certificate)
        if is_first:
            _witness(agent, pair)
    except Refused as refused:
        agent.counts["bad_headers"] += 1
        text = "a header was not taken: %s" % refused
        if agent.last_error != text:
            agent.alarm(text)
    return agent.take()


def on_handover(agent, data, now_s):
    """Takes the bytes of an epoch's topic; of all that are retained there only the next epoch's counts."""
    try:
        agent.light.follow(data, now_s)
        agent.duties.append(SaveTrust(agent.light.save()))
    except Refused as refused:
        if refused.reason != "wrong_epoch":
            agent.counts["bad_headers"] += 1
            agent.alarm("a change of the gateways was not taken: %s" % refused)
    return agent.take()


def on_witness_published(agent, height):
    """The broker has taken the signature under the header of that height."""
    if agent.light.witnessed is not None and int.from_bytes(agent.light.witnessed[0][76:], "big") == height:
        agent.is_witness_due = False
    return agent.take()


def witness_message(agent):
    """Returns (topic, bytes, height) of a Witness duty; None when nothing is to be signed any more."""
    if agent.light.witnessed is None or agent.light.contradiction is not None:
        return None
    from firmware.wire import topics, witness

    header = agent.light.witnessed[0]
    message = witness.sign(agent.settings.kid, agent.light.channel, header, agent.light.chain_id,
                           agent.signer.sign_digest)
    return (topics.agent_topic(agent.settings.area, agent.settings.kid, "witness"), message,
            witness.height_of(header))


def follow(agent, header, certificate, now_s):
    """Returns the Header that the light node has accepted; Refused as it says."""
    was_stopped = agent.light.contradiction is not None
    try:
        return agent.light.accept(header, certificate, now_s)
    except Refused:
        if agent.light.contradiction is not None and not was_stopped:
            agent.duties.append(SaveTrust(agent.light.save()))
        if agent.light.contradiction is not None:
            agent.alarm("TWO VALID CERTIFICATES FOR ONE HEIGHT: the gateways contradict themselves; nothing is "
                        "trimmed or witnessed any more, both are kept in the trust file (gridseal audit)")
        raise


def _witness(agent, pair):
    """The intent is durable before the signature is made: a crash in between repeats it."""
    agent.light.note_witness(pair[0], pair[1])
    agent.duties.append(SaveTrust(agent.light.save()))
    agent.is_witness_due = True
    agent.counts["witnessed"] += 1
    if agent.is_connected:
        agent.duties.append(Witness())
