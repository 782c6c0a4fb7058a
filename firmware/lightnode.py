"""Makes trust in a block header from its certificate (pbft.md 3.12), holding no more than the newest header.

A header is accepted when q distinct members of the epoch's set signed exactly it, it links to the trusted one where
they touch, and its time is possible. Heights may be skipped: the certificate alone carries the weight, and hash links
cover what lies between. Two valid certificates for one height mean that more than f members lied: the node stops for
good and keeps both. Anything else that is wrong is Refused and changes nothing.

Witness: of each witness interval (label time) the node signs one header it has checked, the first that comes. What it
is about to sign is noted here and saved before the signature is made, so that after a crash it is the same header
again; heights only rise, so no height is ever signed twice.
"""

from collections import namedtuple

from firmware.wire import cbor, header
from firmware.wire.errors import Refused, check
from firmware.wire.shape import check_fields

VERSION = 2
AHEAD_S = 10  # a header's time may lie so far in the future, or the chain's own time_ahead_s if that is more
RECENT = 4  # headers kept with their certificates, to show both sides of a contradiction
SAVED = 2  # of these in a saved state, besides the one signed last: it has to fit into one piece of a board's RAM

Trust = namedtuple("Trust", ("chain_id", "channel", "epoch", "recent", "contradiction", "silent_s", "witnessed"))


class LightNode:
    """Trust on one channel of the chain that `genesis_bytes` begins; `state`: what `save` returned before, or None.

    verify_digest(public key 65, digest 32, signature 64) -> bool. `contradiction`: None, or the two (header,
    certificate) pairs that cannot both be honest. `witnessed`: the (header, certificate) signed last, or about to be
    signed; None while there was none.
    """

    def __init__(self, genesis_bytes, verify_digest, state=None, channel="trade"):
        from firmware.wire import genesis  # used once: a board drops it then

        facts = genesis.decode(genesis_bytes)
        self.chain_id = genesis.chain_id(genesis_bytes)
        self.channel = channel
        self.parameters = facts.parameters
        self.speed = facts.speed
        self.epoch = 0
        self.contradiction = None
        self.witnessed = None
        self._silent_s = 0  # headers of before are not signed
        self._members = facts.members
        self._verify_digest = verify_digest
        self._ahead_s = max(AHEAD_S, facts.parameters["time_ahead_s"])
        zero = genesis.header_zero(genesis_bytes, channel)
        self._recent = [(zero, b"")]  # rising heights, the newest last
        if state is not None:
            self._load(state)
        self.is_changed = False

    @property
    def height(self):
        return header.decode(self._recent[-1][0]).height

    def accept(self, header_bytes, certificate_bytes, now_s):
        """Returns the Header of 80 proven bytes; now_s: Unix seconds, or None while the clock is not synchronised.

        Refused with the certificate's reasons, `wrong_parent`, `wrong_time` or `contradiction`.
        """
        from firmware.wire import certificate  # a board drops it between two headers

        check(self.contradiction is None, "contradiction", None, "stopped")
        found = header.decode(header_bytes)
        proof = certificate.decode(certificate_bytes)
        certificate.check_certificate(proof, header_bytes, self._members, self.epoch, self.channel, self.chain_id,
                                      self._verify_digest)
        pair = self.pair_at(found.height)
        if pair is not None:
            if pair[0] != bytes(header_bytes):
                if pair[1]:
                    self.contradiction = (pair, (bytes(header_bytes), bytes(certificate_bytes)))
                    self.is_changed = True
                raise Refused("contradiction", pair[0], bytes(header_bytes))
            return found
        below = above = None
        for pair in self._recent:
            known = header.decode(pair[0])
            if known.height < found.height:
                below = (pair[0], known)
            elif above is None:
                above = (pair[0], known)
        self._check_place(header_bytes, found, below, above)
        if now_s is not None:
            check(found.time_s <= now_s + self._ahead_s, "wrong_time", now_s + self._ahead_s, found.time_s)
        if above is None:
            self._recent.append((bytes(header_bytes), bytes(certificate_bytes)))
            del_count = len(self._recent) - RECENT
            if del_count > 0:
                self._recent = self._recent[del_count:]
            self.is_changed = True
        return found

    def pair_at(self, height):
        """Returns the (header, certificate) accepted for a height, if it is still at hand; else None."""
        pairs = self._recent if self.witnessed is None else self._recent + [self.witnessed]
        for pair in pairs:
            if header.decode(pair[0]).height == height:
                return pair
        return None

    def may_witness(self, header_bytes):
        """Tells whether 80 bytes, once `accept` has taken them, are of a later witness interval than the last signed.

        Never after a contradiction; never at or below the height signed last.
        """
        interval_s = self.parameters["witness_interval_s"]
        if self.contradiction is not None or not interval_s:
            return False
        found = header.decode(header_bytes)
        if not found.height or found.time_s < self._silent_s:
            return False
        if self.witnessed is None:
            return True
        last = header.decode(self.witnessed[0])
        return found.time_s // interval_s > last.time_s // interval_s and found.height > last.height

    def note_witness(self, header_bytes, certificate_bytes):
        """Notes that this accepted header is going to be signed: to be saved before it is. ValueError: may not be."""
        if not self.may_witness(header_bytes):
            raise ValueError("this header is not to be witnessed")
        self.witnessed = (bytes(header_bytes), bytes(certificate_bytes))
        self.is_changed = True

    def keep_silent(self, until_s):
        """Signs no header of before `until_s`: where the saved trust was lost, one of them may have been signed."""
        self._silent_s = until_s
        self.is_changed = True

    def save(self):
        """Returns the bytes to keep over a restart."""
        self.is_changed = False
        parts: list = [cbor.head(4, 8), cbor.encode(VERSION), cbor.encode(self.chain_id), cbor.encode(self.channel),
                       cbor.encode(self.epoch)]
        _put_pairs(parts, self._recent[-SAVED:])
        _put_pairs(parts, self.contradiction)
        parts.append(cbor.encode(self._silent_s))
        if self.witnessed is None:
            parts.append(cbor.encode(None))
        else:
            _put_pair(parts, self.witnessed)
        return b"".join(parts)  # once: a buffer that grows and its copy would want two such pieces

    def _check_place(self, header_bytes, found, below, above):
        """A header between known ones must link where it touches them, and time never falls."""
        if below is not None:
            check(found.time_s >= below[1].time_s, "wrong_time", below[1].time_s, found.time_s)
            if below[1].height + 1 == found.height:
                check(found.previous == header.hash_of(below[0]), "wrong_parent", below[0], found.previous)
        if above is not None:
            check(found.time_s <= above[1].time_s, "wrong_time", above[1].time_s, found.time_s)
            if found.height + 1 == above[1].height:
                check(above[1].previous == header.hash_of(header_bytes), "wrong_parent", above[1].previous, found)

    def _load(self, state):
        trust = decode_trust(state)
        check(trust.chain_id == self.chain_id, "wrong_chain", self.chain_id, trust.chain_id)
        check(trust.channel == self.channel, "wrong_channel", self.channel, trust.channel)
        self._recent = trust.recent
        self.epoch = trust.epoch
        self.contradiction = trust.contradiction
        self._silent_s = trust.silent_s
        self.witnessed = trust.witnessed


