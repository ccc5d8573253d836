"""How every HTTP server of ours listens: a socket that is bound before anything else starts, uvicorn without its own signals, and limits for slow
strangers."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = structlog.get_logger(__name__)

_CUT_OFF_S = 0.5
"""Before uvicorn's own patience ends, which would cancel what is left and call that an error."""


class CannotListen(Exception):
    """The address is taken or not this machine's; the message says so, and the mend."""


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: signals are the command's own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what is under way; streams, which have no end of their own, are cut off in time to end without an error."""
        cut_off: asyncio.TimerHandle | None = None
        if (patience_s := self.config.timeout_graceful_shutdown) is not None:
            cut_off = asyncio.get_running_loop().call_later(max(patience_s - _CUT_OFF_S, patience_s / 2), self._cut_off)
        try:
            await super().shutdown(sockets)
        finally:
            if cut_off is not None:
                cut_off.cancel()

    def _cut_off(self) -> None:
        for connection in tuple(self.server_state.connections):
            transport: asyncio.Transport | None = getattr(connection, "transport", None)
            if transport is not None:
                transport.close()


def listen(host: str, port: int, *, mend: str) -> socket.socket:
    """Bind and listen. Raises CannotListen, whose message ends with `mend`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror}. {mend}") from None
    listener.setblocking(False)
    return listener


class Impatient(HttpToolsProtocol):
    """
    HTTP for strangers: uvicorn's own waits for ever for a request that never ends, and takes headers of any size.

    A request's head must be here within `HEAD_S` and be no longer than `HEAD_BYTES`, its body within `BODY_S`; answers may take as long as they like.
    """

    HEAD_S = 10.0
    BODY_S = 30.0
    HEAD_BYTES = 64 * 1024

    _late: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody is here: the first request is due."""
        super().connection_made(transport)
        self._wait(self.HEAD_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._settle()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes in."""
        if self._late is None and (self.cycle is None or self.cycle.response_complete):
            self._wait(self.HEAD_S)
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > self.HEAD_BYTES:
            self._close()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is here."""
        self._in_head = False
        super().on_headers_complete()
        self._wait(self.BODY_S)

    def on_message_complete(self) -> None:
        """All of the request is here."""
        self._settle()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """From here on the connection is another protocol's."""
        self._settle()
        super().handle_websocket_upgrade()

    def _wait(self, for_s: float) -> None:
        self._settle()
        self._late = self.loop.call_later(for_s, self._close)

    def _settle(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _close(self) -> None:
        log.info("request_too_slow_or_long", peer=self.client)
        self._settle()
        self.transport.abort()
