"""
Metrics over HTTP: `GET /metrics` and nothing else, on the event loop of the game server.

Owns a listener that is not a player's way in: on the loopback address unless told otherwise, a handful of connections, one request each. The page is
written one metric family at a time, each in a turn of the loop of its own: whole, it would hold a tick up for milliseconds, and in a thread it
would fight with the loop for the interpreter just the same.
"""

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Metric, disable_created_metrics
from prometheus_client.exposition import choose_encoder

log = structlog.get_logger(__name__)

_MOST_CONNECTIONS = 16
"""At once; further ones are closed. A scraper uses one."""
_REQUEST_BYTES = 8192
_TIMEOUT_S = 5.0
_EOF = b"# EOF\n"
disable_created_metrics()  # type: ignore[no-untyped-call]  # a third of all series, which say no more than when each began


class MetricsServer:
    """Serves a registry, as an async context manager."""

    def __init__(self, *, host: str, port: int, registry: CollectorRegistry = REGISTRY) -> None:
        """`port`: 0 for any free one."""
        self._host = host
        self._port = port
        self._registry = registry
        self._open = 0

    async def __aenter__(self) -> Self:
        """Listen. A port that is taken is logged: a server without metrics is better than none."""
        self._server: asyncio.Server | None = None
        try:
            self._server = await asyncio.start_server(self._serve, self._host, self._port, limit=_REQUEST_BYTES)
            log.info("metrics_served", host=self._host, port=self.port)
        except OSError as error:
            log.error("metrics_not_served", host=self._host, port=self._port, error=str(error))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()

    @property
    def port(self) -> int:
        """The port it listens on; 0 when it does not."""
        return 0 if self._server is None else int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= _MOST_CONNECTIONS:
                async with asyncio.timeout(_TIMEOUT_S):
                    writer.write(await self._answer(await reader.readuntil(b"\r\n\r\n")))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever it was has gone, is too slow, or is no scraper
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, request: bytes) -> bytes:
        line, *rest = request.decode("latin-1").split("\r\n")
        method, _, target = line.partition(" ")
        if method not in ("GET", "HEAD"):
            return _response("405 Method Not Allowed", b"GET is wanted\n", "text/plain", "Allow: GET, HEAD\r\n")
        if target.split(" ")[0].partition("?")[0] != "/metrics":
            return _response("404 Not Found", b"/metrics is all there is\n", "text/plain")
        headers = {name.strip().lower(): value.strip() for name, _, value in (text.partition(":") for text in rest)}
        body, kind = await exposition(self._registry, headers.get("accept", ""))
        return _response("200 OK", body if method == "GET" else b"", kind)


async def exposition(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """The page in the format that `accept` prefers, and its content type; written with pauses in which the loop does its other work."""
    encode, kind = choose_encoder(accept)
    parts: list[bytes] = []
    for family in registry.collect():
        parts.append(encode(_One(family)).removesuffix(_EOF))
        await asyncio.sleep(0)
    if "openmetrics" in kind:
        parts.append(_EOF)
    return b"".join(parts), kind


class _One(CollectorRegistry):
    """A registry of one family that was collected already."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


def _response(status: str, body: bytes, kind: str, headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{headers}Connection: close\r\n\r\n"
    return head.encode("latin-1") + body
