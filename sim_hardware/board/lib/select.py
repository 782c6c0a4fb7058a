"""Makes the module select of a board that reaches nobody: no socket is ever ready; reading the serial line waits."""

import socket

POLLIN, POLLOUT, POLLERR, POLLHUP = 1, 4, 8, 16


class poll:
    def __init__(self):
        self._masks = {}

    def register(self, one, mask=POLLIN | POLLOUT):
        self._masks[id(one)] = (one, mask)

    def unregister(self, one):
        self._masks.pop(id(one), None)

    def poll(self, wait_ms=-1):
        return [pair for pair in self._masks.values() if not isinstance(pair[0], socket.socket)]

    ipoll = poll
