"""Checks the interpreters with a bounded heap: the limit is hard, garbage is collected while Python runs, nothing else
has changed; and that a module which is not the one we know is refused."""

import subprocess
from pathlib import Path

import pytest

from tests.micropython import bounded as maker
from tests.micropython.bounded import INPUTS, Compiled, bounded, compile_all, rewrite
from tests.micropython.interpreter import Options, command, stock

BOARD_HEAP = 56 * 1024  # the first heap area of MicroPython's ESP32 port
FILL = """
kept = []
try:
    while len(kept) < 1000:
        kept.append(bytes(1000))
except MemoryError:
    pass
count = len(kept)
kept.clear()
print(count)
"""


@pytest.fixture(params=INPUTS, scope="module")
def board(request: pytest.FixtureRequest) -> Path:
    return bounded(request.param)


def outcome(interpreter: Path, script: Path, heap_bytes: int, made: Compiled | None = None) -> tuple[int, str, str]:
    options = made.options(heap_bytes) if made else Options(heap_bytes=heap_bytes)
    done = subprocess.run(command(interpreter, script, options=options), capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_the_limit_is_hard(tmp_path: Path, board: Path) -> None:
    (tmp_path / "fill.py").write_text(FILL)
    for heap_bytes in (32 * 1024, BOARD_HEAP):
        code, out, errors = outcome(board, tmp_path / "fill.py", heap_bytes)
        assert (code, errors) == (0, "")
        assert heap_bytes // 1024 - 8 <= int(out) <= heap_bytes // 1024
    assert outcome(stock("1.27"), tmp_path / "fill.py", BOARD_HEAP)[1] == "1000\n", "npm's own has none"


def test_garbage_is_collected_while_python_runs(tmp_path: Path, board: Path) -> None:
    """A thousand times the heap passes through it, in chains that only a whole scan of stack and roots tells apart."""
    (tmp_path / "churn.py").write_text("""
import gc
def chain(depth):
    return [depth, bytes(40)] if not depth else [depth, bytes(40), chain(depth - 1)]
def depth(one):
    return one[0] if len(one) < 3 else (depth(one[2]) if one[2][0] == one[0] - 1 else -1)
kept = chain(40)
gc.collect()
before = gc.mem_alloc()
for turn in range(8000):
    made = chain(60)
    if turn % 97 == 0 and (depth(made) or depth(kept)):
        raise ValueError(turn)
made = None
gc.collect()
print(gc.mem_alloc() - before < 8000)
""")
    assert outcome(board, tmp_path / "churn.py", BOARD_HEAP) == (0, "True\n", "")


SIGN = """
import gc
gc.threshold(1024)
import hashlib
from firmware.crypto import p256
from firmware.crypto.signer import SoftwareSigner
from firmware.wire import cbor, cose, merkle
signer = SoftwareSigner(hashlib.sha256(b"test").digest())
leaves = []
for number in range(6):
    payload = cbor.encode([number, "text %d" % number, {1: [None, True, -number]}, [bytes([number]) * 40] * 20])
    message = cose.sign1(payload, bytes(8), "seal", bytes(32), signer.sign_digest)
    signed = cose.parse(message)
    cose.check(signed, "seal", bytes(32), signer.public_key(), p256.verify_digest)
    leaves.append(merkle.leaf_hash(message))
    print(message.hex(), cbor.decode(signed.payload))
for index in range(6):
    print([step.hex() for step in merkle.path(leaves, index)])
"""


def test_collecting_at_every_turn_changes_nothing(tmp_path: Path, board: Path) -> None:
    """A pointer that the collector does not see is found so: big numbers, CBOR and text under constant collection."""
    script = tmp_path / "sign.py"
    script.write_text(SIGN)
    under_pressure = outcome(board, script, 128 * 1024, compile_all(tmp_path / "mpy"))
    assert under_pressure == outcome(stock("1.27"), script, 0)
    assert under_pressure[0] == 0 and len(under_pressure[1]) > 20000


def test_another_module_is_refused(monkeypatch: pytest.MonkeyPatch, board: Path) -> None:
    monkeypatch.setitem(maker.INPUTS, "1.27", "0" * 64)
    with pytest.raises(maker.Unknown, match="not the pinned one"):
        maker.make("1.27")
    with pytest.raises(pytest.skip.Exception, match="missing: MicroPython 1.27 with a bounded heap"):
        bounded("1.27")
    for text in ("(module)", " (func $1 (result i32)\n  (i32.const 134217728)\n )\n (func $2\n  (nop)\n )\n"):
        with pytest.raises(maker.Unknown):
            rewrite(text)


def test_words_on_the_command_line_fit_a_small_heap(tmp_path: Path, board: Path) -> None:
    (tmp_path / "words.py").write_text("import sys\nprint(sys.argv[1:])\n")
    done = subprocess.run(command(board, tmp_path / "words.py", "a", "b", options=Options(heap_bytes=16 * 1024)),
                          capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "['a', 'b']\n", "")
