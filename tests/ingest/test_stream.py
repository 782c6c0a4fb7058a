"""What is taken from a broker's connection is what paho would read there; all else reaches paho whole. Also by TLS."""

import random
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt import _packet as paho_packet
from paho.mqtt.enums import MQTTProtocolVersion

from deploy import certificates
from gateway.ingest.mqtt import TlsFiles, tls_context
from gateway.ingest.stream import Publish, Stream

BOUND_S = 10.0


def framed(flags: int, body: bytes) -> bytes:
    """An MQTT packet."""
    made, left = bytearray((flags,)), len(body)
    while True:
        made.append(left % 128 | (128 if left > 127 else 0))
        left //= 128
        if not left:
            return bytes(made) + body


def publish(flags: int, topic: bytes, message: bytes, payload: bytes) -> bytes:
    return framed(flags, len(topic).to_bytes(2, "big") + topic + message + payload)


SIZES = (0, 3, 81, 82, 120, 200, 210, 220, 300, 400, 426, 500, 600, 3000, 16_300, 16_336, 16_340, 16_400, 70_000)
publishes = st.builds(
    publish, st.sampled_from([0x32, 0x32, 0x32, 0x33, 0x3A, 0x3B, 0x30, 0x34, 0x36]),
    st.just(b"gridseal/1/home/0011223344556677/envelope") | st.binary(max_size=40),
    st.sampled_from([b"\0\1", b"\x12\x34", b"\xff\xff", b"\0\0", b""]), st.sampled_from(SIZES).map(bytes))
lies = st.builds(lambda size, rest: framed(0x32, size.to_bytes(2, "big") + rest), st.integers(0, 65_535),
                 st.integers(0, 300).map(bytes))  # of a topic longer than the packet
others = st.sampled_from([b"\x20\x02\0\0", b"\x40\x02\0\7", b"\xd0\0", b"\x90\x03\0\1\1", framed(0x90, bytes(500))])
# A length that is not the shortest, and one that is none.
loose = st.sampled_from([b"\x32\x85\x00\0\1a\0\1", b"\x32\xff\xff\xff\xff\x01"])


def read_all(stream: Stream, limit: int = 1000) -> list[Publish | bytes]:
    """Publishes that were taken, and what paho got between them, until the connection ends."""
    found: list[Publish | bytes] = []
    while True:
        stream.fill()
        while True:
            taken = stream.take(limit)
            found += taken
            if not taken and stream.is_for_paho():
                piece = stream.recv(random.randrange(1, 300))
                if not piece:
                    return found
                if found and isinstance(found[-1], bytes):
                    found[-1] += piece
                else:
                    found.append(piece)
            elif not taken:
                break


def judge(found: list[Publish | bytes], sent: list[bytes]) -> int:
    """Every packet that was sent was taken as paho reads it, or left to paho whole; how many were taken."""
    packets, taken, at = iter(sent), 0, 0
    for one in found:
        if isinstance(one, bytes):
            while at < len(one):
                packet = next(packets)
                assert one[at:at + len(packet)] == packet
                at += len(packet)
            at = 0
        else:
            packet = next(packets)
            body = packet[3:]  # the head of what is taken has three bytes
            read = paho_packet.decode_publish(packet[0], body, MQTTProtocolVersion.MQTTv311)
            assert (read.qos, read.topic, read.payload, read.mid, read.retain) == (
                1, one.topic, one.payload, one.message, one.retained)
            taken += 1
    assert next(packets, None) is None
    return taken


@contextmanager
def fed(pieces: list[bytes], is_311: bool = True) -> Iterator[Stream]:
    ours, theirs = socket.socketpair()
    stream = Stream(ours, is_311)
    stream.setblocking(True)

    def send() -> None:
        for piece in pieces:
            theirs.sendall(piece)
        theirs.close()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield stream
    finally:
        stream.close()
        thread.join(BOUND_S)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in zip(ends, ends[1:])]


@settings(max_examples=300, deadline=None)
@given(st.lists(publishes | publishes | others | lies, max_size=12), st.lists(st.integers(0, 10**6), max_size=12),
       st.integers(1, 4), st.booleans())
