"""Makes a Modbus master of libmodbus, the C library that mbpoll and many SCADA tools stand on, by ctypes.

Debian's package libmodbus5; names and signatures from its modbus.h (3.1).
"""

from __future__ import annotations

import ctypes
import ctypes.util
from types import TracebackType

from tests import needs

NAMES = ("libmodbus.so.5", "libmodbus.so.6")
ANSWER_US = 800_000


def library() -> ctypes.CDLL:
    """The library; a machine without it skips the test with one loud line."""
    for name in (*NAMES, ctypes.util.find_library("modbus") or ""):
        if not name:
            continue
        try:
            found = ctypes.CDLL(name, use_errno=True)
        except OSError:
            continue
        for make in ("modbus_new_tcp", "modbus_new_rtu"):
            getattr(found, make).restype = ctypes.c_void_p
        found.modbus_strerror.restype = ctypes.c_char_p
        return found
    needs.missing("libmodbus", "./gridseal test --install")


class LibModbus:
    """One connection; `read` gives words, or the negative exception code that the other side answered with."""

    def __init__(self, *, tcp: tuple[str, int] | None = None, line: str = "", baud: int = 9600) -> None:
        self._library = library()
        if tcp is not None:
            context = self._library.modbus_new_tcp(tcp[0].encode(), tcp[1])
        else:
            context = self._library.modbus_new_rtu(line.encode(), baud, ctypes.c_char(b"N"), 8, 1)
        assert context, "no context"
        self._context = ctypes.c_void_p(context)
        self._library.modbus_set_response_timeout(self._context, 0, ANSWER_US)
        assert self._library.modbus_connect(self._context) == 0, self._error()

    def read(self, unit: int, function: int, address: int, count: int) -> list[int]:
        """The words of holding (3) or input registers (4)."""
        assert self._library.modbus_set_slave(self._context, unit) == 0
        words = (ctypes.c_uint16 * count)()
        call = self._library.modbus_read_registers if function == 3 else self._library.modbus_read_input_registers
        found = call(self._context, address, count, words)
        assert found == count, self._error()
        return list(words)

    def __enter__(self) -> LibModbus:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
                 ) -> None:
        self._library.modbus_close(self._context)
        self._library.modbus_free(self._context)

    def _error(self) -> str:
        return str(self._library.modbus_strerror(ctypes.get_errno()).decode())
