"""`gridseal demo`: one simulated day of a whole area on this machine, made with the commands a person would type."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("demo", help="the whole system on this machine, with simulated meters",
                                 description=__doc__, epilog="example: gridseal demo --hours 2")
    parser.add_argument("--meters", type=int, default=12, help="metering points, 1 to 48 (default 12)")
    parser.add_argument("--hours", type=int, default=24, help="simulated hours (default 24)")
    parser.add_argument("--speed", type=int, default=600, help="simulated seconds in one (default 600)")
    parser.add_argument("--replicas", type=int, default=4, help="gateways that agree on the ledger (default 4)")
    parser.add_argument("--brokers", type=int, default=1, help="MQTT brokers (default 1)")
    parser.add_argument("--seed", type=int, default=1, help="of load, sun, wind and noise (default 1)")
    parser.add_argument("--mechanism", choices=("knn", "blind", "none"), default="knn", help="the market's law "
                        "(default knn; none: no market and no control device)")
    parser.add_argument("--no-tamper", action="store_true", help="leave the control device as it was certified")
    parser.add_argument("--folder", type=Path, help="where the data go (default: a new folder gridseal-demo-N here)")
    parser.add_argument("--embedded-broker", action="store_true", help="do not use Mosquitto even where it is there")
    parser.add_argument("--keep-running", action="store_true", help="leave everything up at the end, until Ctrl-C")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.add_argument("--json", action="store_true", help="the report as one JSON object, nothing else")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Plays the day; 0 when the ledger holds what the meters showed and every sum is right, 1 when not."""
    from deploy.demo.play import play
    return play(args)
