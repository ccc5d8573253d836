"""What a game server needs from the session store. The adapter is `valkey.py`; every write carries the epoch that fences it."""

from collections.abc import Callable, Collection, Mapping
from typing import NoReturn, Protocol

from gameserver.sessions.model import Orders, PlayerId, ServerMode, ServerName, Session, SessionId


class SessionGone(Exception):
    """The session has ended, was never there, or now belongs to another server or epoch: stop that room at once."""


class StoreUnavailable(Exception):
    """The store did not answer; nothing is known about whether a write took effect. Writes here are idempotent: try again."""

    def __init__(self, message: str, *, why: str = "the session store does not answer") -> None:
        """`why`: for those who are not to see the whole message."""
        super().__init__(message)
        self.why = why


class SessionStore(Protocol):
    """Sessions as one game server sees them."""

    async def open(self, session: SessionId, *, server: ServerName, epoch: int) -> tuple[Session, bytes | None]:
        """
        Take a session into its room: pending or draining becomes live; idempotent for the same server and epoch.

        Returns: the record, and the newest checkpoint's bytes (None when there is none).
        Raises: SessionGone, StoreUnavailable.
        """

    async def checkpoint(self, session: SessionId, *, epoch: int, tick: int, state: bytes | None) -> None:
        """
        Keep `state` as the newest checkpoint; None when it is the same as before, at a newer tick.

        An older tick than the stored one changes nothing. Raises as `open`.
        """

    async def hand_over(self, session: Session, *, tick: int, state: bytes) -> Session | None:
        """
        Keep the last checkpoint and give the session to the room that the allocator has reserved for it, in one step; epoch + 1.

        Returns: the session where it goes on, the same when asked again; None when no room is reserved. Raises as `open`.
        """

    async def end(self, session: SessionId, *, epoch: int, results: bytes) -> None:
        """Mark the session ended, with the game's results (JSON), so that its room is freed; idempotent. Raises as `open`."""

    async def seats(
        self,
        session: SessionId,
        *,
        epoch: int,
        came: Collection[PlayerId],
        left: Collection[PlayerId],
        excused: Collection[PlayerId] = (),
        want: Mapping[str, int] | None = None,
    ) -> None:
        """
        Say who has come, so that their seats are no longer only reserved, and who has left for good: where others may come their seats are free.

        Of those who have left, who is not `excused` is noted in the record (`Session.left`). `want`: what the game wants from now on (`Session.want`); None
        for what it wanted before. Idempotent. Raises as `open`.
        """

    async def beat(
        self, server: ServerName, *, ttl_s: float, mode: ServerMode, rooms: Mapping[SessionId, int]
    ) -> Orders:
        """
        Say that the server is alive, what it means to do, and which rooms it has at which epochs; hear what to do about them.

        The word expires after `ttl_s`. Raises StoreUnavailable.
        """

    async def goodbye(self, server: ServerName) -> None:
        """Say that the server has no sessions any more and goes. Raises StoreUnavailable."""

    async def listen(self, server: ServerName, heard: Callable[[], None]) -> NoReturn:
        """Call `heard` whenever a heartbeat would bring something new, and after each outage, until cancelled."""