def test_every_packet_is_taken_as_paho_reads_it_or_left_to_paho(
        sent: list[bytes], places: list[int], limit: int, is_311: bool) -> None:
    with fed(cut(b"".join(sent), places), is_311) as stream:
        taken = judge(read_all(stream, limit), sent)
    assert is_311 or taken == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(publishes, max_size=3), loose, st.binary(max_size=30))
def test_a_length_that_is_none_is_for_paho_to_refuse(good: list[bytes], bad: bytes, rest: bytes) -> None:
    with fed([*good, bad + rest]) as stream:
        found = read_all(stream)
    lent = b"".join(one for one in found if isinstance(one, bytes))
    assert bad in lent


def test_what_meters_send_is_taken() -> None:
    sent = [publish(0x32, b"gridseal/1/home/0011223344556677/envelope", bytes((0, 1 + number)), bytes(400 + number))
            for number in range(200)]
    with fed(cut(b"".join(sent), [7, 5000, 5001, 5002, 5003, 5004, 5005, 60_000])) as stream:
        assert judge(read_all(stream), sent) == 200


def test_a_connection_that_breaks_says_so() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    stream = Stream(socket.create_connection(listener.getsockname()), True)
    other, _ = listener.accept()
    other.sendall(publish(0x32, b"a", b"\0\1", bytes(200)))
    stream.setblocking(True)
    assert stream.fill() and len(stream.take(9)) == 1 and not stream.is_for_paho()
    with pytest.raises(BlockingIOError):
        stream.recv(1)
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    other.close()
    assert stream.fill() and not stream.take(9) and stream.is_for_paho()
    with pytest.raises(ConnectionResetError):
        stream.recv(1)
    stream.close()
    listener.close()


@pytest.mark.parametrize("is_tls", [False, True])
def test_what_the_system_does_not_take_at_once_is_sent_later(tmp_path: Path, is_tls: bool) -> None:
    area, heard, is_full = make_tls(tmp_path), bytearray(), threading.Event()

    def serve(sock: socket.socket) -> None:
        assert is_full.wait(BOUND_S)
        while not heard.endswith(b"the end"):
            heard.extend(sock.recv(65_536))

    with peer(area.server if is_tls else None, serve) as sock:
        stream = Stream(sock, True, tls_context(area.client) if is_tls else None, "127.0.0.1")
        stream.setblocking(False)
        sent = bytearray()
        while not stream.wants_write():
            sent += random.randbytes(100_000)
            stream.send(bytes(sent[-100_000:]))
            stream.flush()
        is_full.set()
        stream.send(b"the end")
        while stream.wants_write():
            assert select.select([], [stream], [], BOUND_S)[1]
            stream.flush()
        while not stream.is_for_paho():  # closing what has not been read to its end would lose what the peer has not
            assert select.select([stream], [], [], BOUND_S)[0]
            stream.fill()
        stream.close()
    assert heard == sent + b"the end"


# TLS, with certificates as an area has them.


class Area(NamedTuple):
    server: ssl.SSLContext
    client: TlsFiles


def make_tls(folder: Path, host: str = "127.0.0.1") -> Area:
    """A broker's side that demands a certificate, and a replica's files."""
    ca_key, ca = certificates.make_ca("home")
    (folder / "ca.crt").write_bytes(certificates.pem(ca))
    for name, hosts in (("broker", (host,)), ("replica", ())):
        key = certificates.generate_key()
        certificates.write_secret(folder / f"{name}.key", certificates.key_pem(key))
        leaf = certificates.issue(ca_key, ca, key.public_key(), name, hosts)
        (folder / f"{name}.crt").write_bytes(certificates.pem(leaf))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.crt"))
    server.load_cert_chain(folder / "broker.crt", folder / "broker.key")
    server.verify_mode = ssl.CERT_REQUIRED
    return Area(server, TlsFiles(str(folder / "ca.crt"), str(folder / "replica.crt"), str(folder / "replica.key")))


