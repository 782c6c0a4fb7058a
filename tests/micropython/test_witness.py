"""Checks that a light node witnesses on a board's heap: 56 KiB, code and all, in the real interpreter.

It follows header messages of a chain of four, signs the first of each interval after it has saved what it is going to
sign, and signs the same bytes after a restart. OpenSSL makes the same signatures from the same key (RFC 6979)."""

import hashlib
import struct
import subprocess
from pathlib import Path

import pytest

from firmware.crypto.openssl import OpenSSLSigner, verify_digest
from firmware.lightnode import LightNode
from firmware.wire import identity, witness
from tests.firmware.world import Chain
from tests.house.micropython_lint import board_files
from tests.micropython.bounded import bounded, compiled
from tests.micropython.interpreter import ROOT, Options, command

BOARD_HEAP = 56 * 1024  # the first heap area of MicroPython's ESP32 port
SCRIPT = ROOT / "tests" / "micropython" / "scripts" / "witness.py"
START_S = 1_767_225_600  # a whole number of intervals
WAIT_S = 120
SCALAR = hashlib.sha256(b"test light node").digest()


@pytest.mark.parametrize("version", ["1.27", "1.29"])
def test_it_saves_then_signs_one_header_an_interval(version: str, tmp_path: Path) -> None:
    interpreter = bounded(version)
    chain = Chain(created_s=START_S)
    data = tmp_path / "data"
    data.mkdir()
    (data / "genesis.cbor").write_bytes(chain.genesis)
    (data / "key.bin").write_bytes(SCALAR)
    expected, signed = [], []
    signer = OpenSSLSigner.from_scalar(SCALAR)
    kid = identity.kid_of(signer.public_key())
    light = LightNode(chain.genesis, verify_digest)  # the same in this CPython
    with open(data / "messages.bin", "wb") as file:
        for step in range(8):
            time_s = START_S + 400 * step + 10
            top = chain.header([b"leaf %d" % step], time_s)
            good = chain.certify(top, [1, 2, 3])
            for certificate in (chain.certify(top, [0, 1]), good):
                message = witness.encode_header_message(top, certificate, step, 3, 4)
                file.write(struct.pack(">HI", len(message), time_s) + message)
            is_first = time_s // 900 > (time_s - 400) // 900
            expected += ["too_few_signers", f"{step + 1} {is_first}"]
            light.accept(top, good, time_s)
            if is_first:
                light.note_witness(top, good)
                saved = light.save()
                signed.append(witness.sign(kid, "trade", top, chain.chain_id, signer.sign_digest).hex())
                expected += [f"saved {len(saved)} {hashlib.sha256(saved).hexdigest()}", f"signed {signed[-1]}"]
            chain.tip = top
    compiled(board_files(ROOT / "firmware"), ROOT / "firmware", tmp_path / "firmware")
    compiled([SCRIPT], SCRIPT.parent, tmp_path / "script")
    options = Options({data: "/data"}, firmware=tmp_path / "firmware", heap_bytes=BOARD_HEAP)
    done = subprocess.run(command(interpreter, tmp_path / "script" / "witness.mpy", options=options),
                          capture_output=True, text=True, timeout=WAIT_S)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(signed) == 4 and lines[:-2] == expected
    assert lines[-2] == f"signed {signed[-1]}", "started again with what was saved: the same bytes"
    print(f"a witness in {version}: bytes in use and free at the end", lines[-1])
