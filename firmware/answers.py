"""Makes duties out of what the gateways say (headers, acks, advice), and the signatures that answer headers.

Functions over an agent.Agent. A board loads this module when a message comes, and drops it again.
"""

from firmware import envelopes, records
from firmware.agent import SaveTrust, Trim, Witness
from firmware.wire import ack as ack_codec
from firmware.wire import cose, merkle, topics, witness
from firmware.wire.errors import Refused

HINTS = {  # what to do about a refusal that does not go away by itself
    "not_enrolled": ": the operator has to approve this agent (enroll approve)",
    "revoked": ": this agent's key is no longer accepted; the operator knows why",
    "not_its_point": ": the point is enrolled for another agent",
    "wrong_meter_epoch": ": agent and operator have to tell the area that the meter was replaced (meter replace)",
    "wrong_area": ": area in the configuration is not the gateway's",
    "fork": ": this key has signed another seal for that height. Where the data folder was lost, restored or copied, a "
            "new key takes over (enroll replace)",
}
# A wait between two headers of one witness interval that are checked: acks bring headers as well, and a certificate
# of three signatures keeps an ESP32 busy for seconds.
FOLLOW_MS = 10000


def on_header(agent, data, now_s, wait_ms):
    """Takes the bytes of the header topic, as `on_ack`; the first header of a witness interval is signed."""
    try:
        found = witness.decode_header_message(data)
        is_first = agent.light.may_witness(found.header)
        pair = agent.light.pair_at(witness.height_of(found.header))
        if pair is None or pair[0] != found.header:
            is_due = agent.followed_ms is None or wait_ms >= agent.followed_ms + FOLLOW_MS
            if pair is None and not is_first and not is_due:
                return agent.take()
            agent.followed_ms = wait_ms
            _follow(agent, found.header, found.certificate, now_s)
            pair = (found.header, found.certificate)
        if is_first:
            _witness(agent, pair)
    except Refused as refused:
        agent.counts["bad_headers"] += 1
        text = "a header was not taken: %s" % refused
        if agent.last_error != text:
            agent.alarm(text)
    return agent.take()


def on_witness_published(agent, height):
    """The broker has taken the signature under the header of that height."""
    if agent.light.witnessed is not None and witness.height_of(agent.light.witnessed[0]) == height:
        agent.is_witness_due = False
    return agent.take()


def on_ack(agent, data, now_s, wait_ms):
    """Takes the bytes of the `ack` topic; now_s: Unix seconds or None while the clock is not synchronised."""
    acked = agent.counts["acked"]
    try:
        found = ack_codec.decode(data)
        if found.header:
            header = _follow(agent, found.header, found.certificate, now_s)
            for proof in found.proofs:
                _try_proof(agent, header, proof, wait_ms)
        _take_advice(agent, found)
    except Refused as refused:
        _refuse_ack(agent, refused)
    if agent.counts["acked"] > acked:
        agent.duties.append(Trim(agent.book.lowest_seq(agent.outbox)))
    return agent.take()


def witness_message(agent):
    """Returns (topic, bytes, height) of a Witness duty; None when nothing is to be signed any more."""
    if agent.light.witnessed is None or agent.light.contradiction is not None:
        return None
    header = agent.light.witnessed[0]
    message = witness.sign(agent.settings.kid, agent.light.channel, header, agent.light.chain_id,
                           agent.signer.sign_digest)
    return (topics.agent_topic(agent.settings.area, agent.settings.kid, "witness"), message,
            witness.height_of(header))


def _follow(agent, header, certificate, now_s):
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


def _try_proof(agent, header, proof, wait_ms):
    """One proof that is no good takes nothing from the others."""
    try:
        _take_proof(agent, header, proof, wait_ms)
    except Refused as refused:
        _refuse_ack(agent, refused)


def _refuse_ack(agent, refused):
    agent.counts["bad_acks"] += 1
    agent.alarm("an ack was not taken: %s" % refused)


def _take_proof(agent, header, proof, wait_ms):
    """Trims what one proof covers; Refused when it proves nothing about a seal of ours."""
    chain = agent.book.chains.get(proof.point)
    if chain is None:
        raise Refused("not_its_point", None, proof.point)
    if proof.height <= chain.acked:
        return
    sealed = agent.outbox.find(proof.point, proof.height)
    if sealed is None:
        sealed = envelopes.find(agent.book, proof.point, proof.height)
    leaf = _leaf_of(agent, sealed, proof.signature)
    merkle.check_path(leaf, proof.index, proof.size, proof.path, header.root)
    agent.counts["acked"] += proof.height - chain.acked
    agent.last_ack_ms = wait_ms
    chain.acked = proof.height
    if chain.base is not None:
        chain.base = max(chain.base, proof.height)
    agent.outbox.acked(proof.point, proof.height, wait_ms)
    agent.emit(records.ACK, records.encode_ack(proof.point, proof.height))


def _leaf_of(agent, sealed, signature):
    """The leaf as committed: a signer with random nonces may have signed the same payload more than once."""
    if signature is None and sealed.leaf is not None:
        return sealed.leaf
    payload = envelopes.rebuild(agent.book, sealed)[0]
    if signature is None:
        message = cose.sign1(payload, agent.settings.kid, "seal", agent.light.chain_id, agent.signer.sign_digest)
    else:
        signed = cose.Signed(agent.settings.kid, payload, signature)
        cose.check(signed, "seal", agent.light.chain_id, agent.public_key, agent.verify_digest)
        message = cose.assemble(agent.settings.kid, payload, signature)
    return merkle.leaf_hash(message)


def _take_advice(agent, found):
    """Refusals and wanted ranges: believed as far as sending again goes, and trusted with nothing."""
    told = set()
    for refusal in found.refused:
        agent.counts["refused"] += 1
        if (refusal.point, refusal.reason) not in told:  # a backlog is refused as a whole: one line says it
            told.add((refusal.point, refusal.reason))
            agent.alarm("point %d, seal %d was refused: %s%s" % (
                refusal.point, refusal.height, refusal.reason, HINTS.get(refusal.reason, "")))
    for wanted in found.wanted:
        chain = agent.book.chains.get(wanted.point)
        if chain is None or wanted.first > wanted.last or wanted.first <= chain.acked:
            continue
        agent.outbox.send_again(wanted.point, wanted.first, wanted.last)
        from firmware import losses  # seldom needed

        if losses.answers_loss(agent.book, wanted.point, wanted.first, agent.outbox):
            agent.alarm("point %d: seals from %d on are asked for and gone: they are declared lost, their "
                        "remaining readings are sealed again" % (wanted.point, wanted.first))
