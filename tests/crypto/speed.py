"""Prints how long signatures and certificates take in this interpreter, and the reductions of a multiplication.

On a board, from a checkout, with what `pip install mpremote` brings:

    mpremote mount . run tests/crypto/speed.py

`python -m tests.bench 15` runs it in MicroPython under Node and holds the ratios against their aims. One line for each
thing: its name, then its milliseconds in every round (of CPU time where the interpreter can tell, else of the clock).
Under Node the first word says how many rounds; on a board it is one, and the slow yardsticks are left out.
"""

import hashlib
import sys
import time

from firmware.crypto import comb_2k, comb_8k, p256, p256_key
from firmware.crypto.known import KnownKeys
from firmware.crypto.signer import SoftwareSigner
from firmware.wire import certificate, cose
from tests.crypto import yardsticks

try:
    import js  # type: ignore[import-not-found]  # Node's, in MicroPython's WebAssembly port

    def now_us():
        used = js.process.cpuUsage()
        return used.user + used.system  # the sum is exact, how it is divided between the two is not
except ImportError:
    js = None

    def now_us():
        return time.ticks_us() if hasattr(time, "ticks_us") else time.process_time_ns() // 1000

SCALARS = 50  # of which the reductions are counted
CHAIN_ID = bytes(32)
D32 = hashlib.sha256(b"test key 0").digest()
H32 = hashlib.sha256(b"message").digest()


class Counting:
    """The prime, counting how often something is reduced by it."""

    def __init__(self):
        self.count = 0

    def __rmod__(self, number):
        self.count += 1
        return number % yardsticks.P


def reductions(comb):
    """How many each of SCALARS multiplications of the base point takes."""
    p256.use_comb(comb)
    counts = []
    for i in range(SCALARS):
        k = int.from_bytes(hashlib.sha256(b"scalar %d" % i).digest(), "big") % p256.N
        terms, counting = p256.base_terms(k), Counting()
        p256.P = counting  # type: ignore[assignment]
        try:
            p256.multiply(terms)
        finally:
            p256.P = yardsticks.P
        counts.append(counting.count)
    return counts


def signing(signer, comb):
    def sign():
        p256.use_comb(comb)
        return signer.sign_digest(H32)
    return sign


def verifying(signer, comb, table):
    public65, sig64 = signer.public_key(), signer.sign_digest(H32)

    def verify():
        p256.use_comb(comb)
        if not p256.verify_digest(public65, H32, sig64, table):
            raise ValueError("a good signature is refused")
        return sig64
    return verify


def certifying():
    """A certificate of three of four, taken apart and checked as a light node does, every key with its comb."""
    signers = [SoftwareSigner(hashlib.sha256(b"test key %d" % i).digest()) for i in range(4)]
    members = [certificate.Member(bytes([i]) * 8, signers[i].public_key(), bytes(32)) for i in range(4)]
    top = bytes(76) + (7).to_bytes(4, "big")
    vote = certificate.vote_payload(0, "trade", 7, hashlib.sha256(top).digest())
    digest = cose.digest(vote, "header", CHAIN_ID)
    data = certificate.encode(certificate.Certificate(
        0, "trade", 7, hashlib.sha256(top).digest(), (0, 2, 3),
        [signers[i].sign_digest(digest) for i in (0, 2, 3)]))
    known = KnownKeys(4)

    def check():
        p256.use_comb(comb_2k)
        certificate.check_certificate(certificate.decode(data), top, members, 0, "trade", CHAIN_ID,
                                      known.verify_digest)
    check()
    return check


def main(rounds, has_yardsticks):
    p256.use_comb(comb_2k)
    signer = SoftwareSigner(D32)
    public65, expected = signer.public_key(), signer.sign_digest(H32)
    table = p256_key.make_table(public65)
    work = [("sign 2k", signing(signer, comb_2k), 24), ("sign 8k", signing(signer, comb_8k), 32),
            ("verify known", verifying(signer, comb_2k, table), 16),
            ("verify known 8k", verifying(signer, comb_8k, table), 16),
            ("verify any", verifying(signer, comb_2k, b""), 8), ("certificate", certifying(), 6),
            ("make comb", lambda: p256_key.make_table(public65), 8),
            ("jacobian sign", lambda: yardsticks.sign(signer, H32, yardsticks.jacobian), 8)]
    if has_yardsticks:
        work.append(("naive sign", lambda: yardsticks.sign(signer, H32, yardsticks.naive), 1))
    print("reductions 2k:", max(reductions(comb_2k)))
    print("reductions 8k:", max(reductions(comb_8k)))
    for name, one, _ in work:
        if "sign" in name and one() != expected:
            raise ValueError(name + " signs otherwise")
    times: list = [[] for _ in work]
    for _ in range(rounds):
        for i in range(len(work)):
            repeats = work[i][2] if has_yardsticks else 1
            began = now_us()
            for _ in range(repeats):
                work[i][1]()
            times[i].append((now_us() - began) // repeats)
    for i in range(len(work)):
        print(work[i][0] + ":", " ".join(["%d.%03d" % (us // 1000, us % 1000) for us in times[i]]))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1, len(sys.argv) > 1)
