"""The link to the broker: TLS with the area's CA alone, the host's name, our certificate; refusals are logged once."""

from __future__ import annotations

import datetime
import getpass
import queue
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from deploy import certificates
from firmware.board.linux_link import Identity, Link, check_url
from tests import needs
from tests.firmware.live import broker, free_port, process, wait_for

KID = "00112233aabbccdd"
TOPIC = f"gridseal/1/home/{KID}/"


class Pki:
    """An area's CA, a broker's and an agent's certificate, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key, self.ca = certificates.make_ca("home")
        self.write("ca.crt", certificates.pem(self.ca))
        self.agent_key = certificates.generate_key()
        agent = certificates.issue(self.key, self.ca, self.agent_key.public_key(), KID)
        self.write("agent.crt", certificates.pem(agent))
        self.write("agent.key", certificates.key_pem(self.agent_key))
        self.identity = Identity(folder / "ca.crt", folder / "agent.crt", folder / "agent.key")
        self.broker("broker", self.key, self.ca)

    def write(self, name: str, data: bytes) -> Path:
        (self.folder / name).write_bytes(data)
        return self.folder / name

    def broker(self, name: str, key: Any, ca: x509.Certificate, host: str = "127.0.0.1", days: int = 10) -> None:
        """Writes NAME.crt and NAME.key of a broker at `host`; days may be negative: expired."""
        own = certificates.generate_key()
        made = certificates.issue(key, ca, own.public_key(), name, hosts=(host,))
        if days < 0:
            now = datetime.datetime.now(datetime.UTC)
            builder = x509.CertificateBuilder().subject_name(made.subject).issuer_name(made.issuer).public_key(
                own.public_key()).serial_number(x509.random_serial_number()).not_valid_before(
                now - datetime.timedelta(days=30)).not_valid_after(now + datetime.timedelta(days=days))
            for extension in made.extensions:
                builder = builder.add_extension(extension.value, extension.critical)
            made = builder.sign(key, hashes.SHA256())
        self.write(name + ".crt", certificates.pem(made))
        self.write(name + ".key", certificates.key_pem(own))


class TlsServer:
    """Takes TLS connections and says what became of each handshake."""

    def __init__(self, pki: Pki, name: str, maximum: ssl.TLSVersion | None = None) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if maximum is not None:
            self._context.set_ciphers("ALL:@SECLEVEL=0")
            self._context.minimum_version = ssl.TLSVersion.TLSv1
            self._context.maximum_version = maximum
        self._context.load_cert_chain(pki.folder / (name + ".crt"), pki.folder / (name + ".key"))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.shaken: list[bool] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                taken = self._listener.accept()[0]
            except OSError:
                return
            try:
                with self._context.wrap_socket(taken, server_side=True) as tls:
                    tls.settimeout(2)
                    self.shaken.append(bool(tls.recv(1)))  # TLS 1.3 ends for the server before the client has judged
            except OSError:
                self.shaken.append(False)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


class Watched:
    """A link with its events and its log."""

    def __init__(self, urls: list[str], identity: Identity) -> None:
        self.inbox: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self.log: list[str] = []
        self.link = Link(urls, identity, KID, [TOPIC + "ack"], (TOPIC + "death", b"x"), self.inbox, self.log.append)

    def event(self, wait_s: float = 15.0) -> tuple[Any, ...]:
        return self.inbox.get(timeout=wait_s)


@pytest.fixture
def watched() -> Iterator[list[Watched]]:
    made: list[Watched] = []
    yield made
    for one in made:
        one.link.stop()


def secure_broker(pki: Pki, port: int) -> Any:
    program = needs.program("mosquitto")
    path = pki.write("mosquitto.conf", f"""user {getpass.getuser()}
