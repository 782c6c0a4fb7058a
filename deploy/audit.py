"""`gridseal audit A B`: finds from two parties' files whether the replicas have signed two truths; offline.

A file is what anybody holds: a header file, a proof or seal file, an agent's trust.cbor, a header message as it was on
the broker, or a replica's witness-evidence.cbor. Each is checked as what it is; then all certified headers and witness
signatures in them are laid side by side. Exit 0 nothing found, 1 a contradiction (both sides shown, and who signed
both), 2 unreadable: a file that does not hold proves nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from deploy.verify import read_bounded, time_text
from firmware.crypto.openssl import verify_digest
from firmware.trust import decode_trust
from firmware.wire import certificate, cose, genesis, header, headerfile, proof, state, transaction, witness
from firmware.wire.errors import Refused, check
from gateway.ingest.witnesses import decode_evidence

FILE_BYTES = max(headerfile.FILE_BYTES, proof.PROOF_BYTES)
OF_ANOTHER_KIND = ("malformed", "wrong_version", "too_deep", "oversize")  # says a decoder of files not its own


class Claim(NamedTuple):
    """Somebody has signed a header: members of the set (kids) with a certificate, or one light node as a witness."""

    channel: str
    header: bytes
    members: tuple[bytes, ...]
    light_node: bytes | None
    file: str


class Side(NamedTuple):
    """One of the headers that cannot all be honest, and everybody who signed it."""

    header: bytes
    members: list[bytes]
    light_nodes: list[bytes]
    files: list[str]


class Contradiction(NamedTuple):
    """Two headers of one height, or (height: the upper one's) two neighbours that do not belong together.

    members, light_nodes: who has signed more than one of them."""

    kind: str
    channel: str
    height: int
    sides: list[Side]
    members: list[bytes]
    light_nodes: list[bytes]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("audit", help="compare two parties' files: do the replicas contradict themselves?",
                                 description=__doc__,
                                 epilog="example: gridseal audit my.header neighbour/data/trust.cbor "
                                 "--trust genesis.cbor")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="two or more")
    parser.add_argument("--trust", type=Path, required=True, metavar="GENESIS", help="the genesis file you trust")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Reads and compares; returns the exit code."""
    if len(args.files) < 2:
        raise ValueError("an audit compares two files or more")
    name = str(args.trust)
    try:
        genesis_bytes = read_bounded(args.trust, genesis.GENESIS_BYTES)
        files = Files(genesis_bytes)
        for path in args.files:
            name = str(path)
            files.take(name, read_bounded(path, FILE_BYTES))
        claims = files.claims()
    except (OSError, Refused) as error:
        reason = error.reason if isinstance(error, Refused) else "unreadable"
        print(json.dumps({"verdict": "unreadable", "file": name, "reason": reason}) if args.json
              else f"unreadable: {name}: {error}", file=sys.stdout if args.json else sys.stderr)
        return 2
    found = compare(claims)
    print(json.dumps(_values(found, files, claims)) if args.json else "\n".join(_lines(found, files, claims)))
    return 1 if found else 0


class Files:
    """Everything signed that the files hold, once each file has been checked under the trusted genesis."""

    def __init__(self, genesis_bytes: bytes):
        self._genesis = genesis_bytes
        self.chain = genesis.decode(genesis_bytes)
        self.chain_id = genesis.chain_id(genesis_bytes)
        self.unchecked = 0  # witness messages whose light node is in none of the files
        self._claims: list[Claim] = []
        self._loose: list[tuple[str, bytes]] = []  # witness messages without a proof of their key beside them
        self._keys = dict(self._first_keys())

    def take(self, name: str, data: bytes) -> None:
        """Checks one file, whichever of the kinds it is; Refused with the reason when it does not hold."""
        for decode, read in self._kinds():
            try:
                found = decode(data)
            except Refused as refused:
                if refused.reason in OF_ANOTHER_KIND:
                    continue
                raise
            if found:
                read(name, data, found)
                return
        raise Refused("malformed", "a file of ours", None)

    def claims(self) -> list[Claim]:
        """All that is signed, loose witness messages with the keys that the files have brought."""
        found = list(self._claims)
        self.unchecked = 0
        for name, message in self._loose:
            signed, fields = witness.read(message)
            public_key = self._keys.get(signed.kid)
            if public_key is None:
                self.unchecked += 1
                continue
            cose.check(signed, "witness", self.chain_id, public_key, verify_digest)
            found.append(Claim(fields.channel, fields.header, (), signed.kid, name))
        return found

    def _kinds(self) -> list[tuple[Callable[[bytes], Any], Callable[[str, bytes, Any], None]]]:
        return [(headerfile.decode, self._header_file), (proof.decode, self._proof), (decode_trust, self._trust),
                (witness.decode_header_message, self._message), (decode_evidence, self._evidence)]

    def _header_file(self, name: str, data: bytes, found: headerfile.HeaderFile) -> None:
        headerfile.check_file(data, self._genesis, verify_digest)
        self._certified(name, found.header, found.certificate)
        self._witnesses(name, found.witnessing)

    def _proof(self, name: str, data: bytes, found: proof.Proof) -> None:
        proof.check_proof(data, self._genesis, verify_digest)
        self._certified(name, found.header, found.certificate)
        if found.witnesses:
            self._witnesses(name, found.witnesses)

    def _trust(self, name: str, data: bytes, found: Any) -> None:
        check(found.chain_id == self.chain_id, "wrong_chain", self.chain_id, found.chain_id)
        zero = genesis.header_zero(self._genesis, found.channel)
        pairs = [*found.recent, *(found.contradiction or ()), *([found.witnessed] if found.witnessed else [])]
        for pair in pairs:
            if pair[0] != zero:
                self._certified(name, *pair)

    def _message(self, name: str, data: bytes, found: witness.HeaderMessage) -> None:
        self._certified(name, found.header, found.certificate)

    def _evidence(self, name: str, data: bytes, found: list[bytes]) -> None:
        self._loose += [(name, message) for message in found]

    def _certified(self, name: str, header_bytes: bytes, certificate_bytes: bytes) -> None:
        voted = certificate.decode(certificate_bytes)
        check(voted.channel in self.chain.channels, "wrong_channel", self.chain.channels, voted.channel)
        certificate.check_certificate(voted, header_bytes, self.chain.members, 0, voted.channel, self.chain_id,
                                      verify_digest)
        kids = tuple(self.chain.members[index].kid for index in voted.signers)
        self._claims.append(Claim(voted.channel, header_bytes, kids, None, name))

    def _witnesses(self, name: str, found: headerfile.Witnessing) -> None:
        """Of a file that was checked: signatures hold, and the keys are proven under its header."""
        for row in found.signatures:
            signed, fields = witness.read(row.message)
            self._claims.append(Claim(fields.channel, fields.header, (), signed.kid, name))
            for key, value in row.bucket:
                if key == state.agent_key(signed.kid):
                    self._keys.setdefault(signed.kid, state.decode_agent(value).public_key)

    def _first_keys(self) -> Iterator[tuple[bytes, bytes]]:
        for row in self.chain.enrolments:
            request = transaction.decode_enrol_body(row).request
            kid, wanted = transaction.decode_enrolment(request, cose.NO_CHAIN, verify_digest)
            yield kid, wanted.public_key


def compare(claims: Iterable[Claim]) -> list[Contradiction]:
    """What cannot all be honest: two headers for one height, or a header that links to another one below than ours."""
    places: dict[tuple[str, int], dict[bytes, Side]] = {}
    for claim in claims:
        place = places.setdefault((claim.channel, witness.height_of(claim.header)), {})
        side = place.setdefault(claim.header, Side(claim.header, [], [], []))
        side.members.extend(kid for kid in claim.members if kid not in side.members)
        if claim.light_node is not None and claim.light_node not in side.light_nodes:
            side.light_nodes.append(claim.light_node)
        if claim.file not in side.files:
            side.files.append(claim.file)
    found = []
    for (channel, height), by_header in sorted(places.items()):
        sides = list(by_header.values())
        if len(sides) > 1:
            certified = sum(1 for side in sides if side.members)
            found.append(_contradiction("two certificates" if certified > 1 else "a witness of another header",
                                        channel, height, sides))
        for upper in sides:
            for below in places.get((channel, height - 1), {}).values():
                if header.decode(upper.header).previous != header.hash_of(below.header):
                    found.append(_contradiction("a broken link", channel, height, [below, upper]))
    return found


def _contradiction(kind: str, channel: str, height: int, sides: list[Side]) -> Contradiction:
    return Contradiction(kind, channel, height, sides, _in_several([side.members for side in sides]),
                         _in_several([side.light_nodes for side in sides]))


def _in_several(groups: list[list[bytes]]) -> list[bytes]:
    everybody = sorted({kid for group in groups for kid in group})
    return [kid for kid in everybody if sum(kid in group for group in groups) > 1]


def _values(found: list[Contradiction], files: Files, claims: list[Claim]) -> dict[str, Any]:
    return {"verdict": "contradiction" if found else "nothing found", **_counts(files, claims),
            "contradictions": [{
                "kind": one.kind, "channel": one.channel, "height": one.height,
                "members_of_both": [kid.hex() for kid in one.members],
                "light_nodes_of_both": [kid.hex() for kid in one.light_nodes],
                "headers": [{
                    "header": side.header.hex(), "hash": header.hash_of(side.header).hex(), "files": side.files,
                    "height": witness.height_of(side.header), "time_s": header.decode(side.header).time_s,
                    "members": [kid.hex() for kid in side.members],
                    "light_nodes": [kid.hex() for kid in side.light_nodes]} for side in one.sides]} for one in found]}


def _counts(files: Files, claims: list[Claim]) -> dict[str, int]:
    holders: dict[tuple[str, int], set[str]] = {}
    for claim in claims:
        holders.setdefault((claim.channel, witness.height_of(claim.header)), set()).add(claim.file)
    return {"headers": len({(claim.channel, claim.header) for claim in claims}),
            "in_common": sum(1 for names in holders.values() if len(names) > 1), "unchecked_witnesses": files.unchecked}


def _lines(found: list[Contradiction], files: Files, claims: list[Claim]) -> list[str]:
    lines = []
    for one in found:
        lines.append(f"CONTRADICTION ({one.kind}) on channel {one.channel}, height {one.height}:")
        for side in one.sides:
            top = header.decode(side.header)
            lines += [f"  header {header.hash_of(side.header).hex()}, height {top.height}, "
                      f"{time_text(top.time_s * 1000)}, root {top.root.hex()}",
                      f"    in {', '.join(side.files)}",
                      f"    certified by {', '.join(kid.hex() for kid in side.members) or 'nobody here'}",
                      f"    co-signed by {', '.join(kid.hex() for kid in side.light_nodes) or 'no light node here'}"]
        lines.append(f"  members that signed both: {', '.join(kid.hex() for kid in one.members) or 'none'}")
        if one.light_nodes:
            lines.append(f"  light nodes that signed both: {', '.join(kid.hex() for kid in one.light_nodes)}")
    counts = _counts(files, claims)
    if not found:
        lines.append("nothing found")
    lines.append(f"{counts['headers']} headers, {counts['in_common']} heights in more than one file")
    if counts["unchecked_witnesses"]:
        lines.append(f"{counts['unchecked_witnesses']} witness signatures of light nodes whose keys are in none of "
                     "these files: not counted; add a header file that has them")
    return lines
