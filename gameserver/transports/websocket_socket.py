"""
The library's side of one connection over WebSocket.

A `Socket` does the handshake as its library does, and then gives what comes to its `Owner`, the server's side in `websocket_connection.py`.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Hashable
from typing import Protocol

from websockets.asyncio.server import ServerConnection

from gameserver.protocol.netcode.addresses import network_of

READ_BYTES = 8192
"""Taken from one socket at a time at most: a client that sends more waits for the next look."""


class Owner(Protocol):
    """Who has the other end of a socket."""

    heard: bool
    """Whether anything came since silence was last looked for."""
    direct: socket.socket | None
    """The same TCP socket, where it is read and written past the library."""

    def take(self, data: bytes) -> None:
        """What has come."""

    def write(self, frame: bytes) -> None:
        """Write, after what waits already."""

    def release(self) -> None:
        """The connection is gone."""


class Socket(ServerConnection):
    """A connection of the library that can be passed by once its handshake is done."""

    half_open: Counter[Hashable]
    """The transport's, in which this one is until its handshake is done."""
    limits: tuple[int, int]
    """Of `half_open`: in all, and of one address."""
    _counted: Hashable = None
    owner: Owner | None = None
    """Who has the other end of this socket."""
    passed_by = False
    """Whether what comes is given to the owner instead of the library."""
    library_only = False
    """Whether the library has to have everything: its parser may stand within a frame."""
    early = b""
    """What came between the handshake and the owner."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, where there is room for one more."""
        super().connection_made(transport)
        client = network_of(address_of(self))
        if self.half_open.total() >= self.limits[0] or self.half_open[client] >= self.limits[1]:
            self.transport.abort()  # no answer: a flood is not worth one
        else:
            self._counted = client
            self.half_open[client] += 1

    def opened(self) -> None:
        """The handshake is done, or will never be."""
        if self._counted is not None:
            self.half_open[self._counted] -= 1
            if not self.half_open[self._counted]:
                del self.half_open[self._counted]
            self._counted = None

    def data_received(self, data: bytes) -> None:
        """Pass what came on to whom it is for."""
        if self.owner is not None:
            self.owner.heard = True
        if self.passed_by and self.owner is not None:
            self.owner.take(data)
        elif self.request is None:
            super().data_received(data)
            if self.request is not None and not data.endswith(b"\r\n\r\n"):
                # A client that does not wait for the answer to its handshake: its frame may be half in the library, which shall have the rest.
                self.library_only = True
        elif self.library_only:
            super().data_received(data)
        else:
            self.early += data
            if len(self.early) > READ_BYTES:
                self.transport.abort()

    def library(self, data: bytes) -> None:
        """Give the library what came."""
        super().data_received(data)

    def send_data(self) -> None:
        """Write what the library has to say, in turn with what its owner writes past it."""
        if self.owner is None or not self.owner.direct:
            super().send_data()
            return
        for data in self.protocol.data_to_send():
            if data:
                self.owner.write(data)
            else:
                try:
                    self.transport.write_eof()
                except (OSError, RuntimeError):
                    pass  # closed meanwhile

    def connection_lost(self, exc: Exception | None) -> None:
        """Let everything go."""
        super().connection_lost(exc)
        self.opened()
        if self.owner is not None:
            self.owner.release()


def address_of(connection: ServerConnection) -> str:
    """The client's address, without its port; an IPv4 address as such on a listener for both."""
    address = connection.remote_address
    return str(address[0]).removeprefix("::ffff:") if address else "unix"
