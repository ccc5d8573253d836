"""
Everything on one machine: what `warmfleet up` runs, wired.

The composition root of the laptop: embedded Valkey (or the studio's own), the local Agones, a shelf keeper per fleet, a director per queue, the
matchmaker's API with the page, in one event loop; game servers are processes of their own. Parts come up in the order in which they need each
other, each is reported, and they go down in reverse.
"""

import asyncio
import base64
import hashlib
import importlib.util
import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from redis.exceptions import RedisError

from allocator.keeper import ShelfKeeper
from allocator.model import ServerState
from allocator.service import Allocator
from allocator.shelf import Shelf
from fleets.autoscaler.policy import Decision
from fleets.autoscaler.service import Autoscaler, Servers
from fleets.beacons import local_beacons, path_of
from fleets.console.access import Access
from fleets.console.console import Console
from fleets.console.feed import Feed
from fleets.console.local import local_fleets
from fleets.console.look import Looker, Sources
from fleets.console.operator import Operator, asking_why
from fleets.console.pace import Pace
from fleets.console.tempo import Tempo
from fleets.console.timelines import Timelines
from fleets.console.web import mount
from fleets.garbage import settle
from fleets.home import Home, Running
from fleets.listening import CannotListen, Impatient, Server, listen
from fleets.local.agones import FleetStatus, LocalAgones
from fleets.local.planner import LocalFleet
from fleets.local.states import OVER
from fleets.local.valkey import EmbeddedValkey
from fleets.metrics import STARTS_FAILED, show_servers
from fleets.shadows import shadows
from fleets.spec.convert import to_aim, to_policy, to_queue_config, version_of
from fleets.spec.fleet import FleetSpec
from fleets.spec.loader import Specs
from fleets.web import mount_operator, mount_pages, mount_targets
from gameserver.certificates import CertificateError, CertificateFiles, read
from gameserver.seats import SeatIssuer
from gameserver.sessions.client import StoreClient, connect
from gameserver.sessions.health import watch_store
from gameserver.sessions.model import FleetName
from matchmaker.api.app import create_app
from matchmaker.api.auth import ApiKeys, PlayerTokens, Role
from matchmaker.api.connect import ConnectTokens
from matchmaker.beacons.beacon import Beacon
from matchmaker.beacons.regions import Region
from matchmaker.beacons.serving import http
from matchmaker.director import Director
from matchmaker.model import QueueName
from matchmaker.ratings.skill import RatingsUnavailable
from matchmaker.store import TicketStore

ARENA = "gameserver.games.arena:Arena"
"""The game that has a page of its own; others have the playground."""


def bot_of(game: str) -> str:
    """The policy that a game brings for bots, `bot.policy` beside it, as module:function; empty for one whose bots fumble."""
    module = f"{game.partition(':')[0]}.bot"
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    return f"{module}:policy" if found is not None else ""


STOP_GRACE_S = 3.0
"""On a laptop Ctrl-C does not wait for matches to finish: after half of this they checkpoint, say goodbye and go."""
REQUESTS_PER_S = 50.0
"""Per player: on a laptop bots share one machine and hurry."""
_VALKEY_RETRY_S = 0.5
_SCALE_S = 2.0
_COUNT_S = 1.0
_LEAD_S = 1.0
"""What a process takes to get Ready, until it was measured."""


_TAKEN = "If another `warmfleet up` runs there, stop it (Ctrl-C), or give this one another port: --port {port}"


