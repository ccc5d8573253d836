"""
WebSocket transport: the handshake and security of `websockets`, a short way in and out for what games send.

Owns sockets, limits of size and number, keep-alive and slow clients. The library shakes hands, answers pings, closes, and judges whatever is unusual;
the usual, whole binary messages, pass it by. In: sockets are read by a `Pump`, and a masked frame of a few bytes is unmasked and handed on. Out: a server's
frames are not masked, so that of a message is a short header before the same bytes for every client, and it is written to the socket at once; what the
kernel does not take waits in the asyncio transport. With TLS both ways lead through the asyncio transport. A client that does not read is skipped at
first and closed when it stays behind; nobody waits for it. docs/decisions/0010 has what was measured.
"""

import asyncio
import logging
import re
import socket
import ssl
from collections import Counter
from collections.abc import Hashable, Sequence
from http import HTTPStatus
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Origin, Subprotocol

from gameserver.protocol.messages import SUBPROTOCOL, CloseCode
from gameserver.protocol.netcode.addresses import network_of
from gameserver.transports.port import Accept
from gameserver.transports.pump import Pump
from gameserver.transports.websocket_connection import MAX_MESSAGE_BYTES, WebSocketConnection
from gameserver.transports.websocket_socket import Socket, address_of

MAX_CONNECTIONS, MAX_PER_ADDRESS = 4096, 1024
"""Unless more players than that may be here."""
OPEN_TIMEOUT_S = 5.0
"""For the handshake, and for that of TLS before it; connections that take their time are as limited in number as those that play."""
SILENCE_S = 10.0
"""A client that says nothing for so long is pinged, and let go of when as long again brings no answer. Players do not wait for either."""
_LOOPBACK_ORIGIN = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")


class WebSocketTransport:
    """A WebSocket listener, as an async context manager."""

    def __init__(
        self,
        accept: Accept,
        *,
        host: str,
        port: int,
        origins: Sequence[str] = (),
        max_connections: int = MAX_CONNECTIONS,
        max_per_address: int = MAX_PER_ADDRESS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """
        Prepare to listen on `host:port` (0: any free port; `::` for IPv4 clients too).

        Args:
            origins: allowed Origin headers of browsers; empty for pages from this machine only. Programs send none and are let in.
            max_per_address: connections of one client address, or of one /64 of IPv6.
        """
        self._accept = accept
        self._host = host
        self._port = port
        self._origins: list[Origin | re.Pattern[str] | None] = [None]
        self._origins += [Origin(origin) for origin in origins] or [_LOOPBACK_ORIGIN]
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._tls = tls
        self._by_address: Counter[Hashable] = Counter()
        self._half_open: Counter[Hashable] = Counter()
        """Connections whose handshake is not done, by client address."""
        self._server: Server | None = None
        self._pump: Pump
        self._silence: asyncio.Task[None]
        self._connections: set[WebSocketConnection] = set()

    async def __aenter__(self) -> Self:
        self._pump = Pump(asyncio.get_running_loop())

        class Ours(Socket):
            half_open = self._half_open
            limits = self._max_connections, self._max_per_address

        self._server = await serve(
            self._serve,
            **_where(self._host, self._port),
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            origins=self._origins,
            process_request=self._limit,
            compression=None,
            max_size=MAX_MESSAGE_BYTES,
            open_timeout=OPEN_TIMEOUT_S,
            ping_interval=None,  # the library asks everyone; `_ask_the_silent` asks those who say nothing
            close_timeout=2,
            server_header=None,
            ssl=self._tls,
            logger=_quiet(),
            create_connection=Ours,
            ssl_handshake_timeout=None if self._tls is None else OPEN_TIMEOUT_S,
        )
        self._silence = asyncio.create_task(self._ask_the_silent(), name="websocket-silence")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._silence.cancel()
        self._server.close(code=4000 + CloseCode.GOING_AWAY)
        await self._server.wait_closed()
        self._pump.close()

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._server is not None
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    def look(self) -> None:
        """Read what has come by now: a tick is about to begin."""
        self._pump.look()

    def _limit(self, connection: ServerConnection, request: Request) -> Response | None:
        of_client = self._by_address[network_of(address_of(connection))]
        if len(self._connections) >= self._max_connections or of_client >= self._max_per_address:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections\n")
        return None

    async def _ask_the_silent(self) -> None:
        while True:
            await asyncio.sleep(SILENCE_S)
            for connection in tuple(self._connections):
                connection.check_silence()

    async def _serve(self, socket_: ServerConnection) -> None:
        assert isinstance(socket_, Socket)
        socket_.opened()
        connection = WebSocketConnection(socket_, address_of(socket_))
        client = network_of(connection.peer)
        self._by_address[client] += 1
        self._connections.add(connection)
        handler = self._accept(connection)
        try:
            connection.open(handler, self._pump)
            while True:  # what did not pass the library by
                message = await socket_.recv()
                if isinstance(message, str):
                    connection.close(CloseCode.MALFORMED, "text frames are not spoken here")
                    break
                connection.received(message)
        except ConnectionClosed:
            pass
        finally:
            connection.lost()
            self._connections.discard(connection)
            self._by_address[client] -= 1
            if not self._by_address[client]:
                del self._by_address[client]
            await connection.closed()


def _quiet() -> logging.Logger:
    """Failed handshakes are the internet's weather: no tracebacks for them."""
    logger = logging.getLogger("warmfleet.websocket")
    logger.setLevel(logging.CRITICAL)
    return logger


def _where(host: str, port: int) -> dict[str, Any]:
    """Where `serve` is to listen. Raises OSError."""
    try:
        version = ip_address(host).version
    except ValueError:
        return {"host": host, "port": port}  # a name: it may stand for several addresses
    # A socket of our own: uvloop starts four threads to resolve even an address, and asyncio listens at `::` for IPv6 alone.
    if version == 4:
        return {"sock": socket.create_server((host, port))}
    return {"sock": socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=host == "::")}
