"""Checks the same vectors in the real MicroPython: those of P-256 (raw), RFC 6979, CBOR, COSE and Merkle trees."""

from collections.abc import Iterable
from pathlib import Path

from firmware.crypto import p256
from tests.micropython.interpreter import Run
from tests.vectors import cases

SCRIPT = Path(__file__).parent / "board_vectors.py"


def _verdicts(micropython: Run, folder: Path, lines: Iterable[tuple[object, ...]]) -> list[str]:
    words = [" ".join((word.hex() or "-") if isinstance(word, bytes) else str(word) for word in line) for line in lines]
    path = folder / "vectors.txt"
    path.write_text("\n".join(words) + "\n")
    done = micropython(SCRIPT, "/vectors.txt", mounts={path: "/vectors.txt"})
    assert (done.returncode, done.stderr) == (0, "")
    verdicts = done.stdout.splitlines()
    assert len(verdicts) == len(words)
    return verdicts


def test_wycheproof_raw(tmp_path: Path, micropython: Run) -> None:
    vectors = cases.wycheproof(cases.WYCHEPROOF_RAW)
    lines = [("verify", case.public65, case.h32, case.signature) for case in vectors]
    found = _verdicts(micropython, tmp_path, lines)
    assert [case.name for case, verdict in zip(vectors, found) if verdict != str(case.is_good)] == []


def test_rfc6979(tmp_path: Path, micropython: Run) -> None:
    vectors = cases.rfc6979()
    expected = [(case.public65 + case.r.to_bytes(32, "big") + min(case.s, p256.N - case.s).to_bytes(32, "big")).hex()
                for case in vectors]
    assert _verdicts(micropython, tmp_path, [("sign", case.d32, case.h32) for case in vectors]) == expected


def test_cbor(tmp_path: Path, micropython: Run) -> None:
    vectors = cases.cbor()
    found = _verdicts(micropython, tmp_path, [("code", data) for data, _ in vectors])
    for (data, is_ours), verdict in zip(vectors, found):
        assert verdict == data.hex() if is_ours else verdict in ("refused malformed", "refused too_deep"), data.hex()


def test_cose(tmp_path: Path, micropython: Run) -> None:
    vectors = cases.cose()
    expected = [(b"kid of 8" + case.signature).hex() if case.has_our_form else "refused malformed" for case in vectors]
    assert _verdicts(micropython, tmp_path, [("form", case.message) for case in vectors]) == expected


def test_merkle_inclusion(tmp_path: Path, micropython: Run) -> None:
    vectors = cases.inclusion()
    lines = [("included", case.leaf_hash, case.at, case.size, case.root, *case.path) for case in vectors]
    found = _verdicts(micropython, tmp_path, lines)
    expected = ["True" if case.is_good else "refused not_included" for case in vectors]
    assert [case.name for case, is_, should in zip(vectors, found, expected) if is_ != should] == []
