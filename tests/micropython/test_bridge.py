"""Checks the bridge: MicroPython code has sockets, waits, chance and files, by real connections to this process."""

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy import certificates
from deploy.clock import LEAD_MS, ClockKeeper
from tests.micropython.interpreter import VERSIONS, Options, command, stock

WAIT_S = 20


@pytest.fixture(params=VERSIONS)
def interpreter(request: pytest.FixtureRequest) -> Path:
    return stock(request.param)


@contextlib.contextmanager
def server(serve: Callable[[socket.socket], None], count: int = 1) -> Iterator[int]:
    """A port on loopback where each of `count` connections is served in turn."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(WAIT_S)

    def run() -> None:
        for _ in range(count):
            with contextlib.suppress(OSError):
                link = listener.accept()[0]
                link.settimeout(WAIT_S)
                with link:
                    serve(link)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    thread.join(WAIT_S)
    listener.close()


def echo(link: socket.socket) -> None:
    while data := link.recv(65536):
        link.sendall(data)


def outcome(folder: Path, interpreter: Path, text: str, *words: str, options: Options = Options()  # noqa: B008
            ) -> tuple[int, str, str]:
    """(exit code, output, errors) of a script's text."""
    script = folder / "script.py"
    script.write_text(text)
    done = subprocess.run(command(interpreter, script, *words, options=options), capture_output=True, text=True,
                          timeout=WAIT_S)
    return done.returncode, done.stdout, done.stderr


def test_bytes_come_back_and_nobody_waits_longer_than_asked(tmp_path: Path, interpreter: Path) -> None:
    with server(echo) as port:
        found = outcome(tmp_path, interpreter, """
import select, socket, sys, time
link = socket.socket()
link.connect(socket.getaddrinfo("127.0.0.1", int(sys.argv[1]))[0][-1])
link.setblocking(False)
poller = select.poll()
poller.register(link, select.POLLIN)
print(link.readinto(bytearray(4)), link.read(4))
start = time.ticks_ms()
print(poller.poll(50), 45 <= time.ticks_diff(time.ticks_ms(), start) < 2000)
sent = bytes([i & 255 for i in range(150000)])
print(link.write(sent))
got = b""
while len(got) < len(sent):
    print("late") if not poller.poll(5000) else None
    got += link.read(70000) or b""
print(got == sent)
link.settimeout(0.05)
try:
    link.recv(1)
except OSError as error:
    print(error.errno)
link.settimeout(5)
link.write(b"abcdef")
print(link.recv(2), link.read(4))
link.close()
""", str(port))
    assert found == (0, "None None\n[] True\n150000\nTrue\n110\nb'ab' b'cdef'\n", "")


