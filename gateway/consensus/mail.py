"""Makes signed messages from values past the guard, and values from signed messages: checked once, remembered."""

from collections import OrderedDict
from functools import lru_cache

from firmware.wire import cbor
from firmware.wire.errors import Refused, check
from firmware.wire.shape import check_fields
from gateway.consensus import messages
from gateway.consensus.guard import Guard, header_payload
from gateway.consensus.keys import parse
from gateway.consensus.messages import Message
from gateway.consensus.types import Head, Keys, Settings

# Votes come back inside VIEW-CHANGEs, many times over: L x (q - 1) of them at n = 13 are 1,024 a view, and four views
# of them in 512 bytes at most are 2 MiB.
KNOWN_MESSAGES = 4096
# Small messages only: a batch is asked for once, a VIEW-CHANGE is kept by its owner.
KNOWN_BYTES = messages.VOTE_BYTES


@lru_cache(maxsize=32)  # the votes for one block have one payload, and blocks come several at a time
def decode_header_vote(payload: bytes) -> tuple[int, Head]:
    """(epoch, head) of a HEADER-VOTE; raises Refused `malformed`."""
    fields = cbor.decode(payload)
    check_fields(fields, ("u", "t", "u", "b32"))
    return fields[0], Head(*fields[1:])


class Mail:
    """One replica's signing and opening."""

    def __init__(self, settings: Settings, keys: Keys, guard: Guard):
        self.guard = guard
        self._epoch = settings.epoch
        self._size = len(settings.members)
        self._members = {bytes(member.kid): index for index, member in enumerate(settings.members)}
        self._keys = keys
        self._known: OrderedDict[bytes, Message] = OrderedDict()
        self._peeked: tuple[bytes, Message | None] = (b"", None)

    def sign(self, message: Message) -> bytes:
        """The signed message; raises WouldContradict."""
        payload = messages.encode(message, self._epoch)
        self.guard.admit(message, payload)
        signed = self._keys.sign("pbft", payload)
        self._remember(signed, message)
        return signed

    def sign_header(self, head: Head) -> bytes:
        self.guard.admit_header(head)
        return self._keys.sign("header", header_payload(self._epoch, head))

    def peek(self, signed: bytes) -> Message:
        """What a message says, its signature not yet checked: enough to drop it for less."""
        known = self._known.get(signed)
        if known is not None:
            return known
        message = messages.decode(parse(signed).payload, self._epoch, self._size)
        self._peeked = (signed, message)
        return message

    def open(self, signed: bytes) -> Message:
        """What a member says; raises Refused."""
        known = self._known.get(signed)
        if known is not None:
            return known
        sender, payload = self._keys.open("pbft", signed)
        bytes_seen, seen = self._peeked
        message = seen if seen and bytes_seen is signed else messages.decode(payload, self._epoch, self._size)
        if message.sender != sender:
            raise Refused("wrong_key", sender, message.sender)
        self._remember(signed, message)
        return message

    def peek_header(self, signed: bytes) -> tuple[Head, int, bytes]:
        """(what a header vote says, the member that it names, the signature), not yet checked; raises Refused."""
        parsed = parse(signed)
        epoch, head = decode_header_vote(parsed.payload)
        check(epoch == self._epoch, "wrong_epoch", self._epoch, epoch)
        member = self._members.get(parsed.kid)
        if member is None:
            raise Refused("unknown_signer", None, parsed.kid)
        return head, member, parsed.signature

    def check_header(self, signed: bytes) -> None:
        """Raises Refused unless the member that a header vote names signed it."""
        self._keys.open("header", signed)

    def recall(self, signed: bytes) -> Message:
        """An own message out of the votes log: trusted, and told to the guard."""
        parsed = parse(signed)
        message = messages.decode(parsed.payload, self._epoch, self._size)
        self.guard.observe(message, parsed.payload)
        return message

    def _remember(self, signed: bytes, message: Message) -> None:
        if len(signed) > KNOWN_BYTES:
            return
        if len(self._known) >= KNOWN_MESSAGES:
            self._known.popitem(last=False)
        self._known[signed] = message
