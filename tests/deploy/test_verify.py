"""`gridseal verify`: exit 0 good, 1 bad, 2 unreadable, with its reason; `gateway init` and `status` on nonsense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy import cli
from firmware.wire import certificate, headerfile, proof, witness
from tests.wire import build


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a genesis, a good proof, seal and header file, and a proof of a refused seal."""
    chain = build.Chain()
    items = build.three_readings(chain.kid_of(chain.agent))
    sealed = chain.sign_seal(build.make_seal(chain.kid_of(chain.agent), 7, 4, bytes(32), items), chain.agent)
    build.count_light_nodes(chain, 3)
    made = chain.prove(sealed, items, results=(256 + 17, 0))
    (tmp_path / "genesis").write_bytes(chain.genesis)
    (tmp_path / "other-genesis").write_bytes(build.Chain(name="two").genesis)
    (tmp_path / "proof").write_bytes(proof.encode(made))
    (tmp_path / "seal").write_bytes(proof.without_reading(proof.encode(made)))
    (tmp_path / "header").write_bytes(witness.encode_header_message(made.header, made.certificate, 5, 1, 2))
    (tmp_path / "refused").write_bytes(proof.encode(chain.prove(sealed, items, results=(17, 0))))
    few = certificate.encode(chain.certify(made.header, (0, 1)))
    (tmp_path / "few").write_bytes(witness.encode_header_message(made.header, few, 5, 1, 2))
    signed = build.header_file(chain, sealed, (chain.agent, chain.other))
    (tmp_path / "co-signed header").write_bytes(headerfile.encode(signed))
    (tmp_path / "co-signed proof").write_bytes(proof.encode(
        chain.prove(sealed, items, results=(256 + 17, 0), witnesses=signed.witnessing)))
    (tmp_path / "unsigned header").write_bytes(headerfile.encode(build.header_file(chain, sealed, ())))
    return tmp_path


def verify(capsys: pytest.CaptureFixture[str], kind: str, file: Path, trust: str = "genesis",
           *words: str) -> tuple[int, Any]:
    code = cli.main(["verify", kind, str(file), "--trust", str(file.parent / trust), "--json", *words])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("kind", ["proof", "seal", "header"])
def test_good(kind: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = verify(capsys, kind, files / kind)
    assert (code, said["verdict"], said["height"], said["signers"]) == (0, "good", 5, 3)
    if kind != "header":
        assert said["marks"] == ["clock not synchronised", "late"] and said["key_protection"] == "software"
    if kind == "proof":
        assert said["values"]["1.8.0"] == 1234 and said["values"]["2.8.0"] is None


def test_text_for_people(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", "proof", str(files / "proof"), "--trust", str(files / "genesis")]) == 0
    said = capsys.readouterr().out
    assert "1.8.0        1234 Wh" in said and "missing (no_answer)" in said and "3 of 4 replicas (quorum 3)" in said
    assert "marked: clock not synchronised, late" in said


@pytest.mark.parametrize(("kind", "name", "trust", "code", "reason"), [
    ("proof", "refused", "genesis", 1, "not_accepted"), ("proof", "proof", "other-genesis", 1, "wrong_chain"),
    ("header", "header", "other-genesis", 1, "bad_signature"), ("header", "few", "genesis", 1, "too_few_signers"),
    ("seal", "proof", "genesis", 1, "wrong_version"), ("proof", "seal", "genesis", 1, "wrong_version"),
    ("proof", "genesis", "genesis", 2, "malformed"), ("proof", "absent", "genesis", 2, "unreadable"),
    ("proof", "proof", "absent", 2, "unreadable"), ("header", "proof", "genesis", 2, "malformed")])
def test_bad_and_unreadable(kind: str, name: str, trust: str, code: int, reason: str, files: Path,
                            capsys: pytest.CaptureFixture[str]) -> None:
    found, said = verify(capsys, kind, files / name, trust)
    assert (found, said["reason"]) == (code, reason)


@pytest.mark.parametrize(("kind", "name", "k"), [
    ("header", "co-signed header", 2), ("proof", "co-signed proof", 2), ("header", "unsigned header", 0),
    ("header", "header", 0), ("proof", "proof", 0)])
def test_witnesses_are_counted_and_demanded(kind: str, name: str, k: int, files: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    """A header message's own count is nobody's word: it claims 1, and proves none."""
    code, said = verify(capsys, kind, files / name, "genesis", "--witnesses", str(k))
    assert (code, said["height"]) == (0, 5)
    found = said["witnesses"]
    assert found is None if name in ("header", "proof") else (found["k"], found["n"], found["area"]) == (k, 3, "home")
    code, said = verify(capsys, kind, files / name, "genesis", "--witnesses", str(k + 1))
    assert (code, said["reason"]) == (1, "too_few_signers")
    cli.main(["verify", kind, str(files / name), "--trust", str(files / "genesis")])
    assert (f"{k} of 3 light nodes co-signed" in capsys.readouterr().out) == (found is not None)


def test_huge_and_empty_files(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "huge").write_bytes(bytes(proof.PROOF_BYTES + 1))
    (files / "empty").write_bytes(b"")
    assert verify(capsys, "proof", files / "huge")[0] == 2
    assert verify(capsys, "proof", files / "empty")[0] == 2


@pytest.mark.parametrize(("words", "complaint"), [
    (["--area", "Home!"], "a-z"), (["--replicas", "0"], "replicas"), (["--replicas", "1", "--brokers", "2"], "broker"),
    (["--set", "typo=1"], "typo"), (["--set", "slot_s=many"], "many")])
def test_impossible_areas(words: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["gateway", "init", str(tmp_path / "area"), *words]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "area").exists() or not any((tmp_path / "area").iterdir()), "nothing half made"


def test_an_area_is_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "area")
    assert cli.main(["gateway", "init", folder, "--replicas", "4", "--free-ports"]) == 0
    assert cli.main(["gateway", "init", folder]) == 2 and "made once" in capsys.readouterr().err
    for path in (tmp_path / "area").rglob("*.key"):
        assert path.stat().st_mode & 0o077 == 0, f"{path} can be read by others"
    assert cli.main(["gateway", "status", folder]) == 1
    said = capsys.readouterr()
    assert said.out.count("silent") == 4 and "4 of 4 do not answer" in said.err
    assert cli.main(["gateway", "status", str(tmp_path)]) == 2


def test_two_areas_share_no_secret(tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert cli.main(["gateway", "init", str(tmp_path / name), "--free-ports"]) == 0
    keys = [path.read_bytes() for path in tmp_path.rglob("*.key")]
    assert len(keys) == len(set(keys)) >= 14
