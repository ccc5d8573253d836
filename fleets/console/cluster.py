"""
The fleets of a cluster, as the console shows them: shelves and decisions from the store, servers from the API server, their ticks from Prometheus.

Reads only. What cannot be asked is missing from the picture, and said in the fleet's row; the rest goes on.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import httpx
import structlog

from allocator.model import FleetPolicy, GameServer, ServerState
from allocator.ports import Backend, BackendUnavailable
from allocator.shelf import Shelf, ShelfState
from fleets.autoscaler.history import DemandHistory
from fleets.console.look import FleetView, ServerView
from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import FleetName, ServerName, SessionId
from gameserver.sessions.port import StoreUnavailable

log = structlog.get_logger(__name__)

_PERIOD_S = 5.0
_UNWATCHED_PERIOD_S = 60.0
_TIMEOUT_S = 5.0
_QUERIES = {
    "late_s": "histogram_quantile(0.99, sum by (pod, le) (rate(warmfleet_tick_lateness_seconds_bucket[1m])))",
    "players": "sum by (pod) (warmfleet_players_connected)",
}
"""A GameServer's pod has its name."""


class PrometheusFigures:
    """What Prometheus knows of each server; `run` beside it. Without a URL nothing is known."""

    def __init__(self, url: str, *, watched: Callable[[], bool]) -> None:
        """`watched`: whether anybody looks; Prometheus is asked more seldom while nobody does."""
        self._url = url.rstrip("/")
        self._watched = watched
        self.late_s: Mapping[str, float] = {}
        self.players: Mapping[str, int] = {}

    async def run(self) -> NoReturn:
        """Ask until cancelled."""
        away = False
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as http:
            while self._url:
                try:
                    await self.ask(http)
                    away = False
                except (httpx.HTTPError, httpx.InvalidURL, LookupError, TypeError, ValueError) as error:
                    if not away:
                        log.warning("prometheus_does_not_answer", url=self._url, error=str(error))
                    away, self.late_s, self.players = True, {}, {}
                await asyncio.sleep(_PERIOD_S if self._watched() else _UNWATCHED_PERIOD_S)
        await asyncio.Event().wait()
        raise AssertionError

    async def ask(self, http: httpx.AsyncClient) -> None:
        """Once. Raises HTTPError, LookupError, TypeError, ValueError."""
        found: dict[str, dict[str, float]] = {}
        for name, query in _QUERIES.items():
            reply = await http.get(f"{self._url}/api/v1/query", params={"query": query})
            reply.raise_for_status()
            rows: list[Any] = reply.json()["data"]["result"]
            values = {row["metric"].get("pod", ""): float(row["value"][1]) for row in rows}
            found[name] = {pod: value for pod, value in values.items() if value == value}  # NaN: no tick in a minute
        self.late_s = {pod: round(value, 5) for pod, value in found["late_s"].items()}
        self.players = {pod: int(value) for pod, value in found["players"].items()}


class ClusterFleets:
    """Looks at the fleets of some clusters."""

    def __init__(
        self,
        policies: Sequence[FleetPolicy],
        client: StoreClient,
        backend: Backend | None,
        figures: PrometheusFigures,
    ) -> None:
        """`backend`: None: only the servers on shelves are known."""
        self._policies = policies
        self._shelf = Shelf(client)
        self._histories = {policy.name: DemandHistory(client, policy.name) for policy in policies}
        self._backend = backend
        self._figures = figures
        self._placed: dict[FleetName, dict[SessionId, ServerName]] = {}
        self._moved = dict.fromkeys(self._histories, 0)

    async def views(self) -> Sequence[FleetView]:
        """Every fleet. Raises StoreUnavailable when no fleet's shelf can be seen."""
        views = await asyncio.gather(*(self._view(policy) for policy in self._policies))
        if views and all(view.seen is None for view in views):
            raise StoreUnavailable(views[0].reason)
        return views

    async def drain(self, server: str) -> bool:
        """Have a server on a shelf take no new matches; it is replaced once it is empty. Raises StoreUnavailable."""
        for policy in self._policies:
            if await self._shelf.drain(policy.name, ServerName(server)):
                return True
        return False

    async def _view(self, policy: FleetPolicy) -> FleetView:
        fleet, reasons = policy.name, []
        seen = decision = None
        try:
            seen = await self._shelf.observe(fleet)
            decision = await self._histories[fleet].decision()
            self._follow(fleet, seen)
        except StoreUnavailable as error:
            reasons.append(f"the session store does not answer: {error}")
        servers: dict[ServerName, GameServer] = {}
        if seen is not None:  # also what its cluster cannot be asked about now
            allocated = ServerState.ALLOCATED
            servers = {
                entry.server: GameServer(name=entry.server, fleet=fleet, state=allocated, version=entry.version)
                for entry in seen.entries
            }
        if self._backend is not None:
            try:
                servers = {server.name: server for server in await self._backend.servers(fleet)}
            except BackendUnavailable as error:
                reasons.append(f"the cluster does not answer: {error}")
        in_use = {entry.server: len(entry.sessions) for entry in seen.entries} if seen is not None else {}
        return FleetView(
            name=fleet,
            max=policy.max,
            shelf=policy.shelf,
            seen=seen,
            moved=self._moved[fleet],
            reason="; ".join(reasons),
            decision=decision,
            servers=[
                ServerView(server=server, rooms=in_use.get(name), players=self._figures.players.get(name))
                for name, server in servers.items()
            ],
        )

    def _follow(self, fleet: FleetName, seen: ShelfState) -> None:
        """Count the sessions that another server has now."""
        placed = {room.session: entry.server for entry in seen.entries for room in entry.sessions}
        before = self._placed.get(fleet, {})
        self._moved[fleet] += sum(before.get(session, server) != server for session, server in placed.items())
        # A lost session is nowhere until it is moved.
        self._placed[fleet] = {
            lost.session: before[lost.session] for lost in seen.lost if lost.session in before
        } | placed
