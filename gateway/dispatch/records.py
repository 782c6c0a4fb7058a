"""Makes the bytes of the devices' part of the replicated state: keys and records; and reads them strictly.

What is certified is numbered by editions: each certify or endorse transaction that takes effect makes the next one. An
edition names everything that a judgement depends on, so two replicas at the same edition judge the same bytes alike.
Times in Unix seconds, heights of blocks; kinds, items and outcomes are those of firmware/wire/device.py.
"""

from typing import Any, NamedTuple

from firmware.wire import cbor
from firmware.wire.shape import check_fields, check_list

REGISTRY_KEY = b"devices"
MODELS, DEVICES, PENDING = 64, 256, 64  # of one area: a plant has some ten of such devices, of two or three models
OLD = 16  # older certified digests that are still recognised, newest first
CHANGES = 32  # of a device's findings, newest last; the whole history is in the blocks


class Registry(NamedTuple):
    """What there is: models certified, devices certified or reported, hashes of versions not in force yet."""

    edition: int
    models: list[str]
    devices: list[str]
    pending: list[bytes]


class VersionRecord(NamedTuple):
    """A certify body and who stands behind it; in force when nobody is missing."""

    model: str
    version: str
    device: str | None
    software: bytes
    strategy: bytes
    settings: bytes | None
    laboratory: bytes
    certified_height: int
    manufacturer: bytes | None
    regulator: bytes | None
    in_force_height: int | None


class ModelRecord(NamedTuple):
    """The software and strategy in force for a model. old: [[software, strategy, version], ...]."""

    software: bytes
    strategy: bytes
    version: str
    since_height: int
    old: list[list[Any]]


class SettingsRecord(NamedTuple):
    """The settings in force for a device. old: digests."""

    model: str
    settings: bytes
    version: str
    since_height: int
    old: list[bytes]


class DeviceRecord(NamedTuple):
    """What the newest report said, and since when. alarm_height: of the block that raised the alarm that stands.
    changes: [[height, time_s, outcome, kind, item, offset, evidence], ...], one each time that something changed."""

    outcome: str
    kind: str | None
    item: str | None
    offset: int | None
    since_s: int
    since_height: int
    reports: int
    alarm_height: int | None
    time_s: int
    height: int
    reporter: bytes
    evidence: bytes
    interval_s: int
    changes: list[list[Any]]


EMPTY = Registry(0, [], [], [])
_VERSION_KINDS = ("t", "t", "t?", "b32", "b32", "b32?", "b8", "u", "b8?", "b8?", "u?")
_MODEL_KINDS = ("b32", "b32", "t", "u", "l")
_SETTINGS_KINDS = ("t", "b32", "t", "u", "l")
_DEVICE_KINDS = ("t", "t?", "t?", "u?", "u", "u", "u", "u?", "u", "u", "b8", "b32", "u", "l")
_CHANGE_KINDS = ("u", "u", "t", "t?", "t?", "u?", "b32")


def version_key(certify_hash: bytes) -> bytes:
    return b"device-version/" + certify_hash


def model_key(model: str) -> bytes:
    return b"device-model/" + model.encode()


def settings_key(device: str) -> bytes:
    return b"device-settings/" + device.encode()


def device_key(device: str) -> bytes:
    return b"device/" + device.encode()


def encode(record: tuple[object, ...]) -> bytes:
    """The bytes of any record above."""
    return cbor.encode(list(record))


def decode_registry(data: bytes | None) -> Registry:
    """Of no bytes: the empty one."""
    if data is None:
        return EMPTY
    fields = cbor.decode(data)
    check_fields(fields, ("u", "l", "l", "l"))
    check_list(fields[1], "t")
    check_list(fields[2], "t")
    check_list(fields[3], "b32")
    return Registry(*fields)


def decode_version(data: bytes) -> VersionRecord:
    fields = cbor.decode(data)
    check_fields(fields, _VERSION_KINDS)
    return VersionRecord(*fields)


def decode_model(data: bytes) -> ModelRecord:
    fields = cbor.decode(data)
    check_fields(fields, _MODEL_KINDS)
    for row in fields[4]:
        check_fields(row, ("b32", "b32", "t"))
    return ModelRecord(*fields)


def decode_settings(data: bytes) -> SettingsRecord:
    fields = cbor.decode(data)
    check_fields(fields, _SETTINGS_KINDS)
    check_list(fields[4], "b32")
    return SettingsRecord(*fields)


def decode_device(data: bytes) -> DeviceRecord:
    fields = cbor.decode(data)
    check_fields(fields, _DEVICE_KINDS)
    for row in fields[13]:
        check_fields(row, _CHANGE_KINDS)
    return DeviceRecord(*fields)
