"""A look at a laptop's system: what `fleets/laptop.py` runs, as the console's rows and the points of its charts."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from allocator.keeper import ShelfKeeper
from allocator.model import ServerState
from fleets.autoscaler.policy import Decision
from fleets.console.quantiles import Recent, buckets_of, quantile
from fleets.console.state import Row, State
from fleets.console.tempo import Tempo
from fleets.console.timelines import Timelines
from fleets.local.agones import FleetStatus, ServerStatus
from gameserver.sessions.model import FleetName
from matchmaker import metrics
from matchmaker.model import QueueName
from matchmaker.store import TicketStore

_WINDOW_LOOKS = 60
"""Waits and matches are those of the last minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the parts are looked at."""

    fleets: Callable[[], Sequence[FleetStatus]]
    keepers: Mapping[FleetName, ShelfKeeper]
    decisions: Mapping[FleetName, Decision]
    queues: Sequence[QueueName]
    store: TicketStore
    tempo: Tempo
    timelines: Timelines
    why: Mapping[QueueName, str]
    """Of each queue, why its oldest ticket waits."""


class Looker:
    """Looks, once a second."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._waits: dict[str, Recent] = {queue: Recent(_WINDOW_LOOKS) for queue in sources.queues}
        self._matches: dict[str, list[float]] = {queue: [] for queue in sources.queues}
        self._began: dict[str, float] = {}
        """When each server came into its state, by the wall clock: fixed, while the time since then moves."""

    async def look(self) -> tuple[State, dict[str, float | None]]:
        """The state, and a point for each chart. Raises StoreUnavailable."""
        statuses = self._sources.fleets()
        queues = {str(queue): await self._queue(queue) for queue in self._sources.queues}
        servers = {str(s.server.name): self._server(s) for status in statuses for s in status.servers}
        self._began = {key: at for key, at in self._began.items() if key.partition(" ")[0] in servers}
        state: State = {
            "fleets": {status.fleet.name: self._fleet(status) for status in statuses},
            "servers": servers,
            "queues": queues,
            "sessions": dict(self._sessions()),
            "tickets": self._sources.timelines.newest(),
        }
        return state, self._point(state)

    def _fleet(self, status: FleetStatus) -> Row:
        keeper, decision = self._sources.keepers[status.fleet.name], self._sources.decisions.get(status.fleet.name)
        states = [server.server.state for server in status.servers]
        ready, allocated = states.count(ServerState.READY), states.count(ServerState.ALLOCATED)
        seen = keeper.seen
        return {
            "ready": ready,
            "allocated": allocated,
            "other": len(states) - ready - allocated,
            "max": status.fleet.max,
            "free": seen.free if seen else 0,
            "wanted": keeper.policy.shelf if seen is None or seen.target is None else seen.target,
            "waiting": seen.waiters if seen else 0,
            "sessions": sum(len(entry.sessions) for entry in seen.entries) if seen else 0,
            "moved": keeper.moved,
            "failures": status.failures,
            "reason": status.reason,
            "decision": None if decision is None else _decision(decision),
        }

    def _server(self, status: ServerStatus) -> Row:
        server = status.server
        key = f"{server.name} {server.state.value}"
        began = self._began.setdefault(key, round(time.time() - status.since_s, 1))
        return {
            "fleet": server.fleet,
            "state": server.state.value,
            "since": began,
            "rooms": status.rooms,
            "players": status.players,
            "late": self._sources.tempo.late_s.get(server.name),
            "version": server.version,
            "draining": server.state is ServerState.SHUTDOWN,
            "pid": status.pid,
            "reason": status.reason,
        }

    async def _queue(self, queue: QueueName) -> Row:
        store = self._sources.store
        oldest = await store.oldest(queue)
        recent = self._waits[queue].note(buckets_of(metrics.TICKET_WAIT, "queue").get(queue, {}))
        return {
            "depth": await store.depth(queue),
            "closed": (await store.closed(queue)).value,
            "oldest": None if oldest is None else round(oldest[1], 1),
            "oldestTicket": None if oldest is None else oldest[0],
            "p50": _rounded(quantile(0.5, recent)),
            "p95": _rounded(quantile(0.95, recent)),
            "perMinute": self._per_minute(queue),
            "why": self._sources.why.get(queue, "") if oldest is not None else "",
        }

    def _per_minute(self, queue: QueueName) -> int:
        seen = self._matches[queue]
        seen.append(metrics.MATCHES.labels(queue, "assigned")._value.get())
        del seen[:-_WINDOW_LOOKS]
        return round(seen[-1] - seen[0])

    def _sessions(self) -> Iterable[tuple[str, Row]]:
        for fleet, keeper in self._sources.keepers.items():
            for entry in keeper.seen.entries if keeper.seen else ():
                for room in entry.sessions:
                    state = "gone" if room.state is None else room.state.value
                    yield room.session, {"fleet": fleet, "server": entry.server, "state": state}

    def _point(self, state: State) -> dict[str, float | None]:
        queues, servers = state["queues"].values(), state["servers"].values()
        waits = [queue["p95"] for queue in queues if queue["p95"] is not None]
        late = [server["late"] for server in servers if server["late"] is not None]
        return {
            "Tickets waiting": sum(queue["depth"] for queue in queues),
            "Matches a minute": sum(queue["perMinute"] for queue in queues),
            "Wait, 95 % (s)": max(waits, default=None),
            "Sessions": len(state["sessions"]),
            "Players": sum(server["players"] or 0 for server in servers),
            "Free rooms": sum(fleet["free"] for fleet in state["fleets"].values()),
            "Servers": len(state["servers"]),
            "Ticks late, 99 % (ms)": max(late) * 1000 if late else None,
        }


def _decision(decision: Decision) -> dict[str, Any]:
    """Without its moment, which changes when nothing else does."""
    return {name: value for name, value in asdict(decision).items() if name not in ("at_s", "expected")}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
