"""Makes the module select of a board that reaches nobody: nothing is ever ready."""

POLLIN, POLLOUT, POLLERR, POLLHUP = 1, 4, 8, 16


class poll:
    def register(self, one, mask=POLLIN | POLLOUT):
        pass

    def unregister(self, one):
        pass

    def poll(self, wait_ms=-1):
        return []
