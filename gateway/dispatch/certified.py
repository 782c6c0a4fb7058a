"""Makes a view of what is certified from the state's records: digests in force, older ones, and their owners' names."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from firmware.wire import device as codec
from gateway.dispatch import records

Get = Callable[[bytes], bytes | None]  # the value of a key of the state


class Known(NamedTuple):
    """What is in force for a device. Of each of the three items: the digest, and older ones."""

    model: str
    digests: tuple[bytes, bytes, bytes]
    old: tuple[list[bytes], list[bytes], list[bytes]]


class Certified:
    """The certified versions of one state; see `edition`."""

    def __init__(self, get: Get):
        self._get = get
        self.registry = records.decode_registry(get(records.REGISTRY_KEY))

    @property
    def edition(self) -> int:
        return self.registry.edition

    def known(self, device: str) -> Known | None:
        """What is in force for a device, or None: nothing was certified for it, or not by all."""
        settings = self.settings(device)
        model = self.model(settings.model) if settings is not None else None
        if settings is None or model is None:
            return None
        old_software, old_strategy = _old_pairs(model)
        return Known(settings.model, (model.software, model.strategy, settings.settings),
                     (old_software, old_strategy, settings.old))

    def model(self, model: str) -> records.ModelRecord | None:
        data = self._get(records.model_key(model))
        return None if data is None else records.decode_model(data)

    def settings(self, device: str) -> records.SettingsRecord | None:
        data = self._get(records.settings_key(device))
        return None if data is None else records.decode_settings(data)

    def version(self, certify_hash: bytes) -> records.VersionRecord | None:
        data = self._get(records.version_key(certify_hash))
        return None if data is None else records.decode_version(data)

    def report_of(self, device: str) -> records.DeviceRecord | None:
        """The record of what was reported of a device."""
        data = self._get(records.device_key(device))
        return None if data is None else records.decode_device(data)

    def other_models(self, model: str) -> Iterator[tuple[str, list[bytes], list[bytes]]]:
        """(model, software digests, strategy digests) of every other model."""
        for name in self.registry.models:
            found = self.model(name) if name != model else None
            if found is not None:
                old_software, old_strategy = _old_pairs(found)
                yield name, [found.software, *old_software], [found.strategy, *old_strategy]

    def other_devices(self, device: str) -> Iterator[tuple[str, str, list[bytes]]]:
        """(device, its model, settings digests) of every other device."""
        for name in self.registry.devices:
            found = self.settings(name) if name != device else None
            if found is not None:
                yield name, found.model, [found.settings, *found.old]

    def pending(self, model: str, device: str) -> list[bytes]:
        """Digests of versions for this device or model that are not endorsed by all."""
        found = [self.version(one) for one in self.registry.pending]
        return [digest for one in found if one is not None and one.model == model and one.device in (None, device)
                for digest in (one.software, one.strategy, one.settings) if digest is not None]


def outcome_of(known: Known | None, device: str, digests: list[bytes | None] | None, identity: list[str] | None,
               has_extra: bool) -> tuple[str, str | None]:
    """(outcome, item) that follows from what a device holds: the same here, on chain, and for whoever checks later.

    The first of these that holds: no bytes at all; nothing in force for the device; it says that it is another; a
    digest that was never certified; a file too much; a digest of an older version; all is as certified.
    """
    if digests is None or identity is None:
        return codec.NO_DATA, None
    if known is None:
        return codec.UNKNOWN_DEVICE, None
    for item, said, due in (("serial", identity[1], device), ("model", identity[0], known.model)):
        if said != due:
            return codec.UNKNOWN_DEVICE, item
    for role in (codec.SOFTWARE, codec.STRATEGY, codec.SETTINGS):
        digest = digests[role - 1]
        if digest != known.digests[role - 1] and digest not in known.old[role - 1]:
            return codec.MISMATCH, codec.ITEMS[role]
    if has_extra:
        return codec.MISMATCH, "files"
    for role in (codec.SOFTWARE, codec.STRATEGY, codec.SETTINGS):
        if digests[role - 1] != known.digests[role - 1]:
            return codec.NOT_CURRENT, codec.ITEMS[role]
    return codec.MATCH, None


def _old_pairs(model: records.ModelRecord) -> tuple[list[bytes], list[bytes]]:
    """Older digests of software and of strategy; one that is in force again under a newer version is not old."""
    software = [bytes(row[0]) for row in model.old if row[0] != model.software]
    strategy = [bytes(row[1]) for row in model.old if row[1] != model.strategy]
    return software, strategy


def named_by(certified: Certified) -> set[bytes]:
    """Hashes of the files and the evidence that the state names: what a bounded shelf gives up last."""
    named: set[bytes] = set()
    for model in certified.registry.models:
        found = certified.model(model)
        if found is not None:
            named.update((found.software, found.strategy, *(digest for row in found.old for digest in row[:2])))
    for device in certified.registry.devices:
        settings, report = certified.settings(device), certified.report_of(device)
        if settings is not None:
            named.update((settings.settings, *settings.old))
        if report is not None:
            named.update((report.evidence, *(row[6] for row in report.changes)))
    for one in certified.registry.pending:
        version = certified.version(one)
        if version is not None:
            named.update(digest for digest in (version.software, version.strategy, version.settings) if digest)
    return named
