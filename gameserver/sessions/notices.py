"""
What running sessions have to say to the matchmaker that made them: who left for good before the end, and whom their games want.

Written with the session's record, by one function (`sessions.lua`); read here by whoever directs the queue, as often as it likes: a notice is there until it
is forgotten, so that hearing it twice must do no harm. Of leavers the oldest of more than a thousand go. A want's notice says only that the session is to be
looked at: what is wanted, and who is there, is in its record.
"""

from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import FleetName, PlayerId, SessionId, fleet_of
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanting:
    """A session whose want is to be looked at."""

    session: SessionId
    change: str
    """What has changed: no two changes of a session have the same."""


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

    async def wants(self, fleet: FleetName, queue: str) -> list[Wanting]:
        """The sessions of a queue on a fleet that are to be looked at; a hundred at most, any of them."""
        try:
            rows: Any = await self._client.srandmember(_wants(fleet, queue), _AT_ONCE)
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"wants: {error}") from error
        words = [row.decode().partition(" ") for row in rows]
        return [Wanting(session=SessionId(session), change=change) for session, _, change in words]

    async def want_again(self, queue: str, wanting: Wanting) -> None:
        """Something else has changed than the session knows: look at it (again)."""
        try:
            await self._client.sadd(_wants(fleet_of(wanting.session), queue), f"{wanting.session} {wanting.change}")
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"wants: {error}") from error

    async def settled(self, queue: str, wanting: Wanting) -> None:
        """This change has been looked at; a newer one stays."""
        try:
            await self._client.srem(_wants(fleet_of(wanting.session), queue), f"{wanting.session} {wanting.change}")
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"wants: {error}") from error


def _leavers(fleet: FleetName, queue: str) -> str:
    return f"wf:{{{fleet}}}:leavers:{queue}"


def _wants(fleet: FleetName, queue: str) -> str:
    return f"wf:{{{fleet}}}:wants:{queue}"
