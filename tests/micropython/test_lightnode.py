"""Checks the light node on a board's heap: 56 KiB, code and all, in the real interpreter.

200 headers of a chain of four are followed; every kind of forged certificate is refused for its reason, and nothing is
believed meanwhile; two valid certificates for one height stop it, and it shows both. Keys and certificates are
OpenSSL's, so the pure P-256 is held against another's signatures all along.
"""

import contextlib
import hashlib
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware.crypto.openssl import OpenSSLSigner
from firmware.wire import cbor, certificate, cose, header
from tests.firmware.world import Chain
from tests.micropython.bounded import bounded, compile_all
from tests.micropython.interpreter import command

BOARD_HEAP = 56 * 1024  # the first heap area of MicroPython's ESP32 port
HEADERS = {"1.27": 40, "1.29": 200}  # the newest goes the whole way: a header is three verifications, 60 ms of a core
GROWTH_BYTES = 512  # between two looks: a certificate of four signatures in the place of one of three, a stale word
START_S = 1_767_225_600
WAIT_S = 120
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

Step = tuple[bytes, bytes, int, str]  # header, certificate, now, what the node is to say


def header_at(chain: Chain, height: int, time_s: int = 0) -> bytes:
    """The header that comes next, should it have this height; its time rises with it."""
    return chain.header([b"leaf %d" % height], time_s or START_S + 60 * height, height=height)


def changed(data: bytes, at: int, mask: int = 1) -> bytes:
    out = bytearray(data)
    out[at] ^= mask
    return bytes(out)


def recoded(chain: Chain, top: bytes, field: int, value: object) -> bytes:
    """The good certificate of a header with one field of its CBOR replaced."""
    fields = cbor.decode(chain.certify(top))
    fields[field] = value
    return cbor.encode(fields)


def signatures_of(chain: Chain, top: bytes) -> list[bytes]:
    return list(certificate.decode(chain.certify(top)).signatures)


def foreign(chain: Chain, top: bytes, kind: str, signer: OpenSSLSigner) -> bytes:
    """A signature over the header's vote that is somebody else's, or of another kind."""
    vote = certificate.vote_payload(0, "trade", header.decode(top).height, header.hash_of(top))
    return signer.sign_digest(cose.digest(vote, kind, chain.chain_id))


def forgeries(chain: Chain, height: int) -> Iterator[tuple[str, bytes, bytes]]:
    """(reason, header, certificate) of each kind; a bitmap of 7 names members 0, 1 and 2."""
    top = header_at(chain, height)
    good = chain.certify(top)
    three = signatures_of(chain, top)
    other = OpenSSLSigner.from_scalar(hashlib.sha256(b"test stranger").digest())
    yield "too_few_signers", top, chain.certify(top, [0, 1])
    yield "too_few_signers", top, chain.certify(top, [3])
    yield "too_few_signers", top, chain.certify(top, [])
    yield "duplicate_signer", top, recoded(chain, top, 6, [*three, three[0]])
    yield "duplicate_signer", top, cbor.encode([1, 0, "trade", height, header.hash_of(top), b"\x03", three])
    yield "unknown_signer", top, recoded(chain, top, 5, b"\x13")
    yield "unknown_signer", top, recoded(chain, top, 5, b"\x03\x80")
    yield "bad_signature", top, chain.certify(top, chain_id=bytes(32))
    yield "wrong_epoch", top, chain.certify(top, epoch=1)
    yield "wrong_channel", top, chain.certify(top, channel="credit")
    yield "wrong_height", top, chain.certify(header_at(chain, height + 1))
    yield "wrong_header", top, chain.certify(header_at(chain, height, START_S + 60 * height + 1))
    yield "wrong_header", changed(top, 40), good
    yield "wrong_height", changed(top, 79), good
    yield "bad_signature", top, recoded(chain, top, 6, [three[0], three[1], changed(three[2], 5)])
    yield "bad_signature", top, recoded(chain, top, 6, [three[0], changed(three[1], 63), three[2]])
    yield "bad_signature", top, recoded(chain, top, 6, [three[1], three[0], three[2]])
    yield "bad_signature", top, recoded(chain, top, 5, b"\x0d")
    yield "bad_signature", top, recoded(chain, top, 6, [*three[:2], foreign(chain, top, "header", other)])
    yield "bad_signature", top, recoded(chain, top, 6, [*three[:2], foreign(chain, top, "pbft", chain.signers[2])])
    yield "bad_signature", top, recoded(chain, top, 6, [*three[:2], bytes(64)])
    yield "bad_signature", top, recoded(chain, top, 6, [*three[:2], three[2][:32] + N.to_bytes(32, "big")])
    yield "malformed", top, good + b"\0"
    yield "malformed", top, good[:-1]
    yield "malformed", top, recoded(chain, top, 5, b"\x07\x00")
    yield "wrong_version", top, recoded(chain, top, 0, 2)
    yield "malformed", top[:79], good
    yield "wrong_version", changed(top, 3, 3), good
    # what not even a quorum can make true
    stray = chain.header([b"stray"], START_S + 60 * height, b"\x01" * 32, height)
    yield "wrong_parent", stray, chain.certify(stray)
    early = header_at(chain, height, START_S + 60 * (height - 1) - 1)
    yield "wrong_time", early, chain.certify(early)
    late = header_at(chain, height, START_S + 60 * height + 3600)
    yield "wrong_time", late, chain.certify(late)


