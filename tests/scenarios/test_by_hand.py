"""The README's own lines, typed one after the other in a fresh folder, end with a proof that verifies."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from firmware.crypto.openssl import verify_digest
from firmware.wire import proof
from firmware.wire.errors import Refused
from firmware.wire.reasons import REASONS
from tests import needs

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0


def by_hand_lines() -> list[str]:
    """The lines of the README's block after the mark `by-hand`."""
    text = (ROOT / "README.md").read_text()
    block = re.search(r"<!-- by-hand -->\n```sh\n(.*?)```", text, re.S)
    assert block, "the README has lost its lines to type"
    return block.group(1).strip().splitlines()


@pytest.mark.slow
def test_the_readmes_lines(tmp_path: Path) -> None:
    needs.program("mosquitto")
    command = tmp_path / "gridseal"
    command.write_text(f"#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m deploy.cli \"$@\"\n")
    command.chmod(0o755)
    running: list[subprocess.Popen[bytes]] = []
    said = ""
    try:
        for line in by_hand_lines():
            if line.endswith("&"):
                running.append(start(line.removesuffix("&").strip(), tmp_path))
                wait_until_up(line, tmp_path)
            else:
                if "gateway init" in line:
                    line += " --free-ports"  # the usual ports may be in use here
                done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=180)
                assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}\n{logs(tmp_path)}"
                said = done.stdout
    finally:
        for process in reversed(running):
            os.killpg(process.pid, signal.SIGTERM)
        for process in running:
            process.wait(20)
    check_every_bit((tmp_path / "last.proof").read_bytes(), (tmp_path / "area" / "genesis.cbor").read_bytes())
    assert said.startswith("good: point 1") and "1.8.0" in said and "Wh" in said
    assert "one signer: tamper-evident, not Byzantine" in said
    shutil.rmtree(tmp_path, ignore_errors=True)


def check_every_bit(good: bytes, genesis_bytes: bytes) -> None:
    """A real proof file with any one bit flipped is refused, with a reason from the list."""
    assert proof.check_proof(good, genesis_bytes, verify_digest).reading is not None
    for bit in range(len(good) * 8):
        changed = bytearray(good)
        changed[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(Refused) as caught:
            proof.check_proof(bytes(changed), genesis_bytes, verify_digest)
        assert caught.value.reason in REASONS


def start(line: str, folder: Path) -> subprocess.Popen[bytes]:
    with open(folder / (re.sub(r"\W+", "-", line)[:40] + ".log"), "wb") as log:
        return subprocess.Popen(["exec " + line], shell=True, cwd=folder, stdout=log, stderr=log,
                                start_new_session=True)


def wait_until_up(line: str, folder: Path) -> None:
    """A person types the next line when the one before has said something."""
    end = time.monotonic() + WAIT_S
    if "gateway run" in line:
        while "the area runs" not in logs(folder):
            assert time.monotonic() < end, logs(folder)
            time.sleep(0.1)
    elif "sim meter" in line:
        while not (folder / "meter").exists():
            assert time.monotonic() < end, logs(folder)
            time.sleep(0.1)


def logs(folder: Path) -> str:
    return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}"
                     for path in sorted(folder.rglob("*.log")))
