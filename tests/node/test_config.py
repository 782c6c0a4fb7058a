"""Checks that a mistake in a TOML file is told with file, line, key, what was expected and the nearest known key."""

import pytest

from gateway import config

GOOD = """\
# one replica
genesis = "../genesis.cbor"
area = "north"
peers = [
    "127.0.0.1:7001",  # own
    "127.0.0.1:7002",
]
brokers = ["mqtts://broker.example:8883"]
ca = "../ca/ca.crt"
"""


def write(tmp_path, source):
    path = tmp_path / "gateway.toml"
    path.write_bytes(source if isinstance(source, bytes) else source.encode())
    return path


def test_good_file_is_taken_with_defaults_and_absolute_paths(tmp_path):
    loaded = config.load_gateway(write(tmp_path, GOOD))
    assert loaded.genesis == tmp_path.resolve().parent / "genesis.cbor"
    assert loaded.data == tmp_path.resolve() / "data"
    assert loaded.peers == ("127.0.0.1:7001", "127.0.0.1:7002")
    assert loaded.ack_interval_s == 10
    assert config.load_gateway(tmp_path) == loaded  # the folder names its file


@pytest.mark.parametrize(("change", "line", "key", "expected", "nearest"), [
    (("area =", "aera ="), 3, "aera", "a known key", "area"),
    (('area = "north"', ""), 0, "area", "a name of lower-case", ""),
    (('"north"', '"north/#"'), 3, "area", "a name of lower-case", ""),
    (('"127.0.0.1:7002"', '"127.0.0.1:70020"'), 4, "peers", "a list of addresses", ""),
    (("mqtts://broker.example", "mqtt://broker.example"), 8, "brokers", "a list of brokers", ""),
    (("mqtts://broker.example", "https://broker.example"), 8, "brokers", "a list of brokers", ""),
    (('ca = "../ca/ca.crt"', 'ca = "../ca/ca.crt"\nack_interval_s = 0'), 10, "ack_interval_s",
     "a whole number from 1 to 3600", ""),
    (('ca = "../ca/ca.crt"', 'ca = "../ca/ca.crt"\nack_interval_s = true'), 10, "ack_interval_s",
     "a whole number from 1 to 3600", ""),
    (('ca = "../ca/ca.crt"', "ca = 7"), 9, "ca", "the file of the area's CA certificate", ""),
    (('ca = "../ca/ca.crt"', 'ca = "../ca/ca.crt'), 9, "", "TOML", ""),
    (('ca = "../ca/ca.crt"', 'ca = "../ca/ca.crt"\n[broker]\nurl = "x"'), 10, "broker", "a known key", "brokers"),
])
def test_mistakes_are_told(tmp_path, change, line, key, expected, nearest):
    assert change[0] in GOOD
    path = write(tmp_path, GOOD.replace(*change))
    with pytest.raises(config.ConfigError) as caught:
        config.load_gateway(path)
    error = caught.value
    assert (error.file, error.line, error.key, error.nearest) == (path, line, key, nearest), str(error)
    assert error.expected.startswith(expected)
    assert str(error).startswith(f"{path}:{line}: " if line else f"{path}: ")
    assert error.exit_code == 2


DEVICE = """
[[device]]
name = "bay-1"
model = "ssc-100"
port = "tcp://127.0.0.1:5030"
twin = true
"""


def test_devices(tmp_path):
    assert config.load_gateway(write(tmp_path, GOOD)).devices == ()
    serial = DEVICE.replace("bay-1", "bay-2").replace("tcp://127.0.0.1:5030", "/dev/ttyUSB0")
    loaded = config.load_gateway(write(tmp_path, GOOD + DEVICE + serial + "baud = 19200\n"))
    assert loaded.devices[0] == config.DeviceConfig("bay-1", "ssc-100", "tcp://127.0.0.1:5030", 1, True, 9600, 900)
    assert (loaded.devices[1].port, loaded.devices[1].baud) == ("/dev/ttyUSB0", 19200)
    for change, key in ((("bay-1", "Bay 1"), "device[1].name"), (("tcp://", ""), "device[1].port"),
                        (("ssc-100", "x" * 65), "device[1].model"), (("twin = true", "unit = 248"), "device[1].unit"),
                        (("twin", "twins"), "device[1].twins"), (("true", "true\nunit = 247"), "device bay-1"),
                        (("true", "true\nbaud = 1"), "device[1].baud")):
        with pytest.raises(config.ConfigError) as caught:
            config.load_gateway(write(tmp_path, GOOD + DEVICE.replace(*change)))
        assert caught.value.key == key, str(caught.value)
    with pytest.raises(config.ConfigError, match="each device once"):
        config.load_gateway(write(tmp_path, GOOD + DEVICE + DEVICE))


def test_unreadable_files_are_told(tmp_path):
    with pytest.raises(config.ConfigError, match="a file that can be read"):
        config.load_gateway(tmp_path / "none.toml")
    with pytest.raises(config.ConfigError, match="at most"):
        config.load_gateway(write(tmp_path, b"#" * (config.FILE_BYTES + 1)))
    with pytest.raises(config.ConfigError, match=":2: expected a text in UTF-8"):
        config.load_gateway(write(tmp_path, b"a = 1\nb = '\xff'\n"))


BUS = config.Table({"interval_s": config.whole(1, 3600, 60), "bus": config.Table({
    "port": config.text(),
    "parity": config.choice("N", "E", "O", default="N"),
    "meter": config.Table({"point": config.whole(1, 1 << 32), "unit": config.whole(1, 247)}, many=True),
}, many=True)})


@pytest.mark.parametrize(("source", "line", "key"), [
    ('[[bus]]\nport = "a"\n[[bus.meter]]\npoint = 1\nunit = 1\n[[bus.meter]]\npoint = 2\nunit = 0\n', 8,
     "bus[1].meter[2].unit"),
    ('[[bus]]\nport = "a"\nmeter = []\n[[bus]]\nport = "b"\n[[bus.meter]]\npoint = 1\n', 6, "bus[2].meter[1].unit"),
    ('[[bus]]\nport = """\nparity = 1\n"""\nparity = "X"\nmeter = []\n', 5, "bus[1].parity"),
    ('interval_s = 1\n', 0, "bus"),
    ('bus = 3\n', 1, "bus"),
    ('[[bus]]\nport = "a"\nmeter = 1\n', 3, "bus[1].meter"),
])
def test_lines_of_nested_tables(tmp_path, source, line, key):
    with pytest.raises(config.ConfigError) as caught:
        config.load(write(tmp_path, source), BUS)
    assert (caught.value.line, caught.value.key) == (line, key), str(caught.value)


def test_nested_tables_are_lists_of_dicts(tmp_path):
    loaded = config.load(write(tmp_path, '[[bus]]\nport = "a"\n[[bus.meter]]\npoint = 1\nunit = 2\n'), BUS)
    assert loaded == {"interval_s": 60, "bus": [{"port": "a", "parity": "N", "meter": [{"point": 1, "unit": 2}]}]}
