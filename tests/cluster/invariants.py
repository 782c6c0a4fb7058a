"""Makes a Violation from evidence that breaks one of the invariants 1 to 12 of pbft.md 4: one function each, by number.

Each takes the judge, the machine concerned and what it just did, compares that with all that came before, and files it.
"""

from typing import Any

from firmware.wire import cbor, cose
from firmware.wire import certificate as wire_certificate
from gateway.consensus.catchup import RELAYED
from gateway.consensus.checkpoints import KEPT
from gateway.consensus.core import EVIDENCE
from gateway.consensus.mail import KNOWN_MESSAGES
from gateway.consensus.ordering import FUTURE_BYTES, FUTURE_FRAMES
from gateway.consensus.pool import POOL_ITEMS
from tests.cluster import promises, validity
from tests.cluster.ledger import CHANNEL, Block
from tests.cluster.speech import NULL, VOTES, Said


def check_agreement(judge: Any, machine: Any, n: int, block: Block | None) -> None:
    """1: no two honest replicas executed different batches at one n."""
    batch_hash = None if block is None else block.batch_hash
    if judge.batches.setdefault(n, batch_hash) != batch_hash:
        judge.fail(1, f"machine {machine.index} executed {show(batch_hash)} at n {n}, another {show(judge.batches[n])}")


def check_header(judge: Any, machine: Any, block: Block) -> None:
    """1: one header at one height, whether it was executed here or came from a peer."""
    if judge.headers.setdefault(block.height, block.header_hash) != block.header_hash:
        judge.fail(1, f"machine {machine.index} has header {show(block.header_hash)} at height {block.height}, "
                      f"another {show(judge.headers[block.height])}")


def check_root(judge: Any, machine: Any, block: Block) -> None:
    """2: equal heights, equal roots."""
    if judge.roots.setdefault(block.height, block.state_root) != block.state_root:
        judge.fail(2, f"machine {machine.index} has root {show(block.state_root)} at height {block.height}, "
                      f"another {show(judge.roots[block.height])}")


def check_prefix(judge: Any, machine: Any, n: int) -> None:
    """3: the executed sequence only grows, without a gap."""
    record = judge.records[machine.index]
    if n != record.n + 1:
        judge.fail(3, f"machine {machine.index} executed n {n} after {record.n}")
    record.n = n


def check_not_fallen(judge: Any, machine: Any) -> None:
    """3: what a machine has executed is still executed after a crash, and the Replica knows it."""
    record = judge.records[machine.index]
    if machine.ledger.n < record.n:
        judge.fail(3, f"machine {machine.index} stands at n {machine.ledger.n}, was at {record.n}")
    if machine.replica.last_executed > machine.ledger.n:
        judge.fail(3, f"Replica {machine.index} says {machine.replica.last_executed}, its ledger {machine.ledger.n}")


def check_prepared(judge: Any, machine: Any, said: Said) -> None:
    """4 and 7: whoever commits holds a full prepared certificate, and there is one digest only for (v, n) (Fact A)."""
    where = (said.view, said.n)
    if judge.prepared.setdefault(where, said.digest) != said.digest:
        judge.fail(4, f"Fact A: machine {machine.index} prepared {show(said.digest)} at (v, n) {where}, "
                      f"another {show(judge.prepared[where])}")
    backers = judge.prepares[said.view, said.n, said.digest] - {said.view % judge.rules.size}
    if said.digest not in judge.proposals[where] or len(backers) < judge.quorum - 1:
        judge.fail(7, f"machine {machine.index} committed {show(said.digest)} at (v, n) {where} with PREPAREs of "
                      f"{sorted(backers)}, proposed {sorted(map(show, judge.proposals[where]))}")


def check_committed(judge: Any, machine: Any, n: int, digest: bytes) -> None:
    """4 and 7: what is executed has q COMMITs of one view; each valid NEW-VIEW of a later view carries it (Fact B)."""
    signers = judge.commits[n, digest]
    views = [view for view in signers if len(signers[view]) >= judge.quorum]
    if not views:
        judge.fail(7, f"machine {machine.index} executed {show(digest)} at n {n} with COMMITs of {dict(signers)}")
    view = min(views)
    if n not in judge.committed or judge.committed[n][0] > view:
        judge.committed[n] = (view, digest)
        for later in judge.new_views:
            check_carried(judge, later, n)


