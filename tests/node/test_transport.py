"""Checks the mesh of peers over real sockets and TLS: frames arrive, strangers stay outside, lines come back."""

import asyncio
import random
import select
import socket
import ssl
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.wire import cbor
from firmware.wire.errors import Refused
from gateway import connection as connection_module
from gateway.connection import FRAME_HEAD, STRANGER_BYTES, decode_frame, encode_frame, key_hash, tls_contexts
from gateway.transport import AWAY_FRAMES, CONSENSUS, WANT_BLOCKS, Mesh, Peer, Transport
from tests.node.area import Authority

FRAME_BYTES = 1 << 20
WAIT_S = 10


class Node:
    """One end of the mesh, with an inbox to wait on."""

    def __init__(self, index, mesh, contexts):
        self.frames: asyncio.Queue[tuple[int, int, object]] = asyncio.Queue()
        self.peers: asyncio.Queue[tuple[int, bool]] = asyncio.Queue()
        self.transport = Transport(mesh, contexts, lambda *frame: self.frames.put_nowait(frame),
                                   lambda *change: self.peers.put_nowait(change), random.Random(index))

    async def next_frame(self):
        return await asyncio.wait_for(self.frames.get(), WAIT_S)

    async def until_connected(self, count):
        while len(self.transport.connected()) != count:
            await asyncio.wait_for(self.peers.get(), WAIT_S)


class Area:
    """Keys and addresses of n replicas; starts and stops their ends."""

    def __init__(self, folder, n):
        self.authority = Authority(folder)
        self.pairs = [self.authority.issue(f"replica-{index}") for index in range(n)]
        self.addresses = ["127.0.0.1:0"] * n
        self.nodes = {}

    async def start(self, index):
        hashes = [key_hash(der) for _, _, der in self.pairs]
        certificate, key, _ = self.pairs[index]
        node = Node(index, Mesh(index, hashes, list(self.addresses), FRAME_BYTES),
                    tls_contexts(certificate, key, self.authority.path))
        self.nodes[index] = node
        await node.transport.start(self.addresses[index])
        self.addresses[index] = node.transport.listen
        return node

    async def stop(self):
        await asyncio.gather(*(node.transport.close() for node in self.nodes.values()))


@pytest.fixture
def run(tmp_path):
    """Runs a coroutine function with an area of n replicas that is stopped afterwards."""
    def go(n, body):
        async def inside():
            area = Area(tmp_path, n)
            try:
                for index in range(n):
                    await area.start(index)  # rising: who dials knows the address by then
                for node in area.nodes.values():
                    await node.until_connected(n - 1)
                await body(area)
            finally:
                await area.stop()
        asyncio.run(asyncio.wait_for(inside(), 60))
    return go


def test_frames_reach_one_peer_and_all_in_order(run):
    async def body(area):
        sender = area.nodes[1].transport
        big = random.Random(1).randbytes(FRAME_BYTES - 100)
        sender.send(None, CONSENSUS, b"first")
        sender.send(2, WANT_BLOCKS, ["trade", 1, 10])
        sender.send(None, CONSENSUS, big)
        for number in range(2000):
            sender.send(None, CONSENSUS, number.to_bytes(4, "big"))
        for index in (0, 2, 3):
            node = area.nodes[index]
            assert await node.next_frame() == (1, CONSENSUS, b"first")
            if index == 2:
                assert await node.next_frame() == (1, WANT_BLOCKS, ["trade", 1, 10])
            assert await node.next_frame() == (1, CONSENSUS, big)
            assert [(await node.next_frame())[2] for _ in range(2000)] == [n.to_bytes(4, "big") for n in range(2000)]
    run(4, body)


def test_what_comes_together_is_told_before_anybody_acts_on_it(run):
    async def body(area):
        node, counts = area.nodes[0], []
        ends: list[object] = []
        take = node.transport._on_frame

        def end():
            counts.append(node.frames.qsize())
            ends.clear()

        def count(*frame):
            take(*frame)
            if not ends:
                node.transport.at_end(end)
            ends.append(frame)
        node.transport._on_frame = count
        for index in (1, 2, 3):
            for number in range(3):
                area.nodes[index].transport.send(0, CONSENSUS, b"%d" % number)
            area.nodes[index].transport._flush()  # now, in this turn of the loop that all of them share
        got = [await node.next_frame() for _ in range(9)]
        assert sorted(got) == sorted((index, CONSENSUS, b"%d" % number) for index in (1, 2, 3) for number in range(3))
        if hasattr(select, "epoll"):
            assert counts == [9]  # three lines, one turn
        done = asyncio.Event()
        node.transport.at_end(done.set)  # nothing is being read: soon
        await asyncio.wait_for(done.wait(), WAIT_S)
    run(4, body)


