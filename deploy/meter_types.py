"""`gridseal meter types`: the meters there are tables for; with --page the text of docs/METERS.md, made from them."""

from __future__ import annotations

import argparse
import ast
import json
from pathlib import Path

from firmware import meters, modbus, own
from firmware.meters import sunspec
from firmware.tables import Meter

TABLES = Path(meters.__file__).parent

HEAD = """# Meters

Made from the tables in `firmware/meters` by `gridseal meter types --page`; a test holds that it is up to date. Change a
table, not this page.

`gridseal meter scan /dev/ttyUSB0` (or `tcp://HOST:502`) finds out which of these is on a line: baud rate, parity, unit
number, type, serial number; it prints a piece of `meter.toml` that fits. It sends functions 3, 4 and 43/14 only, so
nothing can be changed by it. `gridseal meter read PORT --type TYPE` shows every value with its registers.

"Billing" quantities are read every `interval_s`, all others every `details_every_s`. Everywhere: power taken from the
grid is positive, what an inverter generates counts as export. A point can be traded and billed by its register 1.8.0
(taken) and 2.8.0 (given).

| type | meter | phases | line as shipped | registers a read | quantities | taken / given | serial number |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""

SUNSPEC = """
## SunSpec

A device that speaks SunSpec says itself where which value stands, and `meter scan` asks it. What it finds becomes a
small file beside `meter.toml`, whose name without `.toml` is the type:

```toml
maker = "Acme"
model = "Trio 8000"
[[sunspec]]
model = 103           # what
address = 40070       # where: the address of the model's first register
```

Each value is read together with its scale and with the model's number; where another model stands there one day, the
values are missing with the reason `moved`, and `meter scan` finds the new place. What a device does not implement is
missing with the reason `not_implemented`. A counter of 32 bits that stands at 0 counts as that too (SunSpec says so).
Makers of meters do not agree on which side import is: compare the sign when the meter is put into service. An inverter
and a meter behind one unit number are two points with two files.

| model | what | quantities |
| --- | --- | --- |
"""
SUNSPEC_NAMES = {101: "inverter, one phase", 102: "inverter, split phase", 103: "inverter, three phases",
                 201: "meter, one phase", 202: "meter, split phase", 203: "meter, three phases, star",
                 204: "meter, three phases, delta", 701: "DER measurement", 713: "storage: state of charge",
                 802: "battery: state of charge, power"}

OWN = """
## A file of your own

For any other meter, write `NAME.toml` beside `meter.toml` (a-z, 0-9, `_`, `-`; 32 letters at most) and say
`type = "NAME"` there. `gridseal meter read PORT --type ./NAME.toml` tries it; a mistake is named with file, line, key
and the nearest known key.

```toml
maker = "Acme"
model = "M1"
baud = 9600
parity = "N"
max_registers = 60       # of one read, by the maker's document
max_hole = 0             # registers of nobody that a read may cross
gap_ms = 100             # between two requests
max_power_w = 20000      # beyond: marked as implausible (max_current_a, max_voltage_v, max_energy_kwh likewise)
function = 3             # 3 or 4, for all fields that do not say it themselves
word_order = "msw"       # or "lsw": which half of a 32-bit value comes first
[[number]]               # the serial number, if you like
address = 0xFC00
registers = 2
kind = "u32"             # or "text"
[[field]]
label = "import"
obis = "1.8.0"           # three numbers; left out: the value is called x.import
unit = "kWh"             # one of the list below
address = 0x0048         # from 0, as on the wire
kind = "f32"             # KINDS
scale = 1                # value in the unit = register * scale; a decimal such as 0.01, or -1 to turn a sign
billing = true           # read every interval_s
none = 0xFFFFFFFF        # the maker's word for "no value", if there is one
```