listener {port} 127.0.0.1
cafile {pki.folder}/ca.crt
certfile {pki.folder}/broker.crt
keyfile {pki.folder}/broker.key
require_certificate true
use_identity_as_username true
""".encode())
    return process([program, "-c", str(path)], pki.folder / "mosquitto.log")


def test_a_good_certificate_is_taken_and_messages_pass(pki: Pki, watched: list[Watched]) -> None:
    port = free_port()
    with secure_broker(pki, port):
        one = Watched([f"mqtts://127.0.0.1:{port}"], pki.identity)
        watched.append(one)
        assert one.event() == ("connected", 0)
        one.link.publish(TOPIC + "envelope", b"payload", (1, 7))
        assert one.event() == ("published", (1, 7))
        one.link.publish(TOPIC + "ack", b"to myself", None)
        assert one.event() == ("message", TOPIC + "ack", b"to myself")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")  # the old version is what is tried
@pytest.mark.parametrize("case", ["another CA", "self-signed", "wrong host", "expired", "TLS 1.1"])
def test_a_bad_broker_is_refused(case: str, pki: Pki, watched: list[Watched]) -> None:
    other_key, other_ca = certificates.make_ca("home")
    maximum = None
    if case == "another CA":
        pki.broker("bad", other_key, other_ca)
    elif case == "self-signed":
        pki.write("bad.crt", certificates.pem(other_ca))
        pki.write("bad.key", certificates.key_pem(other_key))
    elif case == "wrong host":
        pki.broker("bad", pki.key, pki.ca, host="broker.example")
    elif case == "expired":
        pki.broker("bad", pki.key, pki.ca, days=-1)
    else:
        pki.broker("bad", pki.key, pki.ca)
        maximum = ssl.TLSVersion.TLSv1_1
    server = TlsServer(pki, "bad", maximum)
    one = Watched([f"mqtts://127.0.0.1:{server.port}"], pki.identity)
    watched.append(one)
    wait_for(lambda: len(server.shaken) >= 2, "two tries", 15)
    server.close()
    assert not any(server.shaken), "a byte of MQTT went to it"
    assert one.inbox.empty()
    assert len(one.log) == 1, "the same line is not repeated at each try"
    assert f"127.0.0.1:{server.port}" in one.log[0]


def test_the_test_server_would_take_a_good_one(pki: Pki, watched: list[Watched]) -> None:
    """What the refusals above are worth: the same server with the right certificate hears MQTT."""
    server = TlsServer(pki, "broker")
    watched.append(Watched([f"mqtts://127.0.0.1:{server.port}"], pki.identity))
    wait_for(lambda: True in server.shaken, "a handshake", 15)
    server.close()


def test_the_next_broker_when_one_does_not_answer(tmp_path: Path, pki: Pki, watched: list[Watched]) -> None:
    dead, alive = free_port(), free_port()
    with broker(tmp_path, alive):
        one = Watched([f"mqtt://127.0.0.1:{dead}", f"mqtt://127.0.0.1:{alive}"], pki.identity)
        watched.append(one)
        assert one.event() == ("connected", 1)
        assert len([line for line in one.log if "WITHOUT ENCRYPTION" in line]) == 2
        one.link.change()
        assert one.event() == ("disconnected",)
        assert one.event() == ("connected", 1), "and back, since the other is dead"


@pytest.mark.parametrize(("url", "is_good"), [
    ("mqtts://broker.example:8883", True), ("mqtts://[::1]:8883", True), ("mqtt://127.0.0.1:1883", True),
    ("mqtt://localhost:1883", True), ("mqtt://192.168.1.5:1883", False), ("mqtt://broker.example:1883", False),
    ("mqtts://broker.example", False), ("http://127.0.0.1:80", False), ("mqtts://:8883", False),
    ("mqtts://host:99999", False)])
def test_plain_mqtt_is_for_this_machine_only(url: str, is_good: bool) -> None:
    assert (check_url(url) is None) == is_good


def test_publishing_while_pubacks_come_in_never_stops(tmp_path: Path, pki: Pki, watched: list[Watched]) -> None:
    """Two threads meet in paho's and our locks thousands of times; each token comes back, once."""
    port = free_port()
    with broker(tmp_path, port):
        one = Watched([f"mqtt://127.0.0.1:{port}"], pki.identity)
        watched.append(one)
        assert one.event() == ("connected", 0)
        tokens: list[Any] = []
        for number in range(3000):
            one.link.publish(TOPIC + "envelope", b"x" * 300, number)
            while number - len(tokens) >= 20:
                tokens.append(one.event()[1])
        while len(tokens) < 3000:
            tokens.append(one.event()[1])
        assert sorted(tokens) == list(range(3000))
