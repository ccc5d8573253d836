"""
The director of one queue: tickets into matches, matches onto servers, assignments onto tickets.

Works while it holds the queue's lease; the functions of the store check its token, so that a director that slept through its lease changes
nothing. A match is a saga whose every step may be repeated: commit (tickets leave the pool) → acceptance, where the queue asks for it → allocate
(idempotent by the match's id) → assign, or give the tickets back as old as they are. Whoever takes the lease after a crash finds the matches that
are still placing and repeats them.

What waits is in the matcher, which hears of changes only: one call a cycle brings them from the queue's log. When the log does not reach back to
where this director stopped (it is new, or the store was restored), the pool is read whole.
"""

import asyncio
import functools
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import structlog

from gameserver import tracing
from gameserver.sessions.client import listen
from gameserver.sessions.clock import StoreClock
from gameserver.sessions.model import MatchId, PlayerId, SessionState, fleet_of
from gameserver.sessions.notices import Notices
from gameserver.sessions.port import StoreUnavailable
from matchmaker import metrics
from matchmaker.acceptance import policy_of
from matchmaker.backfill import after, choose
from matchmaker.matching.worker import MatchWorker
from matchmaker.model import Match, Proposal, QueueConfig, Ticket, TicketId
from matchmaker.placing import Placing
from matchmaker.ports import Allocator, Matcher, RunningSessions, Supply
from matchmaker.ratings.rater import Rater
from matchmaker.ratings.store import RatingStore
from matchmaker.records import Closed, Look, Offence
from matchmaker.refill import Refill
from matchmaker.replicas import Replicas
from matchmaker.store import TicketStore, wake_channel

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

LEASE_S = 1.25
"""A director that dies is replaced after its lease and one look of another: within 2 s."""
_TICK_S = 0.25
"""Rules relax with age: the pool is looked at so often even when nothing happens."""
_RETRY_S = 0.2
_PAUSE_S = (0.004, 0.01)
"""
Between two looks at a busy queue, at least and at most: what arrives meanwhile is taken in together. In between it is as long as the look took, so that
looking takes half of a core. A quiet queue's players wait for nothing.
"""
_BUSY_FROM = 4
"""Changes that one look brings on a busy queue."""
_ADOPT_S = 0.5
_ORPHAN_AFTER_S = 1.0
"""A match found placing without a saga here is taken up after so long: its director may still be at it."""
_MOST_SAGAS = 2000
"""Matches being placed at once; more stay in the pool, where they still get better."""
_PAGE = 2000
"""Tickets taken from the pool at a time."""


