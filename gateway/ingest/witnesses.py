"""Makes counted witnesses (k of n) from the light nodes' signatures under headers of ours; pure.

Theory. A light node signs one header in a witness interval, the first that the gateways show. What arrives is checked
like everything else, cheapest first, and compared with our own block of that height: the same header is a witness; a
block that is not here yet is waited for; another header, rightly signed, is evidence. Either the cluster has shown two
groups of meters two headers for one height, or this meter's key lies: it is kept, and said aloud. One signature per
(height, kid): what comes again is passed over.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from firmware.wire import cbor, cose, witness
from firmware.wire.errors import Refused, check
from firmware.wire.state import AgentRecord, is_light
from gateway.ingest.answers import Count
from gateway.ingest.checker import Domain
from gateway.ingest.verify import VerifyDigest, check_agent

HEADERS = 16  # of ours, looked up for a signature and kept: all light nodes sign the same one
# Foreign headers that are kept: eight of one agent show what it was shown, more show nothing new. 256 x 190 bytes.
EVIDENCE, EVIDENCE_OF_ONE = 256, 8


class Signature(NamedTuple):
    """A light node's signature under a header of ours; message: its COSE bytes, s low."""

    channel: str
    height: int
    kid: bytes
    message: bytes


class Witnesses:
    """header_at(height): ours, or None; is_known(height, kid): stored already; light_nodes(): the area's n;
    keep_evidence(message, text): a header that is not ours."""

    def __init__(self, domain: Domain, agent_of: Callable[[bytes], AgentRecord | None],
                 header_at: Callable[[int], bytes | None], is_known: Callable[[int, bytes], bool],
                 light_nodes: Callable[[], int], verify_digest: VerifyDigest,
                 keep_evidence: Callable[[bytes, str], None]):
        self._domain, self._agent_of, self._verify_digest = domain, agent_of, verify_digest
        self._header_at, self._is_known, self._light_nodes = header_at, is_known, light_nodes
        self._keep_evidence = keep_evidence
        self._headers: OrderedDict[int, bytes] = OrderedDict()
        self._held: dict[bytes, tuple[witness.Witness, bytes]] = {}  # by kid: their block is not here yet
        self._news: dict[tuple[int, bytes], Signature] = {}  # checked, to be stored
        self._interval: int | None = None  # of the newest block
        self._signed_interval = -1  # the newest in which a header was signed, and by whom which height
        self._kids: dict[int, set[bytes]] = {}
        self.evidence: list[bytes] = []
        self.repeated = 0
        self.early = 0

    def begin(self, height: int, kids: list[bytes], evidence: bytes) -> None:
        """Takes up what is stored: the newest height that has signatures, whose they are, and the evidence file."""
        self._note(height, kids)
        self.evidence = decode_evidence(evidence)

    def take(self, kid: bytes, data: bytes) -> None:
        """A message from the `witness` topic of `kid`. In this order: `not_enrolled`, `revoked`, `wrong_area`,
        `not_permitted`, `oversize`, `malformed`, `wrong_height`, `wrong_key`, `wrong_topic`, `wrong_channel`,
        `bad_signature`, `wrong_header`. A header of before its enrolment counts for nothing and is no fault: the newest
        one of an interval is shown to whoever comes in the middle of it."""
        agent = check_agent(self._agent_of(kid), kid, self._domain.area)
        check(is_light(agent), "not_permitted", "agent", agent.role)
        signed, found = witness.read(data)
        check(signed.kid == kid, "wrong_topic", kid, signed.kid)
        check(found.channel == self._domain.channels[0], "wrong_channel", self._domain.channels[0], found.channel)
        ours = self._ours(found.height)
        if ours == found.header and found.height < agent.enrolled_height:
            self.early += 1
            return
        if ours == found.header and ((found.height, kid) in self._news or self._is_known(found.height, kid)):
            self.repeated += 1
            return
        cose.check(signed, "witness", self._domain.chain_id, agent.public_key, self._verify_digest)
        message = cose.normalise(data)
        if ours is None:
            self._held[kid] = (found, message)
        else:
            self._compare(found, message, ours)

    def is_candidate(self, height: int, header: bytes) -> bool:
        """A block was executed here, in order of heights: is it the first of its witness interval? Light nodes sign the
        first header of an interval that they are shown, so this one is shown to all of them."""
        if not self._domain.parameters["witness_interval_s"]:
            return False
        if self._interval is None and height > 1:
            before = self._ours(height - 1)
            self._interval = self._interval_of(before) if before else None
        last, self._interval = self._interval, self._interval_of(header)
        return last is None or self._interval > last

    def executed(self, height: int, header: bytes) -> list[tuple[bytes, Refused]]:
        """The same block: what was held for it is looked at again. Returns what of whom is refused now."""
        self._keep(height, header)
        refused = []
        for kid, (found, message) in list(self._held.items()):
            ours = self._ours(found.height) if found.height <= height else None
            if ours is not None:
                del self._held[kid]
                try:
                    self._compare(found, message, ours)
                except Refused as refusal:
                    refused.append((kid, refusal))
        return refused

    def has_news(self) -> bool:
        """Is there something to store?"""
        return bool(self._news)

    def fetch(self) -> list[Signature]:
        """What is to be stored now; `stored` when it is."""
        return list(self._news.values())

    def stored(self, signatures: list[Signature]) -> None:
        """These are durable, and count."""
        for found in signatures:
            self._news.pop((found.height, found.kid), None)
            self._note(found.height, [found.kid])

    def count(self) -> Count:
        """How many of the light nodes of now have signed the same header, in the newest interval that any signed in.
        A light node that came in the middle of it was shown a later header than the others, and signed that."""
        found = [Count(height, sum(map(self._is_light, kids)), 0) for height, kids in self._kids.items()]
        best = max(found, key=lambda count: (count.k, count.height), default=Count(0, 0, 0))
        return best._replace(n=self._light_nodes())

    def _note(self, height: int, kids: list[bytes]) -> None:
        header = self._ours(height) if height else None
        if header is None:
            return
        interval = self._interval_of(header)
        if interval > self._signed_interval:
            self._signed_interval, self._kids = interval, {}
        if interval == self._signed_interval:
            self._kids.setdefault(height, set()).update(kids)

    def _interval_of(self, header: bytes) -> int:
        return time_of(header) // max(1, self._domain.parameters["witness_interval_s"])

    def _is_light(self, kid: bytes) -> bool:
        agent = self._agent_of(kid)
        return agent is not None and is_light(agent)

    def _compare(self, found: witness.Witness, message: bytes, ours: bytes) -> None:
        if found.header != ours:
            mine = [one for one in self.evidence if cose.parse(one).kid == found.kid]
            if message not in mine and len(mine) < EVIDENCE_OF_ONE and len(self.evidence) < EVIDENCE:
                self.evidence.append(message)
                self._keep_evidence(message, f"light node {found.kid.hex()} has signed a header of height "
                                    f"{found.height} that is not ours: replicas have signed two truths, or its key "
                                    "lies; the message is kept (gridseal audit)")
            raise Refused("wrong_header", ours, found.header)
        self._news[found.height, found.kid] = Signature(found.channel, found.height, found.kid, message)

    def _ours(self, height: int) -> bytes | None:
        header = self._headers.get(height)
        if header is None and (header := self._header_at(height)) is not None:
            self._keep(height, header)
        return header

    def _keep(self, height: int, header: bytes) -> None:
        self._headers[height] = header
        if len(self._headers) > HEADERS:
            self._headers.popitem(last=False)


def time_of(header: bytes) -> int:
    """The time in a header of 80 bytes, Unix seconds."""
    return int.from_bytes(header[68:72], "big")


def decode_evidence(data: bytes) -> list[bytes]:
    """The messages of an evidence file, one CBOR byte string after another; what a power cut left half written at its
    end is none."""
    found: list[bytes] = []
    at = 0
    while at < len(data) and len(found) < EVIDENCE:
        try:
            message, at = cbor.decode_from(data, at)
            witness.read(message)
        except (Refused, TypeError):
            break
        found.append(message)
    return found


def encode_evidence(message: bytes) -> bytes:
    """One record of the evidence file."""
    return cbor.encode(message)
