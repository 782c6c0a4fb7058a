"""Makes MicroPython's module `ssl` out of the bridge, where Node's TLS does what mbedTLS does on a board."""

from _bridge import secure as _secure
from micropython import const

PROTOCOL_TLS_CLIENT = 0
CERT_REQUIRED = 2
_HANDSHAKE_MS = const(10000)


class SSLContext:
    """One client's files for TLS; certificates and keys as PEM bytes."""

    def __init__(self, protocol):
        self.verify_mode = CERT_REQUIRED
        self._ca = self._certificate = self._key = ""

    def load_verify_locations(self, cafile=None, cadata=None):
        self._ca = cadata.decode()

    def load_cert_chain(self, certificate, key):
        self._certificate, self._key = certificate.decode(), key.decode()

    def wrap_socket(self, sock, server_side=False, do_handshake_on_connect=True, server_hostname=None):
        if self.verify_mode != CERT_REQUIRED or server_side:
            raise ValueError("the bridge is a client that checks certificates")
        done = _secure(sock.fileno(), self._ca, self._certificate, self._key, server_hostname, _HANDSHAKE_MS)
        if done < 0:
            raise OSError(-done)
        return sock
