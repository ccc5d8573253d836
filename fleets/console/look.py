"""A look at a system, a laptop's or a cluster's: rows of the console, and the points of its charts."""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from allocator.model import GameServer, ServerState
from allocator.shelf import ShelfEntry, ShelfState
from fleets.autoscaler.policy import Decision
from fleets.console.pace import Pace
from fleets.console.state import Row, State
from fleets.console.timelines import Timelines
from gameserver.sessions.model import ServerMode
from matchmaker.model import QueueName
from matchmaker.store import TicketStore

_OLD_S = 60.0
"""A decision is renewed every few seconds: one older than this is nobody's any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerView:
    """A server, as it is shown."""

    server: GameServer
    since_at: float | None = None
    """When it came into its state (Unix seconds), as far as its source knows."""
    rooms: int | None = None
    players: int | None = None
    pid: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetView:
    """A fleet, as it is shown."""

    name: str
    max: int
    shelf: int
    """Rooms that its own figure keeps claimable."""
    seen: ShelfState | None
    """None: the shelf was not seen."""
    moved: int
    failures: int = 0
    reason: str = ""
    decision: Decision | None = None
    servers: Sequence[ServerView] = field(default=())


class Figures(Protocol):
    """What is measured of each server."""

    @property
    def late_s(self) -> Mapping[str, float]:
        """Server to the 99th percentile of how late its ticks began lately."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the parts are looked at."""

    fleets: Callable[[], Awaitable[Sequence[FleetView]]]
    """May raise StoreUnavailable."""
    queues: Sequence[QueueName]
    store: TicketStore
    pace: Pace
    figures: Figures
    timelines: Timelines
    why: Mapping[QueueName, str]
    """Of each queue, why its oldest ticket waits."""


class Looker:
    """Looks, once a second."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._began: dict[str, float | None] = {}
        """When each server came into its state, by the wall clock: fixed, while the time since then moves."""
        self._looked = False

    async def look(self) -> tuple[State, dict[str, float | None]]:
        """The state, and a point for each chart. Raises StoreUnavailable."""
        views = await self._sources.fleets()
        queues = {str(queue): await self._queue(queue) for queue in self._sources.queues}
        servers: dict[str, Row] = {}
        for view in views:
            entries = {entry.server: entry for entry in view.seen.entries} if view.seen else {}
            servers |= {str(s.server.name): self._server(s, entries.get(s.server.name)) for s in view.servers}
        self._began = {key: at for key, at in self._began.items() if key.partition(" ")[0] in servers}
        self._looked = True
        state: State = {
            "fleets": {view.name: _fleet(view) for view in views},
            "servers": servers,
            "queues": queues,
            "sessions": dict(_sessions(views)),
            "tickets": self._sources.timelines.newest(),
        }
        return state, _point(state)

    def _server(self, view: ServerView, entry: ShelfEntry | None) -> Row:
        server = view.server
        key = f"{server.name} {server.state.value}"
        known = view.since_at if view.since_at is not None or not self._looked else time.time()
        began = self._began.setdefault(key, None if known is None else round(known, 1))
        leaving = entry is not None and (entry.draining or entry.mode not in (None, ServerMode.SERVE))
        return {
            "fleet": server.fleet,
            "state": server.state.value,
            "since": began,
            "rooms": view.rooms,
            "players": view.players,
            "late": self._sources.figures.late_s.get(server.name),
            "version": server.version,
            "draining": leaving or server.state is ServerState.SHUTDOWN,
            "pid": view.pid,
            "reason": view.reason or ("drains: no new matches" if leaving else ""),
        }

    async def _queue(self, queue: QueueName) -> Row:
        store, pace = self._sources.store, self._sources.pace
        oldest = await store.oldest(queue)
        if matched := pace.matched(queue):
            now_s, created = await store.now_s(queue), await store.created([ticket for ticket, _ in matched])
            pace.note(queue, [now_s - ago_s - created[ticket] for ticket, ago_s in matched if ticket in created])
        return {
            "depth": await store.depth(queue),
            "closed": (await store.closed(queue)).value,
            "oldest": None if oldest is None else round(oldest[1], 1),
            "oldestTicket": None if oldest is None else oldest[0],
            "p50": _rounded(pace.within(queue, 0.5)),
            "p95": _rounded(pace.within(queue, 0.95)),
            "perMinute": pace.per_minute(queue),
            "why": self._sources.why.get(queue, "") if oldest is not None else "",
        }


def _fleet(view: FleetView) -> Row:
    states = [server.server.state for server in view.servers]
    ready, allocated = states.count(ServerState.READY), states.count(ServerState.ALLOCATED)
    seen = view.seen
    return {
        "ready": ready,
        "allocated": allocated,
        "other": len(states) - ready - allocated,
        "max": view.max,
        "free": seen.free if seen else 0,
        "wanted": view.shelf if seen is None or seen.target is None else seen.target,
        "waiting": seen.waiters if seen else 0,
        "sessions": sum(len(entry.sessions) for entry in seen.entries) if seen else 0,
        "moved": view.moved,
        "failures": view.failures,
        "reason": view.reason,
        "decision": None if view.decision is None else _decision(view.decision),
    }


def _sessions(views: Sequence[FleetView]) -> Iterable[tuple[str, Row]]:
    for view in views:
        for entry in view.seen.entries if view.seen else ():
            for room in entry.sessions:
                state = "gone" if room.state is None else room.state.value
                yield room.session, {"fleet": view.name, "server": entry.server, "state": state}
        for lost in view.seen.lost if view.seen else ():
            yield lost.session, {"fleet": view.name, "server": "", "state": "lost"}


def _point(state: State) -> dict[str, float | None]:
    queues, servers = state["queues"].values(), state["servers"].values()
    waits = [queue["p95"] for queue in queues if queue["p95"] is not None]
    late = [server["late"] for server in servers if server["late"] is not None]
    players = [server["players"] for server in servers if server["players"] is not None]
    return {
        "Tickets waiting": sum(queue["depth"] for queue in queues),
        "Matches a minute": sum(queue["perMinute"] for queue in queues),
        "Wait, 95 % (s)": max(waits, default=None),
        "Sessions": len(state["sessions"]),
        "Players": sum(players) if players or not state["servers"] else None,
        "Free rooms": sum(fleet["free"] for fleet in state["fleets"].values()),
        "Servers": len(state["servers"]),
        "Ticks late, 99 % (ms)": max(late) * 1000 if late else None,
    }


def _decision(decision: Decision) -> dict[str, Any]:
    """Without its moment, which changes when nothing else does."""
    told = {name: value for name, value in asdict(decision).items() if name not in ("at_s", "expected")}
    return {**told, "old": time.time() - decision.at_s > _OLD_S}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
