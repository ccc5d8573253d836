"""
Matches onto servers: the part of a director's saga between a match's commit and its tickets' assignment.

Every step may be repeated, by this director or by the one that takes the match over: allocating is idempotent by the match's id, assigning is decided by
whoever is first, giving back by the owner (docs/decisions/0040). Knows no pool and makes no match.
"""

import asyncio
import json
import time
from typing import Any

import structlog

from allocator.model import Allocation, AllocationRequest, Unavailable
from gameserver import tracing
from gameserver.sessions.model import MatchId, Seat, SessionId
from gameserver.sessions.notices import Notices, Wanting
from gameserver.sessions.port import SessionGone, StoreUnavailable
from matchmaker import metrics
from matchmaker.model import Match, QueueConfig
from matchmaker.ports import Allocator, RunningSessions
from matchmaker.ratings.store import RatingStore
from matchmaker.store import TicketStore

log = structlog.get_logger(__name__)

DEADLINE_S = 30.0
"""How long a match waits for a server before its tickets go back."""
_RETRY_S = 0.2
LAST_WORDS_S = 1.0
"""On the way out, for matches that are almost placed."""


class Placing:
    """The matches of one queue that this director brings onto servers."""

    def __init__(
        self,
        queue: QueueConfig,
        store: TicketStore,
        allocator: Allocator,
        *,
        token: str,
        seats: RunningSessions | None,
        ratings: RatingStore | None,
    ) -> None:
        """`token`: the director's, as the store knows it."""
        self.queue = queue
        self._store = store
        self._allocator = allocator
        self._token = token
        self._seats = seats
        self._ratings = ratings
        self._notices = Notices(store.client)
        self._running: dict[MatchId, asyncio.Task[None]] = {}
        # Looking a metric's child up by its labels costs more than counting.
        self._took_s = metrics.PLACING.labels(queue.name)
        self._assigned = metrics.MATCHES.labels(queue.name, "assigned")
        self._returned = metrics.MATCHES.labels(queue.name, "returned")

    def __len__(self) -> int:
        return len(self._running)

    def __contains__(self, match: object) -> bool:
        return match in self._running

    def start(self, match: Match, *, retried: bool) -> None:
        """Place a match beside everything else. `retried`: somebody may have asked for its server before."""
        if match.id in self._running:
            return
        task = asyncio.create_task(self._place(match, retried=retried), name=f"place-{match.id}")
        self._running[match.id] = task
        task.add_done_callback(lambda _: self._running.pop(match.id, None))

    async def stop(self) -> None:
        """Cut short what is under way; it is repeated by whoever directs next."""
        tasks = tuple(self._running.values())
        if tasks and LAST_WORDS_S:
            await asyncio.wait(tasks, timeout=LAST_WORDS_S)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _place(self, match: Match, *, retried: bool) -> None:
        """Get a match its server, and its tickets their assignment; repeats through outages of the store."""
        links = list(match.traces.values())[1:]
        with tracing.span(
            "match.place", parent=match.trace, links=links, queue=self.queue.name, match=match.id
        ) as span:
            placed = await self._on_a_server(match, retried=retried)
            if isinstance(placed, Allocation):
                span.set(session=placed.session.id, server=placed.session.server)

    async def _on_a_server(self, match: Match, *, retried: bool) -> Allocation | Unavailable:
        begun_s = time.monotonic()
        while True:
            try:
                placed = await self._server_for(match, retried=retried)
                if isinstance(placed, Allocation):
                    await self._hand_over(match, placed, begun_s)
                else:
                    await self._give_up(match, placed.reason)
                return placed
            except StoreUnavailable as error:
                log.warning("placing_waits", match=match.id, error=str(error))
                retried = True
                await asyncio.sleep(_RETRY_S)

    async def _hand_over(self, match: Match, placed: Allocation, begun_s: float) -> None:
        """Tell the tickets where; a session that they were not sent to, since another director was first, is given up."""
        if self._ratings is not None:
            await self._ratings.expect(self.queue.name, placed.session.id)  # before anybody can play and end it
        session = await self._store.assign(
            self.queue.name, match, assignment_of(placed, match), keep_players=self.queue.backfill
        )
        if session == placed.session.id:
            self._took_s.observe(time.monotonic() - begun_s, tracing.exemplar())
            self._assigned.inc()
        elif match.session is None:
            log.warning("match_placed_elsewhere", match=match.id, session=session)
            await self._allocator.abandon(match.id, (placed.session.fleet,))

    async def _give_up(self, match: Match, reason: str) -> None:
        """
        Return the tickets, then give up whatever the match holds: in this order, since only who returned them knows that no player is sent there.

        A director that slept until now is refused when another has taken the match over or placed it, and leaves its session alone.
        """
        if match.session is not None:
            # Its game may still want somebody. Said first: while this match is placing nobody decides by it.
            wanting = Wanting(session=match.session, change=match.id)
            await self._notices.want_again(self.queue.name, wanting)
        if not await self._store.give_back(self.queue.name, match.id, reason=reason, token=self._token):
            log.info("match_is_anothers", match=match.id)
            return
        log.warning("match_not_placed", match=match.id, reason=reason)
        self._returned.inc()
        if match.session is None:
            await self._allocator.abandon(match.id, match.fleets)

    async def _server_for(self, match: Match, *, retried: bool) -> Allocation | Unavailable:
        if match.session is not None:
            return await self._seat(match, match.session)
        request = AllocationRequest(
            match=match.id,
            fleets=match.fleets,
            seats=tuple(Seat(index=i, player=player, team=team) for i, (player, team) in enumerate(match.seats)),
            options=_options(self.queue, match),
            latency_ms=match.latency_ms,
            retried=retried,
        )
        return await self._allocator.allocate(request, deadline_s=DEADLINE_S, shared=True)

    async def _seat(self, match: Match, session: SessionId) -> Allocation | Unavailable:
        """Seats in a running session; one that is over, or has none after all, wants nobody any more."""
        if self._seats is None:
            return Unavailable(reason="this director seats nobody in running sessions")
        try:
            seated = await self._seats.reserve(session, match.seats)
            if isinstance(seated, Allocation):
                return seated
            reason = f"session {session} has {seated.free} free seats"
        except SessionGone:
            reason = f"session {session} is over"
        await self._store.drop_backfill(self.queue.name, session)
        return Unavailable(reason=reason)


def _options(queue: QueueConfig, match: Match) -> dict[str, str]:
    """What the game is told."""
    roles = {"roles": json.dumps(dict(match.roles), separators=(",", ":"))} if match.roles else {}
    traced = {tracing.OPTION: here} if (here := tracing.current()) else {}
    if traced and match.traces:
        traced[tracing.PLAYERS_OPTION] = json.dumps(dict(match.traces), separators=(",", ":"))
    return {"queue": queue.name, **roles, **queue.options, **traced}


def assignment_of(placed: Allocation, match: Match) -> dict[str, Any]:
    """
    What tickets keep: which session, who sits where, how warm; and where it is at this moment.

    Whoever is told at once may dial that; later it must be asked, since sessions move.
    """
    session = placed.session
    return {
        "session": session.id,
        "temperature": placed.temperature.value,
        "seats": {seat.player: [seat.index, seat.team] for seat in session.seats},
        "server": session.server,
        "epoch": session.epoch,
        **({"roles": dict(match.roles)} if match.roles else {}),
        "host": placed.host,
        "ports": dict(placed.ports),
    }
