"""Makes a running HTTP server from an ASGI application: uvicorn inside the replica's loop, without its signals."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

CONNECTIONS = 64  # a page polls with one; above this 503, so that a flood costs the consensus little (T56)
IDLE_S = 5
HEADER_BYTES = 8 * 1024
STOP_S = 2


class _Server(uvicorn.Server):
    """Leaves the process's signals to the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """An application at one address."""

    def __init__(self, app: ASGIApp, host: str, port: int):
        self._socket = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        bound = self._socket.getsockname()
        self.address = "{}:{}".format(f"[{bound[0]}]" if ":" in bound[0] else bound[0], bound[1])
        self._server = _Server(uvicorn.Config(
            app, http="h11", ws="none", lifespan="off", log_config=None, access_log=False, server_header=False,
            limit_concurrency=CONNECTIONS, timeout_keep_alive=IDLE_S, h11_max_incomplete_event_size=HEADER_BYTES,
            timeout_graceful_shutdown=STOP_S))
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Serves from now on."""
        self._task = asyncio.get_running_loop().create_task(self._server.serve([self._socket]), name="http")

    async def close(self) -> None:
        """Ends answers under way, then stops."""
        self._server.should_exit = True
        if self._task:
            await self._task
        self._socket.close()