class Director:
    """Directs one queue; `run` until cancelled."""

    def __init__(
        self,
        queue: QueueConfig,
        store: TicketStore,
        allocator: Allocator,
        *,
        new_matcher: Callable[[], Matcher] | None = None,
        supply: Supply | None = None,
        seats: RunningSessions | None = None,
        replicas: Replicas | None = None,
        new_match: Callable[[], MatchId] | None = None,
    ) -> None:
        """
        `new_matcher`: makes an empty one; the matching core's own by default.
        Raises RatingsUnavailable for a queue with ratings where openskill is not installed.

        `supply`: matches go where something is warm; without it the allocator finds out.
        `seats`: for queues with backfill.
        `replicas`: the other directors' processes, which `run` beside; without them this one leads whenever the lease is free.
        """
        self.queue = queue
        self.leading = False
        metrics.begin(queue.name)
        self._store = store
        self._allocator = allocator
        self._new_matcher = new_matcher or (lambda: MatchWorker(queue))
        self._matcher = self._new_matcher()
        self._supply = supply
        self._seats = seats
        self._replicas = replicas
        self._leave_policy = policy_of(queue)
        self._notices = Notices(store.client)
        self._ratings = RatingStore(store.client) if queue.ratings else None
        self._rater = Rater(queue, self._ratings, allocator) if self._ratings else None
        self._new_match = new_match or (lambda: MatchId(secrets.token_hex(10)))
        self._token = f"{replicas.name}.{secrets.token_hex(8)}" if replicas else secrets.token_hex(8)
        """Begins with the replica's name, for which another may keep the lease."""
        self._led_since_s = 0.0
        self._refill = Refill(queue, store, allocator, seats, token=self._token)
        self._placing = Placing(queue, store, allocator, token=self._token, seats=seats, ratings=self._ratings)
        # Looking a metric's child up by its labels costs more than observing.
        self._cycle_s = metrics.CYCLE.labels(queue.name)
        self._wait_from = functools.cache(lambda region: metrics.TICKET_WAIT.labels(queue.name, region))
        self._wake = asyncio.Event()
        self._clock = StoreClock()
        self._connections = 0
        """Of the store, by which what the matcher has was read."""
        self._cursor = ""
        self._added: dict[TicketId, Ticket] = {}
        self._removed: dict[TicketId, None] = {}
        """What the matcher has not been told yet; it takes out before it takes in."""
        self._orphans: dict[MatchId, float] = {}
        self._adopt_at_s = 0.0
        self._rest_s = 0.0
        """Until the next look, while the queue is busy."""

    async def run(self) -> None:
        """Direct the queue until cancelled; sagas under way are cut short, and repeated by whoever directs next."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._direct(), name=f"direct-{self.queue.name}")
                if self._rater is not None:
                    tasks.create_task(self._rater.run(), name=f"rate-{self.queue.name}")
                channels = [wake_channel(self.queue.name)]
                hearing = listen(self._store.client, channels, lambda _: self._wake.set(), subscribed=self._wake.set)
                tasks.create_task(hearing, name=f"listen-{self.queue.name}")
        finally:
            await self._stop()

    async def _stop(self) -> None:
        await self._placing.stop()
        self._led(False)
        try:
            await self._store.release_lease(self.queue.name, self._token)
        except StoreUnavailable:
            pass  # it expires by itself
        await self._matcher.close()

    async def _direct(self) -> None:
        loop = asyncio.get_running_loop()
        if self._replicas:
            await self._replicas.known()
            if not self._replicas.preferred(self.queue.name):
                await asyncio.sleep(2 * _TICK_S)  # who should lead begins, where both start at once
        while True:
            pause_s = _TICK_S * random.uniform(0.9, 1.1)  # noqa: S311 (so that replicas do not march in step)
            try:
                if await self.cycle():
                    pause_s = 0.0
                elif not self.leading and self._replicas and not self._replicas.preferred(self.queue.name):
                    pause_s *= 2  # whoever should lead is the first to find the lease free
                if self.leading and loop.time() >= self._adopt_at_s:
                    self._adopt_at_s = loop.time() + _ADOPT_S
                    await self._adopt(loop.time())
                    if self.queue.backfill:
                        await self._stop_backfills()
                    await self._refill.hear()
                    if self._leave_policy is not None and self.queue.leave_running:
                        await self._hear_of_leavers()
                    await self._yield()
            except StoreUnavailable as error:
                log.warning("director_waits", queue=self.queue.name, error=str(error))
                self._cursor = ""  # a commit may have taken effect unseen
                pause_s = _RETRY_S
            if self._rest_s:
                await asyncio.sleep(min(self._rest_s, pause_s))
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    async def cycle(self) -> bool:
        """
        Look at the queue once and start the matches that can be made; returns whether there is more to do at once.

        Raises: StoreUnavailable.
        """
        queue, begun_s, self._rest_s = self.queue, time.monotonic(), 0.0
        if self._connections != (connections := self._store.connections):
            self._connections = connections
            self._cursor = ""  # a store that has taken over may not have our last commits
        look = await self._store.look(
            queue.name,
            self._token,
            lease_s=LEASE_S,
            cursor=self._cursor,
            ticket_timeout_s=queue.ticket_timeout_s,
            clock=self._clock,
        )
        self._led(look is not None)
        if look is None:
            return False
        if look.jumped_s:
            log.warning("store_clock_jumped", queue=queue.name, seconds=round(look.jumped_s, 1))
        if not look.complete:
            self._connections = self._store.connections
            await self._take_all()
            self._cursor = look.cursor
            return True
        self._cursor = look.cursor
        metrics.TICKETS_TIMED_OUT.labels(queue.name).inc(look.timed_out)
        metrics.TICKET_OLDEST.labels(queue.name).set(look.oldest_s)
        for offence in look.offences:
            metrics.OFFENCES.labels(queue.name).inc()
            await self._store.bar(queue.name, offence, duration_s=self._cost(offence))
        if look.accepted:
            for match in await self._store.adopt(queue.name, self._token, look.accepted):
                self._placing.start(match, retried=False)
        await self._match_up(look)
        took_s = time.monotonic() - begun_s
        busy = len(look.added) + len(look.removed) >= _BUSY_FROM
        self._rest_s = min(max(_PAUSE_S[0], took_s), _PAUSE_S[1]) if busy else 0.0
        self._cycle_s.observe(took_s)
        return look.full

    def _cost(self, offence: Offence) -> float:
        """For how long the offender may not queue, in s; a policy that fails costs nothing, and stops nobody else's match."""
        if self._leave_policy is None:
            return 0.0
        try:
            return self._leave_policy(offence.player, offence.kind, offence.count)
        except Exception:
            log.exception("leave_policy_failed", queue=self.queue.name)
            return 0.0

    async def _take_all(self) -> None:
        """Forget everything, and read the pool; the log brings what happens meanwhile."""
        self._added.clear()
        self._removed.clear()
        await self._matcher.close()
        self._matcher = self._new_matcher()
        ids = list(await self._store.pool(self.queue.name))
        for start in range(0, len(ids), _PAGE):
            page = await self._leading_on(self._store.tickets(self.queue.name, ids[start : start + _PAGE]))
            self._added.update((ticket.id, ticket) for ticket in page)

    async def _match_up(self, look: Look) -> None:
        """Let the matcher propose, commit what it proposes, and start placing."""
        queue = self.queue
        for gone in look.removed:
            self._added.pop(gone, None)
            self._removed[gone] = None
        self._added.update((ticket.id, ticket) for ticket in look.added)
        if look.closed is Closed.PAUSED:
            return
        if queue.backfill and self._seats is not None:
            await self._fill(look.now_s)
        added, removed = tuple(self._added.values()), tuple(self._removed)
        self._added.clear()
        self._removed.clear()
        supply = await self._supply.free_rooms(queue.fleets) if self._supply else None
        proposals = await self._leading_on(self._matcher.cycle(added, removed, look.now_s, supply))
        proposals = proposals[: max(0, _MOST_SAGAS - len(self._placing))]
        matches = [self._match(proposal) for proposal in proposals]
        committed = await self._store.commit(queue.name, self._token, matches, accept_s=queue.acceptance_s)
        for proposal, match, done in zip(proposals, matches, committed, strict=True):
            if not done:
                continue  # a ticket has gone, as the log will say; the others are still in the pool
            for ticket in proposal.tickets:
                waited_s = max(0.0, look.now_s - ticket.created_at_s)
                found = tracing.exemplar(ticket.trace)
                self._wait_from(nearest(queue, ticket)).observe(waited_s, found)
                _trace_wait(queue, ticket, match, look.now_s)
            self._removed.update((ticket, None) for ticket in match.tickets)
            if not queue.acceptance_s:
                self._placing.start(match, retried=False)
        unmatched = [ticket.id for ticket in added if ticket.id not in self._removed]
        if unmatched:
            await self._store.searching(queue.name, self._token, unmatched)

    async def _fill(self, now_s: float) -> None:
        """Players for running sessions, before any new match is made."""
        wants = await self._store.backfills(self.queue.name)
        waiting = {**self._matcher.tickets, **self._added} if wants else {}
        for gone in self._removed:
            if gone not in self._added:
                waiting.pop(gone, None)
        for want in sorted(wants, key=lambda want: want.created_at_s):
            if want.busy in self._placing or not (joined := choose(self.queue, want, waiting.values(), now_s)):
                continue
            tickets = [ticket for team in joined.values() for ticket in team]
            match = Match(
                id=self._new_match(),
                tickets=tuple(ticket.id for ticket in tickets),
                seats=tuple(
                    (player.id, team) for team, some in joined.items() for ticket in some for player in ticket.players
                ),
                fleets=(fleet_of(want.session),),
                session=want.session,
                traces=_traces(tickets),
            )
            left = after(want, joined, match.id)
            if await self._store.commit_backfill(self.queue.name, self._token, want, left, match):
                metrics.BACKFILLED.labels(self.queue.name).inc(len(match.seats))
                for ticket in tickets:
                    waiting.pop(ticket.id)
                    self._added.pop(ticket.id, None)
                    self._removed[ticket.id] = None
                self._placing.start(match, retried=False)

    async def _stop_backfills(self) -> None:
        """A session that is over wants nobody."""
        for want in await self._store.backfills(self.queue.name):
            found = await self._allocator.find(want.session)
            if found is None or found.session.state is SessionState.ENDED:
                await self._store.drop_backfill(self.queue.name, want.session)

    async def _hear_of_leavers(self) -> None:
        """Who left a running match is an offender."""
        for fleet in self.queue.fleets:
            for leaver in await self._notices.leavers(fleet, self.queue.name):
                await self._store.left(self.queue.name, leaver.session, leaver.player)
                await self._notices.forget(fleet, self.queue.name, leaver)

    async def _leading_on(self, work: Awaitable[_T]) -> _T:
        """Do something that takes long, and keep the lease meanwhile."""
        task = asyncio.ensure_future(work)
        try:
            while True:
                done, _ = await asyncio.wait([task], timeout=LEASE_S / 3)
                if done:
                    return task.result()
                await self._store.hold_lease(self.queue.name, self._token, lease_s=LEASE_S)
        finally:
            task.cancel()

    async def _adopt(self, now_s: float) -> None:
        """Take up matches whose director is gone."""
        placing = await self._store.placing(self.queue.name)
        self._orphans = {m: self._orphans.get(m, now_s) for m in placing if m not in self._placing}
        due = [m for m, since_s in self._orphans.items() if now_s - since_s >= _ORPHAN_AFTER_S]
        for match in await self._store.adopt(self.queue.name, self._token, due):
            log.info("match_adopted", match=match.id)
            metrics.ADOPTED.labels(self.queue.name).inc()
            self._placing.start(match, retried=True)

    async def _yield(self) -> None:
        """Hand the queue to the replica that should lead it; the sagas begun here go on to their end."""
        if self._replicas and self.leading and (heir := self._replicas.heir(self.queue.name, self._led_since_s)):
            log.info("lease_yielded", queue=self.queue.name, to=heir)
            self._led(False)
            await self._store.release_lease(self.queue.name, self._token, heir=heir)

    def _led(self, leading: bool) -> None:
        if leading and not self.leading:
            metrics.TAKEOVERS.labels(self.queue.name).inc()
            self._led_since_s = asyncio.get_running_loop().time()
        if not leading:
            self._cursor = ""
            if self.leading:  # another tells them from now on
                metrics.TICKET_OLDEST.labels(self.queue.name).set(0)
                metrics.MATCHING_POOL.labels(self.queue.name).set(0)
        self.leading = leading
        metrics.LEADING.labels(self.queue.name).set(leading)

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
            roles=proposal.roles,
            traces=_traces(proposal.tickets),
            latency_ms=slowest_ms(self.queue, proposal.tickets) if len(proposal.fleets) > 1 else {},
        )