@contextmanager
def peer(server: ssl.SSLContext | None, serve: Callable[[Any], None]) -> Iterator[socket.socket]:
    """A connection to a thread that serves one, with TLS or without; an OSError ends it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        raw, _ = listener.accept()
        raw.settimeout(BOUND_S)
        with suppress(OSError), server.wrap_socket(raw, server_side=True) if server else raw as sock:
            serve(sock)
        raw.close()

    thread = threading.Thread(target=run)
    thread.start()
    sock = socket.create_connection(listener.getsockname(), BOUND_S)
    try:
        yield sock
    finally:
        sock.close()
        thread.join(BOUND_S)
        listener.close()
        assert not thread.is_alive()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("is_orderly", [False, True])
def test_the_same_over_tls(tmp_path: Path, version: ssl.TLSVersion, is_orderly: bool) -> None:
    area = make_tls(tmp_path)
    area.server.maximum_version = version
    sizes = (400, 100, 16_000, 16_340, 40_000, *range(100, 700, 7))
    sent = [publish(0x32, b"gridseal/1/home/0011223344556677/envelope", bytes((1, number)), bytes(size))
            for number, size in enumerate(sizes)]
    heard = bytearray()

    def serve(sock: ssl.SSLSocket) -> None:
        for packet in sent:  # as a broker does: a record for each, or several where it is long
            sock.sendall(packet)
        while len(heard) < 300_004 and (piece := sock.recv(65_536)):
            heard.extend(piece)
        if is_orderly:
            sock.unwrap()

    with peer(area.server, serve) as sock:
        stream = Stream(sock, True, tls_context(area.client), "127.0.0.1")
        found: list[Publish | bytes] = []
        while len(found) < len(sent):
            assert stream.pending() or stream.fill()
            found += stream.take(10)
            if stream.is_for_paho():
                assert len(found) in (3, 4), "only the two long ones are paho's"
                piece = b""
                while stream.is_for_paho() or len(piece) < len(sent[len(found)]):
                    if not stream.is_for_paho():
                        stream.fill()
                        continue
                    piece += stream.recv(70_000)
                found.append(piece)
        assert judge(found, sent) == len(sent) - 2
        stream.acknowledge(0x0102)
        assert stream.wants_write()
        stream.send(bytes(300_000))
        stream.flush()
        assert not stream.wants_write()
        while not stream.is_for_paho():
            assert stream.fill()
        assert stream.recv(1) == b""
        assert bytes(heard) == b"\x40\x02\x01\x02" + bytes(300_000)
        stream.close()


def test_a_stranger_is_no_broker(tmp_path: Path) -> None:
    for name in ("ours", "other", "elsewhere"):
        (tmp_path / name).mkdir()
    ours, other = make_tls(tmp_path / "ours"), make_tls(tmp_path / "other")
    elsewhere = make_tls(tmp_path / "elsewhere", "127.0.0.2")
    for server, client in ((other.server, ours.client), (elsewhere.server, elsewhere.client)):
        with peer(server, lambda sock: None) as sock, pytest.raises(ssl.SSLCertVerificationError):
            Stream(sock, True, tls_context(client), "127.0.0.1")
    no_tls = socket.create_server(("127.0.0.1", 0))
    sock = socket.create_connection(no_tls.getsockname(), BOUND_S)
    no_tls.accept()[0].close()
    with pytest.raises(OSError):
        Stream(sock, True, tls_context(ours.client), "127.0.0.1")
    assert sock.fileno() == -1, "closed"
    no_tls.close()


def test_a_certificate_of_another_area_is_refused_and_the_link_hears_why(tmp_path: Path) -> None:
    for name in ("ours", "other"):
        (tmp_path / name).mkdir()
    ours, other = make_tls(tmp_path / "ours"), make_tls(tmp_path / "other")
    stranger = TlsFiles(ours.client.ca, other.client.certificate, other.client.key)
    with peer(ours.server, lambda sock: None) as sock:
        stream = Stream(sock, True, tls_context(stranger), "127.0.0.1")  # TLS 1.3: we are done before the broker looks
        while not stream.is_for_paho():
            assert stream.fill()
        with pytest.raises(OSError, match="ALERT|alert|reset|Broken"):
            stream.recv(1)
        stream.close()