def test_ends_and_refusals_are_a_boards_errors(tmp_path: Path, interpreter: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        closed_port = gone.getsockname()[1]
    with server(lambda link: link.sendall(b"bye")) as port:
        found = outcome(tmp_path, interpreter, """
import socket, sys
link = socket.socket()
try:
    link.connect(("127.0.0.1", int(sys.argv[1])))
except OSError as error:
    print(error.errno)
link = socket.socket()
link.connect(("127.0.0.1", int(sys.argv[2])))
print(link.read(10), link.read(1), link.recv(1))
link.close()
try:
    link.recv(1)
except OSError as error:
    print(error.errno)
""", str(closed_port), str(port))
    assert found == (0, "111\nb'bye' b'' b''\n9\n", "")


def test_random_bytes_are_random_and_sleep_sleeps(tmp_path: Path, interpreter: Path) -> None:
    code, out, errors = outcome(tmp_path, interpreter, """
import os, time
print(os.urandom(16) == os.urandom(16), len(os.urandom(0)), len({b for b in os.urandom(256)}) > 64)
start = time.ticks_us()
time.sleep_ms(30)
print(28000 < time.ticks_diff(time.ticks_us(), start) < 2000000)
""")
    assert (code, out, errors) == (0, "False 0 True\nTrue\n", "")


def test_files_are_copied_out_whatever_the_end_is(tmp_path: Path, interpreter: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.bin").write_bytes(bytes(range(256)))
    options = Options({tmp_path / "in": "/data"}, {"/data": tmp_path / "out"})
    code, _, errors = outcome(tmp_path, interpreter, """
import os
os.mkdir("/data/sub")
with open("/data/sub/b.bin", "wb") as file:
    file.write(open("/data/a.bin", "rb").read()[1:])
raise ValueError("the end")
""", options=options)
    assert code == 1 and "ValueError: the end" in errors
    assert (tmp_path / "out" / "a.bin").read_bytes() == bytes(range(256))
    assert (tmp_path / "out" / "sub" / "b.bin").read_bytes() == bytes(range(1, 256))


@pytest.mark.parametrize("case", ["good", "wrong CA", "wrong name"])
def test_tls_knows_its_authority_and_the_name(case: str, tmp_path: Path, interpreter: Path) -> None:
    """The broker's side is Python's TLS, which demands the client's certificate and shows whose it is."""
    key, ca = certificates.make_ca("home")
    other_key, other = certificates.make_ca("home")
    own, theirs = certificates.generate_key(), certificates.generate_key()
    hosts = ("broker.example",) if case == "wrong name" else ("127.0.0.1",)
    signer = (other_key, other) if case == "wrong CA" else (key, ca)
    files = {"ca.crt": certificates.pem(ca), "tls.key": certificates.key_pem(own),
             "tls.crt": certificates.pem(certificates.issue(key, ca, own.public_key(), "0123456789abcdef")),
             "broker.key": certificates.key_pem(theirs),
             "broker.crt": certificates.pem(certificates.issue(*signer, theirs.public_key(), "broker", hosts))}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "broker.crt", tmp_path / "broker.key")
    context.load_verify_locations(tmp_path / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED

    def serve(link: socket.socket) -> None:
        with context.wrap_socket(link, server_side=True) as secure:
            shown: Any = secure.getpeercert()
            secure.sendall(dict(pair[0] for pair in shown["subject"])["commonName"].encode())

    with server(serve) as port:
        code, out, errors = outcome(tmp_path, interpreter, """
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.load_verify_locations(cadata=open("/data/ca.crt", "rb").read())
context.load_cert_chain(open("/data/tls.crt", "rb").read(), open("/data/tls.key", "rb").read())
link = socket.socket()
link.connect(("127.0.0.1", int(sys.argv[1])))
try:
    link = context.wrap_socket(link, server_hostname="127.0.0.1")
    print(link.read(16))
except OSError:
    print("refused")
""", str(port), options=Options({tmp_path: "/data"}))
    assert code == 0, errors
    assert out == ("b'0123456789abcdef'\n" if case == "good" else "refused\n")


def test_it_takes_part_in_the_shared_clock(tmp_path: Path, interpreter: Path) -> None:
    """Label time comes from the keeper's page, waits from the machine's clock; progress lets the clock go on."""
    start_ms = 1_700_000_000_000
    keeper = ClockKeeper(tmp_path / "clock", start_ms, 600, ["board"])
    keeper.run_until(start_ms + 3_600_000)
    stop = threading.Event()

    def keep() -> None:
        while not stop.wait(0.002):
            keeper.step()

    thread = threading.Thread(target=keep)
    thread.start()
    code, out, errors = outcome(tmp_path, interpreter, """
from shared_clock import SharedClock
import time
clock = SharedClock()
print(clock.speed, clock.quality())
while clock.now_ms() < %d:
    clock.progress(%d)
    time.sleep_ms(1)
first = clock.monotonic_ms()
time.sleep_ms(20)
print(clock.now_ms() <= %d, 18 <= clock.monotonic_ms() - first < 2000)
clock.progress(%d)
""" % (start_ms + 60_000, start_ms + 60_000, start_ms + 60_000 + LEAD_MS, start_ms + 120_000),
                                options=Options(clock=(tmp_path / "clock", "board")))
    stop.set()
    thread.join()
    assert (code, out, errors) == (0, "600 2\nTrue True\n", "")
    assert keeper.slowest_ms() == start_ms + 120_000
