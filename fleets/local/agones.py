"""
The laptop's Agones: keeps fleets of processes, gives each its SDK endpoint, and is the allocator's backend.

Owns the records, processes and endpoints of every local game server. One loop observes, plans (`planner.py`) and applies; events only wake
it. All records live in one event loop, so choosing and marking a server happen in one step.
"""

import asyncio
import math
import os
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc.aio
import structlog

from allocator.model import GameServer, ServerState
from fleets.local.endpoints import serve_grpc
from fleets.local.gateway import Gateway
from fleets.local.planner import SHORT_LIFE_S, LocalFleet, Remove, Start, backoff_s, plan
from fleets.local.ports import NoFreePort, PortRange
from fleets.local.process import ServerProcess, last_lines
from fleets.local.rest import rest_gateway
from fleets.local.states import OVER, CounterStatus, GameServerRecord, ListStatus, ServerEvent
from fleets.local.zygotes import NoZygote, Zygotes
from gameserver.sessions.model import FleetName, ServerName

log = structlog.get_logger(__name__)

_TICK_S = 0.25
METRICS = "metrics"
"""Name of the port at which a server serves `/metrics`, here and in the pods that are rendered."""
AFTER_DRAIN_S = 5.0
"""From the end of its drain to SIGKILL: what a server needs to close, as in a cluster."""
_LOGS_KEPT = 20
"""Logs of ended servers kept per fleet."""
_NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Without vowels and look-alikes, as Kubernetes' own random suffixes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """One server, for `warmfleet status`."""

    server: GameServer
    since_s: float
    """Seconds in its state."""
    pid: int
    reason: str
    log: Path
    rooms: int | None
    """In use, as the server says it (its Counter of that name); None: it does not say."""
    players: int | None
    metrics_port: int
    """Where it serves `/metrics`; 0: nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetStatus:
    """One fleet, for `warmfleet status`."""

    fleet: LocalFleet
    servers: tuple[ServerStatus, ...]
    failures: int
    """Starts that failed in a row."""
    retry_in_s: float
    reason: str
    """Why the newest ended by itself; empty when none did."""
    last_lines: tuple[str, ...]
    """What it wrote last."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Server:
    record: GameServerRecord
    process: ServerProcess | None = None
    sdk: grpc.aio.Server | None = None
    rest: Gateway | None = None
    metrics_port: int = 0
    started_s: float = 0.0
    leaving: bool = False
    ended: bool = False
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while endpoints and process come up, so that an end in that moment misses none of them."""

    @property
    def draining(self) -> bool:
        """Whether it is told to go, and its process still runs."""
        return self.record.state is ServerState.SHUTDOWN and self.process is not None and not self.ended


@dataclass(slots=True, kw_only=True, eq=False)
class _Fleet:
    spec: LocalFleet
    servers: dict[ServerName, _Server] = field(default_factory=dict)
    watchers: list[Callable[[GameServer], None]] = field(default_factory=list)
    failures: int = 0
    start_after_s: float = 0.0
    reason: str = ""
    last_lines: tuple[str, ...] = ()
    logs: list[Path] = field(default_factory=list)


class LocalAgones:
    """Fleets of processes, as an async context manager; implements `allocator.ports.Backend`."""

    def __init__(
        self,
        fleets: Sequence[LocalFleet],
        *,
        logs: Path,
        ports: PortRange | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._fleets = {fleet.name: _Fleet(spec=fleet) for fleet in fleets}
        self._logs = logs.resolve()
        self._ports = ports or PortRange()
        self._rng = rng or random.SystemRandom()
        self._zygotes = Zygotes(self._logs)
        self._now = time.monotonic
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        self._loop = asyncio.create_task(self._run(), name="local-agones")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self, *, grace_s: float = math.inf) -> None:
        """Drain and end every server: up to its fleet's drain timeout, at most `grace_s`. Nothing is left when it returns."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait([self._loop])
            self._loop = None
        for fleet in self._fleets.values():
            for server in tuple(fleet.servers.values()):
                if server.leaving and server.process is not None and grace_s < fleet.spec.drain_timeout_s:
                    # It was told to go before, with all the time that its matches want: that is cut short now.
                    self._spawn(server.process.end(grace_s=grace_s, hurry=True), f"hurry-{server.record.name}")
                self._leave(fleet, server, grace_s=grace_s)
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._zygotes.stop()

    # What the allocator asks (allocator.ports.Backend).

    async def allocate(
        self, fleet: FleetName, *, labels: Mapping[str, str], annotations: Mapping[str, str]
    ) -> GameServer | None:
        """Move the longest-Ready server to Allocated, with metadata; None when none is Ready."""
        ready = [s.record for s in self._fleets[fleet].servers.values() if s.record.state is ServerState.READY]
        if not ready:
            return None
        record = min(ready, key=lambda record: record.since_s)
        record.labels.update(labels)
        record.annotations.update(annotations)
        record.happen(ServerEvent.ALLOCATED, self._now())
        return record.snapshot()

    async def servers(self, fleet: FleetName, *, fresh: bool = False) -> tuple[GameServer, ...]:
        """List every live server; one that is told to go is there, in Shutdown, until its process has ended."""
        servers = self._fleets[fleet].servers.values()
        return tuple(s.record.snapshot() for s in servers if s.record.state not in OVER or s.draining)

    async def watch(self, fleet: FleetName) -> AsyncIterator[GameServer]:
        """Yield every live server, then each as it changes; one that is gone comes once more with state Shutdown."""
        changed: dict[ServerName, GameServer] = {}
        wake = asyncio.Event()

        def note(server: GameServer) -> None:
            changed[server.name] = server
            wake.set()

        watchers = self._fleets[fleet].watchers
        watchers.append(note)
        try:
            for server in await self.servers(fleet):
                note(server)
            while True:
                await wake.wait()
                wake.clear()
                while changed:
                    yield changed.pop(next(iter(changed)))
        finally:
            watchers.remove(note)

    async def label(self, server: ServerName, labels: Mapping[str, str]) -> None:
        """Set labels; a server that is gone is no error."""
        if (found := self._find(server)) is not None:
            found[1].record.labels.update(labels)
            found[1].record.touch()

    async def delete(self, server: ServerName) -> None:
        """Remove a server in any state; its fleet replaces it if it is wanted."""
        if (found := self._find(server)) is not None:
            found[1].record.happen(ServerEvent.DELETED, self._now())

    # What the laptop's wiring asks.

    def set_buffer(self, fleet: FleetName, buffer: int) -> None:
        """Change how many Ready servers are kept."""
        held = self._fleets[fleet]
        if held.spec.buffer != buffer:
            held.spec = replace(held.spec, buffer=buffer)
            self._wake.set()

    def drain(self, server: str) -> bool:
        """Tell a server to go, as a node drain would: it has its fleet's drain timeout. False when there is none of that name."""
        found = self._find(ServerName(server))
        return found is not None and found[1].record.happen(ServerEvent.DELETED, self._now())

    def zygotes(self) -> list[int]:
        """Process ids of the warm parents that servers are forked from."""
        return self._zygotes.pids()

    def status(self) -> tuple[FleetStatus, ...]:
        """What there is, and why it is not more."""
        now = self._now()
        return tuple(
            FleetStatus(
                fleet=fleet.spec,
                servers=tuple(self._server_status(server, now) for server in fleet.servers.values()),
                failures=fleet.failures,
                retry_in_s=max(0.0, fleet.start_after_s - now),
                reason=fleet.reason,
                last_lines=fleet.last_lines,
            )
            for fleet in self._fleets.values()
        )

    def _server_status(self, server: _Server, now: float) -> ServerStatus:
        record = server.record
        return ServerStatus(
            server=record.snapshot(),
            since_s=now - record.since_s,
            pid=server.process.pid if server.process else 0,
            reason=record.reason,
            log=self._log_path(record.name),
            rooms=_count(record, "rooms"),
            players=_count(record, "players"),
            metrics_port=server.metrics_port,
        )

    # The loop.

    async def _run(self) -> None:
        while True:
            for fleet in self._fleets.values():
                self._reconcile(fleet)
            try:
                async with asyncio.timeout(_TICK_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    def _reconcile(self, fleet: _Fleet) -> None:
        now = self._now()
        for server in fleet.servers.values():
            server.record.clock(now)
            if server.process is not None:
                server.process.bound_log()
        observed = [server.record.snapshot() for server in fleet.servers.values() if not server.leaving]
        for action in plan(fleet.spec, observed, may_start=now >= fleet.start_after_s):
            match action:
                case Remove(server=name):
                    fleet.servers[name].record.happen(ServerEvent.DELETED, now)
                    self._leave(fleet, fleet.servers[name])
                case Start(count=count):
                    for _ in range(count):
                        self._begin(fleet)

    def _begin(self, fleet: _Fleet) -> None:
        spec, now = fleet.spec, self._now()
        suffix = "".join(self._rng.choice(_NAME_LETTERS) for _ in range(5))
        record = GameServerRecord(
            name=ServerName(f"{spec.name}-{suffix}"),
            fleet=spec.name,
            version=spec.version,
            uid=str(uuid.uuid4()),
            created_at_s=time.time(),
            health=spec.health,
            since_s=now,
            labels={"agones.dev/fleet": spec.name},
            counters={name: CounterStatus(capacity=capacity) for name, capacity in spec.counters.items()},
            lists={name: ListStatus(capacity=capacity) for name, capacity in spec.lists.items()},
        )
        server = _Server(record=record, started_s=now)
        fleet.servers[record.name] = server
        record.listeners.append(lambda: self._changed(fleet, record))
        self._spawn(self._serve(fleet, server), f"server-{record.name}")

    async def _serve(self, fleet: _Fleet, server: _Server) -> None:
        """One server's life until its process ends or it is told to go."""
        record, spec = server.record, fleet.spec
        async with server.starting:
            if server.leaving:
                return
            try:
                await self._bring_up(fleet, server)
            except (OSError, NoFreePort) as error:
                self._failed(fleet, server, f"cannot start {spec.command[0]!r}: {error}")
                return
        assert server.process is not None
        server.started_s = self._now()  # a zygote that had to import its game first is no part of its life
        record.happen(ServerEvent.SPAWNED, self._now())
        code = await server.process.wait()
        server.ended = True
        if not server.leaving:
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            self._failed(fleet, server, f"ended by itself {how} after {self._now() - server.started_s:.1f} s")

    async def _bring_up(self, fleet: _Fleet, server: _Server) -> None:
        record, spec = server.record, fleet.spec
        servers = [server for f in self._fleets.values() for server in f.servers.values()]
        taken = [port for s in servers for port in (*s.record.ports.values(), s.metrics_port)]
        record.ports = self._ports.take(spec.ports, taken)
        if spec.metrics:
            server.metrics_port = self._ports.take([METRICS], [*taken, *record.ports.values()])[METRICS]
        record.happen(ServerEvent.PORTS_TAKEN, self._now())
        server.sdk, grpc_port = await serve_grpc(record, self._now)
        server.rest = await Gateway.start(rest_gateway(record, self._now))
        env = {
            **os.environ,
            **spec.env,
            "AGONES_SDK_GRPC_PORT": str(grpc_port),
            "AGONES_SDK_HTTP_PORT": str(server.rest.port),
            "POD_NAME": record.name,
            "PORT": str(next(iter(record.ports.values()), "")),
            "WARMFLEET_METRICS_PORT": str(server.metrics_port),
        }
        path = self._log_path(record.name)
        fleet.logs.append(path)
        server.process = await self._process(spec, env, path)

    async def _process(self, spec: LocalFleet, env: Mapping[str, str], path: Path) -> ServerProcess:
        """Forked from a zygote where the game is ours, else started cold."""
        if spec.game:
            try:
                return await self._zygotes.fork(spec.game, shared=spec.env, env=env, log_path=path, cwd=spec.cwd)
            except NoZygote as error:
                log.warning("started_cold", fleet=spec.name, why=str(error))
        return await ServerProcess.start(spec.command, env=env, log=path, cwd=spec.cwd)

    def _failed(self, fleet: _Fleet, server: _Server, reason: str) -> None:
        record, now = server.record, self._now()
        if record.state is ServerState.SHUTDOWN:
            return  # it asked to go, and went
        fleet.failures = fleet.failures + 1 if now - server.started_s < SHORT_LIFE_S else 0
        fleet.start_after_s = now + backoff_s(fleet.failures)
        fleet.reason = record.reason = f"{record.name} {reason}"
        fleet.last_lines = last_lines(self._log_path(record.name), 10)
        log.warning("server_failed", server=record.name, reason=reason, failures=fleet.failures)
        record.happen(ServerEvent.CRASHED, now)

    def _leave(self, fleet: _Fleet, server: _Server, *, grace_s: float = math.inf) -> None:
        if not server.leaving:
            server.leaving = True
            self._spawn(self._end(fleet, server, grace_s), f"end-{server.record.name}")

    async def _end(self, fleet: _Fleet, server: _Server, grace_s: float) -> None:
        record = server.record
        async with server.starting:
            if server.process is not None:
                await server.process.end(
                    grace_s=min(grace_s, fleet.spec.drain_timeout_s + AFTER_DRAIN_S),
                    hurry=grace_s < fleet.spec.drain_timeout_s,
                )
            if server.rest is not None:
                await server.rest.stop()
            if server.sdk is not None:
                await server.sdk.stop(0)
        fleet.servers.pop(record.name, None)
        self._tell(fleet, replace(record.snapshot(), state=ServerState.SHUTDOWN))
        while len(fleet.logs) > _LOGS_KEPT + len(fleet.servers):
            fleet.logs.pop(0).unlink(missing_ok=True)
        self._wake.set()

    def _changed(self, fleet: _Fleet, record: GameServerRecord) -> None:
        if record.state is ServerState.READY:
            lived_s = self._now() - fleet.servers[record.name].started_s
            fleet.failures = 0 if lived_s >= SHORT_LIFE_S else fleet.failures
        self._tell(fleet, record.snapshot())
        self._wake.set()

    def _tell(self, fleet: _Fleet, server: GameServer) -> None:
        for watcher in tuple(fleet.watchers):
            watcher(server)

    def _find(self, name: ServerName) -> tuple[_Fleet, _Server] | None:
        for fleet in self._fleets.values():
            if name in fleet.servers:
                return fleet, fleet.servers[name]
        return None

    def _log_path(self, name: ServerName) -> Path:
        return self._logs / f"{name}.log"

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("local_agones_task_failed", task=task.get_name(), exc_info=error)


def _count(record: GameServerRecord, counter: str) -> int | None:
    return record.counters[counter].count if counter in record.counters else None
