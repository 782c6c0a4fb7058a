"""Makes MicroPython's module `select` out of the bridge: waiting for one of several sockets to be readable."""

from socket import readable

POLLIN, POLLOUT, POLLERR, POLLHUP = 1, 4, 8, 16


class poll:
    def __init__(self):
        self._masks = {}

    def register(self, one, mask=POLLIN | POLLOUT):
        self._masks[one] = mask

    modify = register

    def unregister(self, one):
        del self._masks[one]

    def poll(self, wait_ms=-1):
        """[(socket, mask)] of those that are ready; writing always is, for the bridge keeps what it is given."""
        writable = [one for one in self._masks if self._masks[one] & POLLOUT]
        reading = [one for one in self._masks if self._masks[one] & POLLIN]
        held = [one for one in reading if getattr(one, "held", b"")]  # a UART's, read already
        can_read = held + readable([one for one in reading if one not in held], 0 if writable or held else wait_ms)
        ready = []
        for one in self._masks:
            mask = (POLLIN if one in can_read else 0) | (POLLOUT if one in writable else 0)
            if mask:
                ready.append((one, mask))
        return ready

    ipoll = poll