class CannotStart(Exception):
    """The system cannot come up; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaptopSettings:
    """What `warmfleet up` was asked for."""

    specs: Specs
    home: Home
    host: str = "127.0.0.1"
    port: int = 8080
    valkey_url: str = ""
    bots: int = 0


Report = Callable[[str, str, bool], None]
"""(part, how it stands, ready)."""


async def run(
    settings: LaptopSettings, *, report: Report, on_ready: Callable[[str], None], stop: asyncio.Event
) -> None:
    """
    Bring everything up, serve until `stop`, drain and leave nothing behind.

    Raises: CannotStart.
    """
    try:
        listener = listen(settings.host, settings.port, mend=_TAKEN.format(port=settings.port + 1))
    except CannotListen as error:
        raise CannotStart(str(error)) from None
    url = f"http://{settings.host}:{listener.getsockname()[1]}"
    async with AsyncExitStack() as stack:
        stack.callback(listener.close)
        valkey_url = settings.valkey_url
        if not valkey_url:
            valkey_url = (await stack.enter_async_context(EmbeddedValkey(settings.home.valkey))).url
        try:
            client = connect(valkey_url)
        except ValueError as error:
            raise CannotStart(f"--valkey-url: {error}") from None
        stack.push_async_callback(client.aclose)
        await _until_answers(client, valkey_url if settings.valkey_url else "the embedded Valkey", report, stop)
        beacons = await local_beacons(settings.specs.fleets, settings.home, settings.host, url, stack)
        try:
            laptop = _Laptop(settings, client, valkey_url, url, beacons)
        except RatingsUnavailable as error:
            raise CannotStart(str(error)) from None
        await stack.enter_async_context(laptop.agones)
        stack.push_async_callback(laptop.agones.stop, grace_s=STOP_GRACE_S)
        await laptop.serve(listener, report, on_ready, stop)


class _Laptop:
    """The parts, and what they run."""

    def __init__(
        self,
        settings: LaptopSettings,
        client: StoreClient,
        valkey_url: str,
        url: str,
        beacons: Mapping[Region, Beacon],
    ) -> None:
        specs, home = settings.specs, settings.home
        self._settings = settings
        self._client = client
        self._operator_token, self._viewer_token = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self._url = url
        self._valkey_url = valkey_url
        seats = SeatIssuer(_seat_key(home))
        self.agones = LocalAgones(
            [_local_fleet(fleet, valkey_url, seats.public_key, home.secret("netcode")) for fleet in specs.fleets],
            logs=home.logs,
        )
        self._autoscaler = Autoscaler(
            {FleetName(f.metadata.name): to_aim(f) for f in specs.fleets if f.spec.warm.buffer == "auto"},
            client,
            self.agones,
            lead_s=_LEAD_S,
        )
        self._decisions: dict[FleetName, Decision] = {}
        self._buffers = {FleetName(fleet.metadata.name): _buffer(fleet) for fleet in specs.fleets}
        shelf = Shelf(client)
        policies = [to_policy(fleet) for fleet in specs.fleets]
        self._keepers = [
            ShelfKeeper(policy, shelf, client, self.agones, on_shortage=self._grow(policy.name)) for policy in policies
        ]
        self._store = TicketStore(client)
        queues = [to_queue_config(queue, specs.fleets) for queue in specs.queues]
        allocator = Allocator(shelf, client, policies, self.agones)
        self._directors = [
            Director(queue, self._store, allocator, supply=allocator, seats=allocator.seats) for queue in queues
        ]
        self._shadows = shadows(specs, self._store)
        self._app, self._watch = create_app(
            client=client,
            queues=queues,
            allocator=allocator,
            running=allocator.seats,
            supply=allocator,
            seats=seats,
            players=PlayerTokens(home.secret("jwt")),
            connect=ConnectTokens(home.secret("netcode")),
            secure={FleetName(fleet.metadata.name): "" for fleet in specs.fleets if _certificate(fleet) is not None},
            regions=tuple(beacons),
            requests_per_s=REQUESTS_PER_S,
            keys=ApiKeys({hashlib.sha256(self._operator_token.encode()).hexdigest(): ("operator", Role.OPERATOR)}),
            development=settings.host in ("127.0.0.1", "::1", "localhost"),
        )
        games = [fleet.spec.server.game for fleet in specs.fleets if fleet.spec.server.game]
        self._bot = next(filter(None, map(bot_of, games)), "")
        mount_pages(self._app, arena=ARENA in games)
        for index, beacon in enumerate(beacons.values()):
            self._app.mount(path_of(index), http(beacon))
        self._console = self._mount_operations(allocator)

    def _mount_operations(self, allocator: Allocator) -> Console:
        """What operators and Prometheus are shown."""
        mount_targets(self._app, self._scraped)
        mount_operator(self._app, token=self._operator_token, status=self.status, drain=self.agones.drain)
        feed, timelines, pace = Feed(), Timelines(), Pace()
        self._watch.tickets.listeners += [timelines.heard, pace.heard]
        tempo = Tempo(self._scraped, watched=lambda: feed.viewers > 0)
        queues = [director.queue.name for director in self._directors]
        why: dict[QueueName, str] = {}
        keepers = {keeper.policy.name: keeper for keeper in self._keepers}
        sources = Sources(
            fleets=local_fleets(self.agones, keepers, self._decisions),
            queues=queues,
            store=self._store,
            pace=pace,
            figures=tempo,
            timelines=timelines,
            why=why,
        )
        operator = Operator(self._own_calls(), allocator, self._client, timelines, self._drain)
        mount(self._app, feed, Access(operator=self._operator_token, viewer=self._viewer_token), operator)
        return Console(
            feed,
            Looker(sources),
            measure=tempo.run,
            ask_why=asking_why(operator, self._store, queues, why),
        )

    def _own_calls(self) -> httpx.AsyncClient:
        """Of our own API, with the operator's key."""
        headers = {"Authorization": f"Bearer {self._operator_token}"}
        return httpx.AsyncClient(transport=httpx.ASGITransport(self._app), base_url="http://localhost", headers=headers)

    async def _drain(self, server: str) -> bool:
        return self.agones.drain(server)

    async def serve(
        self, listener: socket.socket, report: Report, on_ready: Callable[[str], None], stop: asyncio.Event
    ) -> None:
        """Run every service until `stop`."""
        config = uvicorn.Config(
            self._app,
            http=Impatient,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=2,
            ws="websockets-sansio",
        )
        server = Server(config)
        async with asyncio.TaskGroup() as tasks:
            services = [
                *(tasks.create_task(keeper.run(), name=f"keeper-{keeper.policy.name}") for keeper in self._keepers),
                *(tasks.create_task(d.run(), name=f"director-{d.queue.name}") for d in self._directors),
                *(tasks.create_task(s.run(), name=f"shadow-{s.queue.name}") for s in self._shadows),
                tasks.create_task(self._watch.run(), name="watch"),
                tasks.create_task(self._autoscaler.run(), name="autoscaler"),
                tasks.create_task(self._scale(), name="scale"),
                tasks.create_task(self._count(), name="count"),
                tasks.create_task(watch_store(self._client), name="watch-store"),
                tasks.create_task(self._console.run(), name="console"),
            ]
            web = tasks.create_task(server.serve(sockets=[listener]), name="web")
            self._settings.home.publish(
                Running(
                    pid=os.getpid(),
                    url=self._url,
                    operator_token=self._operator_token,
                    viewer_token=self._viewer_token,
                    valkey_url=self._valkey_url,
                )
            )
            bots: asyncio.Task[None] | None = None
            try:
                await self._until_ready(report, stop)
                settle()
                if not stop.is_set():
                    on_ready(self._url)
                    if self._settings.bots:
                        bots = tasks.create_task(self._bots(self._settings.bots), name="bots")
                await stop.wait()
            finally:
                report("shutdown", "draining", False)
                if bots is not None:
                    bots.cancel()
                server.should_exit = True
                await asyncio.wait([web])
                for service in services:
                    service.cancel()

    async def status(self) -> dict[str, Any]:
        """What `GET /v1/fleets` answers."""
        keepers = {keeper.policy.name: keeper for keeper in self._keepers}
        return {
            "fleets": [
                {
                    **_fleet_status(status, keepers[status.fleet.name]),
                    "decision": _decision(self._decisions.get(status.fleet.name)),
                }
                for status in self.agones.status()
            ],
            "queues": [{"name": d.queue.name, "depth": await self._store.depth(d.queue.name)} for d in self._directors],
            "shadows": [shadow.status() for shadow in self._shadows],
        }

    def _scraped(self) -> Iterator[tuple[str, str, int]]:
        """The game servers that serve metrics."""
        for status in self.agones.status():
            for server in status.servers:
                if server.metrics_port and server.pid and server.server.state not in OVER:
                    yield status.fleet.name, server.server.name, server.metrics_port

    async def _scale(self) -> None:
        """What Agones' FleetAutoscaler does in a cluster: ask how many servers each fleet should have, and see to it."""
        floors = dict(self._buffers)
        while True:
            for fleet in self._autoscaler.fleets:
                states = [server.state for server in await self.agones.servers(fleet)]
                servers = Servers(
                    replicas=len(states),
                    ready=states.count(ServerState.READY),
                    allocated=states.count(ServerState.ALLOCATED),
                    reserved=states.count(ServerState.RESERVED),
                )
                decision = await self._autoscaler.decide(fleet, servers, interval_s=_SCALE_S)
                self._decisions[fleet] = decision
                self._buffers[fleet] = 0 if decision.idle else max(floors[fleet], decision.buffer)
            await asyncio.sleep(_SCALE_S)

    async def _count(self) -> None:
        """The fleets' metrics."""
        while True:
            for status in self.agones.status():
                states = [server.server.state for server in status.servers]
                show_servers(
                    status.fleet.name,
                    ready=states.count(ServerState.READY),
                    allocated=states.count(ServerState.ALLOCATED),
                    reserved=states.count(ServerState.RESERVED),
                    replicas=len(states),
                )
                STARTS_FAILED.labels(status.fleet.name).set(status.failures)
            await asyncio.sleep(_COUNT_S)

    def _grow(self, fleet: FleetName) -> Callable[[int], None]:
        """Matches that wait for a server, and an empty shelf, ask for more than the buffer."""

        def on_shortage(servers: int) -> None:
            self.agones.set_buffer(fleet, max(self._buffers[fleet], servers))

        return on_shortage

    async def _until_ready(self, report: Report, stop: asyncio.Event) -> None:
        """Report each fleet until its shelf is full; a fleet that cannot start does not hold the others up."""
        report("matchmaker", f"{len(self._directors)} queues", True)
        waiting = {keeper.policy.name: keeper for keeper in self._keepers}
        while waiting and not stop.is_set():
            for status in self.agones.status():
                keeper = waiting.get(status.fleet.name)
                if keeper is None:
                    continue
                free = keeper.seen.free if keeper.seen else 0
                line = f"{len(status.servers)} servers, shelf {free} of {keeper.policy.shelf} rooms"
                full = free >= keeper.policy.shelf and any(s.server.state is ServerState.READY for s in status.servers)
                if full or (free >= keeper.policy.shelf and not status.fleet.buffer):
                    report(f"fleet {status.fleet.name}", line, True)
                    del waiting[status.fleet.name]
                elif status.failures >= 2:
                    report(f"fleet {status.fleet.name}", f"fails: {status.reason} (see `warmfleet status`)", False)
                    del waiting[status.fleet.name]
                else:
                    report(f"fleet {status.fleet.name}", line, False)
            await asyncio.sleep(0.02)

    async def _bots(self, count: int) -> None:
        """
        Bots to play against in the first queue, in a process of their own.

        One fewer than a match takes wait there, whatever their number: they never fill a match among themselves, and whoever comes plays at once.
        """
        queue = to_queue_config(self._settings.specs.queues[0], self._settings.specs.fleets)
        command = [sys.executable, "-m", "fleets.cli", "bots", "--url", self._url, "--queue", queue.name]
        command += ["--waiting", str(queue.fewest - 1)]
        if self._bot:
            command += ["--policy", self._bot]
        while True:
            process = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "KILL", "--", *command, "--players", str(count), "--duration", "86400"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            await asyncio.sleep(1.0)


