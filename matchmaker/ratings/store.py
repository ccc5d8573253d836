"""
Ratings in Valkey.

Each deciding method is one function (`ratings.lua`). All keys of a queue share its hash tag; `p` below is `wf:r:{<queue>}:`.

| key | type | owner, and how it goes |
|---|---|---|
| `p players` | hash: player → [mean, spread, matches] as JSON | apply; never: it is what players have earned |
| `p results:<session>` | string: results that somebody else than the game reported | report; after 24 h |
| `p due` | sorted set: sessions to be rated, by when to look at each next (ms) | expect; apply, which also drops those that say nothing |
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from redis.exceptions import RedisError

from gameserver.sessions.client import StoreClient
from gameserver.sessions.library import FunctionLibrary
from gameserver.sessions.model import PlayerId, SessionId
from gameserver.sessions.port import StoreUnavailable
from matchmaker.model import QueueName
from matchmaker.ratings.skill import Rating

_FIRST_LOOK_S = 1.0
_REPORTED_TTL_S = 24 * 3600


class RatingStore:
    """The ratings of all queues. Every method may raise StoreUnavailable; each may be called again then, with the same arguments."""

    def __init__(self, client: StoreClient) -> None:
        self.client = client
        self._functions = FunctionLibrary(client, Path(__file__).with_name("ratings.lua"))

    async def fetch(self, queue: QueueName, players: Sequence[PlayerId]) -> dict[PlayerId, Rating]:
        """Players' ratings; those who have none are left out."""
        try:
            rows: Any = await self.client.hmget(f"{_prefix(queue)}players", list(players))
        except (RedisError, OSError) as error:
            raise StoreUnavailable(str(error)) from error
        return {player: _decode(raw) for player, raw in zip(players, rows, strict=True) if raw is not None}

    async def expect(self, queue: QueueName, session: SessionId) -> None:
        """A session is to be rated when it ends."""
        await self._call("rating_expect", queue, session, round(_FIRST_LOOK_S * 1000))

    async def report(self, queue: QueueName, session: SessionId, results: bytes) -> bool:
        """Keep what a session ended with, by the word of who may say it; False when something else was said before."""
        return bool(await self._call("rating_report", queue, session, results, _REPORTED_TTL_S))

    async def reported(self, queue: QueueName, session: SessionId) -> str:
        """What was reported of a session; "" when nothing was."""
        try:
            raw: Any = await self.client.get(f"{_prefix(queue)}results:{session}")
        except (RedisError, OSError) as error:
            raise StoreUnavailable(str(error)) from error
        return "" if raw is None else str(raw.decode())

    async def due(self, queue: QueueName, *, most: int, again_s: float) -> list[SessionId]:
        """Sessions to look at now; they are looked at again after so long, by whoever asks then, unless they are applied."""
        reply = await self._call("rating_due", queue, most, round(again_s * 1000))
        return [SessionId(session.decode()) for session in reply]

    async def apply(
        self, queue: QueueName, session: SessionId, before: Mapping[PlayerId, Rating], after: Mapping[PlayerId, Rating]
    ) -> bool:
        """
        Write a session's ratings, once and all together; with none of them it is not to be rated any more.

        Returns: False when a player has been rated since `before` was read: read again, and rate anew.
        """
        args: list[str | int | bytes] = []
        for player, rating in after.items():
            args += (player, before[player].matches, orjson.dumps([rating.mean, rating.spread, rating.matches]))
        return bool(await self._call("rating_apply", queue, session, *args) != b"STALE")

    async def _call(self, function: str, queue: QueueName, *args: str | int | bytes) -> Any:
        return await self._functions.call(function, [_prefix(queue)], *args)


def _prefix(queue: QueueName) -> str:
    return f"wf:r:{{{queue}}}:"


def _decode(raw: bytes) -> Rating:
    mean, spread, matches = orjson.loads(raw)
    return Rating(mean=mean, spread=spread, matches=matches)
