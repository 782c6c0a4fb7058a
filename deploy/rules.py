"""`gridseal rules`: publishes versions of the area's rule sets (market, tariff, vee, credit), shows what is in force.

A version comes into force at a height that is still ahead, and is never edited: a slot keeps the versions that held at
its gate. What is not said has its default (`rules show --defaults`), or with --amend the value of the version before.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy import places
from deploy.clock import Clock, open_clock
from deploy.enroll import area_brokers, area_name
from deploy.line import Line
from deploy.operator import Person
from firmware.wire import trading
from gateway.config import ConfigError
from gateway.ledger.reader import Reader
from gateway.market import records, rules

# Blocks ahead of the newest one that is known here. Blocks are made while a version is on its way, and one that begins
# at or below its own block is refused: then the next of these is tried.
MARGINS = (2, 8, 32, 128)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("rules", help="the area's rule sets: publish, show", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    publish = actions.add_parser("publish", help="publish new versions (operator)", epilog="examples: gridseal rules "
                                 "publish --file rules.toml --area-folder area; gridseal rules publish market "
                                 "--set mechanism=blind --set gate_s=300 --area-folder area")
    publish.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(rules.NAMES)} (default: the file's "
                         "tables, or all)")
    publish.add_argument("--file", type=Path, help="TOML with a table for each rule set, as [tariff] buyback = 38000")
    publish.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of the one rule set named; "
                         "with several as market.gate_s=300. VALUE as in TOML")
    publish.add_argument("--amend", action="store_true", help="what is not said stays as in the newest version")
    publish.add_argument("--from-height", type=int, metavar="HEIGHT", help="in force from this block on (default: "
                         f"{MARGINS[0]} blocks after the newest one)")
    show = actions.add_parser("show", help="versions and values", epilog="example: gridseal rules show market "
                              "--area-folder area --json")
    show.add_argument("names", nargs="*", metavar="NAME", help="(default: all)")
    show.add_argument("--all", action="store_true", help="every kept version, not the newest only")
    show.add_argument("--defaults", action="store_true", help="the names of all values with their defaults")
    publish.add_argument("--area-folder", type=Path, required=True, metavar="DIR", help="made by gateway init")
    publish.add_argument("--replica", type=int, default=0, help="whose ledger says what was before (default 0)")
    publish.set_defaults(run=_publish, data=None)
    places.add_ledger(show, required=False)
    show.set_defaults(run=_show)
    for action in (publish, show):
        places.add_usual(action)


def _publish(args: argparse.Namespace) -> int:
    changes = _changes(args)
    person, clock = Person(args.area_folder), open_clock(args.clock)
    with contextlib.closing(places.open_ledger(args)) as reader:
        bodies = {name: _parameters(reader, args, name, given) for name, given in changes.items()}
    published = []
    with person.line(area_name(args.area_folder), area_brokers(args.area_folder)) as line:
        for name, parameters in bodies.items():
            published.append(_publish_one(args, person, line, clock, name, parameters))
            if published[-1]["code"]:
                break
    is_good = not published[-1]["code"]
    if args.json:
        print(json.dumps({"published": published}))
    else:
        for one in published:
            text = (f"{one['name']} version {one['version']}, in force from block {one['valid_from']}, hash "
                    f"{one['hash']} (block {one['height']})" if one["code"] == 0 else
                    f"{one['name']} version {one['version']} refused: {one['result']} (block {one['height']})")
            print(text, file=sys.stdout if one["code"] == 0 else sys.stderr)
    return 0 if is_good else 1


def _publish_one(args: argparse.Namespace, person: Person, line: Line, clock: Clock, name: str,
                 parameters: list) -> dict[str, Any]:
    for margin in MARGINS:
        with contextlib.closing(places.open_ledger(args)) as reader:
            version = max((one.version for one in _versions(reader, name)), default=0) + 1
            valid_from = args.from_height or reader.height() + margin
        body = trading.rule_set_body(name, version, valid_from, parameters)
        outcome = line.submit(person.sign(trading.RULE_SET, body, clock))
        if outcome.reason != "backdated" or args.from_height:
            break
    return {"name": name, "version": version, "valid_from": valid_from, "hash": body[3].hex(),
            "height": outcome.height, "code": outcome.code, "result": outcome.reason}


def _changes(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What is said of each rule set that is to be published, in their order; ConfigError, ValueError."""
    found: dict[str, dict[str, Any]] = {name: {} for name in args.names}
    if args.file:
        for name, values in _read_file(args.file).items():
            if name in found or not args.names:
                found[name] = dict(values)
    elif not args.names:
        found = {name: {} for name in rules.NAMES}
    for name in found:
        _known(name, rules.NAMES, "rule set")
    for setting in args.set:
        where, mark, value = setting.partition("=")
        name, dot, field = where.rpartition(".")
        if not mark or not dot and len(found) != 1:
            raise ValueError(f"--set: NAME=VALUE of one rule set, or as market.gate_s=300, not {setting!r}")
        name = name or next(iter(found))
        if name not in found:
            raise ValueError(f"--set {setting}: {name} is not published here")
        found[name][field] = _value(value)
    for name, values in found.items():
        fields = _fields(name)
        for field in values:
            _known(field, list(fields), f"value of {name}")
    return {name: found[name] for name in rules.NAMES if name in found}


