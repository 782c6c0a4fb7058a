"""Makes an ASGI application from a `Source` of plain dicts: JSON under /api, one page for people, health for machines.

Read-only and for this machine alone (config refuses another address until there are tokens). A page of a stranger's
site, opened on this machine, must not read it by a name that resolves to loopback: the Host header is checked.
"""

import ipaddress
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import jinja2
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api import views

HERE = Path(__file__).parent
FILES = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
HEADERS = (
    # everything the page needs is ours and a file of its own: no script, style or frame from anywhere else
    (b"content-security-policy", b"default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
ROWS_SHOWN = 60  # of a table on the page; the API gives all
_HEIGHT = re.compile(r"[0-9]{1,10}\Z")
_HASH = re.compile(r"[0-9a-f]{64}\Z")
_SLOT = re.compile(r"[0-9]{1,10}\Z")


class Source(Protocol):
    """What the application shows, already plain and safe to show (`views`)."""

    def status(self) -> dict[str, Any]:
        """The replica now; cheap."""

    def is_ready(self) -> bool:
        """True when the replica takes part: connected to enough peers, not stopped by an alarm."""

    async def devices_shown(self) -> list[dict[str, Any]]:
        """Every control device (`views.device`)."""

    async def market(self, slot_s: int | None) -> dict[str, Any] | None:
        """The next slot and the last clearing, or what there is of one slot (gateway/market/views.py)."""

    async def settlement(self, slot_s: int | None) -> dict[str, Any] | None:
        """What became of a slot, of the last final one unless one is named; None where there is nothing yet."""

    async def accounts(self) -> dict[str, Any]:
        """All accounts."""

    async def block(self, channel: str, height: int) -> dict[str, Any] | None:
        """A block, or None."""

    async def transaction(self, payload_hash: bytes) -> dict[str, Any] | None:
        """Where a seal or transaction stands, with its receipt, or None."""


class Json(Response):
    """Compact JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


class Problem(Json):
    """RFC 9457: what went wrong, and nothing about our insides (security.md T58)."""

    media_type = "application/problem+json"


def make_app(source: Source) -> ASGIApp:
    """The application over one source."""
    app = Starlette(routes=[*_pages(source), *_market(source), *_chain(source), *_health(source)],
                    exception_handlers={HTTPException: _problem, Exception: _broken})
    return _guard(app)


def _pages(source: Source) -> list[Route]:
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True,
                                   lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    templates.filters.update(views.TEXTS, moment=lambda text: text.replace("T", " ").replace("Z", ""))
    templates.globals["slot_text"] = views.slot_text

    async def page(request: Request) -> Response:
        slot_s = _slot_of(request)
        market, devices = await source.market(None), await source.devices_shown()
        assert market is not None, "there is always an answer when no slot is named"
        status = source.status()
        named = market if slot_s is None else await source.market(slot_s)
        return HTMLResponse(templates.get_template("page.html").render(
            status=status, slot_s=slot_s, market=market, cleared=named["cleared"] if named else None,
            settlement=await source.settlement(slot_s), accounts=await source.accounts(), devices=devices,
            alarms=views.device_alarms(devices, status["alarms_raised"]), limit=ROWS_SHOWN))

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in FILES:
            raise HTTPException(404, "no such page")
        return Response((HERE / name).read_bytes(), media_type=FILES[name])

    return [Route("/", page), Route("/files/{name}", file)]


def _market(source: Source) -> list[Route]:
    async def market(request: Request) -> Response:
        return Json(_found(await source.market(_slot_of(request)), "no such slot here"))

    async def settlement(request: Request) -> Response:
        slot_s = _slot_of(request)
        return Json(_found(await source.settlement(slot_s),
                           "no slot is settled yet" if slot_s is None else "nothing is known of this slot"))

    async def accounts(request: Request) -> Response:
        return Json(await source.accounts())

    return [Route("/api/market", market), Route("/api/settlement", settlement), Route("/api/accounts", accounts)]


def _chain(source: Source) -> list[Route]:
    async def status(request: Request) -> Response:
        return Json(source.status())

    async def devices(request: Request) -> Response:
        shown = await source.devices_shown()
        return Json({"devices": shown, "alarms": views.device_alarms(shown, source.status()["alarms_raised"])})

    async def block(request: Request) -> Response:
        height = request.path_params["height"]
        channel = request.query_params.get("channel", "trade")
        if not _HEIGHT.match(height):
            raise HTTPException(400, "a height is a whole number")
        return Json(_found(await source.block(channel, int(height)), "no such block here"))

    async def transaction(request: Request) -> Response:
        payload_hash = request.path_params["payload_hash"]
        if not _HASH.match(payload_hash):
            raise HTTPException(400, "a payload hash is 64 lower-case hex digits")
        return Json(_found(await source.transaction(bytes.fromhex(payload_hash)), "not in the ledger"))

    return [Route("/status", status), Route("/api/status", status), Route("/api/devices", devices),
            Route("/api/v1/blocks/{height}", block), Route("/api/v1/transactions/{payload_hash}", transaction)]


def _health(source: Source) -> list[Route]:
    async def live(request: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def ready(request: Request) -> Response:
        is_ready = source.is_ready()
        return PlainTextResponse("ready\n" if is_ready else "not ready\n", 200 if is_ready else 503)

    return [Route("/livez", live), Route("/readyz", ready)]


def _slot_of(request: Request) -> int | None:
    """The slot that is asked for, by its start in Unix seconds; None where none is. 400 for anything else."""
    named = request.query_params.getlist("slot")
    if not named:
        return None
    if len(named) > 1 or not _SLOT.match(named[0]):
        raise HTTPException(400, "a slot is named once, by its start in Unix seconds, at most ten digits")
    return int(named[0])


def _found(value: dict[str, Any] | None, complaint: str) -> dict[str, Any]:
    if value is None:
        raise HTTPException(404, complaint)
    return value


def is_own_name(host: str) -> bool:
    """True for a Host header that cannot be somebody else's name for this machine: an IP address, or localhost."""
    name = host.rpartition(":")[0] if re.search(r":[0-9]*\Z", host) and not host.endswith("]") else host
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _guard(app: ASGIApp) -> ASGIApp:
    """Adds the headers to every answer; refuses foreign Host headers."""
    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        answer: Callable[[Scope, Receive, Send], Awaitable[None]] = app
        host = next((value for key, value in scope["headers"] if key == b"host"), b"")
        if not is_own_name(host.decode("latin-1")):
            answer = Problem({"title": "wrong host", "status": 421, "detail": "ask by IP address or localhost"}, 421)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        await answer(scope, receive, send_with_headers)
    return guarded


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    titles = {400: "bad request", 404: "not found", 405: "method not allowed"}
    return Problem({"title": titles.get(error.status_code, "error"), "status": error.status_code,
                    "detail": error.detail}, error.status_code)


async def _broken(request: Request, error: Exception) -> Response:
    return Problem({"title": "internal error", "status": 500, "detail": "see the gateway's log"}, 500)
