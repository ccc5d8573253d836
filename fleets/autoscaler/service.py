"""
The autoscaler: watches what fleets' players want and what their servers take, and decides by the policy.

Owns the order of steps and what is remembered between them; `policy.py` decides. Whoever scales asks `decide` with the numbers of servers it
knows: Agones by its webhook, the laptop's fleets by their loop. A store that is away makes a decision blind, never wrong: nothing is
taken away then.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NoReturn, Protocol

import structlog

from allocator.model import GameServer, ServerState
from allocator.ports import BackendUnavailable
from allocator.shelf import Shelf
from fleets import metrics
from fleets.autoscaler.forecast import BUCKET_S, ArrivalForecast, Recent, RecentArrivals
from fleets.autoscaler.history import DemandHistory
from fleets.autoscaler.leadtime import LeadTimes
from fleets.autoscaler.policy import HOLD_S, Decision, FleetAim, Observed, decide, decide_blind
from gameserver.sessions.client import StoreClient
from gameserver.sessions.clock import JUMP_S
from gameserver.sessions.model import FleetName, ServerName
from gameserver.sessions.port import StoreUnavailable

log = structlog.get_logger(__name__)

_SAMPLE_S = 5.0
_HAZARD_HALF_LIFE_S = 1800.0
_STALE_S = 60.0
"""A view of the demand older than this is none."""
_RETRY_S = 1.0
_BOOTING = (
    ServerState.PORT_ALLOCATION,
    ServerState.CREATING,
    ServerState.STARTING,
    ServerState.SCHEDULED,
    ServerState.REQUEST_READY,
)


class ServerWatch(Protocol):
    """Servers as they change; an `allocator.ports.Backend` is one."""

    def watch(self, fleet: FleetName) -> AsyncIterator[GameServer]:
        """Yield every live server, then each as it changes. Raises BackendUnavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """The servers of a fleet, counted by whoever scales them."""

    replicas: int
    ready: int
    allocated: int
    reserved: int = 0


@dataclass(slots=True, eq=False)
class _Demand:
    """One fleet's demand, as it was last seen."""

    aim: FleetAim
    history: DemandHistory
    lead_s: float
    """Until any was measured."""
    arrivals: ArrivalForecast = field(default_factory=ArrivalForecast)
    known: int = 0
    """Buckets before this one are in `arrivals`; 0 before the history was read."""
    recent: RecentArrivals = field(default_factory=RecentArrivals)
    lead_times: LeadTimes = field(default_factory=LeadTimes)
    booting: dict[ServerName, float] = field(default_factory=dict)
    claims: int = 0
    live: int = 0
    free_rooms: int = 0
    waiting: int = 0
    ends: float = 0.0
    exposure_s: float = 0.0
    """Session-seconds in which `ends` sessions ended, both fading."""
    at_s: float = 0.0
    """The store's clock at the newest sample."""
    seen_at_s: float = -math.inf
    """Our own clock at the newest sample."""
    came_at_s: float = 0.0
    """When a match last began, by the store's clock."""
    decisions: deque[Decision] = field(default_factory=lambda: deque(maxlen=600))


