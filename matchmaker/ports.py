"""What the matchmaker needs from below: servers for its matches. Implemented by `allocator.service.Allocator`."""

from typing import Protocol

from allocator.model import Allocation, AllocationRequest, Unavailable
from gameserver.sessions.model import SessionId


class Allocator(Protocol):
    """Sessions on servers."""

    async def allocate(self, request: AllocationRequest, *, deadline_s: float) -> Allocation | Unavailable:
        """Give a match its session, the same one however often it is asked for. Raises StoreUnavailable."""

    async def find(self, session: SessionId) -> Allocation | None:
        """Where a session is now, ended or not. Raises StoreUnavailable."""
