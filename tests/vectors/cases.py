"""Makes plain cases, with the verdict that is expected of us, from the published vector files."""

import base64
import hashlib
import json
from io import BytesIO
from typing import Any, NamedTuple

import cbor2

from tests import needs

WYCHEPROOF_RAW = "wycheproof/ecdsa_secp256r1_sha256_p1363_test.json"
WYCHEPROOF_DER = "wycheproof/ecdsa_secp256r1_sha256_test.json"
RFC6979 = "rfc6979/rfc6979_a2_5_p256.json"
CBOR_A = "cbor/appendix_a.json"
CBOR_F = "cbor/not_well_formed_rfc8949_F.json"
INCLUSION = "merkle/inclusion.json"
HASHER = "merkle/rfc6962_hasher.json"
COSE = "cose-wg"
LARGEST = (1 << 64) - 1


class Signature(NamedTuple):
    """One signature to verify; `signature` is r || s or DER, as the file has it."""

    name: str
    public65: bytes
    h32: bytes
    signature: bytes
    is_good: bool


class Nonce(NamedTuple):
    """One deterministic signature; s as published, so not always the low one."""

    d32: bytes
    public65: bytes
    h32: bytes
    r: int
    s: int


class Inclusion(NamedTuple):
    """One inclusion proof."""

    name: str
    leaf_hash: bytes
    at: int
    size: int
    path: list[bytes]
    root: bytes
    is_good: bool


class Cose(NamedTuple):
    """One COSE message: its bytes with a kid of our length, whether it has exactly our form, and its signature."""

    name: str
    message: bytes
    has_our_form: bool
    public65: bytes | None  # None: a key of another curve
    to_be_signed: bytes
    external: bytes
    signature: bytes
    is_signed: bool


def load(name: str) -> Any:
    return json.loads(needs.vectors(name).read_text())


def wycheproof(name: str) -> list[Signature]:
    """Every test of a Wycheproof file; none of them is `acceptable`, so each has one right verdict."""
    content = load(name)
    cases = []
    for group in content["testGroups"]:
        public65 = bytes.fromhex(group["publicKey"]["uncompressed"])
        for test in group["tests"]:
            assert test["result"] in ("valid", "invalid")
            cases.append(Signature(f"{test['tcId']} {test['comment']}", public65,
                                   hashlib.sha256(bytes.fromhex(test["msg"])).digest(), bytes.fromhex(test["sig"]),
                                   test["result"] == "valid"))
    assert len(cases) == content["numberOfTests"]
    return cases


def rfc6979() -> list[Nonce]:
    """RFC 6979, appendix A.2.5, P-256 with SHA-256."""
    content = load(RFC6979)
    public65 = bytes.fromhex("04" + content["Ux"] + content["Uy"])
    return [Nonce(bytes.fromhex(content["x"]), public65, hashlib.sha256(vector["message"].encode()).digest(),
                  int(vector["r"], 16), int(vector["s"], 16)) for vector in content["vectors"]]


def cbor() -> list[tuple[bytes, bool]]:
    """(bytes, do we accept them): RFC 8949's appendix A under the rule of Strictness, appendix F all refused."""
    cases = [(data, is_in_our_language(data)) for data in (bytes.fromhex(vector["hex"]) for vector in load(CBOR_A))]
    for group in load(CBOR_F)["cases"].values():
        cases += [(bytes.fromhex(text), False) for text in group]
    return cases


def is_in_our_language(data: bytes) -> bool:
    """wire.md, Strictness, by another decoder: int of 64 bits, bytes, text, array, map with integer keys -24..23,
    bool, null; shortest and definite (canonical re-encoding gives the same bytes)."""
    try:
        value = cbor2.load(BytesIO(data))
    except cbor2.CBORDecodeError:  # simple(24): RFC 7049 had it, RFC 8949 has not
        return False
    return _is_plain(value) and cbor2.dumps(value, canonical=True) == data


def _is_plain(value: Any) -> bool:
    if value is None or isinstance(value, bool | bytes | str):
        return True
    if isinstance(value, int):
        return -LARGEST - 1 <= value <= LARGEST
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(type(key) is int and -24 <= key <= 23 and _is_plain(item) for key, item in value.items())
    return False


def inclusion() -> list[Inclusion]:
    """Inclusion proofs of transparency-dev/merkle, and every leaf of the Certificate Transparency trees of 1 to 8."""
    cases = []
    for test in load(INCLUSION):
        path = [base64.b64decode(node) for node in test["proof"] or ()]
        cases.append(Inclusion(test["path"], base64.b64decode(test["leafHash"]), test["leafIdx"], test["treeSize"],
                               path, base64.b64decode(test["root"]), not test["wantErr"]))
    return cases


def cose() -> list[Cose]:
    """sign1-tests and ecdsa-examples of cose-wg/Examples. The unprotected kid `11` is not signed: it is made eight
    bytes long, so that what decides is the rest of the message."""
    folder = needs.vectors(COSE)
    cases = []
    for path in sorted(folder.glob("sign1-tests/*.json")) + sorted(folder.glob("ecdsa-examples/*.json")):
        content = json.loads(path.read_text())
        whole = bytes.fromhex(content["output"]["cbor"])
        tagged = cbor2.loads(whole)
        parts = tagged.value if isinstance(tagged, cbor2.CBORTag) else tagged
        signer = content["input"].get("sign0") or content["input"]["sign"]["signers"][0]
        intermediate = content["intermediates"]
        key, is_sign1 = signer["key"], "sign0" in content["input"]
        if not is_sign1:
            intermediate, signature = intermediate["signers"][0], parts[3][0][2]
        else:
            signature = parts[3]
            # What the message itself says, not what its author signed: the fail tests differ in just that.
            protected = b"" if parts[0] == cbor2.dumps({}) else parts[0]
            external = bytes.fromhex(signer.get("external", ""))
            intermediate = {"ToBeSign_hex": cbor2.dumps(["Signature1", protected, external, parts[2]]).hex()}
        public65 = None
        if key["crv"] == "P-256":
            public65 = b"\x04" + _base64url(key["x"]) + _base64url(key["y"])
        cases.append(Cose(
            path.stem, whole.replace(b"\x04\x42\x31\x31", b"\x04\x48kid of 8"), path.stem in HAVE_OUR_FORM, public65,
            bytes.fromhex(intermediate["ToBeSign_hex"]), bytes.fromhex(signer.get("external", "")), signature,
            path.stem in ARE_SIGNED))
    return cases


# tag 18, protected exactly {1: -7}, unprotected exactly {4: kid}: wire.md, Who signs what.
HAVE_OUR_FORM = ("sign-pass-02", "sign-fail-02", "sign-fail-07")
# ES256 over the Sig_structure verifies. sign-pass-01, sign-pass-03, sign-fail-01 and ecdsa-sig-01 only fail our form;
# ecdsa-04 and ecdsa-sig-04 hash with SHA-512, ecdsa-sig-02 and -03 are on other curves.
ARE_SIGNED = ("sign-pass-01", "sign-pass-02", "sign-pass-03", "sign-fail-01", "ecdsa-01", "ecdsa-sig-01")


def _base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
