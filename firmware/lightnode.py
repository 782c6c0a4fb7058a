"""Makes trust in a block header from its certificate (pbft.md 3.12), holding no more than the newest header.

A header is accepted when q distinct members of the epoch's set signed exactly it, it links to the trusted one where
they touch, and its time is possible. Heights may be skipped: the certificate alone carries the weight, and hash links
cover what lies between. Two valid certificates for one height mean that more than f members lied: the node stops for
good and keeps both. Anything else that is wrong is Refused and changes nothing.

Epochs: certificates are those of the set of one epoch. A handover (wire/epochs.py), signed by that set, names the next
one; the word of the old one counts from then on for heights up to the handover's only, since acks may come late.

Witness: of each witness interval (label time) the node signs one header it has checked, the first that comes. What it
is about to sign is noted here and saved before the signature is made, so that after a crash it is the same header
again; heights only rise, so no height is ever signed twice.
"""

from firmware.wire import cbor, header
from firmware.wire.errors import Refused, check

VERSION = 3  # of a saved state, which trust.py reads
AHEAD_S = 10  # a header's time may lie so far in the future, or the chain's own time_ahead_s if that is more
RECENT = 4  # headers kept with their certificates, to show both sides of a contradiction
SAVED = 2  # of these in a saved state, besides the one signed last: it has to fit into one piece of a board's RAM


class LightNode:
    """Trust on one channel of the chain that `genesis_bytes` begins; `state`: what `save` returned before, or None.

    verify_digest(public key 65, digest 32, signature 64) -> bool. `contradiction`: None, or the two (header,
    certificate) pairs that cannot both be honest. `witnessed`: the (header, certificate) signed last, or about to be
    signed; None while there was none.
    """

    def __init__(self, genesis_bytes, verify_digest, state=None, channel="trade"):
        from firmware import trust  # used once: a board drops it then

        facts = trust.read_genesis(genesis_bytes, channel)
        self.chain_id = facts.chain_id
        self.channel = channel
        self.parameters = facts.parameters  # those of trust.PARAMETERS
        self.speed = facts.speed
        self.epoch = 0  # of the set in force, `keys` and `tls_hashes` (32 bytes each, in one) in its order
        self.keys = facts.keys
        self.tls_hashes = facts.tls_hashes
        self.since = 0  # the height whose block handed over to it, and the keys of the epoch before
        self.old_keys = None
        self.contradiction = None
        self.witnessed = None
        self._silent_s = 0  # headers of before are not signed
        self.verify_digest = verify_digest
        self._ahead_s = max(AHEAD_S, facts.parameters["time_ahead_s"])
        self._recent = [(facts.header, b"")]  # rising heights, the newest last
        if state is not None:
            saved = trust.decode_trust(state)
            check(saved.chain_id == self.chain_id, "wrong_chain", self.chain_id, saved.chain_id)
            check(saved.channel == channel, "wrong_channel", channel, saved.channel)
            self._recent = saved.recent
            if saved.epoch:
                self.epoch, self.keys, self.tls_hashes = saved.epoch, saved.keys, saved.tls_hashes
                self.since, self.old_keys = saved.since, saved.old_keys
            self.contradiction = saved.contradiction
            self._silent_s = saved.silent_s
            self.witnessed = saved.witnessed
        self.is_changed = False

    @property
    def height(self):
        return header.decode(self._recent[-1][0]).height

    def accept(self, header_bytes, certificate_bytes, now_s):
        """Returns the Header of 80 proven bytes; now_s: Unix seconds, or None while the clock is not synchronised.

        Refused with the certificate's reasons, `wrong_parent`, `wrong_time` or `contradiction`.
        """
        from firmware.wire import voting  # a board drops it between two headers

        check(self.contradiction is None, "contradiction", None, "stopped")
        found = header.decode(header_bytes)
        keys, epoch = self.keys, self.epoch
        if self.old_keys is not None and found.height <= self.since:
            keys, epoch = self.old_keys, epoch - 1
        voting.check_votes(voting.decode(certificate_bytes), header_bytes, keys, epoch, self.channel, self.chain_id,
                           self.verify_digest)
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

    def follow(self, handover_bytes, now_s):
        """Goes on to the set of validators that a handover of the present one names.

        Refused with the handover's reasons (wire/epochs.py), `wrong_channel` when it is not of our channel, and those
        of `accept`, by which its header goes.
        """
        from firmware import handover

        handover.follow(self, handover_bytes, now_s)

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
                       cbor.encode([self.epoch, self.since, self.keys, self.tls_hashes, self.old_keys]
                                   if self.epoch else None)]
        _put_pairs(parts, self._recent[-SAVED:] if self.contradiction is None else self._recent[-1:])
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
