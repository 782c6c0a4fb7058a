"""Checks what is left out of a board's files: what no kept statement names, and nothing else."""

from deploy.flash.shake import is_empty, shaken

SOURCES = {
    "firmware.start": "from firmware import wire\nfrom firmware.other import taken\n\n\ndef run():\n"
                      "    from firmware import late\n\n    return wire.encode(taken(late.NUMBER))\n",
    "firmware.wire": '"""Text."""\n\nimport struct\nimport hashlib\n\nSIZE = 3\nUNUSED, SECOND = 1, 2\n\n\n'
                     "def encode(data):\n    return _head(data) + struct.pack('>B', SIZE)\n\n\n"
                     "def decode(data):\n    return hashlib.sha256(data)\n\n\ndef _head(data):\n    return data\n",
    "firmware.other": "from firmware import wire\n\n\ndef taken(value):\n    return value\n\n\n"
                      "def left(value):\n    return wire.decode(value)\n",
    "firmware.late": "NUMBER = 7\nOTHER = 8\n",
    "firmware.alone": '"""Nobody asks."""\n\n\ndef never():\n    return 1\n',
    "firmware.meters.one": "FIELDS = 1\n",
}


def names(text: str) -> dict[str, object]:
    found: dict[str, object] = {}
    exec("\n".join(line for line in text.splitlines() if "firmware" not in line), found)
    return {name: value for name, value in found.items() if not name.startswith("__")}


def test_what_nobody_needs_is_gone_and_the_rest_stays() -> None:
    made = shaken(SOURCES, ["firmware.start"])
    assert made["firmware.start"].split() == SOURCES["firmware.start"].split()
    assert set(names(made["firmware.wire"])) == {"struct", "SIZE", "encode", "_head"}
    assert set(names(made["firmware.other"])) == {"taken"} and "import" not in made["firmware.other"]
    assert names(made["firmware.late"]) == {"NUMBER": 7}
    assert is_empty(made["firmware.alone"]) and made["firmware.meters.one"] == SOURCES["firmware.meters.one"]


def test_a_module_that_is_handed_on_stays_whole() -> None:
    handed = {**SOURCES, "firmware.start": "from firmware import wire\n\nCODEC = [wire]\n"}
    assert set(names(shaken(handed, ["firmware.start"])["firmware.wire"])) >= {"encode", "decode", "SECOND", "hashlib"}


def test_a_root_is_kept_whole() -> None:
    made = shaken(SOURCES, ["firmware.start", "firmware.other"])
    assert {"taken", "left"} <= set(names(made["firmware.other"])) and "decode" in names(made["firmware.wire"])
