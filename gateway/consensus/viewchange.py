"""Makes the plan of a new view (what is ordered where) from q VIEW-CHANGEs, and checks those of others: pbft.md 3.6.

Theory. A replica that stopped in a view tells everything that ever prepared at it, the certificate of the highest view
for each n. If a batch was committed at n anywhere honest, q replicas had prepared it; any q that stop share an honest
one with them; so at least one VIEW-CHANGE of the q shows it, and no later view can have prepared anything else there.
Hence: the highest view decides, an absent certificate means that nothing was committed, and n gets NULL.
"""

from typing import NamedTuple

from firmware.wire.errors import check
from gateway.consensus import messages
from gateway.consensus.checkpoints import Stable, check_proof
from gateway.consensus.mail import Mail
from gateway.consensus.messages import NULL_DIGEST, NewView, Prepared, ViewChange, Vote


class Evidence(NamedTuple):
    """What one valid VIEW-CHANGE shows."""

    low: int
    stable: Stable | None
    prepared: tuple[tuple[int, int, bytes], ...]  # (n, view, digest) by rising n


class Plan(NamedTuple):
    """min_s with its proof, and O: (n, digest) for every n up to max_s."""

    low: int
    stable: Stable | None
    order: tuple[tuple[int, bytes], ...]


class Rules(NamedTuple):
    """The numbers that both sides need."""

    size: int
    quorum: int
    window: int
    base: int = 0  # of the epoch

    def primary(self, view: int) -> int:
        return view % self.size

    def view_change_bytes(self) -> int:
        """No honest VIEW-CHANGE is longer: a proof of q CHECKPOINTs of at most three channels, L certificates of q."""
        return 1024 + (self.window * (self.quorum + 1) + 2 * self.quorum) * messages.VOTE_BYTES


def check_prepared(prepared: Prepared, rules: Rules, mail: Mail) -> Vote:
    """The PRE-PREPARE of a certificate that holds; raises Refused."""
    vote = mail.open(prepared.pre_prepare)
    check(isinstance(vote, Vote) and vote.type == messages.PRE_PREPARE, "wrong_proof", "a PRE-PREPARE", vote)
    assert isinstance(vote, Vote)
    primary = rules.primary(vote.view)
    check(vote.sender == primary, "wrong_proof", primary, vote.sender)
    check(len(prepared.prepares) == rules.quorum - 1, "too_few_signers", rules.quorum - 1, len(prepared.prepares))
    last = -1
    for signed in prepared.prepares:
        prepare = mail.open(signed)
        check(isinstance(prepare, Vote) and prepare[:4] == (messages.PREPARE, *vote[1:4]), "wrong_proof", vote, prepare)
        check(prepare.sender > last, "duplicate_signer", last, prepare.sender)
        check(prepare.sender != primary, "wrong_proof", "PREPAREs of backups", primary)
        last = prepare.sender
    return vote


def check_view_change(message: ViewChange, rules: Rules, mail: Mail) -> Evidence:
    """What a VIEW-CHANGE shows; raises Refused unless all of it is proven."""
    stable = check_proof(message.proof, message.low, rules.quorum, mail, rules.base)
    check(len(message.prepared) <= rules.window, "oversize", rules.window, len(message.prepared))
    rows: list[tuple[int, int, bytes]] = []
    last = message.low
    for prepared in message.prepared:
        vote = check_prepared(prepared, rules, mail)
        check(vote.view < message.view, "wrong_view", message.view, vote.view)
        check(last < vote.n <= message.low + rules.window, "outside_window", last, vote.n)
        last = vote.n
        rows.append((vote.n, vote.view, vote.digest))
    return Evidence(message.low, stable, tuple(rows))


def plan_of(evidence: list[Evidence]) -> Plan:
    """O as pbft.md 3.6 computes it from V."""
    newest = max(evidence, key=lambda shown: shown.low)
    best: dict[int, tuple[int, bytes]] = {}
    for shown in evidence:
        for n, view, digest in shown.prepared:
            if n > newest.low and view > best.get(n, (-1,))[0]:
                best[n] = (view, digest)
    last = max(best, default=newest.low)
    order = tuple((n, best[n][1] if n in best else NULL_DIGEST) for n in range(newest.low + 1, last + 1))
    return Plan(newest.low, newest.stable, order)


def check_new_view(message: NewView, rules: Rules, mail: Mail) -> Plan:
    """The plan of a NEW-VIEW whose V is valid and whose O is the one that V demands; raises Refused."""
    primary = rules.primary(message.view)
    check(message.sender == primary and message.view > 0, "wrong_view", primary, message.sender)
    check(rules.quorum <= len(message.view_changes) <= rules.size, "too_few_signers", rules.quorum,
          len(message.view_changes))
    evidence = []
    last = -1
    for signed in message.view_changes:
        check(len(signed) <= rules.view_change_bytes(), "oversize", rules.view_change_bytes(), len(signed))
        change = mail.open(signed)
        check(isinstance(change, ViewChange), "wrong_proof", "a VIEW-CHANGE", change)
        assert isinstance(change, ViewChange)
        check(change.sender > last, "duplicate_signer", last, change.sender)
        check(change.view == message.view, "wrong_view", message.view, change.view)
        last = change.sender
        evidence.append(check_view_change(change, rules, mail))
    plan = plan_of(evidence)
    check(len(message.pre_prepares) == len(plan.order), "wrong_proof", len(plan.order), len(message.pre_prepares))
    for signed, (n, digest) in zip(message.pre_prepares, plan.order, strict=True):
        wanted = Vote(messages.PRE_PREPARE, message.view, n, digest, primary)
        check(mail.peek(signed) == wanted, "wrong_digest", wanted, None)
        mail.open(signed)
    return plan
