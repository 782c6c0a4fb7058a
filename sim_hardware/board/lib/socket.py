"""Makes the module socket of a board that reaches nobody."""

AF_INET, SOCK_STREAM = 2, 1
ENETUNREACH = 101


class socket:
    def __init__(self, *words):
        pass

    def connect(self, address):
        raise OSError(ENETUNREACH)

    def settimeout(self, wait_s):
        pass

    def close(self):
        pass


def getaddrinfo(host, port, *words):
    raise OSError(ENETUNREACH)
