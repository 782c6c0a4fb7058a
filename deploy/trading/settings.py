"""Makes a trader's settings from its TOML file: whose ledger tells the rules, and what each participant wants."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any, NamedTuple

from deploy import places
from deploy.trading import plans
from deploy.trading.plans import BUY, SELL, Plan, Row
from firmware.wire.trading import FLOWS, FORMS, SCALES
from gateway.config import REQUIRED, ConfigError, Key, Table, choice, load, text, whole

PARTICIPANTS = 256  # a thread and a connection each
FOREVER_S = 1 << 39
_POINTS = (1 << 32) - 1


def _is_slot(value: object) -> bool:
    try:
        return type(value) is int or isinstance(value, str) and places.slot_s(value) >= 0
    except ArgumentTypeError:
        return False


def _slot(default: Any = REQUIRED) -> Key:
    return Key("Unix seconds or a time as \"2026-06-20T08:00Z\"", _is_slot, default)


SCHEMA = Table({
    "ledger": text("a replica's data folder, whose ledger says which rules are in force"),
    "from": _slot(0),
    "until": _slot(FOREVER_S),
    "participant": Table({
        "folder": text("the participant's folder, made by gridseal enroll request --role participant"),
        "name": text("a name for the log", ""),
        "point": whole(0, _POINTS),
        "side": choice(BUY, SELL, "", default=""),
        "plan": text("table4:LA1, csv:FILE", ""),
        "fixed": Table({
            "from_hour": whole(0, 23, 0),
            "to_hour": whole(1, 24, 24),
            "wh": whole(1, 10**11),
            "price_mc": whole(0, 10**8),
        }, many=True, required=False),
        "scale": choice(*SCALES, default=SCALES[0]),
        "flow": choice(*FLOWS, default=FLOWS[0]),
        "form": whole(0, FORMS - 1, 0),
        # label time before the slot's start; 0: when commits begin by the rules in force
        "order_before_s": whole(0, 7 * 86_400, 0),
    }, many=True),
})


class Participant(NamedTuple):
    """Whom the trader acts for, and how."""

    name: str
    folder: Path
    point: int
    side: str
    plan: Plan
    scale: int
    flow: int
    form: int
    order_before_s: int


class Settings(NamedTuple):
    """Slots from `from_s` on and before `until_s` are traded."""

    ledger: Path
    from_s: int
    until_s: int
    participants: list[Participant]


def load_settings(path: Path) -> Settings:
    """The settings of a trader's file; paths in it count from the file. ConfigError."""
    path = Path(path)
    values = load(path, SCHEMA)
    rows = values["participant"]
    if not 0 < len(rows) <= PARTICIPANTS:
        raise ConfigError(path, 0, "participant", f"1 to {PARTICIPANTS} tables [[participant]]", str(len(rows)))
    found = [_participant(path, number, row) for number, row in enumerate(rows, 1)]
    for number, one in enumerate(found, 1):
        for key in ("name", "folder"):
            if getattr(one, key) in [getattr(other, key) for other in found[:number - 1]]:
                raise _wrong(path, number, key, f"each {key} once", str(getattr(one, key)))
    return Settings(path.parent / values["ledger"], _seconds(values["from"]), _seconds(values["until"]), found)


def _participant(path: Path, number: int, row: dict[str, Any]) -> Participant:
    kind, _, name = row["plan"].partition(":")
    side, plan = row["side"], None
    if bool(row["plan"]) == bool(row["fixed"]):
        raise _wrong(path, number, "plan", "either a plan or rows [[participant.fixed]]",
                     "both" if row["plan"] else "nothing")
    if row["plan"] and kind not in ("table4", "csv"):
        raise _wrong(path, number, "plan", "table4:NAME or csv:FILE", row["plan"])
    if kind == "table4":
        try:
            own_side, plan = plans.of_table4(name)
        except ValueError as error:
            raise _wrong(path, number, "plan", f"table4: and {error}", row["plan"]) from error
        if side not in ("", own_side):
            raise _wrong(path, number, "side", own_side, side)
        side = own_side
    elif not side:
        raise _wrong(path, number, "side", f"one of {BUY}, {SELL}", "nothing")
    elif kind == "csv":
        try:
            plan = plans.of_csv(path.parent / name, side)
        except OSError as error:
            raise _wrong(path, number, "plan", "csv: and a file that can be read", f"{name}: {error.strerror}"
                         ) from error
    else:
        plan = plans.of_rows([Row(**one) for one in row["fixed"]])
    folder = path.parent / row["folder"]
    return Participant(row["name"] or folder.name, folder, row["point"], side, plan, SCALES.index(row["scale"]),
                       FLOWS.index(row["flow"]), row["form"], row["order_before_s"])


def _wrong(path: Path, number: int, key: str, expected: str, found: str) -> ConfigError:
    """The mistake at a key of the number-th [[participant]]: its line, or the table's where it is left out."""
    line, seen = 0, 0
    for at, text_line in enumerate(path.read_text().splitlines(), 1):
        if re.match(r"\s*\[\[\s*participant\s*\]\]", text_line):
            seen += 1
            line = at if seen == number else line
        elif seen == number and re.match(rf"\s*{key}\s*=", text_line):
            line = at
            break
    return ConfigError(path, line, f"participant[{number}].{key}", expected, found)


def _seconds(value: int | str) -> int:
    return value if isinstance(value, int) else places.slot_s(value)
