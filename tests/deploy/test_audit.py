"""`gridseal audit`: four keys that sign two truths are found in the files of any two parties; honest ones are not."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from deploy import audit as audit_module
from deploy import cli
from firmware.crypto.openssl import verify_digest
from firmware.lightnode import LightNode
from firmware.wire import certificate, header, headerfile, proof, seal, witness
from firmware.wire.errors import Refused
from gateway.ingest.witnesses import encode_evidence
from tests.wire import build


class Cluster:
    """Four replicas that show one half of their meters one block of height 5, the other half another one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.chain = chain = build.Chain()
        build.count_light_nodes(chain, 2)
        self.items = build.three_readings(chain.kid_of(chain.agent))
        self.kids = [member.kid.hex() for member in chain.members]
        self.north = build.header_file(chain, self.sealed(1), (chain.agent,))
        self.south = build.header_file(chain, self.sealed(2), (chain.other,))
        self.south = self.south._replace(
            certificate=certificate.encode(chain.certify(self.south.header, (1, 2, 3))))
        (folder / "genesis").write_bytes(chain.genesis)

    def sealed(self, height: int) -> bytes:
        made = build.make_seal(self.chain.kid_of(self.chain.agent), 7, height, seal.FIRST_PREVIOUS, self.items)
        return self.chain.sign_seal(made, self.chain.agent)

    def write(self, name: str, data: bytes) -> str:
        (self.folder / name).write_bytes(data)
        return str(self.folder / name)

    def header_file(self, name: str, found: headerfile.HeaderFile) -> str:
        return self.write(name, headerfile.encode(found))

    def proof_file(self, name: str, height: int) -> str:
        made = self.chain.prove(self.sealed(height), self.items, results=(256 + 17, 0))
        return self.write(name, proof.encode(made))

    def message(self, name: str, found: headerfile.HeaderFile) -> str:
        return self.write(name, witness.encode_header_message(found.header, found.certificate, 5, 1, 2))

    def trust(self, name: str, *found: headerfile.HeaderFile) -> str:
        """A meter's own file after it has followed these headers; two of one height stop it."""
        light = LightNode(self.chain.genesis, verify_digest)
        for one in found:
            try:
                light.accept(one.header, one.certificate, None)
            except Refused:
                continue
            if light.may_witness(one.header):
                light.note_witness(one.header, one.certificate)
        return self.write(name, light.save())

    def evidence(self, name: str, found: headerfile.HeaderFile) -> str:
        return self.write(name, b"".join(encode_evidence(row.message) for row in found.witnessing.signatures))


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def audit(capsys: pytest.CaptureFixture[str], cluster: Cluster, *files: str) -> tuple[int, Any]:
    code = cli.main(["audit", *files, "--trust", str(cluster.folder / "genesis"), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_any_two_parties_find_it_and_both_sides_are_shown(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    north = [cluster.header_file("n.header", cluster.north), cluster.proof_file("n.proof", 1),
             cluster.message("n.message", cluster.north), cluster.trust("n.cbor", cluster.north)]
    south = [cluster.header_file("s.header", cluster.south), cluster.message("s.message", cluster.south),
             cluster.trust("s.cbor", cluster.south), cluster.proof_file("s.proof", 2)]
    for a in north:
        for b in south:
            code, said = audit(capsys, cluster, a, b)
            assert (code, said["verdict"]) == (1, "contradiction"), (a, b)
            (one,) = said["contradictions"]
            assert (one["kind"], one["channel"], one["height"]) == ("two certificates", "trade", 5)
            assert {side["header"] for side in one["headers"]} == {
                cluster.north.header.hex(), cluster.south.header.hex()}
            both = cluster.kids[:3] if b.endswith("s.proof") else cluster.kids[1:3]
            assert one["members_of_both"] == both and one["light_nodes_of_both"] == []
            assert [side["files"] for side in one["headers"]] == [[a], [b]]
        assert audit(capsys, cluster, a, north[0])[0] == 0


def test_text_names_who_signed_both(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    files = cluster.header_file("a", cluster.north), cluster.header_file("b", cluster.south)
    assert cli.main(["audit", *files, "--trust", str(cluster.folder / "genesis")]) == 1
    said = capsys.readouterr().out
    assert "CONTRADICTION (two certificates) on channel trade, height 5" in said
    for top in (cluster.north.header, cluster.south.header):
        assert header.hash_of(top).hex() in said
    assert f"members that signed both: {cluster.kids[1]}, {cluster.kids[2]}" in said
    chain = cluster.chain
    assert f"co-signed by {chain.kid_of(chain.agent).hex()}" in said
    assert cli.main(["audit", files[0], files[0], "--trust", str(cluster.folder / "genesis")]) == 0
    assert "nothing found" in capsys.readouterr().out


def test_a_meter_that_was_shown_both_has_it_in_one_file(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = audit(capsys, cluster, cluster.trust("both", cluster.north, cluster.south),
                       cluster.trust("fresh"))
    assert code == 1 and said["contradictions"][0]["members_of_both"] == cluster.kids[1:3]


def test_a_witness_of_another_header(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """A replica keeps what a meter was shown by others; its key is known from a header file of either side."""
    kept = cluster.evidence("witness-evidence.cbor", cluster.south)
    other = cluster.chain.kid_of(cluster.chain.other).hex()
    whole = build.header_file(cluster.chain, cluster.sealed(1), (cluster.chain.agent, cluster.chain.other))
    code, said = audit(capsys, cluster, kept, cluster.header_file("a", whole))
    (one,) = said["contradictions"]
    assert (code, one["kind"], one["light_nodes_of_both"]) == (1, "a witness of another header", [other])
    code, said = audit(capsys, cluster, kept, cluster.header_file("b", cluster.north))
    assert (code, said["unchecked_witnesses"]) == (0, 1), "nobody here knows that key: it is said, and counts nothing"


def test_neighbours_that_do_not_belong_together(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    chain = cluster.chain
    for below, code in ((cluster.north, 0), (cluster.south, 1)):
        upper = header.encode(header.Header(1, header.hash_of(cluster.north.header), bytes(32),
                                            build.CREATED_S + 90, 0, 6))
        message = witness.encode_header_message(upper, certificate.encode(chain.certify(upper, (0, 1, 2))), 0, 0, 0)
        found, said = audit(capsys, cluster, cluster.write("upper", message), cluster.header_file("below", below))
        assert found == code
    assert (said["contradictions"][0]["kind"], said["contradictions"][0]["height"]) == ("a broken link", 6)


def test_honest_files_of_different_heights(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    top = header.encode(header.Header(1, bytes(32), bytes(32), build.CREATED_S + 900, 0, 9))
    later = cluster.write("later", witness.encode_header_message(
        top, certificate.encode(cluster.chain.certify(top, (0, 1, 2))), 0, 0, 0))
    code, said = audit(capsys, cluster, cluster.header_file("a", cluster.north), later)
    assert (code, said["headers"], said["in_common"]) == (0, 2, 0)


def test_a_file_that_does_not_hold_proves_nothing(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    good = cluster.header_file("good", cluster.north)
    few = certificate.encode(cluster.chain.certify(cluster.south.header, (0, 1)))
    other = build.Chain(name="two")
    cases = {
        "too_few_signers": cluster.header_file("few", cluster.south._replace(certificate=few)),
        "malformed": cluster.write("rubbish", b"rubbish"),
        "unreadable": str(cluster.folder / "absent"),
        "wrong_chain": cluster.write("foreign", LightNode(other.genesis, verify_digest).save()),
        "bad_signature": cluster.write("forged", witness.encode_header_message(
            cluster.south.header, certificate.encode(cluster.chain.certify(
                cluster.south.header, (0, 1, 2), chain_id=other.chain_id)), 0, 0, 0)),
    }
    for reason, file in cases.items():
        for files in ((good, file), (file, good)):
            code, said = audit(capsys, cluster, *files)
            assert (code, said["verdict"], said["reason"], said["file"]) == (2, "unreadable", reason, file)
    assert cli.main(["audit", good, "--trust", str(cluster.folder / "genesis")]) == 2
    assert "two files" in capsys.readouterr().err
    assert cli.main(["audit", good, good, "--trust", good]) == 2


def test_no_flipped_bit_makes_a_contradiction(cluster: Cluster) -> None:
    """Nobody can be accused by a file that was tampered with: it does not hold, or says the same."""
    names = [cluster.header_file("h", cluster.north), cluster.proof_file("p", 1), cluster.message("m", cluster.north),
             cluster.trust("t", cluster.north), cluster.evidence("e", cluster.north)]
    good = cluster.folder / "h"
    chance = random.Random(11)
    held = 0
    for name in names:
        data = Path(name).read_bytes()
        for _ in range(150):
            changed = bytearray(data)
            for _ in range(chance.randrange(1, 4)):
                at = chance.choice((chance.randrange(len(changed)), len(changed) - 1))
                changed[at] ^= 1 << chance.randrange(8)
            files = audit_module.Files(cluster.chain.genesis)
            files.take("good", good.read_bytes())
            try:
                files.take("changed", bytes(changed))
                claims = files.claims()
            except Refused:
                continue
            held += 1
            assert audit_module.compare(claims) == [], (name, changed.hex())
    assert 0 < held < 150, "a header message's count is nobody's signature"
