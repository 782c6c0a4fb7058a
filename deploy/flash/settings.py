"""Makes the files of a board's file system out of an agent's folder: meter.toml, genesis, certificates, Wi-Fi.

`meter.cbor` is meter.toml's map with each table as an array of [key, value] pairs, sorted; our CBOR has no text keys.
Names of files on a board are fixed, so the keys that name them stay behind. There is no key among these files: keys are
made on the board.
"""

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from deploy.flash.errors import FlashError
from firmware import config, meters
from firmware.board import linux
from firmware.board.esp32_start import CONFIG_NAME, NETWORKS, WIFI_NAME
from firmware.wire import cbor, genesis
from firmware.wire.errors import Refused

GENESIS, CERTIFICATE, CA = "genesis.cbor", "tls.crt", "ca.crt"
WIFI = "wifi.toml"
# Keys of meter.toml that name files or sizes of a Pi: a board has its own.
OF_A_PI = ("genesis", "data", "signing_key", "tls_cert", "tls_key", "ca", "journal_kib", "keep_frames_days")
SSID_BYTES, PASSWORD_BYTES = 32, 63  # IEEE 802.11; WPA2 passphrase


class Settings(NamedTuple):
    config: config.Config
    folder: Path
    types: tuple[str, ...]  # of meters
    files: dict[str, bytes]  # name on the board: content
    is_approved: bool  # the certificate is among them


def load(path: Path) -> Settings:
    """Settings and files of a meter.toml or its folder; BadConfig or FlashError says what is missing or wrong."""
    found, folder = linux.load_config(path)
    if found.own:
        raise FlashError(f"{', '.join(sorted(found.own))}: a meter file of your own works on a Pi; a board takes "
                         "shipped types only (`gridseal meter types`)")
    path = path / linux.CONFIG_NAME if path.is_dir() else path
    files = {CONFIG_NAME: compile_config(tomllib.loads(path.read_text())), GENESIS: _genesis(folder / found.genesis)}
    if (folder / WIFI).exists():
        files[WIFI_NAME] = cbor.encode(read_wifi(folder / WIFI))
    is_approved = (folder / found.tls_cert).exists() and (folder / found.ca).exists()
    if is_approved:
        files[CERTIFICATE] = (folder / found.tls_cert).read_bytes()
        files[CA] = (folder / found.ca).read_bytes()
    types = {meter.type for bus in found.buses for meter in bus.meters}
    return Settings(found, folder, tuple(sorted(types, key=meters.TYPES.index)), files, is_approved)


def compile_config(values: dict[str, Any]) -> bytes:
    """The bytes of meter.cbor."""
    return cbor.encode(_pairs({key: value for key, value in values.items() if key not in OF_A_PI}))


def read_wifi(path: Path) -> list[list[str]]:
    """[[name, password], ...] of a wifi.toml; FlashError says what is wrong, never a password."""
    try:
        tables = tomllib.loads(path.read_text()).get("network", [])
        rows = [[table["ssid"], table.get("password", "")] for table in tables]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise FlashError(f'{path}: expected [[network]] tables with ssid = "..." and password = "..."') from error
    if not 0 < len(rows) <= NETWORKS:
        raise FlashError(f"{path}: expected 1 to {NETWORKS} networks, found {len(rows)}")
    for row in rows:
        if not all(isinstance(text, str) for text in row) or not 0 < len(row[0].encode()) <= SSID_BYTES \
                or len(row[1].encode()) > PASSWORD_BYTES:
            raise FlashError(f"{path}: network {row[0]!r}: a name has 1 to {SSID_BYTES} bytes, a password at most "
                             f"{PASSWORD_BYTES}")
    return rows


def _pairs(table: dict[str, Any]) -> list[Any]:
    return [[key, [_pairs(row) for row in value] if key in ("bus", "meter") else value]
            for key, value in sorted(table.items())]


def _genesis(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        genesis.decode(data)
    except OSError as error:
        raise FlashError(f"{path}: {error.strerror}: take the area's own with --area-folder DIR") from error
    except Refused as error:
        raise FlashError(f"{path}: no genesis ({error})") from error
    return data
