"""
Rates the matches of one queue as they end.

Beside each director of a queue with `ratings`; any number may run, since applying a session is one function that counts it once. Looks at what is due
every second: a session that still runs is looked at again, one that ended without results, or is gone, is dropped. Results that were reported over REST
come before the game's own: whoever may report them knows better, and a game that is not ours has none.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NoReturn

import structlog

from gameserver.sessions.model import PlayerId, Session, SessionId, SessionState
from gameserver.sessions.port import StoreUnavailable
from matchmaker import metrics
from matchmaker.model import Leavers, QueueConfig
from matchmaker.ports import Allocator
from matchmaker.ratings.outcome import Side, last, names, sides
from matchmaker.ratings.skill import Rating, Skill
from matchmaker.ratings.store import RatingStore

log = structlog.get_logger(__name__)

_PAUSE_S = 1.0
_AGAIN_S = 5.0
"""Between two looks at a session that still runs."""
_AT_ONCE = 200
_TRIES = 20
"""Of a session whose players are rated by other sessions at the same moment."""


class Rater:
    """Rates one queue's matches; `run` until cancelled."""

    def __init__(self, queue: QueueConfig, store: RatingStore, allocator: Allocator) -> None:
        """Raises RatingsUnavailable when openskill is not installed, ValueError when the queue has no ratings."""
        if queue.ratings is None:
            raise ValueError(f"queue {queue.name} has no ratings")
        self._queue = queue
        self._store = store
        self._allocator = allocator
        self._skill = Skill(queue.ratings)
        self._leavers = queue.ratings.leavers

    async def run(self) -> NoReturn:
        """Rate until cancelled; an outage of the store is waited out."""
        while True:
            try:
                more = await self.look()
            except StoreUnavailable as error:
                log.warning("rating_waits", queue=self._queue.name, error=str(error))
                more = False
            if not more:
                await asyncio.sleep(_PAUSE_S)

    async def look(self) -> bool:
        """Rate what has ended of the sessions that are due; returns whether there may be more. Raises StoreUnavailable."""
        due = await self._store.due(self._queue.name, most=_AT_ONCE, again_s=_AGAIN_S)
        for session in due:
            found = await self._allocator.find(session)
            reported = await self._store.reported(self._queue.name, session)
            if found is None:
                await self._drop(session, "gone")
            elif reported or found.session.state is SessionState.ENDED:
                await self._rate(found.session, reported or found.session.results)
        return len(due) == _AT_ONCE

    async def _rate(self, session: Session, results: str) -> None:
        said, leavers = _object(results), session.left
        teams = {**{seat.player: seat.team for seat in session.seats}, **leavers}
        ended = sides(said, [*teams.items()])
        if not ended:
            await self._drop(session.id, "no-result")
            return
        players = [player for side in ended for player in side.players]
        for _ in range(_TRIES):
            known = await self._store.fetch(self._queue.name, players)
            before = {player: known.get(player, self._skill.new) for player in players}
            after = self._after(ended, leavers, said, before)
            if await self._store.apply(self._queue.name, session.id, before, after):
                metrics.SESSIONS_RATED.labels(self._queue.name, "rated").inc()
                return
        log.warning("rating_postponed", session=session.id)  # it is due again

    def _after(
        self,
        ended: tuple[Side, ...],
        leavers: Mapping[PlayerId, str],
        said: Mapping[str, Any],
        before: Mapping[PlayerId, Rating],
    ) -> dict[PlayerId, Rating]:
        """Everybody's rating after a match: as it ended, but for those who left it (`RatingConfig.leavers`)."""
        after = self._skill.after(ended, before)
        for side in ended:
            # Who plays alone and has a result of its own left with it, not from it.
            gone = [p for p in side.players if p in leavers and not (len(side.players) == 1 and names(said, p))]
            match self._leavers if gone else Leavers.STAY:
                case Leavers.LOSE:
                    lost = self._skill.after(last(ended, side), before)
                    after |= {player: lost[player] for player in gone}
                case Leavers.UNRATED:
                    after = {player: rating for player, rating in after.items() if player not in gone}
                case Leavers.STAY:
                    pass
        return after

    async def _drop(self, session: SessionId, why: str) -> None:
        await self._store.apply(self._queue.name, session, {}, {})
        metrics.SESSIONS_RATED.labels(self._queue.name, why).inc()


def _object(text: str) -> Mapping[str, Any]:
    try:
        results = json.loads(text or "{}")
    except ValueError:
        return {}
    return results if isinstance(results, dict) else {}
