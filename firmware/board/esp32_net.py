"""Makes a connection to one of several Wi-Fi networks out of the interface's states: one try after the other.

Theory. Every network of `wifi.cbor` is tried for TRY_MS in its turn. When all were tried in vain there is a pause,
doubling up to a minute, and the next round. A connection that is lost is tried for again at once, the same network
first. The interface is never asked to reconnect by itself (it would hold on to one network), so each try begins with
`disconnect`. A network that is not there or refuses is left after FAIL_MS, but none is ever given up.
"""

TRY_MS = 20000
FAIL_MS = 4000  # the driver's own first try is over; if it says why it failed, the next network is tried
FAILED = range(200, 300)  # statuses: ESP-IDF's reasons, as no such network (201), wrong password (202)
PAUSE_MS, PAUSE_MAX_MS = 2000, 60000
SSID_BYTES, PASSWORD_BYTES, NETWORKS = 32, 64, 8


class Wifi:
    """nic: network.WLAN(network.WLAN.IF_STA); networks: [(ssid, password), ...]; chance: a function n -> n bytes."""

    def __init__(self, nic, networks, log, chance):
        self._nic = nic
        self._networks = networks
        self._log = log
        self._chance = chance
        self._index = self._tried = 0  # the next network, and the one that the driver was told last
        self._in_vain = 0  # tries since the last connection
        self._until_ms = None  # of the try under way
        self._next_ms = 0  # when the next one may begin
        self._pause_ms = PAUSE_MS
        self.is_up = False
        if networks:
            nic.active(True)

    def step(self, now_ms):
        """Looks at the interface and does what is due; returns whether the network is there."""
        if not self._networks:
            return False
        if self._nic.isconnected():
            if not self.is_up:
                self.is_up = True
                self._index = self._tried  # the driver may have come through after we had given up
                self._until_ms = None
                self._in_vain = 0
                self._pause_ms = PAUSE_MS
                self._log("Wi-Fi %s: connected, %s" % (self._networks[self._index][0], self._nic.ifconfig()[0]))
            return True
        if self.is_up:
            self.is_up = False
            self._next_ms = now_ms
            self._log("Wi-Fi %s: lost" % self._networks[self._index][0])
        elif self._until_ms is not None and (now_ms >= self._until_ms or (
                now_ms >= self._until_ms - TRY_MS + FAIL_MS and self._nic.status() in FAILED)):
            self._give_up(now_ms)
        if self._until_ms is None and now_ms >= self._next_ms:
            self._try(now_ms)
        return False

    def _try(self, now_ms):
        ssid, password = self._networks[self._index]
        self._tried = self._index
        self._until_ms = now_ms + TRY_MS
        try:
            self._nic.disconnect()
        except OSError:
            pass  # it was not connected
        try:
            self._nic.connect(ssid, password)
        except OSError as error:  # the driver is busy with the try before
            self._log("Wi-Fi %s: %s" % (ssid, error))
            self._give_up(now_ms)

    def _give_up(self, now_ms):
        if self._in_vain < len(self._networks):  # not the same line in every round
            self._log("Wi-Fi %s: not reached (status %s)" % (self._networks[self._index][0], self._nic.status()))
        self._in_vain += 1
        self._until_ms = None
        self._index = (self._index + 1) % len(self._networks)
        self._next_ms = now_ms
        if self._in_vain % len(self._networks) == 0:
            self._next_ms += (self._pause_ms >> 1) + (self._pause_ms >> 1) * self._chance(1)[0] // 255
            self._pause_ms = min(2 * self._pause_ms, PAUSE_MAX_MS)