def check_carried(judge: Any, new_view: Any, n: int) -> None:
    """4: Fact B for one valid NEW-VIEW and one committed n."""
    view, digest = judge.committed[n]
    if new_view.view <= view or n <= new_view.low:
        return
    found = new_view.digests.get(n)
    if found != digest:
        judge.fail(4, f"Fact B: {show(digest)} was committed at view {view}, n {n}; "
                      f"NEW-VIEW {new_view.view} from {new_view.low} carries {show(found)}")


def check_one_vote(judge: Any, machine: Any, said: Said) -> None:
    """5: no two conflicting signed messages by one honest key, ever; none of an older view once that view was left."""
    record = judge.records[machine.index]
    for slot, vote in said.votes():
        if record.said.setdefault(slot, vote) != vote:
            judge.fail(5, f"machine {machine.index} said {show(vote)} in {slot}, before {show(record.said[slot])}")
    record.said_view = max(record.said_view, said.view)
    if said.type in VOTES:
        name = (said.type, said.view, said.n)
        if said.view < record.left_view and name not in record.before_leaving:
            judge.fail(5, f"machine {machine.index}: {said}, after its VIEW-CHANGE for {record.left_view}")
        record.before_leaving.add(name)
    elif said.type == "view-change" and said.view > record.left_view:
        record.left_view = said.view
        record.before_leaving.update(promise[:3] for promise in record.durable if promise[0] in VOTES)


def check_durable(judge: Any, machine: Any, said: Said) -> None:
    """6: nothing sent that is not already in the synced image."""
    durable = judge.records[machine.index].durable
    lacking = [promise for promise in promises.of(said) if promise not in durable]
    if lacking and not is_past(said, durable):
        judge.fail(6, f"machine {machine.index} sent {said}; its disk lacks {show_promise(lacking[0])}")
    if said.type == "checkpoint":
        found = judge.states.get(said.n)
        if said.n > machine.ledger.n or found != said.body:
            judge.fail(6, f"machine {machine.index} sent {said}; its ledger stands at {machine.ledger.n}, "
                          f"the state there is {found}")
    elif said.type == "header":
        blocks = machine.ledger.blocks
        found = blocks[said.n].header_hash if said.n < len(blocks) and blocks[said.n] else None
        if found != said.digest:
            judge.fail(6, f"machine {machine.index} sent {said}; its ledger has {show(found)}")


def is_past(said: Said, durable: set[tuple[Any, ...]]) -> bool:
    """Whether the disk forbids to sign anything there, so that the record itself is no longer needed."""
    def highest(*names: str) -> int:
        return max((promise[1] for promise in durable if promise[0] in names), default=0)

    if said.type == "view-change":
        return said.view <= highest("view-change", "new-view")
    if said.type == "header":
        return said.n <= highest("floor")
    return said.type in (*VOTES, "checkpoint") and said.n <= highest("stable")


def check_still_durable(judge: Any, machine: Any) -> None:
    """6: a compact votes file holds every promise that still binds: certificates above h, votes of the present view."""
    record = judge.records[machine.index]
    low = max((promise[1] for promise in record.durable if promise[0] == "stable"), default=judge.base)
    left = max((promise[1] for promise in record.durable if promise[0] in ("view-change", "new-view")), default=0)
    if left < record.left_view:
        judge.fail(6, f"machine {machine.index} compacted away that it has left for view {record.left_view}")
    newest: dict[int, tuple[int, bytes]] = {}
    for slot, vote in record.said.items():
        if slot[0] == "commit" and slot[2] > low:
            newest[slot[2]] = max(newest.get(slot[2], (-1, b"")), (slot[1], vote))
        if slot[0] in ("prepare", "pre-prepare") and slot[2] > low and slot[1] >= left:
            if (slot[0], slot[1], slot[2], vote) not in record.durable:
                judge.fail(6, f"machine {machine.index} compacted away its {slot[0]} at (v, n) {slot[1:]}")
    for n, (view, digest) in newest.items():
        if not any(promise[0] == "commit" and promise[2] == n and promise[1] >= view for promise in record.durable):
            judge.fail(6, f"machine {machine.index} compacted away what prepared at view {view}, n {n}: {show(digest)}")


