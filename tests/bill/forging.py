"""Makes forged bills from a good one: by whoever holds the file, and by a whole cluster that signs what is not so.

A cluster's forgery changes records of the state and has all replicas sign the block over it: every signature and hash
of the file is right then, and only the recomputed amounts are not.
"""

from collections.abc import Callable
from typing import Any

from firmware.wire import cbor, header, merkle, state
from gateway.market import bill as codec
from gateway.market.bill import Bill
from tests.bill.month import Month
from tests.ledger.world import key

AFTER, BLOCKS, BORDERS, CHAINS = 7, 8, 9, 10


def fields_of(month: Month) -> list:
    """The file as lists that can be changed."""
    return list(cbor.decode(month.bill))


def pack(fields: list) -> bytes:
    return cbor.encode(fields)


def records_of(fields: list, part: int = AFTER) -> dict[bytes, Any]:
    """Every record that the file shows of a state, decoded."""
    return {pair[0]: cbor.decode(pair[1]) for row in fields[part][5] for pair in row[1]}


def by_cluster(month: Month, change: Callable[[dict[bytes, Any]], None], part: int = AFTER) -> bytes:
    """The bill over a state in which `change` has altered records (a dict by key), certified by the real replicas."""
    fields = fields_of(month)
    found = records_of(fields, part)
    change(found)
    proven = fields[part]
    leaves = bytearray(proven[4])
    buckets: dict[int, dict[bytes, bytes]] = {row[0]: {} for row in proven[5]}
    for name, value in found.items():
        buckets.setdefault(state.bucket_of(name), {})[name] = cbor.encode(value)
    proven[5] = []
    for index in sorted(buckets):
        rows = [list(pair) for pair in sorted(buckets[index].items())]
        proven[5].append([index, rows])
        leaves[32 * index:32 * index + 32] = merkle.leaf_hash(state.bucket_digest([tuple(row) for row in rows]))
    proven[4] = bytes(leaves)
    hashes = [proven[4][at:at + 32] for at in range(0, len(leaves), 32)]
    meta = header.decode_meta(proven[2])._replace(count=0, results_hash=header.results_hash([]),
                                                  state_root=merkle.root_of_hashes(hashes))
    proven[2], proven[3] = header.encode_meta(meta), []
    proven[0] = header.encode(header.decode(proven[0])._replace(root=merkle.root([proven[2]])))
    proven[1] = month.area.certificate(proven[0])
    return pack(fields)


def entry_of(found: dict[bytes, Any], month: Month, kind: int, at: int = 0) -> list:
    """The at-th entry of a kind of the bill's account."""
    start = b"entry/" + month.account
    return [found[name] for name in sorted(found) if name.startswith(start) and found[name][1] == kind][at]


def account_of(found: dict[bytes, Any], month: Month) -> list:
    record: list = found[b"account/" + month.account]
    return record


def resigned(month: Month, message: bytes, name: str) -> bytes:
    """A seal with the same payload, signed by another key under the same kid."""
    from firmware.wire import cose
    signed = cose.parse(message)
    return cose.sign1(signed.payload, signed.kid, "seal", month.area.chain_id, key(name).signer.sign_digest)


def read(data: bytes) -> Bill:
    return codec.decode(data)
