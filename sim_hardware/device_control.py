"""A control port on loopback for a simulated security and stability control device: altered while it runs.

One line in, one line out, words parted by spaces. FILE is software, strategy, settings or serial; a line that begins
with `twin` alters the twin alone, one that begins with `first` the first side alone, any other both:

    files                       JSON: {"unit", "model", "version", "device", "sides": [[{"role", "number", "bytes",
                                "sha256"}, ...], ...], "silent": [...]}
    tamper FILE OFFSET          one byte becomes another
    swap FILE FILE              two files in each other's place
    truncate FILE LENGTH        the file ends early
    version TEXT                software and strategy of another (older) version
    settings-of DEVICE          the settings of another device of this model
    model TEXT                  software and strategy of another model
    become DEVICE [MODEL]       another device at this address
    drop FILE                   a file is missing
    extra                       a file too much
    silent                      no answer
    repair                      as the manufacturer loaded it
    install TEXT                a new version, loaded for good
    help                        this, on one line

An answer that begins with "error" says what was wrong.
"""

import hashlib
import json
from collections.abc import Sequence

from sim_hardware.control import Control
from sim_hardware.errors import SimError
from sim_hardware.security_device import SOFTWARE, STRATEGY, Device, role_called

HELP = ("files | [first|twin] tamper FILE OFFSET | swap FILE FILE | truncate FILE LENGTH | version TEXT | "
        "settings-of DEVICE | model TEXT | become DEVICE [MODEL] | drop FILE | extra | silent | repair | install TEXT "
        "| help")
_SIDES = {"first": (0,), "twin": (1,)}


class DeviceControl(Control):
    """The listener of one device."""

    def __init__(self, address: tuple[str, int], device: Device) -> None:
        super().__init__(address, ())
        self._device = device

    def do(self, line: str) -> str:
        """The answer to one line."""
        words = line.split()
        if words == ["help"]:
            return HELP
        if words == ["files"]:
            return json.dumps(describe(self._device))
        sides: Sequence[int] = (0, 1)
        if words and words[0] in _SIDES:
            sides = _SIDES[words.pop(0)]
        try:
            return "ok" if self._alter(words, sides) else f"error expected {HELP}"
        except SimError as error:
            return f"error {error.detail}"

    def _alter(self, words: list[str], sides: Sequence[int]) -> bool:
        device, kind = self._device, self._device.kind
        match words:
            case ["tamper", file, offset]:
                device.tamper(role_called(file), _number(offset), sides)
            case ["swap", first, second]:
                device.swap(role_called(first), role_called(second), sides)
            case ["truncate", file, length]:
                device.truncate(role_called(file), _number(length), sides)
            case ["version", version]:
                device.run_version(version, sides)
            case ["settings-of", name]:
                device.load(role_called("settings"), kind._replace(device=name), sides)
            case ["model", model]:
                for role in (SOFTWARE, STRATEGY):
                    device.load(role, kind._replace(model=model), sides)
            case ["become", name, *model] if len(model) < 2:
                device.become(kind._replace(device=name, model=model[0] if model else kind.model), sides)
            case ["drop", file]:
                device.drop(role_called(file), sides)
            case ["extra"]:
                device.add_extra(sides)
            case ["silent"]:
                device.silence(sides)
            case ["repair"]:
                device.repair()
            case ["install", version]:
                device.install(version)
            case _:
                return False
        return True


def describe(device: Device) -> dict[str, object]:
    """What the device holds now."""
    return {"unit": device.unit, "model": device.kind.model, "version": device.kind.version,
            "device": device.kind.device, "silent": [side.is_silent for side in device.sides],
            "sides": [[{"role": file.role, "number": file.number, "bytes": len(file.data),
                        "sha256": hashlib.sha256(file.data).hexdigest()} for file in side.files]
                      for side in device.sides]}


def _number(text: str) -> int:
    if not text.isdecimal():
        raise SimError("device", f"expected a whole number, found {text!r}")
    return int(text)
