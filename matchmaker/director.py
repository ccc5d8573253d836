"""
The director of one queue: tickets into matches, matches onto servers, assignments onto tickets.

Works while it holds the queue's lease; the functions of the store check its token, so that a director that slept through its lease changes
nothing. A match is a saga whose every step may be repeated: commit (tickets leave the pool) → allocate (idempotent by the match's id) → assign, or
give the tickets back as old as they are. Whoever takes the lease after a crash finds the matches that are still placing and repeats them.
"""

import asyncio
import random
import secrets
from collections.abc import Callable
from typing import Any

import structlog

from allocator.model import Allocation, AllocationRequest
from gameserver.sessions.client import listen
from gameserver.sessions.model import MatchId, Seat
from gameserver.sessions.port import StoreUnavailable
from matchmaker.matching.form import form_matches
from matchmaker.model import Match, Proposal, QueueConfig, Ticket, TicketId
from matchmaker.ports import Allocator
from matchmaker.store import TicketStore, wake_channel

log = structlog.get_logger(__name__)

LEASE_S = 2.0
PLACING_DEADLINE_S = 30.0
"""How long a match waits for a server before its tickets go back."""
_TICK_S = 0.25
"""Rules relax with age: the pool is looked at so often even when nothing happens."""
_RETRY_S = 0.2
_THREAD_FROM = 100
"""Tickets from which matches are formed in a thread, so that nothing else in the process waits: a cycle takes about 11 µs a ticket, and
180 µs where no two fit (docs/performance.md)."""
_ORPHAN_AFTER_S = LEASE_S
"""A match found placing without a saga here is taken up after so long: its director may still be at it."""


class Director:
    """Directs one queue; `run` until cancelled."""

    def __init__(
        self,
        queue: QueueConfig,
        store: TicketStore,
        allocator: Allocator,
        *,
        new_match: Callable[[], MatchId] | None = None,
    ) -> None:
        self.queue = queue
        self._store = store
        self._allocator = allocator
        self._new_match = new_match or (lambda: MatchId(secrets.token_hex(10)))
        self._token = secrets.token_hex(8)
        self._wake = asyncio.Event()
        self._known: dict[TicketId, Ticket] = {}
        self._seen: set[TicketId] = set()
        self._sagas: dict[MatchId, asyncio.Task[None]] = {}
        self._orphans: dict[MatchId, float] = {}
        self.leading = False

    async def run(self) -> None:
        """Direct the queue until cancelled; sagas under way are cut short, and repeated by whoever directs next."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._direct(), name=f"direct-{self.queue.name}")
                channels = [wake_channel(self.queue.name)]
                hearing = listen(self._store.client, channels, lambda _: self._wake.set(), subscribed=self._wake.set)
                tasks.create_task(hearing, name=f"listen-{self.queue.name}")
        finally:
            for saga in self._sagas.values():
                saga.cancel()
            if self._sagas:
                await asyncio.wait(self._sagas.values())
            try:
                await self._store.release_lease(self.queue.name, self._token)
            except StoreUnavailable:
                pass  # it expires by itself

    async def cycle(self) -> int:
        """
        Look at the pool once and start the matches that can be made; returns how many.

        Raises: StoreUnavailable.
        """
        queue = self.queue
        if queue.ticket_timeout_s:
            await self._store.expire(queue.name, self._token, age_s=queue.ticket_timeout_s)
        pool = await self._store.pool(queue.name)
        self._known = {ticket: known for ticket, known in self._known.items() if ticket in pool}
        self._seen &= pool.keys()
        new = [ticket for ticket in pool if ticket not in self._known]
        if new:
            self._known.update((ticket.id, ticket) for ticket in await self._store.tickets(queue.name, new))
        if not self._known:
            return 0
        waiting, now_s = list(self._known.values()), await self._store.now_s()
        if len(waiting) < _THREAD_FROM:
            proposals = form_matches(queue, waiting, now_s)
        else:
            proposals = await asyncio.to_thread(form_matches, queue, waiting, now_s)
        made = 0
        if proposals and not await self._store.hold_lease(queue.name, self._token, lease_s=LEASE_S):
            return 0  # forming took longer than the lease, and another directs now
        for proposal in proposals:
            match = self._match(proposal)
            if await self._store.commit(queue.name, self._token, match):
                made += 1
                self._start(match, retried=False)
            for ticket in match.tickets:
                self._known.pop(ticket, None)
        unseen = [ticket for ticket in self._known if ticket not in self._seen]
        if unseen:
            await self._store.searching(queue.name, self._token, unseen)
            self._seen.update(unseen)
        return made

    async def _direct(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                self.leading = await self._store.hold_lease(self.queue.name, self._token, lease_s=LEASE_S)
                if self.leading:
                    await self.cycle()
                    await self._adopt(loop.time())
            except StoreUnavailable as error:
                log.warning("director_waits", queue=self.queue.name, error=str(error))
                await asyncio.sleep(_RETRY_S)
            try:
                async with asyncio.timeout(_TICK_S * random.uniform(0.9, 1.1)):  # noqa: S311 (so that replicas do not march in step)
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    async def _adopt(self, now_s: float) -> None:
        """Take up matches whose director is gone."""
        placing = {match.id: match for match in await self._store.placing(self.queue.name)}
        self._orphans = {m: self._orphans.get(m, now_s) for m in placing if m not in self._sagas}
        for match_id, since_s in tuple(self._orphans.items()):
            if now_s - since_s >= _ORPHAN_AFTER_S:
                log.info("match_adopted", match=match_id)
                self._start(placing[match_id], retried=True)

    def _start(self, match: Match, *, retried: bool) -> None:
        saga = asyncio.create_task(self._place(match, retried=retried), name=f"place-{match.id}")
        self._sagas[match.id] = saga
        saga.add_done_callback(lambda _: self._sagas.pop(match.id, None))

    async def _place(self, match: Match, *, retried: bool) -> None:
        """Get a match its server, and its tickets their assignment; repeats through outages of the store."""
        queue = self.queue
        seats = tuple(Seat(index=i, player=player, team=team) for i, (player, team) in enumerate(match.seats))
        while True:
            try:
                request = AllocationRequest(
                    match=match.id,
                    fleets=match.fleets,
                    seats=seats,
                    options={"queue": queue.name, **queue.options},
                    retried=retried,
                )
                placed = await self._allocator.allocate(request, deadline_s=PLACING_DEADLINE_S)
                if isinstance(placed, Allocation):
                    await self._store.assign(queue.name, match, _assignment(placed))
                else:
                    log.warning("match_not_placed", match=match.id, reason=placed.reason)
                    await self._store.give_back(queue.name, match, reason=placed.reason)
                return
            except StoreUnavailable as error:
                log.warning("placing_waits", match=match.id, error=str(error))
                retried = True
                await asyncio.sleep(_RETRY_S)

    def _match(self, proposal: Proposal) -> Match:
        return Match(
            id=self._new_match(),
            tickets=tuple(ticket.id for ticket in proposal.tickets),
            seats=tuple(
                (player.id, team.name)
                for team, tickets in zip(self.queue.teams, proposal.teams, strict=True)
                for ticket in tickets
                for player in ticket.players
            ),
            fleets=proposal.fleets,
        )


def _assignment(placed: Allocation) -> dict[str, Any]:
    """What tickets keep: which session, who sits where, how warm. Where it is may change, and is asked for."""
    return {
        "session": placed.session.id,
        "temperature": placed.temperature.value,
        "seats": {seat.player: seat.index for seat in placed.session.seats},
    }