def decode_trust(state):
    """Returns the Trust of what `save` gave; pairs are (header, certificate). Refused `malformed`, `wrong_version`."""
    fields = cbor.decode(state)
    check_fields(fields, ("u", "b32", "t", "u", "l", "l?", "u", "l?"))
    check(fields[0] == VERSION, "wrong_version", VERSION, fields[0])
    check(0 < len(fields[4]) <= RECENT, "malformed", RECENT, len(fields[4]))
    contradiction = None
    if fields[5] is not None:
        check(len(fields[5]) == 2, "malformed", 2, len(fields[5]))
        contradiction = (_pair(fields[5][0]), _pair(fields[5][1]))
    witnessed = None if fields[7] is None else _pair(fields[7])
    recent = [_pair(row) for row in fields[4]]
    return Trust(fields[1], fields[2], fields[3], recent, contradiction, fields[6], witnessed)


def _put_pairs(parts, pairs):
    if pairs is None:
        parts.append(cbor.encode(None))
        return
    parts.append(cbor.head(4, len(pairs)))
    for pair in pairs:
        _put_pair(parts, pair)


def _put_pair(parts, pair):
    parts.append(cbor.head(4, 2))
    for data in pair:
        parts.append(cbor.head(2, len(data)))
        parts.append(data)


def _pair(row):
    check_fields(row, ("b80", "b"))
    return (row[0], row[1])
