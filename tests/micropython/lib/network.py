"""Makes MicroPython's module `network` for tests: Wi-Fi networks that are there, or are not.

    there: {name: password} of the networks in reach; changing it cuts or brings back connections
    DELAY_MS: from `connect` to a connection
"""

import socket

import _bridge
import utime

there: dict = {"home": "secret"}
DELAY_MS = 50
tries: list = []  # names that were tried

STAT_IDLE, STAT_CONNECTING, STAT_GOT_IP = 1000, 1001, 1010
STAT_NO_AP_FOUND, STAT_WRONG_PASSWORD = 201, 202


class WLAN:
    IF_STA, IF_AP = 0, 1

    def __init__(self, interface=0):
        socket.gate = self.isconnected
        self._is_active = False
        self._wanted = None
        self._up_at = 0

    def active(self, is_active=None):
        if is_active is not None:
            self._is_active = is_active
        return self._is_active

    def connect(self, name=None, key=None, bssid=None):
        if not self._is_active:
            raise OSError(0x3002)  # ESP_ERR_WIFI_NOT_STARTED
        if self._wanted is not None:
            raise OSError("Wifi Internal State Error")  # as the driver while it is connecting
        tries.append(name)
        self._wanted = (name, key)
        self._up_at = utime.ticks_add(_bridge.ticks_ms(), DELAY_MS)

    def disconnect(self):
        self._wanted = None

    def isconnected(self):
        return self.status() == STAT_GOT_IP

    def status(self, what=None):
        if what == "rssi":
            return -60
        if self._wanted is None:
            return STAT_IDLE
        name, key = self._wanted
        if name not in there:
            return STAT_NO_AP_FOUND
        if there[name] != key:
            return STAT_WRONG_PASSWORD
        return STAT_GOT_IP if utime.ticks_diff(_bridge.ticks_ms(), self._up_at) >= 0 else STAT_CONNECTING

    def ifconfig(self):
        return ("192.168.1.50", "255.255.255.0", "192.168.1.1", "192.168.1.1")

    def config(self, *names, **values):
        return None
