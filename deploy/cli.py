"""The `gridseal` command: one word, one room of the house; each word's module is loaded only when it is typed."""

from __future__ import annotations

import argparse
import errno
import faulthandler
import importlib
import signal
import sys
from importlib import metadata

from deploy.errors import NoAnswer
from firmware.wire.errors import Refused
from gateway.config import ConfigError

GOOD, BAD, USAGE = 0, 1, 2
# Troubles of the machine that may be over at the next try (a supervisor starts again), unlike a file that is not there.
PASSING = (errno.EADDRINUSE, errno.ENOSPC, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)

# word: (module with add_parser(commands), what it is for)
COMMANDS = {
    "demo": ("deploy.demo", "the whole system on this machine, with simulated meters"),
    "sim": ("deploy.sim", "a simulated device, alone"),
    "meter": ("deploy.meter", "the agent on a Pi: run, check, read"),
    "flash": ("deploy.flash.command", "make a meter agent out of an ESP32 board"),
    "update": ("deploy.update", "a new version of the agent: make, sign, send, see who runs it"),
    "gateway": ("deploy.gateway", "one replica or a whole area: init, run, status"),
    "enroll": ("deploy.enroll", "devices and people: request, approve, revoke, list"),
    "device": ("deploy.device", "control devices: certify, endorse, check, history"),
    "proof": ("deploy.proof", "export the proof of a reading"),
    "account": ("deploy.account", "money of an account: top-up, withdraw, deposit, show"),
    "rules": ("deploy.rules", "the area's rule sets: publish, show"),
    "market": ("deploy.market", "order, commit, reveal, trade; compute a block's clearings again"),
    "bill": ("deploy.bill", "export an account's bill with its proofs"),
    "verify": ("deploy.verify", "check a proof, a seal, a header or a bill, offline"),
    "audit": ("deploy.audit", "compare two parties' files: do the replicas contradict themselves?"),
}


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; exit code 0 good, 1 bad, 2 usage or unreadable."""
    words = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="gridseal", description="Every kWh provable, from the copper to the cent.",
                                     epilog="example: gridseal demo. The test suite belongs to a checkout: "
                                     "./gridseal test")
    parser.add_argument("--version", action="version", version="gridseal " + _version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for word, (module, purpose) in COMMANDS.items():
        if words and words[0] == word:
            importlib.import_module(module).add_parser(commands)
        else:
            commands.add_parser(word, help=purpose)
    args = parser.parse_args(words)
    faulthandler.register(signal.SIGUSR1, sys.__stderr__ or sys.stderr)  # kill -USR1: says where every thread stands
    try:
        return int(args.run(args))
    except ConfigError as error:
        return _fail(args, str(error), USAGE)
    except Refused as error:
        return _fail(args, f"refused: {error}", BAD)
    except NoAnswer as error:
        return _fail(args, str(error), BAD)
    except ValueError as error:
        return _fail(args, str(error), USAGE)
    except OSError as error:
        return _fail(args, str(error), BAD if error.errno in PASSING else USAGE)
    except KeyboardInterrupt:
        return 130


def _version() -> str:
    try:
        return metadata.version("gridseal")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _fail(args: argparse.Namespace, text: str, code: int) -> int:
    print(f"gridseal {args.command}: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
