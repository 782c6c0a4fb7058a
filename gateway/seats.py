"""Makes out, from ledger, votes file and key, in which epoch a replica lives, and whether as a member or an observer.

The votes file says which epoch it is of. An epoch that is proven to be over is left for good: what its promises were is
forgotten, because no message of it counts any more. Whoever has no seat in the present one follows as an observer, and
whoever is offered one finds its address and its request in `peers.json` beside its configuration (deploy/joining.py):

    {"<kid>": {"address": "host:port", "request": "<hex>", "instead": "<kid>" or null}, ...}

A member that finds a request there of somebody who has no seat, is connected and level with it, sends its will.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from firmware.crypto.openssl import verify_digest
from firmware.wire import validators
from firmware.wire.certificate import Member
from firmware.wire.errors import Refused
from gateway.boots import RolledBack
from gateway.consensus import durable
from gateway.ledger.ledger import Ledger
from gateway.ledger.votes import VoteLog

logger = logging.getLogger("gridseal.seats")

PEERS = "peers.json"
OFFERS = 64  # in one file: as many replicas as an area may have


class Seat(NamedTuple):
    """Where a replica lives. index: None for an observer, which then comes behind all members in the mesh."""

    epoch: int
    members: list[Member]
    index: int | None  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    records: list[bytes]  # of the votes file

    @property
    def place(self) -> int:
        """The own number among the peers."""
        return len(self.members) if self.index is None else self.index


class Offer(NamedTuple):
    """A seat that an operator offers: who asks for it, where it is reached, whose it shall be."""

    member: Member
    address: str
    request: bytes
    instead: bytes | None


def take_seat(ledger: Ledger, votes: VoteLog, public_key: bytes, data: Path) -> Seat:
    """Enters the newest epoch that may be entered; the votes file is then of it. RolledBack where promises are lost."""
    records = votes.load()
    epoch = durable.epoch_of(records)
    if not records and ledger.stand().n and _index_in(ledger.members_of(epoch), public_key) is not None:
        raise RolledBack(data, "a votes file that holds what was promised", "an empty one")
    begun = epoch
    while epoch + 1 < len(ledger.epochs) and ledger.epochs[epoch + 1].proof:
        epoch += 1
    if epoch != begun:
        records = [durable.epoch(epoch)]
        votes.replace(records)
    members = ledger.members_of(epoch)
    return Seat(epoch, members, _index_in(members, public_key), records)


def _index_in(members: Sequence[Member], public_key: bytes) -> int | None:
    found = [index for index, member in enumerate(members) if member.public_key == public_key]
    return found[0] if found else None


def read_peers(home: Path) -> dict[str, Any]:
    """What stands in the file; nothing where there is none, or it is not ours."""
    try:
        found = json.loads((home / PEERS).read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.error("%s cannot be read: %s", home / PEERS, error)
        return {}
    if not isinstance(found, dict) or len(found) > OFFERS or not all(isinstance(one, dict) for one in found.values()):
        logger.error("%s holds no peers", home / PEERS)
        return {}
    return found


def addresses_of(peers: Mapping[str, Any]) -> dict[bytes, str]:
    """Addresses by kid."""
    return {bytes.fromhex(kid): one["address"] for kid, one in peers.items() if one.get("address")}


def offers_of(peers: Mapping[str, Any], chain_id: bytes) -> list[Offer]:
    """The seats that are offered, with good requests only."""
    found = []
    for kid, one in peers.items():
        if not one.get("request"):
            continue
        try:
            request = bytes.fromhex(one["request"])
            member = validators.check_request(request, chain_id, verify_digest)
            instead = bytes.fromhex(one["instead"]) if one.get("instead") else None
            if member.kid.hex() != kid:
                raise Refused("wrong_key", kid, member.kid)
        except (Refused, ValueError) as error:
            logger.error("the request of %s is not taken: %s", kid, error)
            continue
        found.append(Offer(member, one["address"], request, instead))
    return found


def next_set(members: Sequence[Member], offer: Offer) -> list[Member] | None:
    """The set with an offered seat taken; None where there is nothing to do any more."""
    if offer.member.kid in [member.kid for member in members]:
        return None
    if offer.instead is not None and offer.instead not in [member.kid for member in members]:
        return None
    staying = [member for member in members if member.kid != offer.instead]
    return sorted([*staying, offer.member], key=lambda member: member.kid)
