"""A beacon on the network: over UDP for games, over HTTP for browsers."""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import orjson
import structlog
from starlette.requests import Request
from starlette.responses import Response

from gameserver.protocol.beacons import LONGEST_PLAYER
from matchmaker.beacons.beacon import Beacon

log = structlog.get_logger(__name__)

_HEADERS = {
    "Access-Control-Allow-Origin": "*",  # nothing here is anybody's secret, and a page of any origin may measure
    "Cache-Control": "no-store",
    "Timing-Allow-Origin": "*",
}
Application = Callable[[Any, Any, Any], Awaitable[None]]


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, beacon: Beacon) -> None:
        self._beacon = beacon
        self._transport: asyncio.DatagramTransport | None = None
        self._full = False

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # asyncio's own is none by its class

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        reply = self._beacon.receive(data, str(addr[0]))
        # What cannot be sent soon is late, and a measurement that is late is none.
        if reply is not None and self._transport is not None and not self._full:
            self._transport.sendto(reply, addr)


@asynccontextmanager
async def udp(beacon: Beacon, host: str, port: int) -> AsyncIterator[int]:
    """Answer datagrams while the context lasts; gives the port. Raises OSError."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(beacon), local_addr=(host, port))
    try:
        bound: int = transport.get_extra_info("sockname")[1]
        log.info("beacon_listens", region=beacon.region, port=bound)
        yield bound
    finally:
        transport.close()


def http(beacon: Beacon) -> Application:
    """
    `GET /v1/beacon?nonce=` answers {cookie}, `GET /v1/beacon?nonce=&cookie=&player=` {token, rttMs, region}; nonce and cookie are base64url.

    Plain GETs, so that a browser asks no permission in between, on one kept connection, so that no handshake is measured.
    """

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        response = _answer(beacon, request) if scope["path"].endswith("/v1/beacon") else _problem(404, "no such path")
        await response(scope, receive, send)

    return app


def _answer(beacon: Beacon, request: Request) -> Response:
    address = request.client.host if request.client else ""
    if request.method != "GET":
        return _problem(405, "GET is wanted")
    if not beacon.allows(address):
        return _problem(429, "too many requests of this address", {"Retry-After": "1"})
    query = request.query_params
    nonce = _bytes(query.get("nonce", ""), 8)
    if nonce is None:
        return _problem(400, "nonce: 8 bytes in base64url are wanted")
    if "cookie" not in query:
        return _reply(200, {"cookie": base64.urlsafe_b64encode(beacon.cookie(nonce, address)).decode().rstrip("=")})
    cookie, player = _bytes(query["cookie"], 24), query.get("player", "")
    if cookie is None or not 0 < len(player.encode()) <= LONGEST_PLAYER:
        return _problem(400, f"cookie: as it was given; player: 1 to {LONGEST_PLAYER} bytes are wanted")
    found = beacon.measure(nonce, cookie, address, player)
    if found is None:
        return _problem(409, "the cookie is not this beacon's, or too old: ask for another")
    return _reply(200, {"region": beacon.region, "rttMs": round(found[1] * 1000, 3), "token": found[0]})


def _reply(status: int, body: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, {**_HEADERS, **(headers or {})}, "application/json")


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    body = orjson.dumps({"status": status, "title": "the beacon does not measure", "detail": detail})
    return Response(body, status, {**_HEADERS, **(headers or {})}, "application/problem+json")


def _bytes(text: str, size: int) -> bytes | None:
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        return None
    return raw if len(raw) == size else None