async def _until_answers(client: StoreClient, name: str, report: Report, stop: asyncio.Event) -> None:
    """Wait for Valkey, however long it is away."""
    while not stop.is_set():
        try:
            await client.ping()
            report("valkey", "answers", True)
            return
        except (RedisError, OSError) as error:
            report("valkey", f"waiting for {name.rpartition('@')[2]}: {error}", False)
            await asyncio.sleep(_VALKEY_RETRY_S)


def _local_fleet(fleet: FleetSpec, valkey_url: str, seat_key: str, netcode_key: bytes) -> LocalFleet:
    spec = fleet.spec
    server = spec.server
    env = dict(server.env)
    command: tuple[str, ...]
    ports: tuple[str, ...]
    if server.game is not None:
        command = (sys.executable, "-m", "gameserver")
        if (files := _certificate(fleet)) is not None:
            env |= {"WARMFLEET_TLS_CERT": str(files.certificate), "WARMFLEET_TLS_KEY": str(files.key)}
        ports = tuple(server.transports)
        env |= {
            "PYTHONPATH": os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH", "")))),
            "OPENBLAS_NUM_THREADS": "1",
            "WARMFLEET_GAME": server.game,
            "WARMFLEET_FLEET": fleet.metadata.name,
            "WARMFLEET_TICK_RATE": str(server.tick_rate),
            "WARMFLEET_ROOMS": str(server.rooms),
            "WARMFLEET_SEATS": str(server.seats),
            "WARMFLEET_TRANSPORTS": ",".join(ports),
            "WARMFLEET_VALKEY_URL": valkey_url,
            "WARMFLEET_SEAT_KEYS": seat_key,
            "WARMFLEET_NETCODE_KEY": base64.urlsafe_b64encode(netcode_key).decode(),
            "WARMFLEET_DSCP": spec.low_latency.dscp or "DF",
            "WARMFLEET_DRAIN_TIMEOUT_S": str(spec.disruption.drain_timeout),
            "WARMFLEET_ON_DRAIN": spec.disruption.on_drain,
            "WARMFLEET_CHECKPOINT_INTERVAL_S": str(server.checkpoint_interval),
        }
    else:
        assert server.command is not None
        command, ports = tuple(server.command), tuple(server.ports or ("default",))
    mirrored = {"rooms": server.rooms, "players": server.rooms * server.seats} if server.game is not None else {}
    return LocalFleet(
        name=FleetName(fleet.metadata.name),
        command=command,
        game=(server.game or "") if server.fork else "",
        counters=mirrored if server.mirror == "counters" else {},
        lists={name: min(most, 1000) for name, most in mirrored.items()} if server.mirror == "lists" else {},
        env=env,
        ports=ports,
        metrics=server.game is not None,
        min=spec.warm.min,
        max=spec.warm.max,
        buffer=_buffer(fleet),
        version=version_of(fleet),
        drain_timeout_s=spec.disruption.drain_timeout,
    )


