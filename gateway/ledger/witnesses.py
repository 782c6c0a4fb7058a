"""Makes answers about the light nodes' signatures under headers from a table beside the chain, and keeps them there.

They stand in no block: a signature under a header can only come after it. One for each (channel, height, kid), in that
order, so that those of one header lie together and the oldest go first.
"""

from collections.abc import Iterable
from itertools import islice

from firmware.wire import state
from gateway.ledger.blocks import Blocks

TABLE = "witnesses"
# Signatures kept: 190 bytes each, 12 MB. Twenty light nodes that sign every 15 minutes fill it in a month; proofs that
# were exported by then hold theirs.
SIGNATURES = 65_536


class Witnessed(Blocks):
    """Questions to one ledger about witnesses, and the one way to write them (a Ledger's thread only)."""

    _signatures: int | None = None  # how many are stored, once somebody had to know

    def light_nodes(self, area: str) -> int:
        """n: the enrolled, unrevoked light nodes of an area, as the state says now."""
        return state.decode_count(self.state_value(state.light_key(area)))

    def witness(self, channel: str, height: int, kid: bytes) -> bytes | None:
        """A light node's signed message for the header of a height, or None."""
        return self.store.get(TABLE, self._witness_key(channel, height) + kid)

    def witnesses_at(self, channel: str, height: int) -> list[tuple[bytes, bytes]]:
        """[(kid, signed message), ...] for the header of a height, by kid."""
        prefix = self._witness_key(channel, height)
        found = []
        for key, message in self.store.scan(TABLE, prefix):
            assert isinstance(key, bytes)
            if not key.startswith(prefix):
                break
            found.append((key[len(prefix):], message))
        return found

    def newest_witnessed(self, channel: str = "trade") -> tuple[int, list[bytes]]:
        """The newest height that any light node has signed, and the kids of those who have; (0, []) without one."""
        last = self._witness_key(channel, 0xFFFFFFFF) + b"\xff" * 8
        for key, _ in self.store.scan(TABLE, last, is_backwards=True):
            assert isinstance(key, bytes)
            if key[0] == last[0]:
                height = int.from_bytes(key[1:5], "big")
                return height, [kid for kid, _ in self.witnesses_at(channel, height)]
            break
        return 0, []

    def witness_counts(self, area: str, channel: str = "trade", from_s: int = 0) -> list[dict[str, int]]:
        """[{"k", "n", "height", "time_s"}, ...] of the signed headers not older than `from_s`, the newest first. k and
        n are what `verify header` counts: light nodes that were enrolled and not revoked in that block's own state."""
        found: list[dict[str, int]] = []
        counts: dict[int, set[bytes]] = {}
        first, last = self._witness_key(channel, 0), self._witness_key(channel, 0xFFFFFFFF) + b"\xff" * 8
        records = [(kid, record) for kid, record in self.agents() if record.role == "agent" and record.area == area]
        for key, _ in self.store.scan(TABLE, last, is_backwards=True):
            assert isinstance(key, bytes)
            if key < first:
                break
            height = int.from_bytes(key[1:5], "big")
            if height not in counts:
                header = self.header(channel, height)
                time_s = int.from_bytes(header[68:72], "big") if header else 0
                if time_s < from_s:
                    break
                living = {kid for kid, record in records if record.enrolled_height <= height
                          and (record.revoked_height is None or record.revoked_height > height)}
                counts[height] = living
                found.append({"k": 0, "n": len(living), "height": height, "time_s": time_s})
            found[-1]["k"] += key[5:] in counts[height]
        return found

    def best_witnessed(self, area: str, channel: str = "trade", from_s: int = 0) -> dict[str, int]:
        """{"k", "n", "height"} of the newest header not older than `from_s` that all light nodes have signed, else of
        the one that most have; zeros without one."""
        signed = [found for found in self.witness_counts(area, channel, from_s) if found["k"]]
        best = max(signed, default={"k": 0, "n": 0, "height": 0},
                   key=lambda found: (found["k"] == found["n"], found["k"], found["height"]))
        return {name: best[name] for name in ("k", "n", "height")}

    def put_witnesses(self, signatures: Iterable[tuple[str, int, bytes, bytes]]) -> None:
        """Makes (channel, height, kid, signed message) durable, in one fsync; the oldest beyond SIGNATURES go."""
        fresh = {}
        for channel, height, kid, message in signatures:
            key = self._witness_key(channel, height) + kid
            if self.store.get(TABLE, key) is None:
                fresh[key] = message
        if not fresh:
            return
        if self._signatures is None:
            self._signatures = sum(1 for _ in self.store.scan(TABLE))
        count = self._signatures + len(fresh)
        with self.store.writing():
            self.store.put_all(TABLE, fresh.items())
            if count > SIGNATURES:
                for oldest in [key for key, _ in islice(self.store.scan(TABLE), count - SIGNATURES)]:
                    self.store.delete(TABLE, oldest)
        self._signatures = min(count, SIGNATURES)

    def _witness_key(self, channel: str, height: int) -> bytes:
        return bytes((self._channel(channel),)) + height.to_bytes(4, "big")