def nearest(queue: QueueConfig, ticket: Ticket) -> str:
    """The region, of those where the queue's fleets are, to which the players' worst round trip is shortest; '' when none was measured."""
    worst = slowest_ms(queue, [ticket])
    return min(worst, key=lambda region: (worst[region], region)) if worst else ""


def slowest_ms(queue: QueueConfig, tickets: Iterable[Ticket]) -> dict[str, float]:
    """The longest of the players' round trips to each region of the queue's fleets that all of them have measured, in ms."""
    players = [player for ticket in tickets for player in ticket.players]
    return {
        region: max(player.latencies_ms[region] for player in players)
        for region in set(queue.regions.values())
        if region and all(region in player.latencies_ms for player in players)
    }


def _traces(tickets: Iterable[Ticket]) -> dict[PlayerId, str]:
    return {player.id: ticket.trace for ticket in tickets if ticket.trace for player in ticket.players}


def _trace_wait(queue: QueueConfig, ticket: Ticket, match: Match, now_s: float) -> None:
    """A ticket's wait, in its own trace; it points to the match's where that is another's."""
    links = [match.trace] if match.trace != ticket.trace else []
    tracing.record(
        "ticket.wait",
        parent=ticket.trace,
        links=links,
        start_s=ticket.created_at_s,
        end_s=now_s,
        queue=queue.name,
        match=match.id,
    )