def _certificate(fleet: FleetSpec) -> CertificateFiles | None:
    """The PEM files of its servers; None where they speak no TLS on a laptop. Raises CannotStart when they are no certificate."""
    tls = fleet.spec.server.tls
    if tls is None or tls.certificate is None or tls.key is None:
        return None
    files = CertificateFiles(certificate=Path(tls.certificate).resolve(), key=Path(tls.key).resolve())
    try:
        read(files)
    except CertificateError as error:
        raise CannotStart(f"fleet {fleet.metadata.name}: spec.server.tls: {error}") from None
    return files


def _buffer(fleet: FleetSpec) -> int:
    """On a laptop one Ready server is a good guess at demand."""
    return 1 if fleet.spec.warm.buffer == "auto" else fleet.spec.warm.buffer


def _seat_key(home: Home) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(home.secret("seat")).private_bytes_raw()


def _fleet_status(status: FleetStatus, keeper: ShelfKeeper) -> dict[str, Any]:
    states = [server.server.state for server in status.servers]
    seen = keeper.seen
    return {
        "name": status.fleet.name,
        "ready": states.count(ServerState.READY),
        "allocated": states.count(ServerState.ALLOCATED),
        "shelf": {
            "free": seen.free if seen else 0,
            "wanted": keeper.policy.shelf,
            "waiters": seen.waiters if seen else 0,
            "sessions": sum(len(entry.sessions) for entry in seen.entries) if seen else 0,
        },
        "moved": keeper.moved,
        "failures": status.failures,
        "retryInS": status.retry_in_s,
        "reason": status.reason,
        "lastLines": list(status.last_lines),
        "servers": [
            {
                "name": server.server.name,
                "state": server.server.state.value,
                "sinceS": server.since_s,
                "pid": server.pid,
                "ports": dict(server.server.ports),
                "reason": server.reason,
                "log": str(server.log),
            }
            for server in status.servers
        ],
    }


def _decision(decision: Decision | None) -> dict[str, Any] | None:
    return None if decision is None else asdict(decision)


def default_files(folder: Path) -> list[Path]:
    """The YAML files of a folder that describe fleets and queues."""
    found = sorted((*folder.glob("*.yaml"), *folder.glob("*.yml")))
    return [path for path in found if "warmfleet.dev/" in path.read_text(encoding="utf-8", errors="ignore")]
