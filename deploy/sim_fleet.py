"""`gridseal sim fleet`: a simulated fleet's folder, its enrolment by the area's operator, its traffic."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from deploy import enroll
from deploy.clock import open_clock
from deploy.operator import Person
from firmware import meters
from firmware.wire import transaction
from sim_hardware.fleet import command, folder

MOST_POINTS = 200  # of one agent: they are enrolled in one transaction, which has 16 KiB


def add_parser(devices: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = devices.add_parser("fleet", help="thousands of meters as signed traffic, without Modbus",
                                description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    make = actions.add_parser("make", help="keys and requests", epilog="example: gridseal sim fleet make fleet "
                              "--genesis area/genesis.cbor --area home --broker mqtt://127.0.0.1:1883 --agents 20")
    command.add_make(make)
    make.set_defaults(run=command.make)
    approve = actions.add_parser("enroll", help="enrol all of it (operator)",
                                 epilog="example: gridseal sim fleet enroll fleet --area-folder area")
    approve.add_argument("folder", type=Path)
    approve.add_argument("--area-folder", type=Path, required=True, metavar="DIR", help="made by gateway init")
    approve.add_argument("--json", action="store_true", help="one JSON object instead of text")
    approve.add_argument("--clock", help=argparse.SUPPRESS)
    approve.set_defaults(run=_enroll)
    run = actions.add_parser("run", help="send, until Ctrl-C",
                             epilog="example: gridseal sim fleet run fleet --rate 20 --hostile 100")
    command.add_run(run)
    run.add_argument("--clock", help=argparse.SUPPRESS)
    run.set_defaults(run=lambda args: command.run(args, open_clock(args.clock)))


def _enroll(args: argparse.Namespace) -> int:
    """The operator approves every agent as `enroll approve` does; who is enrolled already is left alone."""
    home = folder.load(args.folder)
    if home.plan.points > MOST_POINTS:
        raise ValueError(f"{home.plan.points} points of one agent: at most {MOST_POINTS} are enrolled at once")
    person, brokers, area = Person(args.area_folder), enroll.area_brokers(args.area_folder), home.plan.area
    table = meters.load("sdm120")
    done = refused = 0
    for number in range(home.plan.agents):
        place = home.agent(number)
        if (place / "tls.crt").exists():
            continue
        entries = [transaction.PointEntry(point, area, "trade", 1, 1, meters.map_hash(table), "fleet", "", "", None,
                                          None) for point in home.points(number)]
        request = (place / "request.cbor").read_bytes()
        _, certificate, outcome = enroll.approve_request(person, request, entries, "", brokers, args.clock)
        if outcome.code:
            refused += 1
            print(f"{place.name}: refused: {outcome.reason}")
            continue
        (place / "tls.crt").write_bytes(certificate)
        shutil.copy(args.area_folder / "ca" / "ca.crt", place / "ca.crt")
        done += 1
    text = f"{done} agents enrolled, {refused} refused"
    print(json.dumps({"enrolled": done, "refused": refused}) if args.json else text)
    return 1 if refused else 0
