"""What a game server needs from the session store. The adapter is `valkey.py`; every write carries the epoch that fences it."""

from typing import Protocol

from gameserver.sessions.model import ServerName, Session, SessionId


class SessionGone(Exception):
    """The session has ended, was never there, or now belongs to another server or epoch: stop that room at once."""


class StoreUnavailable(Exception):
    """The store did not answer; nothing is known about whether a write took effect. Writes here are idempotent: try again."""


class SessionStore(Protocol):
    """Sessions as one game server sees them."""

    async def open(self, session: SessionId, *, server: ServerName, epoch: int) -> tuple[Session, bytes | None]:
        """
        Take a session into its room: pending or draining becomes live; idempotent for the same server and epoch.

        Returns: the record, and the newest checkpoint's bytes (None when there is none).
        Raises: SessionGone, StoreUnavailable.
        """

    async def checkpoint(self, session: SessionId, *, epoch: int, tick: int, state: bytes) -> None:
        """Keep `state` as the newest checkpoint; an older tick than the stored one changes nothing. Raises as `open`."""

    async def end(self, session: SessionId, *, epoch: int, results: bytes) -> None:
        """Mark the session ended, with the game's results (JSON), so that its room is freed; idempotent. Raises as `open`."""

    async def beat(self, server: ServerName, *, ttl_s: float) -> None:
        """Say that the server is alive; the word expires after `ttl_s`. Raises StoreUnavailable."""
