"""Makes a transcript of a small cluster from a script of commands: text in, text out (pbft.md 3.13).

A script is a list of blocks: command lines, a rule of dashes, the output that is expected. Commands:

    net SIZE [PARAMETER=NUMBER ...] [depth=NUMBER]
    submit NODES ITEM ...        items known to these nodes; nodes as 0,2,3 or *
    cut FROM TO [MESSAGE ...]    these messages are lost from now on (all, if none is named); `mend` ends it
    down NODES                   they stop; `up NODES` starts them from their disks
    propose NODE VIEW N TO ITEM ...   NODE, lying, proposes a batch to TO alone
    falsify NODE WAY             every NEW-VIEW of NODE becomes another one, signed by it; WAY is one of FALSE_VIEWS
    die NODE MESSAGE [promised]  its process ends when it would send this: before, or behind, the promise on disk
    freeze NODES                 they no longer execute; `thaw NODES`
    install NODE                 its driver fetches the blocks that a Behind asked for
    run [MESSAGE ...]            delivers what is under way, until the next one would be of these
    time MS                      lets time pass
    refused                      what each running node has refused since the last time, by reason
    state                        one line per node; a block is shown as its items and the view of its first proposal
    heard                        messages delivered since the last time, equal ones counted
"""

from collections.abc import Iterator

from gateway.consensus import messages
from gateway.consensus.messages import NewView, ViewChange, Vote, digest_of, encode_batch
from gateway.consensus.types import Batch
from tests.consensus.network import Net, item

RULE = "----"
FALSE_VIEWS = ("wrong-order", "longer-order", "duplicate-change", "foreign-epoch", "too-few", "falling-senders")


def blocks(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """(commands, expected output) of each block; a blank line ends a block, # begins a comment."""
    for block in text.strip().split("\n\n"):
        lines = block.split("\n")
        at = lines.index(RULE)
        yield lines[:at], lines[at + 1:]


class Stage:
    """One cluster, as a script moves it."""

    def __init__(self) -> None:
        self.net: Net | None = None
        self.cuts: list[tuple[str, str, list[str]]] = []

    def play(self, lines: list[str]) -> list[str]:
        out: list[str] = []
        for line in lines:
            if line and not line.startswith("#"):
                name, *words = line.split()
                out.extend(getattr(self, "do_" + name)(*words) or [])
        return out

    def do_net(self, size: str, *settings: str) -> None:
        numbers = {name: int(value) for name, value in (word.split("=") for word in settings)}
        depth = numbers.pop("depth", 8)
        self.net = Net(int(size), depth, **numbers)
        self.net.cut = lambda sender, to, name: any(
            sender in self._ids(a) and to in self._ids(b) and (not names or name in names) for a, b, names in self.cuts)
        self.net.run()
        self.net.heard.clear()

    def do_submit(self, nodes: str, *items: str) -> None:
        for index in self._ids(nodes):
            for name in items:
                self._net.nodes[index].submit(item(name, self._net.kind))

    def do_kind(self, kind: str) -> None:
        self._net.kind = kind

    def do_cut(self, sender: str, to: str, *names: str) -> None:
        self.cuts.append((sender, to, list(names)))

    def do_mend(self) -> None:
        self.cuts.clear()

    def do_down(self, nodes: str) -> None:
        self._net.stop(*self._ids(nodes))

    def do_up(self, nodes: str) -> None:
        for index in self._ids(nodes):
            self._net.nodes[index].restart()

    def do_freeze(self, nodes: str) -> None:
        for index in self._ids(nodes):
            self._net.nodes[index].do_execute = False

    def do_thaw(self, nodes: str) -> None:
        for index in self._ids(nodes):
            self._net.nodes[index].do_execute = True
            self._net.nodes[index].work()

    def do_install(self, node: str) -> None:
        self._net.nodes[int(node)].install()

    def do_propose(self, node: str, view: str, n: str, to: str, *items: str) -> None:
        data = encode_batch(Batch("trade", int(view), self._net.now.label_ms // 1000,
                                  tuple(name.encode() for name in items)))
        vote = Vote(messages.PRE_PREPARE, int(view), int(n), digest_of(data), int(node))
        for index in self._ids(to):
            self._net.post(int(node), index, self._net.forge(int(node), vote, data))

    def do_falsify(self, node: str, way: str) -> None:
        net = self._net
        net.falsify[int(node)] = lambda honest: falsified(net, honest, way)

    def do_die(self, node: str, name: str, promised: str = "") -> None:
        self._net.nodes[int(node)].death = name, bool(promised)

    def do_run(self, *names: str) -> None:
        net = self._net
        net.run(lambda: net.queue[0][2] in names)

    def do_time(self, ms: str) -> None:
        self._net.pass_time(int(ms))

    def do_state(self) -> list[str]:
        out = []
        for node in self._net.nodes:
            replica = node.replica
            if not node.is_up:
                out.append("%d down" % node.index)
                continue
            executed = ["%s@%d" % (" ".join(leaf.decode() for leaf in batch.items) or "heartbeat", batch.view)
                        if batch else "NULL" for batch in node.ledger.batches[1:]]
            notes = node.alarms[-1:] + (["died %d" % node.crashes] if node.crashes else [])
            out.append("%d view %d %s, low %d, executed %s, certified %d%s" % (
                node.index, replica.view, "active" if replica.active else "stopped", replica.low,
                " | ".join(executed) or "nothing", len(node.certified), "".join("; " + note for note in notes)))
        return out

    def do_refused(self) -> list[str]:
        out = []
        for node in self._net.nodes:
            if node.is_up and node.replica.refused:
                out.append("%d refused %s" % (node.index, ", ".join(
                    "%s %d" % pair for pair in sorted(node.replica.refused.items()))))
                node.replica.refused.clear()
        return out

    def do_heard(self) -> list[str]:
        counts: dict[str, int] = {}
        for sender, to, name in self._net.heard:
            key = "%d>%d %s" % (sender, to, name)
            counts[key] = counts.get(key, 0) + 1
        self._net.heard.clear()
        return [key if count == 1 else "%s x%d" % (key, count) for key, count in counts.items()]

    @property
    def _net(self) -> Net:
        assert self.net is not None
        return self.net

    def _ids(self, nodes: str) -> list[int]:
        return list(range(self._net.size)) if nodes == "*" else [int(word) for word in nodes.split(",")]


def falsified(net: Net, honest: messages.Message, way: str) -> NewView:
    """A NEW-VIEW that its primary might send instead of the honest one, in one of the ways of FALSE_VIEWS."""
    assert isinstance(honest, NewView)
    changes, order = honest.view_changes, honest.pre_prepares
    if way == "wrong-order":
        first = net.opener.peek(order[0])
        assert isinstance(first, Vote)
        return honest._replace(pre_prepares=(
            net.signed(honest.sender, first._replace(digest=messages.NULL_DIGEST)), *order[1:]))
    if way == "longer-order":
        more = Vote(messages.PRE_PREPARE, honest.view, len(order) + 1, bytes(32), honest.sender)
        return honest._replace(pre_prepares=(*order, net.signed(honest.sender, more)))
    if way == "duplicate-change":
        return honest._replace(view_changes=(*changes[:-1], changes[-2]))
    if way == "too-few":
        return honest._replace(view_changes=changes[:-1])
    if way == "falling-senders":
        return honest._replace(view_changes=changes[::-1])
    assert way == "foreign-epoch", FALSE_VIEWS
    last = net.opener.peek(changes[-1])
    assert isinstance(last, ViewChange)
    return honest._replace(view_changes=(*changes[:-1], net.signed(last.sender, last, epoch=1)))
