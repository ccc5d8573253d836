"""A game client over WebSocket: the session of `session.py` on a real connection."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from gameserver.client.session import ClientEvent, ClientSession, Ended
from gameserver.protocol import messages as m
from gameserver.protocol.snapshot import World


class ConnectFailed(Exception):
    """The server could not be reached, or did not speak the protocol."""


class GameClient:
    """A seat in a match, as an async context manager; iterate `events()` to follow it."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        spectator: bool = False,
        timeout_s: float = 5.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`tls`: for a `wss://` whose authority is not one of the system's."""
        self._url = url
        self._tls = tls
        self._timeout_s = timeout_s
        self._socket: ClientConnection
        self._pinging: asyncio.Task[None]
        self.session = ClientSession(token, spectator=spectator)

    async def __aenter__(self) -> Self:
        """Connect and say Hello. Raises ConnectFailed."""
        try:
            self._socket = await connect(
                self._url,
                subprotocols=[Subprotocol(m.SUBPROTOCOL)],
                compression=None,
                open_timeout=self._timeout_s,
                ping_interval=None,
                close_timeout=1,
                max_size=1 << 20,
                proxy=None,
                ssl=self._tls if self._tls is not None else self._url.startswith("wss:") or None,
            )
        except (OSError, InvalidHandshake, TimeoutError) as error:
            raise ConnectFailed(f"{self._url}: {error}") from error
        await self._send(self.session.hello())
        self._pinging = asyncio.create_task(self._ping(), name="ping")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pinging.cancel()
        await asyncio.wait([self._pinging])
        await self._socket.close()

    @property
    def world(self) -> World | None:
        """The newest state."""
        return self.session.world

    async def events(self) -> AsyncIterator[ClientEvent]:
        """Yield what happens until the connection ends; the last one is Ended where the server said why. Raises MalformedMessage."""
        said_bye = False
        try:
            while True:
                message = await self._socket.recv(decode=False)
                self.session.receive(message, time.monotonic())
                while (event := self.session.next_event()) is not None:
                    said_bye |= isinstance(event, Ended)
                    yield event
        except ConnectionClosed as closed:
            if not said_bye and closed.rcvd is not None and closed.rcvd.code >= 4000:
                yield Ended(code=closed.rcvd.code - 4000, reason=closed.rcvd.reason)

    async def send_input(self, **values: Any) -> None:
        """Send one input; a connection that is gone shows in `events`."""
        await self._send(self.session.send_input(values))

    async def leave(self) -> None:
        """Say Bye: the seat is given up."""
        await self._send(m.encode_client_bye(m.CloseCode.NORMAL))

    async def _send(self, message: bytes) -> None:
        try:
            await self._socket.send(message)
        except ConnectionClosed:
            pass  # `events` ends, and says why

    async def _ping(self) -> None:
        while True:
            for message in self.session.data_to_send(time.monotonic()):
                await self._send(message)
            await asyncio.sleep(0.1)