def check_order_followed(judge: Any, machine: Any, said: Said) -> None:
    """11: after a view change a PREPARE follows the recomputed O wherever that has an element."""
    if said.view == 0:
        return
    orders = [new_view for new_view in judge.new_views if new_view.view == said.view]
    if not any(order.low < said.n and order.digests.get(said.n, said.digest) == said.digest for order in orders):
        judge.fail(11, f"machine {machine.index}: {said}, but O has "
                       f"{sorted({show(new_view.digests.get(said.n)) for new_view in orders})}")


def check_own_new_view(judge: Any, machine: Any, said: Said) -> None:
    """11: an honest primary's O is the recomputed one."""
    if validity.carried_by(said, judge.rules, judge.signed) is None:
        judge.fail(11, f"machine {machine.index} sent a NEW-VIEW {said.view} that does not hold")


def check_stable(judge: Any, machine: Any, low: int) -> None:
    """7: a stable checkpoint has q distinct signers."""
    own = {machine.seat}  # its own vote is on the way to its disk, and nothing leaves before
    signers = [others | own for others in judge.checkpoints[low].values()]
    if low != judge.base and max(map(len, signers), default=1) < judge.quorum:
        judge.fail(7, f"machine {machine.index} holds {low} stable with CHECKPOINTs of {signers}")


def check_one_header(judge: Any, height: int) -> None:
    """8: of all header votes ever signed, q stand behind one header of a height only."""
    backed = [header for header, signers in judge.header_votes[height].items() if len(signers) >= judge.quorum]
    if len(backed) > 1:
        judge.fail(8, f"two headers of height {height} have q votes: {list(map(show, backed))}")


def check_certificate(judge: Any, machine: Any, certified: Any) -> None:
    """7 and 8: a certificate has q distinct signers of its epoch, good signatures, and is alone at its height."""
    world = judge.world
    certificate = wire_certificate.decode(certified.certificate)
    named = (certificate.epoch, certificate.channel, certificate.height, certificate.header_hash)
    if named != (judge.epoch, CHANNEL, certified.height, certified.header_hash):
        judge.fail(7, f"machine {machine.index} made a certificate of {named} for {certified}")
    signers = set(certificate.signers)
    digest = cose.digest(cbor.encode(list(named)), "header", world.chain_id)
    for signer, signature in zip(certificate.signers, certificate.signatures):
        if not world.keyring.verify_digest(world.members_of(judge.epoch)[signer].public_key, digest, signature):
            judge.fail(7, f"machine {machine.index} made a certificate with a bad signature of {signer}")
    if len(signers) < judge.quorum or len(signers) != len(certificate.signers):
        judge.fail(7, f"machine {machine.index} made a certificate of height {certified.height} signed by "
                      f"{certificate.signers}")
    if judge.certificates.setdefault(certified.height, certified.header_hash) != certified.header_hash:
        judge.fail(8, f"two certificates for height {certified.height}: {show(certified.header_hash)} and "
                      f"{show(judge.certificates[certified.height])}")
    held = machine.ledger.blocks
    own = held[certified.height] if certified.height < len(held) else None
    if own is not None and own.header_hash != certified.header_hash:
        judge.fail(8, f"machine {machine.index} certified another header than its own at {certified.height}")


def check_view(judge: Any, machine: Any) -> None:
    """9 and 11: the view never falls; active in v > 0 needs a NEW-VIEW(v) whose O is the recomputed one."""
    record, replica = judge.records[machine.index], machine.replica
    if replica.view < record.view:
        judge.fail(9, f"machine {machine.index} fell from view {record.view} to {replica.view}")
    if replica.view > record.view:
        judge.world.seen["view changes"] += 1
        check_not_led_astray(judge, machine)
    record.view = replica.view
    if replica.active and record.active_view != replica.view:
        record.active_view = replica.view
        if replica.view and not any(new_view.view == replica.view for new_view in judge.new_views):
            judge.fail(11, f"machine {machine.index} is active in view {replica.view} without a valid NEW-VIEW")


