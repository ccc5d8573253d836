"""
What running sessions have to say to the matchmaker that made them: who left for good before the end.

Written with the session's record, by one function (`sessions.lua`); read here by whoever directs the queue, as often as it likes: a notice is there until it
is forgotten, so that hearing it twice must do no harm. The oldest of more than a thousand go.
"""

from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import FleetName, PlayerId, SessionId
from gameserver.sessions.port import StoreUnavailable

_AT_ONCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaver:
    """A player who left a match of a queue."""

    session: SessionId
    player: PlayerId

    @property
    def entry(self) -> str:
        """As the list has it."""
        return f"{self.session} {self.player}"


class Notices:
    """Of every fleet, by one store. Every method may raise StoreUnavailable, and may be called again then."""

    def __init__(self, client: StoreClient) -> None:
        self._client = client

    async def leavers(self, fleet: FleetName, queue: str) -> list[Leaver]:
        """Who has left matches of a queue on a fleet, longest ago first; a hundred at most."""
        try:
            rows: Any = await self._client.lrange(_leavers(fleet, queue), 0, _AT_ONCE - 1)
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"leavers: {error}") from error
        words = [row.decode().partition(" ") for row in rows]
        return [Leaver(session=SessionId(session), player=PlayerId(player)) for session, _, player in words]

    async def forget(self, fleet: FleetName, queue: str, leaver: Leaver) -> None:
        """It has been heard of."""
        try:
            await self._client.lrem(_leavers(fleet, queue), 0, leaver.entry)
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"leavers: {error}") from error


def _leavers(fleet: FleetName, queue: str) -> str:
    return f"wf:{{{fleet}}}:leavers:{queue}"