def steps(chain: Chain, headers: int) -> list[Step]:
    """Headers with all forgeries in between, the quorum going round; the end is a second valid history."""
    made: list[Step] = []
    kinds = len(list(forgeries(chain, 1)))
    assert 20 <= kinds < headers
    for height in range(1, headers + 1):
        now_s = START_S + 60 * height
        if 1 < height <= kinds + 1:
            reason, top, proof = list(forgeries(chain, height))[height - 2]
            made.append((top, proof, now_s, f"{reason} {height - 1}"))
        top = header_at(chain, height)
        quorum = sorted((height + k) % 4 for k in range(3))
        made.append((top, chain.certify(top, quorum), now_s, str(height)))
        if height % 20 == 0:  # the same header by other signers is no contradiction
            made.append((top, chain.certify(top, [0, 1, 2, 3]), now_s, str(height)))
        if height < headers:
            chain.tip = top
    rival = header_at(chain, headers, START_S + 60 * headers + 1)
    made.append((rival, chain.certify(rival), START_S + 60 * headers, f"contradiction {headers}"))
    chain.tip = top
    after = header_at(chain, headers + 1)
    made.append((after, chain.certify(after), START_S + 60 * headers + 60, f"contradiction {headers}"))
    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Step]]]:
    """A folder with a chain's data for each version; what is to be said."""
    folder = tmp_path_factory.mktemp("lightnode")
    made = {}
    for version, headers in HEADERS.items():
        chain = Chain(created_s=START_S)
        made[version] = steps(chain, headers)
        (folder / version).mkdir()
        (folder / version / "genesis.cbor").write_bytes(chain.genesis)
        with open(folder / version / "steps.bin", "wb") as file:
            for top, proof, now_s, _ in made[version]:
                file.write(struct.pack(">HHI", len(top), len(proof), now_s) + top + proof)
    return folder, made


def line(version: str, folder: Path, heap_bytes: int, *words: str) -> list[str]:
    made = compile_all(folder)
    options = made.options(heap_bytes, {folder / version: "/data"})
    return command(bounded(version), made.scripts / "lightnode.mpy", *words, options=options)


def test_it_follows_refuses_and_stops_on_a_boards_heap(data: tuple[Path, dict[str, list[Step]]]) -> None:
    folder, made = data
    with contextlib.ExitStack() as stack:
        children = {version: stack.enter_context(subprocess.Popen(
            line(version, folder, BOARD_HEAP), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
            for version in made}
        for child in children.values():
            stack.callback(child.kill)
        found = {version: child.communicate(timeout=WAIT_S) for version, child in children.items()}
    for version, (out, errors) in found.items():
        assert (children[version].returncode, errors) == (0, "")
        todo = made[version]
        said = [text for text in out.splitlines() if not text.startswith(("heap ", "shown "))]
        assert said == [expected for _, _, _, expected in todo]
        shown = [f"shown {todo[at][0].hex()} {todo[at][1].hex()}" for at in (-4, -2)]  # -3: the same by four signers
        assert [text for text in out.splitlines() if text.startswith("shown ")] == shown + shown
        used = [int(text.split()[2]) for text in out.splitlines() if text.startswith("heap ")]
        print(f"light node in {version}: bytes in use at the start and after each 50 steps", used)
        assert len(used) >= 2 and max(used[1:]) - used[1] <= GROWTH_BYTES, f"it grows: {used}"


def test_less_heap_is_not_enough(data: tuple[Path, dict[str, list[Step]]]) -> None:
    """What the limit is worth: with a quarter of it the same files cannot run."""
    for version in HEADERS:
        done = subprocess.run(line(version, data[0], BOARD_HEAP // 4, "4"), capture_output=True, text=True,
                              timeout=WAIT_S)
        assert done.returncode == 1 and "MemoryError" in done.stderr
