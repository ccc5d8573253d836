"""
What games want of a queue, made the backfills of their sessions.

A game says how many players its teams are to have; that, and who sits where, is in the session's record. A notice says which record has changed. Whoever
directs the queue compares the two, and opens, replaces or closes the session's backfill, so that doing it twice does nothing twice. Only a director that
leads does so (the store checks its token), and only while nobody is being seated there: until they are, the record lacks them.
"""

from collections import Counter

import structlog

from gameserver.sessions.model import Session, SessionId, SessionState
from gameserver.sessions.notices import Notices
from gameserver.sessions.port import SessionGone
from matchmaker.backfill import Backfill
from matchmaker.model import QueueConfig
from matchmaker.ports import Allocator, RunningSessions
from matchmaker.store import TicketStore

log = structlog.get_logger(__name__)


class Refill:
    """Of one queue, by its director."""

    def __init__(
        self, queue: QueueConfig, store: TicketStore, allocator: Allocator, seats: RunningSessions | None, *, token: str
    ) -> None:
        """`token`: the director's, as the store knows it."""
        self.queue = queue
        self._store = store
        self._allocator = allocator
        self._seats = seats
        self._token = token
        self._notices = Notices(store.client)
        self._refused = False

    async def hear(self) -> None:
        """Do what sessions' notices ask for; what cannot be done yet is there the next time. Raises StoreUnavailable."""
        for fleet in self.queue.fleets:
            asked = await self._notices.wants(fleet, self.queue.name)
            # Read before the records: who has been seated since then is in them.
            seating = await self._store.seating(self.queue.name) if asked and self.queue.backfill else set()
            for wanting in asked:
                if wanting.session not in seating and await self._settle(wanting.session):
                    await self._notices.settled(self.queue.name, wanting)

    async def _settle(self, session: SessionId) -> bool:
        """Bring the backfill of a session in line with its record; False when that must be tried again."""
        if not self.queue.backfill or self._seats is None:
            self._refuse(session)
            return True
        found = await self._allocator.find(session)
        if found is None or found.session.state is SessionState.ENDED:
            await self._store.drop_backfill(self.queue.name, session, token=self._token)
            return True
        if found.session.want is None:
            return True  # whatever is wanted there is a service's word
        if found.session.state is SessionState.DRAINING:
            return False  # nobody is seated until it has moved
        return await self._bring_in_line(found.session, self._seats)

    async def _bring_in_line(self, session: Session, seats: RunningSessions) -> bool:
        name, places = self.queue.name, open_places(self.queue, session)
        before = await self._store.backfill(name, session.id)
        here = {seat.player for seat in session.seats}
        players = await self._store.playing(name, session.id, here)
        try:
            await seats.open(session.id, epoch=session.epoch, free=sum(places.values()))
        except SessionGone:
            return False  # over, or moved
        same = before is not None and {player.id for player in before.players} == {player.id for player in players}
        if same and before is not None and before.teams == places:
            return True
        if not places:
            await self._store.drop_backfill(name, session.id, token=self._token)
            return True
        want = Backfill(
            session=session.id,
            version=before.version + 1 if before else 1,
            teams=places,
            players=tuple(players),
            never=tuple(sorted({*session.left, *session.kicked})),
            created_at_s=before.created_at_s if before else await self._store.now_s(name),
        )
        done, _ = await self._store.put_backfill(name, want, token=self._token)
        return done

    def _refuse(self, session: SessionId) -> None:
        if not self._refused:
            self._refused = True
            log.warning(
                "game_wants_players_in_vain", queue=self.queue.name, session=session, mend="backfill: {enabled: true}"
            )


def open_places(queue: QueueConfig, session: Session) -> dict[str, int]:
    """Team → how many players its game wants who are not there nor on their way; no more than the queue's teams have places."""
    sizes = {team.name: team.players for team in queue.teams}
    seated = Counter(seat.team for seat in session.seats)
    wanted = {team: min(players, sizes.get(team, 0)) for team, players in (session.want or {}).items()}
    return {team: players - seated[team] for team, players in wanted.items() if players > seated[team]}
