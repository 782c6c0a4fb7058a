"""`gridseal sim broker`, made from command-line options: a proxy that misbehaves, in front of a real MQTT broker."""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable

from sim_hardware.broker.proxy import Proxy
from sim_hardware.broker.rules import KINDS, kinds_text, parse_rule
from sim_hardware.command import parse_option
from sim_hardware.control import Control
from sim_hardware.errors import SimError

EXAMPLE = """examples:
  gridseal sim broker --broker 127.0.0.1:1883 --listen 127.0.0.1:1884 --rule 'duplicate 2 up every 5'
  gridseal sim broker --broker 127.0.0.1:1883 --control 127.0.0.1:1885
  echo 'add swallow topic gridseal/1/+/+/envelope chance 200' | nc -N 127.0.0.1 1885

a rule: KIND [NUMBER] [up|down] [topic FILTER] [every N | chance PERMILLE] [times N]; the first that applies is done
""" + "\n".join(f"  {(kind + ' ' + KINDS[kind][0]).strip():<18} {KINDS[kind][5]}" for kind in KINDS)
HELP = (f"add RULE | clear | close | rules | counts | help; RULE is one of {kinds_text()}, then up|down, "
        "topic FILTER, every N, chance PERMILLE, times N")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options of `sim broker`; the parser is the caller's."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLE
    parser.add_argument("--broker", required=True, metavar="HOST:PORT", help="the real one")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="where clients come (default: a "
                        "free port of loopback)")
    parser.add_argument("--rule", action="append", default=[], metavar="RULE", help="what is done wrong; repeat")
    parser.add_argument("--seed", type=int, default=1, help="of everything left to chance (default 1)")
    parser.add_argument("--control", metavar="HOST:PORT", help="change rules while it runs; port 0 takes a free one")
    parser.add_argument("--json", action="store_true", help="one line of JSON when it listens, one when it ends")


class ProxyControl(Control):
    """The proxy's control port; one line in, one line out."""

    def __init__(self, address: tuple[str, int], proxy: Proxy, seed: int) -> None:
        super().__init__(address, ())
        self._proxy, self._seed = proxy, seed

    def do(self, line: str) -> str:
        """The answer to one line."""
        words = line.split()
        proxy = self._proxy
        match words:
            case ["add", *rule] if rule:
                try:
                    proxy.rules.append(parse_rule(" ".join(rule), self._seed))
                except SimError as error:
                    return f"error {error.detail}"
            case ["clear"]:
                proxy.rules.clear()
            case ["close"]:
                for connection in list(proxy.connections):
                    connection.abort()
            case ["rules"]:
                return json.dumps([{"rule": rule.text, "asked": rule.asked, "applied": rule.applied}
                                   for rule in proxy.rules])
            case ["counts"]:
                return json.dumps(counts(proxy))
            case ["help"]:
                return HELP
            case _:
                return f"error expected {HELP}"
        return "ok"


def counts(proxy: Proxy) -> dict[str, int]:
    """What has gone through so far."""
    return {**proxy.counts, "open": len(proxy.connections), "misdeeds": sum(rule.applied for rule in proxy.rules)}


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM. 0 stopped, 2 a mistake in the options, printed to stderr."""
    try:
        proxy = Proxy(parse_option(args.listen, "--listen"), parse_option(args.broker, "--broker"),
                      [parse_rule(text, args.seed) for text in args.rule])
        control = ProxyControl(parse_option(args.control, "--control"), proxy, args.seed) if args.control else None

        def on_ready(ready: dict[str, object]) -> None:
            print(json.dumps(ready) if args.json else _text(args, ready), flush=True)

        asyncio.run(_until_signal(proxy, control, on_ready))
    except SimError as error:
        print(f"gridseal sim broker: {error.detail}", file=sys.stderr)
        return 2
    print(json.dumps(counts(proxy)) if args.json else f"in the end: {counts(proxy)}", flush=True)
    return 0


async def serve(proxy: Proxy, control: Control | None, stop: asyncio.Event,
                on_ready: Callable[[dict[str, object]], None]) -> None:
    """Serves until `stop`; on_ready gets {"ready", "listen", "control"}."""
    try:
        on_ready({"ready": True, "listen": await proxy.start(), "control": await control.start() if control else None})
        await stop.wait()
    finally:
        await proxy.stop()
        if control:
            await control.stop()


async def _until_signal(proxy: Proxy, control: Control | None, on_ready: Callable[[dict[str, object]], None]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, ValueError):      # not the main thread: the caller stops us
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(proxy, control, stop, on_ready)


def _text(args: argparse.Namespace, ready: dict[str, object]) -> str:
    lines = [f"MQTT on {ready['listen']}, in front of {args.broker}"]
    lines += [f"  {text}" for text in args.rule] or ["  no rules yet: everything passes"]
    if ready["control"]:
        lines.append(f"control: {ready['control']} (say: help)")
    return "\n".join(lines + ["stop with Ctrl-C"])