def test_a_full_line_keeps_the_order_and_loses_nothing(run):
    async def body(area):
        sender, count = area.nodes[1].transport, 40
        data = random.Random(2).randbytes(FRAME_BYTES // 4)
        for number in range(count):  # ten times what a socket takes
            sender.send_all(CONSENSUS, [(0, number.to_bytes(4, "big") + data)])
        assert sender._peers[0].connection._transport.get_write_buffer_size()
        for number in range(count):
            assert (await area.nodes[0].next_frame())[2] == number.to_bytes(4, "big") + data
    run(2, body)


def test_peer_that_went_away_comes_back(run):
    async def body(area):
        await area.nodes[0].transport.close()
        await area.nodes[2].until_connected(1)
        area.nodes[2].transport.send(0, CONSENSUS, b"kept for you")
        node = await area.start(0)  # at the same address
        await node.until_connected(2)
        assert await node.next_frame() == (2, CONSENSUS, b"kept for you")
        node.transport.send(None, CONSENSUS, b"back")
        assert await area.nodes[1].next_frame() == (0, CONSENSUS, b"back")
    run(3, body)


def test_an_end_at_the_moment_of_a_failed_dial_is_one(run, monkeypatch):
    """Otherwise the dialling goes on for ever, and a replica that is ended while another is away never ends."""
    async def body(area):
        node, now = area.nodes[1].transport, asyncio.Event()

        async def fail(*_):
            await now.wait()
            raise OSError("nobody there")
        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", fail, raising=False)
        await area.nodes[0].transport.close()
        await area.nodes[1].until_connected(0)
        for _ in range(100):
            if now._waiters:
                break
            await asyncio.sleep(0.01)
        now.set()
        await asyncio.sleep(0)  # the dial has failed, and whoever waits for it does not know
        await asyncio.wait_for(node.close(), WAIT_S)
    run(2, body)


async def knock(address, context, data=b""):
    """Dials as a stranger; returns what comes back until the other side closes."""
    host, port = address.rsplit(":", 1)
    try:
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname="x")
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), WAIT_S)
        writer.transport.abort()
        return answer
    except (ssl.SSLError, ConnectionError):
        return b""


