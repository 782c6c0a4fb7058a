"""Makes duties out of acks: what they prove is trimmed, what they ask for is sent again.

Functions over an agent.Agent. A board loads this module when an ack comes, and drops it again.
"""

from firmware import headers, records
from firmware.agent import Trim
from firmware.wire import ack as ack_codec
from firmware.wire import merkle
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


def on_ack(agent, data, now_s, wait_ms):
    """Takes the bytes of the `ack` topic; now_s: Unix seconds or None while the clock is not synchronised."""
    acked = agent.counts["acked"]
    try:
        found = ack_codec.decode(data)
        if found.header:
            header = headers.follow(agent, found.header, found.certificate, now_s)
            for proof in found.proofs:
                _try_proof(agent, header, proof, wait_ms)
        _take_advice(agent, found)
    except Refused as refused:
        _refuse_ack(agent, refused)
    if agent.counts["acked"] > acked:
        agent.duties.append(Trim(agent.book.lowest_seq(agent.outbox)))
    return agent.take()


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
        from firmware import envelopes

        sealed = envelopes.find(agent.book, proof.point, proof.height)
    if not _is_included(sealed.leaf, proof, header.root):
        leaf = _leaf_of(agent, sealed, proof.signature)
        merkle.check_path(leaf, proof.index, proof.size, proof.path, header.root)
    agent.counts["acked"] += proof.height - chain.acked
    agent.last_ack_ms = wait_ms
    chain.acked = proof.height
    if chain.base is not None:
        chain.base = max(chain.base, proof.height)
    agent.outbox.acked(proof.point, proof.height, wait_ms)
    agent.emit(records.ACK, records.encode_ack(proof.point, proof.height))


def _is_included(leaf, proof, root):
    """Tells whether the path leads from what we sent ourselves: then nothing has to be signed or verified again."""
    if leaf is None:
        return False
    try:
        merkle.check_path(leaf, proof.index, proof.size, proof.path, root)
        return True
    except Refused:
        return False


def _leaf_of(agent, sealed, signature):
    """The leaf as committed: a signer with random nonces may have signed the same payload more than once."""
    if signature is None and sealed.leaf is not None:
        return sealed.leaf
    from firmware import envelopes
    from firmware.wire import cose

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
