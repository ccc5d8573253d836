"""
The allocator as the matchmaker sees it: a match in, a session on a warm server out.

The warm path is one Valkey function. A match that finds no room waits in order, while the keeper brings servers, and is called when there is one
for it; whatever happens to the wait (deadline, cancellation, a lost reply), the match ends with exactly one session or with none.

A match may go to several fleets, tried in order. Each claim is repeatable by the session's id, and no later fleet is asked before the earlier one
has answered, so one run claims at most once. A run that follows a crashed one (`retried`) looks in all fleets first.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import ParamSpec, TypeVar

import structlog
from prometheus_client import Counter, Histogram

from allocator import metrics
from allocator.model import Allocation, AllocationRequest, Cause, FleetPolicy, SeatRequest, Temperature, Unavailable
from allocator.ports import Backend
from allocator.seats import Seats
from allocator.selection import Candidate, rank
from allocator.shelf import NoRoom, Shelf, Waiting
from allocator.waiting import Calls, Glances, Supplies, Supply
from gameserver import tracing
from gameserver.sessions.client import CALL_ENDS_S, StoreClient
from gameserver.sessions.model import FleetName, MatchId, SessionId, SessionState, fleet_of, session_id
from gameserver.sessions.port import StoreUnavailable

log = structlog.get_logger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")

_ASK_AGAIN_S = 0.5
"""A waiter asks about so often even if no call reaches it; below the store's 2 s after which a silent one has left."""
_STORE_RETRY_S = 0.1
_SILENT_S = 0.5
"""A store that has not answered for so long is away."""
_STANDING_TTL_S = 1.0
"""How old the look may be by which fleets are ranked."""


@lru_cache(maxsize=1024)
def _measures(fleet: FleetName, temperature: Temperature) -> tuple[Counter, Histogram]:
    """Looking a metric's child up by its labels costs more than counting."""
    return (
        metrics.ALLOCATIONS.labels(fleet, temperature.value),
        metrics.ALLOCATION_SECONDS.labels(temperature.value),
    )


class _Wait:
    """What a request has met with so far."""

    def __init__(self, begun_s: float) -> None:
        """`begun_s`: by the monotonic clock."""
        self.begun_s = begun_s
        self.store_away: StoreUnavailable | None = None
        """Why the store has not answered the newest question; None once it has."""
        self.asked_at_s: float | None = None
        """When the question was asked that is not answered yet."""
        self.ahead: dict[FleetName, int] = {}
        self.supply: dict[FleetName, Supply | None] = {}

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.begun_s

    def away(self, deadline_s: float) -> StoreUnavailable | None:
        """Whether it was the store that used the time up."""
        if self.store_away is None and self.asked_at_s is not None:
            silent_s = time.monotonic() - self.asked_at_s
            if silent_s > _SILENT_S < deadline_s:  # a shorter deadline cannot tell
                return StoreUnavailable(f"no answer in {silent_s:.2f} s")
        return self.store_away

    def temperature(self, policy: FleetPolicy) -> Temperature:
        """How warm a server is that must be brought: one of those that were Ready when the wait began, or a new one."""
        supply = self.supply.get(policy.name)
        if supply is not None and supply.ready * policy.rooms > self.ahead.get(policy.name, 0):
            return Temperature.BUFFER
        return Temperature.COLD

    def why(self, fleets: Mapping[FleetName, FleetPolicy]) -> str:
        """What stood in the way, for the message of a request that found nothing."""
        said = []
        for fleet, ahead in self.ahead.items():
            supply, most = self.supply.get(fleet), fleets[fleet].max
            have = "its backend does not answer" if supply is None else f"{supply.servers} of at most {most} servers"
            said.append(f"fleet {fleet}: {have}, {ahead} requests ahead")
        return "".join(f"; {text}" for text in said)


