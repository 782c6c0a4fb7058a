"""Makes the module network of a board without a radio: it can be switched on and reaches nobody."""


class WLAN:
    IF_STA = 0

    def __init__(self, interface=IF_STA):
        self._is_active = False

    def active(self, is_active=None):
        if is_active is not None:
            self._is_active = is_active
        return self._is_active

    def isconnected(self):
        return False
