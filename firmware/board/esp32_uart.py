"""Makes a line to meters out of a UART of the ESP32 and a transceiver's direction pin (RS-485, half duplex).

MicroPython's UART has no RS-485 mode on the ESP32 (1.29: no argument of its constructor, flow control is RTS/CTS
only), so the direction pin is driven here: high, write, wait until the last stop bit is out (`flush` asks the
UART itself), low. Between the last two lie a few hundred microseconds, nothing is allocated there, so no collection can
come in between; a meter answers after 3.5 characters at the earliest, which are 1.75 ms above 19200 baud. Where
the receiver stays on while we send, our own bytes come back first: they are taken off, if they are ours.

    port = "uart1:tx=17,rx=16,de=4"     UART number, pins; without de the transceiver finds its direction by itself
"""

from firmware import modbus
from firmware.board.micro_port import Port

BUFFER_BYTES = 512  # an answer has 256 at most; what babbles beyond is lost, which its checksum shows
PARITY = {"N": None, "E": 0, "O": 1}  # machine.UART's
PINS = ("tx", "rx", "de")


def parse(port):
    """Returns (UART number, tx, rx, de or None) of "uartN:tx=..,rx=..,de=.."; BadConfig."""
    name, _, rest = port.partition(":")
    found: dict = {}
    for part in rest.split(","):
        key, _, number = part.partition("=")
        if key not in PINS or key in found or not number.isdigit():
            _refuse(port)
        found[key] = int(number)
    if name not in ("uart1", "uart2") or "tx" not in found or "rx" not in found:  # uart0 is the serial console
        _refuse(port)
    return int(name[4:]), found["tx"], found["rx"], found.get("de")


def _refuse(port):
    from firmware.config import BadConfig  # dropped by now where nothing is wrong

    raise BadConfig("bus.port", 'expected "uart1:tx=17,rx=16,de=4", found %r' % port)


class UartPort(Port):
    """RTU over a UART. line: config.Bus, its port as `parse` takes it."""

    def __init__(self, line):
        super().__init__(line.gap_ms, modbus.RTU, line.baud)
        self._where = parse(line.port)
        self._parity = line.parity
        self._de = None
        self._early = b""  # came while we looked for our echo

    def write(self, data):
        if self._stream is None:
            raise OSError("closed")
        self._early = b""
        if self._de is None:
            self._stream.write(data)
            self._stream.flush()
        else:
            self._de.value(1)
            try:
                self._stream.write(data)
                self._stream.flush()
            finally:
                self._de.value(0)
        if self._stream.any() >= len(data):  # the echo is back when the last bit is out, or it will not come
            came = self._stream.read(len(data))
            if came != data:
                self._early = came

    def read(self, count, wait_ms):
        early, self._early = self._early[:count], self._early[count:]
        if len(early) == count:
            return early
        return early + super().read(count - len(early), wait_ms)

    def _connect(self):
        from machine import UART, Pin
        number, tx, rx, de = self._where
        if de is not None:
            self._de = Pin(de, Pin.OUT, value=0)
        return UART(number, baudrate=self.baud, bits=8, parity=PARITY[self._parity], stop=1, tx=tx, rx=rx,
                    rxbuf=BUFFER_BYTES, timeout=0, timeout_char=0)

    def close(self):
        """Lets the pins go; a UART must not be used after this."""
        if self._stream is not None:
            self._poller.unregister(self._stream)
            self._stream.deinit()
            self._stream = None
