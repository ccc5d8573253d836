"""
WebSocket transport: the handshake and security of `websockets`, pre-built frames on the way out.

Owns sockets, limits of size and number, keep-alive and slow clients. A server's frames are not masked, so the frame of a message is a short
header before the same bytes for every client: it is written straight to the asyncio transport, without a copy per client in between. A client
that does not read is skipped at first and closed when it stays behind; nobody waits for it.
"""

import asyncio
import logging
import re
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Self

import structlog
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.typing import Origin, Subprotocol

from gameserver.protocol.messages import SUBPROTOCOL, Bye, CloseCode, encode
from gameserver.transports.port import Accept

log = structlog.get_logger(__name__)

MAX_MESSAGE_BYTES = 4096
"""A client's longest message, Hello, is below 1 KiB."""
_SKIP_BYTES = 64 * 1024
"""Unsent bytes from which a client misses snapshots."""
_CLOSE_AFTER_SKIPS = 90
"""Snapshots missed in a row (3 s at 30 Hz) after which a client is closed."""
_LOOPBACK_ORIGIN = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")


def frame_header(size: int) -> bytes:
    """Header of an unmasked, unfragmented binary frame. Source: RFC 6455, section 5.2."""
    if size < 126:
        return bytes((0x82, size))
    if size < 1 << 16:
        return struct.pack(">BBH", 0x82, 126, size)
    return struct.pack(">BBQ", 0x82, 127, size)


class WebSocketTransport:
    """A WebSocket listener, as an async context manager."""

    def __init__(
        self,
        accept: Accept,
        *,
        host: str,
        port: int,
        origins: Sequence[str] = (),
        max_connections: int = 4096,
        max_per_address: int = 1024,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """
        Prepare to listen on `host:port` (0: any free port).

        Args:
            origins: allowed Origin headers of browsers; empty for pages from this machine only. Programs send none and are let in.
            max_per_address: connections of one client address.
        """
        self._accept = accept
        self._host = host
        self._port = port
        self._origins: list[Origin | re.Pattern[str] | None] = [None]
        self._origins += [Origin(origin) for origin in origins] or [_LOOPBACK_ORIGIN]
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._tls = tls
        self._by_address: Counter[str] = Counter()
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._serve,
            self._host,
            self._port,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            origins=self._origins,
            process_request=self._limit,
            compression=None,
            max_size=MAX_MESSAGE_BYTES,
            open_timeout=5,
            ping_interval=10,
            ping_timeout=10,
            close_timeout=2,
            server_header=None,
            ssl=self._tls,
            logger=_quiet(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close(code=4000 + CloseCode.GOING_AWAY)
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._server is not None
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    def _limit(self, connection: ServerConnection, request: Request) -> Response | None:
        address = _address(connection)
        if self._by_address.total() >= self._max_connections or self._by_address[address] >= self._max_per_address:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections\n")
        return None

    async def _serve(self, socket_: ServerConnection) -> None:
        address = _address(socket_)
        raw = socket_.transport.get_extra_info("socket")
        if raw is not None and raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _WebSocketConnection(socket_, address)
        self._by_address[address] += 1
        handler = self._accept(connection)
        try:
            while True:
                message = await socket_.recv()
                if isinstance(message, str):
                    connection.close(CloseCode.MALFORMED, "text frames are not spoken here")
                    break
                handler.received(message)
        except ConnectionClosed:
            pass
        finally:
            handler.lost()
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]
            await connection.closed()


class _WebSocketConnection:
    """One client."""

    reliable = True

    def __init__(self, socket_: ServerConnection, address: str) -> None:
        self._socket = socket_
        self._transport = socket_.transport
        self._skipped = 0
        self._closing: asyncio.Task[None] | None = None
        self.peer = address

    def send(self, message: bytes) -> None:
        if self._open():
            self._transport.write(frame_header(len(message)) + message)

    def send_snapshot(self, head: bytes, body: bytes) -> bool:
        if not self._open():
            return False
        if self._transport.get_write_buffer_size() > _SKIP_BYTES:
            self._skipped += 1
            if self._skipped > _CLOSE_AFTER_SKIPS:
                self.close(CloseCode.TOO_SLOW, "snapshots were not read in time")
            return False
        self._skipped = 0
        self._transport.write(b"".join((frame_header(len(head) + len(body)), head, body)))
        return True

    def close(self, code: CloseCode, reason: str = "") -> None:
        if self._closing is None:
            self.send(encode(Bye(code=code, reason=reason)))
            # A close handshake with a client that does not read would wait; the transport is dropped after close_timeout.
            closing = self._socket.close(4000 + code, reason.encode()[:120].decode(errors="ignore"))
            self._closing = asyncio.get_running_loop().create_task(closing, name=f"close-{self.peer}")

    async def closed(self) -> None:
        """Wait for a close that is under way."""
        if self._closing is not None:
            await asyncio.wait([self._closing])

    def _open(self) -> bool:
        # A write after the close frame would break the closing handshake (and raises in uvloop).
        return self._closing is None and self._socket.state is State.OPEN and not self._transport.is_closing()


def _address(connection: ServerConnection) -> str:
    address = connection.remote_address
    return str(address[0]) if address else "unix"


def _quiet() -> logging.Logger:
    """Failed handshakes are the internet's weather: no tracebacks for them."""
    logger = logging.getLogger("warmfleet.websocket")
    logger.setLevel(logging.CRITICAL)
    return logger
