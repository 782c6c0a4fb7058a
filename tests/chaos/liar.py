"""Runs a replica that lies with its own real key and certificate: `python -m tests.chaos.liar FOLDER --lies LIE,...`.

Inside is an honest replica; what it says is changed on the way out, signed again with the member's real keys, past the
sign-guard that would have refused it.

    split     a proposal says one thing to some and another to the rest
    votes     PREPAREs and COMMITs for digests that nobody proposed, beside the honest ones
    headers   another header hash for some
    silence   three of ten messages reach nobody
    replay    whatever was said before by itself is said again, to anybody
    garbage   bytes that mean nothing, under every kind of frame
    slow      every proposal is held back for nine tenths of the timeout
"""

import argparse
import asyncio
import random
import signal
import sys
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from deploy.clock import open_clock
from firmware.crypto.openssl import OpenSSLSigner, verify_digest
from firmware.wire import cbor, genesis
from gateway import node, transport
from gateway.config import load_gateway
from gateway.consensus import messages
from gateway.consensus.keys import CoseKeys, parse

LIES = ("split", "votes", "headers", "silence", "replay", "garbage", "slow")
SLOW = 0.9
OFTEN, SELDOM = 0.5, 0.05


class Mouth:
    """Takes the place of Transport's ways out."""

    def __init__(self, keys: CoseKeys, index: int, size: int, timeout_s: float, lies: list[str], seed: int) -> None:
        self._keys, self._index, self._lies, self._delay_s = keys, index, lies, SLOW * timeout_s
        self._others = [other for other in range(size) if other != index]
        self._chance = random.Random(seed)
        self._said: deque[tuple[int, bytes]] = deque(maxlen=500)

    def twist(self, to: int | None, kind: int, body: object) -> list[tuple[int, int, object]]:
        """[(peer, kind, body), ...] in place of one message."""
        out: list[tuple[int, int, object]] = []
        for peer in self._others if to is None else [to]:
            if "silence" in self._lies and self._chance.random() < 0.3:
                continue
            other = self._other(body) if kind == transport.CONSENSUS and isinstance(body, bytes) else None
            out.append((peer, kind, other if other is not None and self._chance.random() < OFTEN else body))
        if kind == transport.CONSENSUS and isinstance(body, bytes):
            self._said.append((kind, body))
            out += self._noise(body)
        return out

    def delay_of(self, kind: int, body: object) -> float:
        is_proposal = kind == transport.CONSENSUS and isinstance(body, bytes) and body[:1] == b"b"
        return self._delay_s if is_proposal and "slow" in self._lies else 0

    def _other(self, frame: bytes) -> bytes | None:
        """Another message for the same place, or None."""
        if frame[:1] == b"b" and "split" in self._lies:
            signed, batch = cbor.decode(frame[1:])
            fields = cbor.decode(_payload(signed))
            channel, view, time_s, items = cbor.decode(batch)
            items = items[:-1] if items and self._chance.random() < OFTEN else items[::-1]
            made = cbor.encode([channel, view, time_s, items])
            fields[4] = messages.digest_of(made)
            return messages.frame(self._keys.sign("pbft", cbor.encode(fields)), made)
        if frame[:1] == b"h" and "headers" in self._lies:
            fields = cbor.decode(_payload(frame[1:]))
            fields[3] = self._chance.randbytes(32)
            return b"h" + self._keys.sign("header", cbor.encode(fields))
        return None

    def _noise(self, frame: bytes) -> list[tuple[int, int, object]]:
        chance, out = self._chance, list[tuple[int, int, object]]()
        peer = chance.choice(self._others)
        if "votes" in self._lies and frame[:1] == b"p":
            fields = cbor.decode(_payload(frame[1:]))
            if fields[0] in (messages.PREPARE, messages.COMMIT):
                fields[4] = chance.randbytes(32)
                out.append((peer, transport.CONSENSUS, messages.frame(self._keys.sign("pbft", cbor.encode(fields)))))
        if "replay" in self._lies and self._said and chance.random() < OFTEN:
            out.append((peer, *chance.choice(self._said)))
        if "garbage" in self._lies and chance.random() < SELDOM:
            out.append((peer, chance.randrange(20), chance.randbytes(chance.randrange(400))))
        return out


def _payload(signed: bytes) -> bytes:
    return parse(signed).payload


def corrupt(mouth: Mouth) -> None:
    """From now on every Transport of this process speaks through the mouth."""
    honest = transport.Transport.send_all

    def send_all(self: transport.Transport, kind: int, bodies: Iterable[tuple[int | None, object]]) -> None:
        for to, body in bodies:
            for peer, as_kind, said in mouth.twist(to, kind, body):
                delay_s = mouth.delay_of(as_kind, said)
                if delay_s:
                    asyncio.get_running_loop().call_later(delay_s, honest, self, as_kind, [(peer, said)])
                else:
                    honest(self, as_kind, [(peer, said)])

    def send(self: transport.Transport, to: int | None, kind: int, body: object) -> None:
        send_all(self, kind, [(to, body)])

    transport.Transport.send_all = send_all  # type: ignore[method-assign]
    transport.Transport.send = send  # type: ignore[method-assign]


async def run(folder: Path, clock: str | None, lies: list[str], seed: int) -> None:
    config = load_gateway(folder)
    data = config.genesis.read_bytes()
    facts = genesis.decode(data)
    signer = OpenSSLSigner.load(config.signing_key)
    index = next(at for at, member in enumerate(facts.members) if member.public_key == signer.public_key())
    keys = CoseKeys(signer, facts.members, genesis.chain_id(data), verify_digest)
    corrupt(Mouth(keys, index, len(facts.members), facts.parameters["timeout_ms"] / 1000, lies, seed))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await node.run(config, open_clock(clock), stop)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.chaos.liar", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lies", default=",".join(LIES[:-1]))
    parser.add_argument("--clock")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    lies = args.lies.split(",")
    if not set(lies) <= set(LIES):
        parser.error(f"lies are {', '.join(LIES)}")
    asyncio.run(run(args.folder, args.clock, lies, args.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