def stranger(pair, ca):
    """A dialling context with somebody's certificate, or none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(ca)
    if pair:
        context.load_cert_chain(*pair[:2])
    return context


def test_strangers_are_refused_and_named(run, tmp_path):
    async def body(area):
        address, refused = area.addresses[0], area.nodes[0].transport.refused
        hello = encode_frame(CONSENSUS, b"let me in")
        other = Authority(tmp_path / "other").issue("replica-1")
        outsider = area.authority.issue("meter")  # the area's CA knows it, the validator set does not
        expired = area.authority.issue("replica-9", -1)
        for pair in (None, other, outsider, expired):
            await knock(address, stranger(pair, area.authority.path), hello)
        old = stranger(area.pairs[1], area.authority.path)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        await knock(address, old, hello)
        # of the pair (0, 1) the higher index dials: 0 calling at 1 is somebody who copied 0's key
        await knock(area.addresses[1], stranger(area.pairs[0], area.authority.path), hello)
        assert area.nodes[1].transport.refused["not wanted"] == 1
        assert refused["key not in the validator set"] == 1
        assert refused["TLS: PEER_DID_NOT_RETURN_A_CERTIFICATE"] == 1
        assert refused["TLS: CERTIFICATE_VERIFY_FAILED"] == 2  # another CA; expired
        assert refused["TLS: UNSUPPORTED_PROTOCOL"] == 1
        assert sum(refused.values()) == 5
        assert area.nodes[0].frames.empty() and area.nodes[1].frames.empty()
        assert area.nodes[0].transport.connected() == [1]
    run(2, body)


def test_stranger_costs_no_memory(run, monkeypatch):
    """security.md T36: closed before any allocation (of ours) of more than 4 KiB."""
    monkeypatch.setattr(connection_module, "HANDSHAKE_S", 0.5)

    async def body(area):
        host, port = area.addresses[0].rsplit(":", 1)
        loop = asyncio.get_running_loop()
        peaks = []
        hello = FRAME_HEAD.pack(0x16030100) + random.Random(5).randbytes(1 << 20)
        # a hello that claims 65,000 bytes: OpenSSL itself would take that much, record by record
        endless = b"\x16\x03\x01\x40\x00\x01\x00\xfd\xe8\x03\x03" + bytes(0x4000 - 6)
        for data in (b"", hello, endless):
            line = socket.create_connection((host, int(port)))
            line.setblocking(False)
            tracemalloc.start()
            try:
                await loop.sock_sendall(line, data)
            except ConnectionError:
                pass
            try:
                while await asyncio.wait_for(loop.sock_recv(line, 1024), WAIT_S):
                    pass
            except ConnectionError:
                pass
            line.close()
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        # all small things of asyncio's and ours together, both ends; asyncio's own TLS would take 256 KiB here
        assert max(peaks) < 16 * STRANGER_BYTES, peaks
        refused = area.nodes[0].transport.refused
        assert refused["handshake took too long"] == 1
        assert refused["handshake too long"] == 1
        assert sum(refused.values()) == 3
        area.nodes[1].transport.send(0, CONSENSUS, b"still here")
        assert await area.nodes[0].next_frame() == (1, CONSENSUS, b"still here")
    run(2, body)


@pytest.mark.parametrize(("data", "reason"), [
    (FRAME_HEAD.pack(FRAME_BYTES + 1), "frame size"),
    (FRAME_HEAD.pack(0), "frame size"),
    (FRAME_HEAD.pack(4) + b"\xff\xff\xff\xff", "frame: malformed"),
    (FRAME_HEAD.pack(5) + b"\x83\x00\x00\x00\x00", "frame: malformed"),
    (FRAME_HEAD.pack(12) + b"\x82\x00" + b"\x81" * 9 + b"\x00", "frame: too_deep"),
])
def test_member_that_sends_rubbish_is_closed(run, data, reason):
    async def body(area):
        node = area.nodes[0].transport
        await area.nodes[1].transport.close()  # its key is now in other hands
        await area.nodes[0].until_connected(0)
        await knock(area.addresses[0], stranger(area.pairs[1], area.authority.path), data)
        assert node.refused[reason] == 1
        await area.start(1)
        area.nodes[1].transport.send(0, CONSENSUS, b"honest again")
        assert await area.nodes[0].next_frame() == (1, CONSENSUS, b"honest again")
    run(2, body)


values = st.recursive(st.none() | st.booleans() | st.integers(-2**63, 2**64 - 1) | st.binary() | st.text(),
                      lambda inner: st.lists(inner, max_size=4), max_leaves=8)


@given(kind=st.integers(0, 2**40), body=values | st.binary(min_size=20, max_size=70_000))
def test_frame_is_what_was_sent(kind, body):
    data = encode_frame(kind, body)
    assert FRAME_HEAD.unpack(data[:4])[0] == len(data) - 4
    assert data[4:] == cbor.encode([kind, body])
    assert decode_frame(data[4:]) == (kind, body)


@given(frame=st.binary(max_size=40) | st.binary(max_size=40).map(lambda rest: b"\x82\x00" + rest))
def test_frame_of_any_bytes_is_read_one_way_or_refused(frame):
    try:
        kind, body = decode_frame(frame)
    except Refused:
        return
    assert cbor.encode([kind, body]) == frame


def test_queue_of_a_peer_is_bounded_and_drops_old_votes_first():
    peer = Peer(1, "127.0.0.1:1")
    peer.put(WANT_BLOCKS, b"block request")
    for number in range(AWAY_FRAMES + 10):
        peer.put(CONSENSUS, number.to_bytes(4, "big"))
    assert peer.dropped == 11 and len(peer.queue) == AWAY_FRAMES
    assert peer.queue[0] == (WANT_BLOCKS, b"block request")
    assert peer.queue[1] == (CONSENSUS, (11).to_bytes(4, "big"))
    for _ in range(40):
        peer.put(CONSENSUS, bytes(1 << 20))
    assert peer.queued_bytes == sum(len(frame) for _, frame in peer.queue) <= 16 << 20
