"""Makes records from their bytes faster than decoding them again: the same few are read for every seal.

A memo of a pure function changes no result: bytes decode alike whenever they are decoded. Records are never changed
in place (their makers use `_replace`).
"""

from functools import lru_cache

from firmware.wire import state
from firmware.wire.state import AgentRecord, ChainRecord, PointRecord

RECORDS = 8192  # twice the points that one gateway is planned for; some 600 bytes each

_chains: dict[bytes, ChainRecord] = {}


@lru_cache(RECORDS)
def decode_agent(data: bytes) -> AgentRecord:
    return state.decode_agent(data)


@lru_cache(RECORDS)
def decode_point(data: bytes) -> PointRecord:
    return state.decode_point(data)


def decode_chain(data: bytes) -> ChainRecord:
    """As state.decode_chain; a record that was encoded here is known without decoding it."""
    record = _chains.get(data)
    return state.decode_chain(data) if record is None else record


def encode_chain(record: ChainRecord) -> bytes:
    data = state.encode_record(record)
    if len(_chains) >= RECORDS:
        _chains.clear()
    _chains[data] = record
    return data