class Autoscaler:
    """Decides for some fleets; `run` beside it."""

    def __init__(
        self, fleets: Mapping[FleetName, FleetAim], client: StoreClient, servers: ServerWatch, *, lead_s: float
    ) -> None:
        """`lead_s`: what a new server takes until any was measured."""
        self._shelf = Shelf(client)
        self._servers = servers
        self._demand = {
            fleet: _Demand(aim=aim, history=DemandHistory(client, fleet), lead_s=lead_s)
            for fleet, aim in fleets.items()
        }

    @property
    def fleets(self) -> tuple[FleetName, ...]:
        """Those that it decides for."""
        return tuple(self._demand)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for fleet, demand in self._demand.items():
                tasks.create_task(self._sample_on(fleet, demand), name=f"demand-{fleet}")
                tasks.create_task(self._time_starts(fleet, demand), name=f"lead-times-{fleet}")

    async def decide(self, fleet: FleetName, servers: Servers, *, interval_s: float) -> Decision:
        """
        Decide for a fleet, and keep the decision for `status --why`.

        Args:
            interval_s: until whoever scales asks again.
        Raises: KeyError for a fleet that is not ours.
        """
        demand = self._demand[fleet]
        age_s = asyncio.get_running_loop().time() - demand.seen_at_s
        seen = _observed(demand, servers, age_s)
        if age_s > _STALE_S:
            why = "the demand was never seen" if math.isinf(age_s) else f"the demand was last seen {age_s:.0f} s ago"
            decision = decide_blind(demand.aim, seen, why=why)
        else:
            decision = decide(demand.aim, seen, demand.arrivals, demand.decisions, interval_s=interval_s)
        _measure(fleet, seen, decision)
        while demand.decisions and decision.at_s - demand.decisions[0].at_s > HOLD_S:
            demand.decisions.popleft()
        if not decision.blind:
            demand.decisions.append(decision)
        with suppress(StoreUnavailable):  # it is told to whoever asked; the next one says it again
            if decision.idle:
                await self._shelf.set_target(fleet, 0)
            await demand.history.publish(decision)
        return decision

    async def why(self, fleet: FleetName) -> Decision | None:
        """The newest decision of any replica. Raises KeyError, StoreUnavailable."""
        return await self._demand[fleet].history.decision()

    async def sample(self, fleet: FleetName) -> None:
        """Look at a fleet's demand once. Raises StoreUnavailable."""
        demand = self._demand[fleet]
        if not demand.known:
            demand.lead_times = LeadTimes(await demand.history.lead_times())
        at_s, claims = await demand.history.claims()
        shelf = await self._shelf.observe(fleet)
        bucket = int(at_s // BUCKET_S)
        if bucket > demand.known:
            history = {closed: count for closed, count in (await demand.history.arrivals()).items() if closed < bucket}
            if not demand.known:
                demand.arrivals = ArrivalForecast(history)
            for closed in sorted(history) if demand.known else ():
                if closed >= demand.known:
                    demand.arrivals.close(closed, history[closed])
            demand.known = bucket
        live = sum(len(entry.sessions) for entry in shelf.entries) + len(shelf.lost)
        now_s = asyncio.get_running_loop().time()
        if demand.at_s:
            jump_s = at_s - demand.at_s - (now_s - demand.seen_at_s)
            if abs(jump_s) > JUMP_S:
                self._follow(fleet, demand, jump_s)
            else:
                self._note(demand, at_s - demand.at_s, at_s, claims - demand.claims, live)
        demand.claims, demand.live, demand.at_s = claims, live, at_s
        demand.came_at_s = demand.came_at_s or at_s
        demand.free_rooms, demand.waiting = shelf.free, shelf.waiters
        demand.seen_at_s = now_s

    @staticmethod
    def _follow(fleet: FleetName, demand: _Demand, jump_s: float) -> None:
        """The store's clock was set, or another store has taken over: what we remember by it moves along, and the stretch tells nothing."""
        log.warning("store_clock_jumped", fleet=fleet, seconds=round(jump_s, 1))
        demand.came_at_s += jump_s
        moved = [replace(decision, at_s=decision.at_s + jump_s) for decision in demand.decisions]
        demand.decisions.clear()
        demand.decisions.extend(moved)

    @staticmethod
    def _note(demand: _Demand, seconds: float, at_s: float, came: int, live: int) -> None:
        """Take a stretch between two samples into account; one in which the store's counts fell tells nothing."""
        if seconds <= 0 or came < 0:
            return
        demand.recent.add(Recent(ended_s=at_s, seconds=seconds, count=came))
        if came:
            demand.came_at_s = at_s
        fade = 0.5 ** (seconds / _HAZARD_HALF_LIFE_S)
        demand.ends = fade * demand.ends + max(0, demand.live + came - live)
        demand.exposure_s = fade * demand.exposure_s + seconds * (demand.live + live) / 2

    async def _sample_on(self, fleet: FleetName, demand: _Demand) -> NoReturn:
        away = False
        while True:
            try:
                await self.sample(fleet)
                away = False
            except StoreUnavailable as error:
                if not away:
                    log.warning("demand_unknown", fleet=fleet, error=str(error))
                away = True
            await asyncio.sleep(_SAMPLE_S)

    async def _time_starts(self, fleet: FleetName, demand: _Demand) -> NoReturn:
        """Measure what servers take from the moment they appear until they are Ready."""
        while True:
            demand.booting.clear()
            with suppress(BackendUnavailable):
                first = asyncio.get_running_loop().time()
                async for server in self._servers.watch(fleet):
                    # What is there when the watch begins has been booting for an unknown time.
                    known = asyncio.get_running_loop().time() - first > _RETRY_S
                    await self._time_start(demand, server, known=known)
            await asyncio.sleep(_RETRY_S)

    @staticmethod
    async def _time_start(demand: _Demand, server: GameServer, *, known: bool) -> None:
        now_s = asyncio.get_running_loop().time()
        if server.state in _BOOTING:
            if known:
                demand.booting.setdefault(server.name, now_s)
            return
        began_s = demand.booting.pop(server.name, None)
        if began_s is not None and demand.at_s and server.state in (ServerState.READY, ServerState.ALLOCATED):
            hour, reckoned_s = demand.lead_times.note(demand.at_s + now_s - demand.seen_at_s, now_s - began_s)
            with suppress(StoreUnavailable):
                await demand.history.note_lead_time(hour, reckoned_s)


def _measure(fleet: FleetName, seen: Observed, decision: Decision) -> None:
    how = "blind" if decision.blind else "idle" if decision.idle else "seen"
    metrics.DECISIONS.labels(fleet, how).inc()
    for gauge, value in (
        (metrics.WANTED, decision.replicas),
        (metrics.BUFFER, decision.buffer),
        (metrics.ARRIVALS, decision.expected),
        (metrics.WARM_ROOMS, decision.warm),
        (metrics.LIMITED, decision.limited),
        (metrics.FREE_ROOMS, seen.free_rooms),
        (metrics.WAITING, seen.waiting),
        (metrics.LIVE, seen.live),
        (metrics.LEAD_SECONDS, seen.lead_s),
    ):
        gauge.labels(fleet).set(value)


def _observed(demand: _Demand, servers: Servers, age_s: float) -> Observed:
    return Observed(
        at_s=demand.at_s + (age_s if math.isfinite(age_s) else 0.0),
        replicas=servers.replicas,
        ready=servers.ready,
        allocated=servers.allocated,
        reserved=servers.reserved,
        free_rooms=demand.free_rooms,
        waiting=demand.waiting,
        live=demand.live,
        ends_per_s=demand.ends / demand.exposure_s if demand.exposure_s > 0 else 0.0,
        lead_s=demand.lead_times.reckon(demand.lead_s),
        idle_s=demand.at_s - demand.came_at_s,
        recent=demand.recent.all(),
    )