At least one field is for billing. Readings that wait in the journal are bound to the file as it was: give a changed
file another name while readings of the old one are not acked.
"""


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser("types", help="the meters that are known", description=__doc__,
                                epilog="example: gridseal meter types")
    parser.add_argument("--page", action="store_true", help="docs/METERS.md")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.set_defaults(run=_types)


def page() -> str:
    """Returns docs/METERS.md."""
    tables = [meters.load(name) for name in meters.TYPES]
    parts = [HEAD]
    parts += [f"| [`{one.type}`](#{one.type}) | {one.maker} {one.model} | {phases_of(one)} | {line_of(one)} | "
              f"{one.max_registers} | {len(one.fields)} | {counters_of(one)} | {number_of(one)} |\n" for one in tables]
    parts.append(SUNSPEC)
    for number, _, rows, phases in sunspec.MODELS:
        count = f"up to {len(rows)}" if phases else str(len(rows))
        parts.append(f"| {number} | {SUNSPEC_NAMES[number]} | {count} |\n")
    units = ", ".join(f'"{unit}"' for unit in own.UNITS)
    kinds = ", ".join(sorted(own.WORDS))
    parts.append(OWN.replace("KINDS", kinds) + f"\nUnits: {units}.\n")
    parts += [_section(one) for one in tables]
    return "".join(parts)


def phases_of(table: Meter) -> int:
    """Returns 1 or 3."""
    return 3 if any("_l2" in field.label or field.name == "16.7.0" for field in table.fields) else 1


def line_of(table: Meter) -> str:
    """Returns such as "9600 8N1"."""
    return f"{table.baud} 8{table.parity}1" if table.type != "sma" else "TCP"


def counters_of(table: Meter) -> str:
    """Returns whether there are the registers that a point is billed by."""
    names = {field.name for field in table.fields}
    return " / ".join("yes" if name in names else "no" for name in (meters.IMPORT, meters.EXPORT))


def number_of(table: Meter) -> str:
    """Returns where the serial number stands."""
    if table.number is None:
        return "-"
    function, address, count, kind = table.number
    return f"function {function}, {address:#06x}, {count} registers, {kind}"


def documentation_of(name: str) -> str:
    """Returns what the table's own file says after its first line: peculiarities and sources."""
    text = ast.get_docstring(ast.parse((TABLES / f"{name}.py").read_text())) or ""
    return text.split("\n", 1)[1].strip() if "\n" in text else ""


def _section(table: Meter) -> str:
    notes, _, sources = documentation_of(table.type).rpartition("Addresses")
    plan = modbus.plan(meters.fields_of(table, meters.BILLING), table.max_registers, table.max_hole)
    requests = ", ".join(f"function {function}, {first:#06x} + {count}" for function, first, count in plan)
    lines = [f"\n## {table.type}\n", f"{table.maker} {table.model}. {line_of(table)}; {table.max_registers} registers "
             f"a read, {table.gap_ms} ms between requests. Plausible up to {table.max_power_w} W.", ""]
    if notes.strip():
        lines += [notes.strip(), ""]
    lines += [f"Read every interval: {requests}.", "", "Addresses" + sources.replace("\n  ", "\n* ").replace(
        ":\n*", ":\n\n*", 1), "", "| quantity | OBIS | unit | function | address | registers | times | class |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for field in table.fields:
        ratio = str(field.numerator) if field.denominator == 1 else f"{field.numerator}/{field.denominator}"
        kind = field.kind + (" low word first" if field.order == "lsw" else "")
        lines.append(f"| {field.label} | {field.name} | {field.unit or '-'} | {field.function} | {field.address:#06x} "
                     f"| {kind} | {ratio} | {field.group} |")
    return "\n".join(lines) + "\n"


def _types(args: argparse.Namespace) -> int:
    if args.page:
        print(page(), end="")
        return 0
    tables = [meters.load(name) for name in meters.TYPES]
    if args.json:
        print(json.dumps({"types": [
            {"type": one.type, "maker": one.maker, "model": one.model, "baud": one.baud, "parity": one.parity,
             "max_registers": one.max_registers, "quantities": len(one.fields),
             "import": meters.IMPORT in {field.name for field in one.fields},
             "export": meters.EXPORT in {field.name for field in one.fields}} for one in tables],
            "sunspec": [model[0] for model in sunspec.MODELS]}))
        return 0
    for one in tables:
        print(f"{one.type:<13} {one.maker + ' ' + one.model:<58} {line_of(one):<10} {len(one.fields):>3} quantities")
    print(f"SunSpec       models {', '.join(str(model[0]) for model in sunspec.MODELS)}: gridseal meter scan PORT")
    print("any other     a file of your own: docs/METERS.md")
    return 0
