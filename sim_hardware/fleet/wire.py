"""Makes the bytes that a meter agent sends: CBOR, COSE_Sign1, SenML readings, Merkle roots, seals, enrolments.

Written a second time from the RFCs and gridseal's formats (8949 4.2.1, 9052, 8428, 9162 2.1), so that a mistake in the
agent's own code cannot hide in a load test; tests hold one against the other. `cryptography` signs.
"""

import hashlib
from collections.abc import Sequence

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
SYNCHRONISED, UNSYNCHRONISED, HEIGHTS_LOST, LATE = 2, 0, 16, 64
_PREHASHED = ec.ECDSA(utils.Prehashed(hashes.SHA256()))

Item = None | bool | int | str | bytes | Sequence["Item"] | dict[int, "Item"]


def cbor(item: Item) -> bytes:
    """Deterministic CBOR: shortest heads, map keys in the order of their bytes."""
    if item is None or isinstance(item, bool):
        return {None: b"\xf6", True: b"\xf5", False: b"\xf4"}[item]
    if isinstance(item, int):
        return _head(0, item) if item >= 0 else _head(1, -1 - item)
    if isinstance(item, str):
        data = item.encode()
        return _head(3, len(data)) + data
    if isinstance(item, bytes):
        return _head(2, len(item)) + item
    if isinstance(item, dict):
        rows = sorted((cbor(key), cbor(value)) for key, value in item.items())
        return _head(5, len(rows)) + b"".join(key + value for key, value in rows)
    return _head(4, len(item)) + b"".join(cbor(part) for part in item)


def _head(major: int, value: int) -> bytes:
    if value < 24:
        return bytes((major << 5 | value,))
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if value < 1 << 8 * size:
            return bytes((major << 5 | code,)) + value.to_bytes(size, "big")
    raise ValueError(f"{value} does not fit 64 bits")


class Key:
    """A signing key made from 32 bytes; whoever knows these can sign: for trials only."""

    def __init__(self, secret: bytes) -> None:
        scalar = int.from_bytes(secret, "big") % (ORDER - 1) + 1
        self._key = ec.derive_private_key(scalar, ec.SECP256R1())
        point = self._key.public_key().public_bytes(serialization.Encoding.X962,
                                                    serialization.PublicFormat.UncompressedPoint)
        self.cose_key = cbor({1: 2, -1: 1, -2: point[1:33], -3: point[33:]})
        self.kid = hashlib.sha256(self.cose_key).digest()[:8]

    def sign(self, digest: bytes, is_high: bool = False) -> bytes:
        """r || s with s <= n/2; is_high: the other of the two, which nobody may send."""
        r, s = utils.decode_dss_signature(self._key.sign(digest, _PREHASHED))
        if (s > ORDER // 2) is not is_high:
            s = ORDER - s
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def sign1(self, payload: bytes, kind: str, chain_id: bytes, is_high: bool = False) -> bytes:
        """A COSE_Sign1 of that kind for that chain (RFC 9052, 4.2 and 4.4)."""
        structure = cbor(["Signature1", b"\xa1\x01\x26", cbor(["gridseal", 1, chain_id, kind]), payload])
        signature = self.sign(hashlib.sha256(structure).digest(), is_high)
        return b"\xd2\x84\x43\xa1\x01\x26\xa1\x04" + cbor(self.kid) + cbor(payload) + cbor(signature)


def reading(kid: bytes, point: int, time_ms: int, values: Sequence[tuple[str, str, int]], quality: int,
            raw: bytes) -> bytes:
    """One SenML pack; values: (name, unit, integer)."""
    seconds, milliseconds = divmod(time_ms, 1000)
    rows: list[Item] = [{-1: 26, -2: f"urn:dev:os:32473-{kid.hex()}:{point}:", -3: seconds, 0: "ms", 1: "ms",
                         2: milliseconds}]
    rows += [{0: name, 1: unit, 2: value} for name, unit, value in values]
    rows += [{0: "quality", 2: quality}, {0: "raw", 8: raw}]
    return cbor(rows)


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 9162's tree hash, by its own recursion."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + merkle_root(leaves[:split]) + merkle_root(leaves[split:])).digest()


def seal(kid: bytes, point: int, height: int, lost: int, previous: bytes, readings: Sequence[bytes],
         times_ms: tuple[int, int], registers_wh: tuple[int, int], flags: int, measurement: bytes) -> bytes:
    """A seal's payload."""
    return cbor([1, kid, point, 1, height, lost, previous, merkle_root(readings), len(readings), *times_ms,
                 *registers_wh, 1, flags, measurement, hashlib.sha256(b"a fleet's configuration").digest()])


def envelope(message: bytes, readings: Sequence[bytes]) -> bytes:
    return cbor([message, list(readings)])


def enrolment(key: Key, tls_hash: bytes, area: str, chain_id: bytes) -> bytes:
    """What a new key signs to be enrolled as an agent."""
    return key.sign1(cbor([key.cose_key, tls_hash, "agent", area, "simulated fleet", "software"]), "enrol", chain_id)


def topic(area: str, kid: bytes, kind: str) -> str:
    return f"gridseal/1/{area}/{kid.hex()}/{kind}"
