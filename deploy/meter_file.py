"""Makes the one change that a command makes to a person's meter.toml: the epoch of a point's meter."""

from __future__ import annotations

import re
from pathlib import Path

from firmware import config
from firmware.board import linux
from firmware.config import BadConfig


def set_epoch(path: Path, point: int, epoch: int) -> None:
    """Writes a point's meter epoch into a meter.toml; ValueError when it does not read back as that."""
    before = path.read_text()
    path.write_text(_with_epoch(before, point, epoch))
    try:
        found = {place.point: place.meter_epoch for place in config.places(linux.load_config(path)[0])}
    except BadConfig:
        found = {}
    if found.get(point) != epoch:
        path.write_text(before)
        raise ValueError(f"{path}: write epoch = {epoch} under point = {point} by hand")


def _with_epoch(text: str, point: int, epoch: int) -> str:
    """The file with `epoch` in that point's [[bus.meter]] table; nothing else in it changes."""
    lines = text.splitlines()
    tables = [at for at, line in enumerate(lines) if line.strip().startswith("[")] + [len(lines)]
    for start, end in zip(tables, tables[1:]):
        rows = {found[1]: at for at in range(start + 1, end) if (found := re.match(r"\s*(\w+)\s*=", lines[at]))}
        if "point" in rows and re.match(rf"\s*point\s*=\s*{point}\s*(#.*)?$", lines[rows["point"]]):
            if "epoch" in rows:
                lines[rows["epoch"]] = re.sub(r"=\s*\d+", f"= {epoch}", lines[rows["epoch"]], count=1)
            else:
                lines.insert(rows["point"] + 1, f"epoch = {epoch}")
            break
    return "\n".join(lines) + "\n"