class Allocator:
    """Finds matches their servers."""

    def __init__(self, shelf: Shelf, client: StoreClient, fleets: Sequence[FleetPolicy], backend: Backend) -> None:
        self._shelf = shelf
        self._fleets: Mapping[FleetName, FleetPolicy] = {fleet.name: fleet for fleet in fleets}
        for fleet in self._fleets:
            for temperature in Temperature:
                metrics.ALLOCATIONS.labels(fleet, temperature.value)  # a share of what never happened is 0, not unknown
        self._seats = Seats(client)
        self._standings = Glances(shelf.standing, self._fleets, ttl_s=_STANDING_TTL_S)
        self._calls = Calls(client, tuple(self._fleets))
        self._supplies = Supplies(backend, self._fleets)

    @property
    def seats(self) -> Seats:
        """Seats of running sessions, one session at a time."""
        return self._seats

    @property
    def fleets(self) -> Mapping[FleetName, FleetPolicy]:
        """The fleets whose rooms can be asked for."""
        return self._fleets

    async def allocate(
        self, request: AllocationRequest, *, deadline_s: float, wait: bool = True, shared: bool = False
    ) -> Allocation | Unavailable:
        """
        Give a match its session, the same one however often it is asked for.

        Args:
            deadline_s: how long to wait for a server, in s; warm ones come at once.
            wait: False: only a room that can be claimed now.
            shared: others may ask for the same match, so that giving up alone decides nothing: what was claimed is kept until somebody calls `abandon`, or
                until it expires.
        Returns: the allocation, or Unavailable once the deadline has passed (then nothing is held, unless it is `shared`).
        Raises: StoreUnavailable when the store stays away until the deadline; ask again with `retried`.
        """
        begun_s = time.monotonic()
        try:
            with tracing.span("allocate", match=request.match) as span:
                at_once = await self._at_once(request, deadline_s)
                found = at_once or await self._patiently(request, begun_s, deadline_s, wait, shared)
                if isinstance(found, Allocation):
                    span.set(fleet=found.session.fleet, temperature=found.temperature.value)
        except asyncio.CancelledError:
            if not shared:  # the caller is gone: nobody would ever use what was claimed
                await self._give_up(request)
            raise
        if isinstance(found, Unavailable):
            metrics.UNALLOCATED.labels(found.cause.value).inc()
            return found
        count, took = _measures(found.session.fleet, found.temperature)
        count.inc()
        took.observe(time.monotonic() - begun_s, tracing.exemplar())
        return found

    async def _at_once(self, request: AllocationRequest, deadline_s: float) -> Allocation | None:
        """
        The way that most matches take, as lean as can be: one fleet, a room on its shelf. None: nothing is decided.

        Without a timer, which would cost as much as half of the rest: a call ends by itself before the deadline.
        """
        if deadline_s <= CALL_ENDS_S or len(request.fleets) != 1 or request.retried:
            return None
        policy = self._fleets.get(request.fleets[0])
        if policy is None or not policy.max:
            return None
        try:
            reply = await self._claim(request, policy)
        except StoreUnavailable:
            return None  # it is asked again
        return reply if isinstance(reply, Allocation) and reply.session.state is not SessionState.ENDED else None

    async def _patiently(
        self, request: AllocationRequest, begun_s: float, deadline_s: float, wait: bool, shared: bool
    ) -> Allocation | Unavailable:
        if (refused := self._refuse(request)) is not None:
            return refused
        met = _Wait(begun_s)
        try:
            async with asyncio.timeout(deadline_s - met.elapsed_s):
                if len(request.fleets) > 1:
                    request = replace(request, fleets=await self._rank(request))
                found = await self._first(request, met)
                if found is None and wait:
                    found = await self._wait(request, met)
        except TimeoutError:
            if not shared:
                await self._give_up(request)
            if (away := met.away(deadline_s)) is not None:
                raise away from None
            return Unavailable(reason=f"no server within {deadline_s:g} s{met.why(self._fleets)}")
        if found is None:
            return Unavailable(reason="no room can be claimed now")
        if found.session.state is SessionState.ENDED:
            return Unavailable(reason=f"session {found.session.id} has ended", cause=Cause.ENDED)
        return replace(found, waited_s=met.elapsed_s) if met.supply else found

    async def find(self, session: SessionId) -> Allocation | None:
        """Where a session is now, ended or not; None when there is none. Raises StoreUnavailable."""
        return await self._shelf.find(session)

    async def free_rooms(self, fleets: Sequence[FleetName]) -> Mapping[FleetName, int]:
        """Rooms that a match could claim this moment, by fleet. Raises StoreUnavailable."""
        return await self._shelf.free_rooms(fleets)

    async def end(self, session: SessionId, *, reason: str) -> bool:
        """End a session from outside; False when it was over, or never there. Raises StoreUnavailable."""
        fleet = self._fleets.get(fleet_of(session))
        return await self._shelf.end(session, reason=reason, recycle=fleet is None or fleet.recycle)

    async def seat(self, request: SeatRequest) -> Allocation | Unavailable:
        """
        Seat a party in a session that runs already and takes more players, in the first fleet that has one.

        Repeatable by the request's id. Raises: StoreUnavailable, ValueError when the party is empty or names a player twice.
        """
        for fleet in request.fleets:
            policy = self._fleets.get(fleet)
            if policy is None:
                return Unavailable(reason=f"unknown fleet {fleet!r}", cause=Cause.UNKNOWN_FLEET)
            found = await self._seats.find(
                fleet, request.id, request.party, queue=request.queue, strategy=policy.strategy
            )
            outcome = "seated" if isinstance(found, Allocation) else "no-seats"
            metrics.SEATED.labels(fleet, outcome).inc()
            if isinstance(found, Allocation):
                return found
        return Unavailable(
            reason=f"no running session has {len(request.party)} free seats together", cause=Cause.NO_SEATS
        )

    def _refuse(self, request: AllocationRequest) -> Unavailable | None:
        for fleet in request.fleets:
            if fleet not in self._fleets:
                return Unavailable(reason=f"unknown fleet {fleet!r}", cause=Cause.UNKNOWN_FLEET)
        if not any(self._fleets[fleet].max for fleet in request.fleets):
            names = ", ".join(request.fleets) or "no fleet at all"
            return Unavailable(reason=f"no capacity: {names} may have 0 servers at most", cause=Cause.NO_CAPACITY)
        return None

    async def _rank(self, request: AllocationRequest) -> tuple[FleetName, ...]:
        """The request's fleets, best first; as they are given when nothing is known of them."""
        try:
            standings = await asyncio.gather(*(self._standings.of(fleet) for fleet in request.fleets))
        except StoreUnavailable as error:
            log.warning("store_unavailable", error=str(error))
            return request.fleets
        candidates = [
            Candidate(fleet=fleet, region=policy.region, weight=policy.weight, kept=kept, warm=warm)
            for fleet, (kept, warm) in zip(request.fleets, standings, strict=True)
            for policy in (self._fleets[fleet],)
        ]
        return rank(candidates, request.latency_ms, seed=request.match)

    async def _first(self, request: AllocationRequest, wait: _Wait) -> Allocation | None:
        """Look at every shelf once, in order."""
        if request.retried:
            for fleet in request.fleets:
                found = await self._until_answered(wait, self._find_in, request, fleet)
                if found is not None:
                    return found
        for fleet in request.fleets:
            reply = await self._until_answered(wait, self._claim, request, self._fleets[fleet])
            if isinstance(reply, Allocation):
                return reply
        return None

    async def _wait(self, request: AllocationRequest, wait: _Wait) -> Allocation:
        """Wait in the queue of every fleet; the first that has a room is taken, the other places are given up."""
        fleets = [fleet for fleet in request.fleets if self._fleets[fleet].max]
        sessions = [session_id(fleet, request.match) for fleet in fleets]
        with metrics.WAITING.track_inprogress():
            async with self._calls.waiting(sessions) as called:
                for fleet in fleets:
                    wait.supply[fleet] = await self._supplies.of(fleet)
                while True:
                    called.clear()
                    for fleet in fleets:
                        reply = await self._until_answered(wait, self._claim, request, self._fleets[fleet], wait)
                        if isinstance(reply, Allocation):
                            await self._leave_queues(request, wait, but=fleet)
                            return reply
                        if isinstance(reply, Waiting):
                            wait.ahead.setdefault(fleet, reply.ahead)
                    try:
                        async with asyncio.timeout(_ASK_AGAIN_S * random.uniform(0.8, 1.2)):  # noqa: S311 (so that waiters do not march in step)
                            await called.wait()
                    except TimeoutError:
                        pass

    async def _find_in(self, request: AllocationRequest, fleet: FleetName) -> Allocation | None:
        found = await self._shelf.find(session_id(fleet, request.match))
        return None if found is None or found.session.state is SessionState.ENDED else found

    async def _claim(
        self, request: AllocationRequest, policy: FleetPolicy, wait: _Wait | None = None
    ) -> Allocation | Waiting | NoRoom:
        """Claim a room of one fleet, and with `wait` keep a place in its queue."""
        with tracing.span("claim", fleet=policy.name):
            return await self._shelf.claim(
                policy.name,
                session_id(policy.name, request.match),
                seats=request.seats,
                options=request.options,
                temperature=wait.temperature(policy) if wait else Temperature.SHELF,
                waited_s=wait.elapsed_s if wait else None,
                strategy=request.strategy or policy.strategy,
                free_seats=request.free_seats,
            )

    async def _until_answered(
        self, wait: _Wait, ask: Callable[_P, Awaitable[_T]], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Ask until the store answers: a lost reply may hide a claim, so no other fleet may be tried before."""
        while True:
            wait.asked_at_s = time.monotonic()
            try:
                answer = await ask(*args, **kwargs)
            except StoreUnavailable as error:
                log.warning("store_unavailable", error=str(error))
                wait.store_away = error
                await asyncio.sleep(_STORE_RETRY_S)
            else:
                wait.store_away = wait.asked_at_s = None
                return answer

    async def _leave_queues(self, request: AllocationRequest, wait: _Wait, *, but: FleetName) -> None:
        for fleet in request.fleets:
            if fleet != but:
                await self._until_answered(wait, self._shelf.abandon, session_id(fleet, request.match))

    async def _give_up(self, request: AllocationRequest) -> None:
        """Abandon to the end, also when cancelled meanwhile: half of it would leave a waiter or a room behind."""
        abandoning = asyncio.create_task(self.abandon(request.match, request.fleets), name=f"abandon-{request.match}")
        try:
            await asyncio.shield(abandoning)
        except asyncio.CancelledError:
            await asyncio.wait([abandoning])
            raise

    async def abandon(self, match: MatchId, fleets: Sequence[FleetName]) -> None:
        """
        Hold nothing for a match any more, unless a player has joined it.

        If the store is away, silent waiters and sessions that nobody joins expire by themselves.
        """
        for fleet in fleets:
            policy = self._fleets.get(fleet)
            try:
                await self._shelf.abandon(session_id(fleet, match), recycle=policy is None or policy.recycle)
            except StoreUnavailable as error:
                log.warning("abandon_failed", fleet=fleet, match=match, error=str(error))
