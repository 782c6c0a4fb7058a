"""Makes the module ssl of a board that reaches nobody."""

PROTOCOL_TLS_CLIENT, CERT_NONE, CERT_REQUIRED = 0, 0, 2


class SSLContext:
    def __init__(self, protocol):
        raise OSError(101)
