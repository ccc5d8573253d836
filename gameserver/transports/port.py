"""What rooms and transports know of each other: a connection that takes bytes, a handler that is told what came."""

from collections.abc import Callable
from typing import Protocol

from gameserver.protocol.messages import CloseCode, SharedSnapshot


class Connection(Protocol):
    """One client, as the server sees it. No call waits or raises, whatever the client does."""

    peer: str
    """The client's address, for logs and limits."""
    reliable: bool
    """Whether what is sent arrives, in order, while the connection lives (WebSocket: yes; UDP: no)."""

    def send(self, message: bytes) -> None:
        """Send one message."""

    def send_snapshot(self, snapshot: SharedSnapshot, ack_input: int) -> bool:
        """Send `snapshot.message(ack_input)`, unless the client is behind with reading; returns whether it was sent."""

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Say Bye and close; later calls of any method do nothing."""


class Handler(Protocol):
    """Who is told what a client sends."""

    def received(self, message: bytes) -> None:
        """One message, any bytes."""

    def lost(self) -> None:
        """The connection is gone; told once."""


Accept = Callable[[Connection], Handler]
"""Called by a transport for each new connection."""
