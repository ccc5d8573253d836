"""
What the matchmaker needs from others: servers for its matches, and what makes matches of tickets.

`allocator.service.Allocator` is the `Allocator` (and the `Supply`); the matching core implements `Matcher`.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from allocator.model import Allocation, AllocationRequest, Unavailable
from allocator.seats import NoSeats
from gameserver.sessions.model import FleetName, MatchId, PlayerId, SessionId
from matchmaker.model import Proposal, Ticket, TicketId


class Allocator(Protocol):
    """Sessions on servers."""

    async def allocate(
        self, request: AllocationRequest, *, deadline_s: float, shared: bool
    ) -> Allocation | Unavailable:
        """
        Give a match its session, the same one however often it is asked for. Raises StoreUnavailable.

        `shared`: another director may ask for it too, so that what was claimed is kept when the time is up, until somebody calls `abandon`.
        """

    async def abandon(self, match: MatchId, fleets: Sequence[FleetName]) -> None:
        """Hold nothing for a match in these fleets any more, unless a player has joined already."""

    async def find(self, session: SessionId) -> Allocation | None:
        """Where a session is now, ended or not. Raises StoreUnavailable."""


class Supply(Protocol):
    """How much is warm."""

    async def free_rooms(self, fleets: Sequence[FleetName]) -> Mapping[FleetName, int]:
        """Rooms that a match could claim this moment, by fleet. Raises StoreUnavailable."""


class RunningSessions(Protocol):
    """Seats of sessions that run already. Implemented by `allocator.seats.Seats`."""

    async def open(self, session: SessionId, *, epoch: int, free: int) -> None:
        """Let so many more players in. Raises SessionGone, StoreUnavailable."""

    async def reserve(self, session: SessionId, party: Sequence[tuple[PlayerId, str]]) -> Allocation | NoSeats:
        """Seat (player, team)s, all or none; asked again, the same. Raises SessionGone, StoreUnavailable."""


class Matcher(Protocol):
    """The waiting tickets of one queue, kept between cycles, and the matches that can be made of them."""

    tickets: dict[TicketId, Ticket]
    """Those that it knows."""

    async def cycle(
        self, added: Sequence[Ticket], removed: Sequence[TicketId], now_s: float, supply: Mapping[FleetName, int] | None
    ) -> Sequence[Proposal]:
        """
        Take tickets out (unknown ones change nothing), then in, then propose.

        Args:
            now_s: the store's clock, Unix seconds, as the tickets' `created_at_s`.
            supply: rooms that are warm, by fleet; None when that is not known.
        Returns: proposals that share no ticket, in the order in which to commit them, their fleets best first. Their tickets stay until they are `removed`.
        """

    async def close(self) -> None:
        """End; it is not used again."""