def _read_file(path: Path) -> dict[str, Mapping[str, Any]]:
    try:
        values = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(path, 0, "", "TOML", str(error)) from error
    for name, table in values.items():
        near = difflib.get_close_matches(name, rules.NAMES, 1, 0.5)
        if name not in rules.NAMES or not isinstance(table, dict):
            raise ConfigError(path, _line_of(path, name), name, f"a table of {', '.join(rules.NAMES)}",
                              "something else", near[0] if near else "")
        for field in table:
            if field not in _fields(name):
                near = difflib.get_close_matches(field, list(_fields(name)), 1, 0.5)
                raise ConfigError(path, _line_of(path, field), f"{name}.{field}", "a known key", "an unknown one",
                                  near[0] if near else "")
    return values


def _line_of(path: Path, key: str) -> int:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.split("=")[0].strip(" []\t\"'") == key:
            return number
    return 0


def _known(word: str, words: Any, what: str) -> None:
    if word not in words:
        near = difflib.get_close_matches(word, list(words), 1, 0.5)
        raise ValueError(f"no {what} {word!r}" + (f"; did you mean {near[0]}?" if near else
                                                  f"; there are {', '.join(words)}"))


def _value(text: str) -> Any:
    """A value as TOML writes it; a word without quotes is a text."""
    try:
        return tomllib.loads("value = " + text)["value"]
    except tomllib.TOMLDecodeError:
        return text


def _fields(name: str) -> dict[str, Any]:
    """The values of a rule set with their defaults, by name."""
    return dict(rules.read(name, [])._asdict())


def _parameters(reader: Reader, args: argparse.Namespace, name: str, given: Mapping[str, Any]) -> list:
    """A version's parameters as they travel; Refused when the rules do not hold."""
    kept = _versions(reader, name)
    before = rules.read(name, kept[-1].parameters)._asdict() if args.amend and kept else {}
    parameters = rules.make(name, {**before, **given})
    rules.read(name, parameters)
    return parameters


def _versions(reader: Reader, name: str) -> list[records.RuleVersion]:
    data = reader.state_value(records.rules_key(name))
    return [] if data is None else records.decode_rules(data)


def _show(args: argparse.Namespace) -> int:
    names = args.names or rules.NAMES
    for name in names:
        _known(name, rules.NAMES, "rule set")
    if args.defaults:
        shown = {name: _fields(name) for name in names}
        print(json.dumps(shown) if args.json else "\n".join(
            f"[{name}]\n" + "".join(f"{field} = {_toml(value)}\n" for field, value in values.items())
            for name, values in shown.items()), end="\n" if args.json else "")
        return 0
    if not args.data and not args.area_folder:
        raise ValueError("say whose ledger: --area-folder DIR or --data FOLDER (or --defaults)")
    with contextlib.closing(places.open_ledger(args)) as reader:
        height = reader.height()
        found = {name: _versions(reader, name) for name in names}
    rows = [{"name": name, "version": one.version, "valid_from": one.valid_from, "hash": one.hash.hex(),
             "in_force": one is _in_force(kept, height + 1), "values": rules.read(name, one.parameters)._asdict()}
            for name, kept in found.items() for one in (kept if args.all else kept[-1:])]
    if args.json:
        print(json.dumps({"height": height, "rules": rows}))
        return 0
    for row in rows:
        state = "in force" if row["in_force"] else "over" if row["valid_from"] <= height else "not yet in force"
        print(f"# version {row['version']} from block {row['valid_from']}, {state} at block {height + 1}, hash "
              f"{row['hash']}\n[{row['name']}]")
        print("".join(f"{field} = {_toml(value)}\n" for field, value in row["values"].items()))
    if not rows:
        print("no rules are published yet; gridseal rules publish does it")
    return 0


def _in_force(kept: list[records.RuleVersion], height: int) -> records.RuleVersion | None:
    return next((one for one in reversed(kept) if one.valid_from <= height), None)


def _toml(value: Any) -> str:
    """Whole numbers, texts and lists of them look in TOML as they do in JSON."""
    return json.dumps(value)