def check_not_led_astray(judge: Any, machine: Any) -> None:
    """9: a view is left for the next one, or for one that another honest replica has gone to: f liars move nobody."""
    honest = [judge.records[other.index].said_view for other in judge.world.honest]
    views = [judge.records[machine.index].view, *honest, *(new_view.view for new_view in judge.new_views)]
    if machine.replica.view > max(views) + 1:
        judge.fail(9, f"machine {machine.index} went to view {machine.replica.view}, the others said {sorted(honest)}")


def check_bounds(judge: Any, machine: Any) -> None:
    """10: the low mark is not above the last executed, or a transfer runs."""
    replica = machine.replica
    is_busy = machine.behind is not None or machine.decisions or machine.queue
    if replica.low > replica.last_executed and not is_busy:
        judge.fail(10, f"machine {machine.index}: h {replica.low}, executed {replica.last_executed}, no transfer runs")


def check_memory(judge: Any, machine: Any) -> None:
    """10: at most L numbers are open, and what one peer's messages fill here has an end, whatever it sends."""
    replica, size, window = machine.replica, judge.rules.size, judge.world.parameters["log_window"]
    slots, bodies, votes = replica._log._slots, replica._log._bodies, replica._header_votes
    filled: list[tuple[str, int, int]] = [
        ("open numbers", len(slots), window), ("numbers above h + L", max(slots, default=0), replica.low + window),
        ("batches", len(bodies), 3 * window),  # of a number: proposed, prepared in an earlier view, decided
        ("members of a number", max((max(len(slot.prepares), len(slot.commits), len(slot.learned))
                                     for slot in slots.values()), default=0), size),
        ("missing batches", len(replica._wanted), 2 * window), ("VIEW-CHANGEs", len(replica._view_changes), size),
        ("messages known", len(replica._mail._known), KNOWN_MESSAGES), ("evidence", len(replica.evidence), EVIDENCE),
        ("requests of others", len(replica._relayed), RELAYED), ("items", len(replica._pool), POOL_ITEMS)]
    for held in replica._checkpoints._held.values():
        filled.append(("CHECKPOINTs of a member", len(held), KEPT))
    for frames in replica._future.values():
        filled.append(("frames for later views of a member", len(frames), FUTURE_FRAMES))
        filled.append(("their bytes", sum(len(data) for _, data in frames), FUTURE_BYTES))
    for tallies in votes._tallies.values():
        filled.append(("open heights", len(tallies), 5 * window))  # 4 L behind the newest head, L ahead of it
        filled.append(("header votes", max((len(tally.votes) for tally in tallies.values()), default=0), size))
    for what, count, limit in filled:
        if count > limit:
            judge.fail(10, f"machine {machine.index} holds {count} {what}, more than {limit}")


def check_exactly_once(judge: Any, machine: Any, block: Block) -> None:
    """12: each item changes state at one place only, and a repeat gets the same answer."""
    for item, answer in zip(block.items, block.answers):
        if judge.answers.setdefault(item, answer) != answer:
            judge.fail(12, f"machine {machine.index} answers {answer} for an item of height {block.height}, "
                           f"before {judge.answers[item]}")
        if answer[0] != block.height:
            judge.world.seen["repeats"] += 1


def state_of(machine: Any) -> Any:
    """What a CHECKPOINT of the last executed n has to say."""
    newest = machine.ledger.newest
    return newest.state_root, ((CHANNEL, newest.height, newest.header_hash),)


def show_promise(promise: tuple[Any, ...]) -> str:
    return " ".join(map(show, promise))


def show(value: Any) -> str:
    """A hash by its first bytes, NULL by name."""
    if isinstance(value, bytes):
        return "NULL" if value == NULL else value.hex()[:8]
    return repr(value)
