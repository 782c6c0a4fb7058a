"""`gridseal proof export`: makes the proof file of any committed reading, or of a block's header with the signatures of
the light nodes that witnessed it, from a replica's folder (running or not)."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from pathlib import Path

from deploy.errors import NoAnswer
from firmware.wire import headerfile, proof
from firmware.wire import reading as reading_codec
from firmware.wire.errors import Refused
from gateway.config import load_gateway
from gateway.ledger.proofs import prove_header, prove_reading
from gateway.ledger.reader import Reader

LOOK_S = 0.5
WITNESSED = "witnessed"  # in place of a height: the newest header that a light node has signed


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("proof", help="export the proof of a reading, a seal or a header",
                                 description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    export = actions.add_parser("export", help="write a proof file",
                                epilog="example: gridseal proof export last.proof --area-folder area --point 1")
    export.add_argument("file", type=Path, help="where to write it")
    export.add_argument("--area-folder", type=Path, required=True, metavar="DIR", help="made by gateway init")
    export.add_argument("--replica", type=int, default=0, help="whose ledger to read (default 0)")
    export.add_argument("--point", type=int, help="the metering point")
    export.add_argument("--from", type=int, dest="from_ms", metavar="UNIX_MS",
                        help="its first reading at or after this time (default: its newest)")
    export.add_argument("--seal", action="store_true", help="prove the whole seal instead of one reading")
    export.add_argument("--header", type=_height, metavar="HEIGHT", help="a block's header with its light nodes' "
                        f"signatures instead; {WITNESSED}: the newest that has any")
    export.add_argument("--witnesses", type=int, default=0, metavar="K", help="with --header: at least so many")
    export.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="for what is to come")
    export.add_argument("--json", action="store_true", help="one JSON object instead of text")
    export.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> int:
    if (args.point is None) == (args.header is None):
        raise ValueError("name what to prove: --point N, or --header HEIGHT")
    end = time.monotonic() + args.wait
    while True:
        home = args.area_folder / f"replica-{args.replica}"
        with contextlib.closing(Reader.open(home / "data")) as reader:
            found = _header(reader, args, home) if args.header is not None else _reading(reader, args)
        if found is not None:
            break
        if time.monotonic() >= end:
            raise NoAnswer("not in the ledger, or not certified or witnessed yet; --wait SECONDS waits for it")
        time.sleep(LOOK_S)
    data, facts = found
    args.file.write_bytes(data)
    values = {"file": str(args.file), "bytes": len(data), **facts}
    print(json.dumps(values) if args.json else f"{args.file}: {len(data)} bytes; check it anywhere: gridseal verify "
          f"{'header' if args.header is not None else 'seal' if args.seal else 'proof'} {args.file} --trust GENESIS")
    return 0


def _header(reader: Reader, args: argparse.Namespace, home: Path) -> tuple[bytes, dict[str, int]] | None:
    height = reader.newest_witnessed()[0] if args.header == WITNESSED else args.header
    if not height or reader.certificate("trade", height) is None:
        return None
    data = prove_header(reader, "trade", height, load_gateway(home / "gateway.toml").area)
    k = len(headerfile.decode(data).witnessing.signatures)
    return None if k < args.witnesses else (data, {"height": height, "witnesses": k})


def _height(text: str) -> int | str:
    return WITNESSED if text == WITNESSED else int(text)


def _reading(reader: Reader, args: argparse.Namespace) -> tuple[bytes, dict[str, int]] | None:
    time_ms = _time_of(reader, args.point, args.from_ms)
    if time_ms is None:
        return None
    try:
        data = prove_reading(reader, args.point, time_ms)
    except Refused as refused:
        if refused.reason == "too_few_signers":  # ordered, but the votes are still on their way
            return None
        raise
    return proof.without_reading(data) if args.seal else data, {"point": args.point, "time_ms": time_ms}


def _time_of(reader: Reader, point: int, from_ms: int | None) -> int | None:
    """Returns the time of the newest reading, or of the first at or after `from_ms`; None without one."""
    if from_ms is None:
        newest = reader.newest_readings().get(point)
        return None if newest is None else reading_codec.decode(newest).time_ms
    found = reader.first_reading(point, from_ms)
    return None if found is None else reading_codec.decode(found).time_ms
