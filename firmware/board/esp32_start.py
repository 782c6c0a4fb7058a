"""Makes what an ESP32's agent is started with out of the files of its file system; loaded once, then dropped."""

import os

from firmware import config
from firmware.board.micro import exists, read_file, replace_file
from firmware.board.micro_link import parse_url
from firmware.crypto.signer import generate
from firmware.wire import cbor
from firmware.wire.errors import Refused

CONFIG_NAME = "meter.cbor"
KEY_NAME = "key.bin"
WIFI_NAME = "wifi.cbor"
NETWORKS = 8
TABLES = ("bus", "meter")  # arrays of tables; every other value stands as it is


def load_config(folder):
    """Returns the Config of meter.cbor: meter.toml as pairs [key, value], by `gridseal flash`. BadConfig."""
    path = folder + "/" + CONFIG_NAME
    try:
        settings = config.load(_table(cbor.decode(read_file(path))))
    except OSError:
        raise config.BadConfig(path, "cannot be read")
    except (Refused, ValueError, TypeError, IndexError):
        raise config.BadConfig(path, "is not what gridseal flash writes")
    for url in settings.brokers:
        try:
            parse_url(url, settings.plain_mqtt)
        except ValueError as error:
            raise config.BadConfig("brokers", "%s: %s" % (url, error))
    return settings


def networks(folder):
    """Returns [[ssid, password], ...] of wifi.cbor; none where there is no such file."""
    path = folder + "/" + WIFI_NAME
    if not exists(path):
        return []
    try:
        rows = cbor.decode(read_file(path))
        return [(ssid, password) for ssid, password in rows if isinstance(ssid, str) and isinstance(password, str)][
            :NETWORKS]
    except (Refused, ValueError, TypeError):
        raise config.BadConfig(path, "expected [[name, password], ...]")


def key(folder, nic):
    """Returns the signing key's 32 bytes, made here on the first start. nic: the radio, whose noise feeds the ESP32's
    random numbers; without it they are only pseudo-random, so it is switched on first."""
    path = folder + "/" + KEY_NAME
    if exists(path):
        return read_file(path)
    nic.active(True)
    made = generate(os.urandom)
    replace_file(path, made)
    return made


def _table(rows):
    found = {}
    for name, value in rows:
        if name in found:
            raise ValueError(name)
        found[name] = [_table(row) for row in value] if name in TABLES else value
    return found
