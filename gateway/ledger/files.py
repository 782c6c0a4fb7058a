"""Makes a shelf of byte strings by their SHA-256 from what devices and laboratories gave, beside the chain; bounded.

On it lie the evidence of device reports (the bytes that were pulled) and certified files (the preimages of their
digests). What is here already is not written again: ten thousand equal polls are one record. When it is full, the
oldest goes that the state does not name.
"""

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable

from gateway.ledger.store import Store

TABLE = "files"
BYTES = 64 * 1024 * 1024  # a thousand times what one device with its twin holds
_SERIAL = struct.Struct(">Q")  # before each record: the order in which they came


class Files:
    """The shelf of one ledger; only the ledger's thread uses it, but `in`, which any may."""

    def __init__(self, store: Store, is_named: Callable[[], Collection[bytes]]):
        """is_named(): the hashes that the state names; they go last."""
        self._store, self._is_named = store, is_named
        found = sorted((_SERIAL.unpack_from(data)[0], key, len(data) - _SERIAL.size)
                       for key, data in store.scan(TABLE) if isinstance(key, bytes))
        self._sizes: OrderedDict[bytes, int] = OrderedDict((key, size) for _, key, size in found)
        self._serial = found[-1][0] if found else 0
        self._bytes = sum(self._sizes.values())

    def __contains__(self, name: object) -> bool:
        return name in self._sizes

    def __len__(self) -> int:
        return len(self._sizes)

    def get(self, name: bytes) -> bytes | None:
        """The bytes of that hash, or None."""
        return read(self._store, name)

    def put(self, datas: Iterable[bytes]) -> list[bytes]:
        """Keeps these, durable; returns their hashes."""
        by_name = {hashlib.sha256(data).digest(): data for data in datas}
        fresh = {name: data for name, data in by_name.items() if name not in self._sizes}
        if fresh:
            with self._store.writing():
                for name, data in fresh.items():
                    self._serial += 1
                    self._store.put(TABLE, name, _SERIAL.pack(self._serial) + data)
                    self._sizes[name] = len(data)
                    self._bytes += len(data)
                if self._bytes > BYTES:
                    self._make_room(set(fresh))
        return list(by_name)

    def _make_room(self, fresh: Collection[bytes]) -> None:
        named = self._is_named()
        oldest = [name for name in self._sizes if name not in fresh]
        for name in [*(one for one in oldest if one not in named), *(one for one in oldest if one in named)]:
            if self._bytes <= BYTES:
                return
            self._store.delete(TABLE, name)
            self._bytes -= self._sizes.pop(name)


def read(store: Store, name: bytes) -> bytes | None:
    """The bytes of that hash by any connection to the ledger's tables, or None."""
    data = store.get(TABLE, name)
    return None if data is None else data[_SERIAL.size:]
