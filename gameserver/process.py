"""
One game server process: rooms, transports, the Agones agent, checkpoints and drain, wired together.

The composition root of `python -m gameserver`. Its life: check that the sidecar is its own, listen, Ready; open a room when a session's first
seat token comes, or when a session that was played elsewhere is given to it; stop the rooms that the store says are another server's; on SIGTERM
take no new sessions, hand the matches over or let them finish within the drain timeout, checkpoint what is left, and end.
"""

import asyncio
import functools
import importlib
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from gameserver import tracing
from gameserver.agones.mirror import Mirror, Occupancy
from gameserver.agones.sdk import AgonesSDK, SDKGameServer, SDKRefused, SDKUnavailable
from gameserver.exposition import MetricsServer
from gameserver.game import Game
from gameserver.gate import Gate, NoRoom
from gameserver.metrics import ROOMS_ENDED
from gameserver.metronome import Metronome
from gameserver.protocol.interest import Areas
from gameserver.protocol.messages import CloseCode
from gameserver.protocol.schema import Fields, Schema, SchemaError
from gameserver.room import MAX_SPECTATORS, Room
from gameserver.seats import SeatGrant, SeatVerifier
from gameserver.sessions import metrics
from gameserver.sessions.client import connect
from gameserver.sessions.model import Orders, Seat, ServerMode, Session, SessionId, SessionState
from gameserver.sessions.port import SessionGone, SessionStore, StoreUnavailable
from gameserver.sessions.valkey import ValkeySessions
from gameserver.settings import Settings, SettingsError
from gameserver.slow_ticks import SlowTicks
from gameserver.transports.websocket import MAX_CONNECTIONS, MAX_PER_ADDRESS, WebSocketTransport

if TYPE_CHECKING:
    from gameserver.certificates import ServerCertificate
    from gameserver.transports.udp import UdpTransport

log = structlog.get_logger(__name__)

HEALTH_PERIOD_S = 1.0
BEAT_PERIOD_S = 1.0
BEAT_TTL_S = 3.0
CERTIFICATE_PERIOD_S = 5.0
"""Between looks at the files of the certificate; a mounted Secret takes a minute to change anyway."""
RECYCLE_LABEL = "warmfleet.dev/recycle"
"""Set to `ready` by whoever wants this server back among the Ready ones."""
LAST_WORD_S = 2.0
"""How long a server that goes waits for the store, and for its rooms to close."""
_LOOKUP_TIMEOUT_S = 2.0
_STORE_PATIENCE_S = 4.0
"""How long a first Hello waits for a store that is away; below the client's own patience."""


def load_game(name: str) -> type[Game]:
    """Import a game by `module:Class`. Raises SettingsError that names what is wrong with it."""
    module_name, _, class_name = name.partition(":")
    if not module_name or not class_name:
        raise SettingsError(f"game {name!r}: module:Class is wanted, as in gameserver.games.arena:Arena")
    try:
        game = getattr(importlib.import_module(module_name), class_name, None)
    except Exception as error:
        raise SettingsError(f"game {name!r} does not import: {type(error).__name__}: {error}") from error
    if game is None:
        raise SettingsError(f"game {name!r}: module {module_name} has no {class_name}")
    if not (isinstance(game, type) and issubclass(game, Game)):
        raise SettingsError(f"game {name!r} is no subclass of gameserver.game.Game")
    if missing := sorted(game.__abstractmethods__):
        raise SettingsError(f"game {name!r} lacks: {', '.join(missing)}")
    for attribute, kind in (("schema", Schema), ("inputs", Fields)):
        if not isinstance(getattr(game, attribute, None), kind):
            raise SettingsError(f"game {name!r}: its class attribute {attribute} must be a {kind.__name__}")
    try:
        Areas(game.schema, game.interest)
    except SchemaError as error:
        raise SettingsError(f"game {name!r}: {error}") from None
    return game


class GameServerProcess:
    """The rooms of this process, and the way to them."""

    def __init__(
        self,
        settings: Settings,
        game: type[Game],
        store: SessionStore | None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`sleep`: between the ticks of its rooms."""
        self._slow = SlowTicks(settings.slow_tick_ms / 1000) if settings.slow_tick_ms else None
        self._settings = settings
        self._sleep = sleep
        self._game = game
        self._store = store
        self._rooms: dict[SessionId, Room] = {}
        self._opening: dict[SessionId, asyncio.Task[Room]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._mode = ServerMode.SERVE
        self._news = asyncio.Event()
        self._hearing: asyncio.Task[None] | None = None
        self._handing: dict[SessionId, asyncio.Task[None]] = {}

    @property
    def idle(self) -> bool:
        """Whether no room is open or about to be."""
        return not self._rooms and not self._opening

    def occupancy(self) -> Occupancy:
        """Which sessions are here, and which players are connected."""
        rooms = [room for room in self._rooms.values() if not room.handed_over]
        players = [
            player for room in rooms for player, member in room.roster.players.items() if member.connection is not None
        ]
        metrics.ROOMS.set(len(rooms))
        metrics.PLAYERS.set(len(players))
        return Occupancy(rooms=tuple(room.session for room in rooms), players=tuple(players))

    async def find_room(self, grant: SeatGrant) -> Room:
        """Find the room of a session, or open it: a `gate.FindRoom`. Raises NoRoom."""
        room = self._rooms.get(grant.session)
        if room is not None:
            if room.record.epoch != grant.epoch or room.handed_over:
                raise NoRoom(CloseCode.FENCED, "the session has moved")
            return room
        seat = Seat(index=grant.seat, player=grant.player, team=grant.team)
        return await asyncio.shield(self._begin(grant.session, grant.epoch, seats=(seat,)))

    def _begin(self, session: SessionId, epoch: int, *, seats: tuple[Seat, ...] = ()) -> asyncio.Task[Room]:
        """Two players come at once: one opening, both wait for it."""
        opening = self._opening.get(session)
        if opening is None:
            opening = asyncio.create_task(self._open(session, epoch, seats), name=f"open-{session}")
            self._opening[session] = opening
            opening.add_done_callback(lambda done: self._opened(session, done))
        return opening

    def _opened(self, session: SessionId, opening: asyncio.Task[Room]) -> None:
        del self._opening[session]
        if not opening.cancelled() and (error := opening.exception()) is not None:
            log.warning("room_not_opened", session=session, error=str(error))

    async def _open(self, session_id: SessionId, epoch: int, seats: tuple[Seat, ...]) -> Room:
        if self._mode is not ServerMode.SERVE and epoch == 1:  # one that was moved here has nowhere else to be
            raise NoRoom(CloseCode.GOING_AWAY, "this server drains")
        if len(self._rooms) >= self._settings.rooms:
            raise NoRoom(CloseCode.FULL, f"all {self._settings.rooms} rooms are taken")
        asked_s = time.time()
        session, state = await self._fetch(session_id, epoch, seats)
        with tracing.span("room.open", parent=session.options.get(tracing.OPTION, ""), session=session_id, epoch=epoch):
            tracing.record("room.fetch", parent=tracing.current(), start_s=asked_s, end_s=time.time())
            return await self._make_room(session, state)

    async def _make_room(self, session: Session, state: bytes | None) -> Room:
        try:
            room = Room(
                session,
                self._game,
                seats=self._settings.seats,
                tick_rate_hz=self._settings.tick_rate_hz,
                store=self._store,
                checkpoint_interval_s=self._settings.checkpoint_interval_s,
                stalled=self.confirm if self._store is not None else None,
                sleep=self._sleep,
                slow=self._slow,
            )
            if state is not None:
                room.restore(state)
                metrics.ROOMS_RESTORED.inc()
        except Exception as error:
            log.exception("game_raised", session=session.id)
            ROOMS_ENDED.labels("failed").inc()
            await self._give_up(session)
            raise NoRoom(CloseCode.GAME_ERROR, "the game failed to start") from error
        self._rooms[session.id] = room
        task = asyncio.create_task(self._run(room), name=f"room-{session.id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        log.info("room_opened", session=session.id, epoch=session.epoch, restored=state is not None)
        return room

    async def _give_up(self, session: Session) -> None:
        """End a session whose game cannot start: it would hold its room for ever, and fail on each server in turn."""
        if self._store is not None:
            try:
                await self._store.end(session.id, epoch=session.epoch, results=b'{"error": "the game failed to start"}')
            except (SessionGone, StoreUnavailable) as error:
                log.warning("failed_session_stays", session=session.id, error=str(error))  # the next opening ends it

    async def _fetch(self, session: SessionId, epoch: int, seats: tuple[Seat, ...]) -> tuple[Session, bytes | None]:
        """The session's record and checkpoint; without a store, what the token says."""
        server = self._settings.server
        if self._store is None:
            bare = Session(id=session, server=server, room=0, epoch=epoch, state=SessionState.LIVE, seats=seats)
            return bare, None
        give_up_s = time.monotonic() + _STORE_PATIENCE_S
        while True:
            try:
                return await self._store.open(session, server=server, epoch=epoch)
            except SessionGone as error:
                raise NoRoom(CloseCode.FENCED, "the session is not here") from error
            except StoreUnavailable as error:
                if time.monotonic() > give_up_s:
                    raise NoRoom(CloseCode.GOING_AWAY, "the session store does not answer") from error
                await asyncio.sleep(0.1)

    async def _run(self, room: Room) -> None:
        try:
            await room.run()
        finally:
            del self._rooms[room.session]
            log.info("room_closed", session=room.session, tick=room.tick)

    # What the store says of the rooms.

    def news(self) -> None:
        """There is something new to hear: do not wait for the next heartbeat."""
        self._news.set()

    async def beat(self) -> None:
        """Say to the store that this server lives, and do as it says, until cancelled."""
        while True:
            self._news.clear()
            try:
                await self._hear()
                await self._tell_seats()
            except StoreUnavailable as error:
                metrics.HEARTBEATS.labels("store_away").inc()
                log.warning("heartbeat_failed", error=str(error))
            try:
                async with asyncio.timeout(BEAT_PERIOD_S):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def listen(self) -> None:
        """Hear of news, until cancelled."""
        assert self._store is not None
        await self._store.listen(self._settings.server, self.news)

    async def confirm(self) -> None:
        """After a standstill: return once the store has said which rooms are still ours; all rooms ask at once, one asks for them."""
        if self._hearing is None:
            metrics.STALLS.inc()
            log.warning("stood_still", rooms=len(self._rooms))
            self._hearing = asyncio.create_task(self._hear_at_last(), name="confirm")
            self._hearing.add_done_callback(self._heard)
        await asyncio.shield(self._hearing)

    def _heard(self, hearing: asyncio.Task[None]) -> None:
        self._hearing = None

    async def _hear_at_last(self) -> None:
        while True:
            try:
                await self._hear()
                return
            except StoreUnavailable as error:
                log.warning("rooms_wait_for_the_store", error=str(error))
                await asyncio.sleep(0.1)

    async def _hear(self) -> None:
        assert self._store is not None
        rooms = {session: room.record.epoch for session, room in self._rooms.items() if not room.handed_over}
        with metrics.HEARTBEAT_SECONDS.time():
            orders = await self._store.beat(self._settings.server, ttl_s=BEAT_TTL_S, mode=self._mode, rooms=rooms)
        metrics.HEARTBEATS.labels("heard").inc()
        self._obey(orders, rooms)

    async def _tell_seats(self) -> None:
        """Whose seats are taken, whose are free for others, and whom games want; what the store does not hear is said again."""
        assert self._store is not None
        for room in [room for room in self._rooms.values() if not room.handed_over]:
            came, left, want = set(room.roster.came), set(room.roster.left), room.wanted.untold
            if not came and not left and want is None:
                continue
            try:
                await self._store.seats(
                    room.session,
                    epoch=room.record.epoch,
                    came=came,
                    left=left,
                    excused=room.roster.excused,
                    want=want,
                )
            except SessionGone:
                pass  # the next heartbeat says so too
            room.roster.came -= came
            room.roster.left -= left
            room.wanted.told(want)

    def _obey(self, orders: Orders, asked: Mapping[SessionId, int]) -> None:
        for session in orders.fenced:
            room = self._rooms.get(session)
            if room is not None and room.record.epoch == asked[session] and not room.handed_over:
                metrics.ROOMS_FENCED.inc()
                room.stop(CloseCode.FENCED, "the session has moved")
        for placed in orders.placed:
            room = self._rooms.get(placed.session)
            if room is not None and room.record.epoch == placed.epoch:
                for player, why in placed.kicked.items():
                    room.expel(player, why)
            if room is None:
                self._begin(placed.session, placed.epoch)
            elif placed.reserved and not room.handed_over and placed.session not in self._handing:
                task = asyncio.create_task(self._hand_over(room), name=f"hand-over-{placed.session}")
                self._handing[placed.session] = task
                task.add_done_callback(functools.partial(self._handed, placed.session))

    # The end.

    async def _hand_over(self, room: Room) -> None:
        begun_s = time.monotonic()
        while True:
            try:
                done = await room.hand_over()
                break
            except StoreUnavailable as error:
                log.warning("hand_over_waits", session=room.session, error=str(error))
                await asyncio.sleep(0.1)
            except SessionGone as error:
                room.stop(CloseCode.FENCED, str(error))
                return
        metrics.HANDED_OVER.labels("done" if done else "not_possible").inc()
        took_ms = round((time.monotonic() - begun_s) * 1000, 1)
        log.info("handed_over" if done else "not_handed_over", session=room.session, tick=room.tick, took_ms=took_ms)

    def _handed(self, session: SessionId, task: asyncio.Task[None]) -> None:
        self._handing.pop(session, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("hand_over_failed", session=session, exc_info=error)

    async def drain(self, timeout_s: float) -> None:
        """Take no new sessions; hand the running ones over or wait for them; checkpoint those that are left and say that the server goes."""
        self._mode = ServerMode.MIGRATE if self._settings.on_drain == "migrate" else ServerMode.FINISH
        self.news()
        if self._running:
            log.info("draining", rooms=len(self._rooms), timeout_s=timeout_s, mode=self._mode.value)
        give_up_s = time.monotonic() + timeout_s
        while self._running and (left_s := give_up_s - time.monotonic()) > 0:
            await asyncio.wait(self._running, timeout=left_s)
        for room in tuple(self._rooms.values()):
            try:
                async with asyncio.timeout(LAST_WORD_S):
                    await room.checkpoint()
            except (SessionGone, StoreUnavailable, TimeoutError) as error:
                log.warning("last_checkpoint_failed", session=room.session, error=str(error))
            room.stop(CloseCode.GOING_AWAY, "the server goes")
        if self._running:
            await asyncio.wait(self._running, timeout=LAST_WORD_S)

    async def say_goodbye(self) -> None:
        """The sessions that are left here want new servers: do not let them wait for this one's silence."""
        if self._store is not None:
            try:
                async with asyncio.timeout(LAST_WORD_S):
                    await self._store.goodbye(self._settings.server)
            except (StoreUnavailable, TimeoutError) as error:
                log.info("goodbye_not_said", error=str(error))

    async def recycle(self, sdk: AgonesSDK) -> None:
        """Go back to Ready when asked to by the recycle label and no match is here, until cancelled."""
        async for me in sdk.watch():
            if me.labels.get(RECYCLE_LABEL) == "ready" and me.state == "Allocated" and self.idle:
                await sdk.ready()


async def serve(settings: Settings, stop: asyncio.Event, hurry: asyncio.Event) -> None:
    """
    Run a game server until `stop`; then drain it, and wait no longer once `hurry` is set.

    Raises: SettingsError (the game, the keys, the sidecar are wrong), SDKUnavailable, OSError (a port is taken).
    """
    game = load_game(settings.game)
    try:
        verifier = SeatVerifier(settings.seat_keys, settings.server)
    except ValueError as error:
        raise SettingsError(f"WARMFLEET_SEAT_KEYS: {error}") from None
    async with AsyncExitStack() as stack:
        sdk = await stack.enter_async_context(AgonesSDK(settings.agones_grpc_port))
        store, prepared = _store(settings, stack)
        me = await sdk.get_game_server()
        _check_identity(settings, me)
        metronome = Metronome()
        looks: list[Callable[[], None]] = []

        async def sleep(delay_s: float) -> None:
            await metronome.sleep(delay_s)
            for look in looks:  # what is here by now counts in the tick that follows
                look()

        process = GameServerProcess(settings, game, store, sleep=sleep)
        gate = Gate(verifier, process.find_room)
        certificate = _certificate(settings) if settings.tls_certificate else None
        if "websocket" in settings.transports:
            transport = WebSocketTransport(
                gate.accept,
                host=_bind_host(settings),
                port=_listen_port(settings, me, "websocket"),
                origins=settings.allowed_origins,
                # A proxy that ends TLS has one address for all of them.
                max_connections=max(MAX_CONNECTIONS, _most_connections(settings)),
                max_per_address=max(MAX_PER_ADDRESS, _most_connections(settings)),
                tls=certificate.context if certificate is not None else None,
            )
            looks.append((await stack.enter_async_context(transport)).look)
        if "udp" in settings.transports:
            addresses = await _own_addresses(settings, me)
            looks.append((await stack.enter_async_context(_udp(settings, me, gate, addresses))).look)
        if settings.metrics_port:
            await stack.enter_async_context(MetricsServer(host=settings.metrics_host, port=settings.metrics_port))
        if prepared is not None:
            await prepared
        stack.enter_context(metronome)  # last: what was imported and made so far is never looked through again
        await sdk.ready()
        log.info("ready", server=settings.server, game=settings.game, ports=dict(me.ports))
        async with asyncio.TaskGroup() as tasks:
            services: dict[str, Callable[[], Awaitable[None]]] = {
                "health": lambda: sdk.keep_healthy(HEALTH_PERIOD_S),
                "recycle": lambda: process.recycle(sdk),
                "gate": gate.watch,
                "mirror": lambda: Mirror(sdk, me).run(process.occupancy),
            }
            if certificate is not None:
                services["certificate"] = functools.partial(certificate.watch, CERTIFICATE_PERIOD_S)
            if store is not None:
                services |= {"beat": process.beat, "listen": process.listen}
            running = [tasks.create_task(_service(run), name=name) for name, run in services.items()]
            await stop.wait()
            await _drain(process, settings.drain_timeout_s, hurry)
            for service in running:
                service.cancel()
        await process.say_goodbye()
        await _say_shutdown(sdk)


def _store(settings: Settings, stack: AsyncExitStack) -> tuple[SessionStore | None, asyncio.Task[None] | None]:
    """The session store, and what to wait for before Ready: its functions are loaded while the sidecar is asked and sockets are opened."""
    if not settings.valkey_url:
        return None, None
    try:
        client = connect(settings.valkey_url)
    except ValueError as error:
        raise SettingsError(f"WARMFLEET_VALKEY_URL: {error}") from None
    stack.push_async_callback(client.aclose)
    sessions = ValkeySessions(client, settings.fleet, replicas=settings.valkey_replicas)
    prepared = asyncio.create_task(sessions.prepare(), name="prepare-store")
    stack.callback(prepared.cancel)
    return sessions, prepared


async def _service(run: Callable[[], Awaitable[None]]) -> None:
    await run()


async def _drain(process: GameServerProcess, timeout_s: float, hurry: asyncio.Event) -> None:
    draining = asyncio.create_task(process.drain(timeout_s), name="drain")
    hurried = asyncio.create_task(hurry.wait(), name="hurry")
    await asyncio.wait([draining, hurried], return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    if not draining.done():
        draining.cancel()
        await process.drain(0.0)


async def _say_shutdown(sdk: AgonesSDK) -> None:
    try:
        await sdk.shutdown()
    except (SDKUnavailable, SDKRefused) as error:
        log.info("shutdown_not_said", error=str(error))  # the sidecar may have gone first


def _check_identity(settings: Settings, me: SDKGameServer) -> None:
    """Two pods of one node with host networking may share sidecar ports: never talk to another server's sidecar."""
    if me.name != settings.server:
        raise SettingsError(
            f"the Agones sidecar at port {settings.agones_grpc_port} is that of {me.name}, but this is {settings.server}: "
            "with host networking each pod needs sidecar ports of its own (the admission webhook), or one pod per node"
        )


def _certificate(settings: Settings) -> "ServerCertificate":
    # Imported here, as below: only servers with TLS pay for it.
    from gameserver.certificates import CertificateError, CertificateFiles, ServerCertificate

    files = CertificateFiles(certificate=Path(settings.tls_certificate), key=Path(settings.tls_key))
    try:
        return ServerCertificate(files)
    except CertificateError as error:
        raise SettingsError(f"WARMFLEET_TLS_CERT and WARMFLEET_TLS_KEY: {error}") from None


def _most_connections(settings: Settings) -> int:
    """Of those who may be here: a player who reconnects has two until the old one times out."""
    return settings.rooms * (2 * settings.seats + MAX_SPECTATORS)


def _bind_host(settings: Settings) -> str:
    """`::` takes IPv4 clients too; where the kernel has no IPv6 those are all there are."""
    return "0.0.0.0" if settings.bind_host == "::" and not socket.has_dualstack_ipv6() else settings.bind_host  # noqa: S104


async def _own_addresses(settings: Settings, me: SDKGameServer) -> list[tuple[str, int]]:
    """
    Every address that a connect token may name: whichever of them the allocator was told to hand out, on the node or in the pod.

    Raises SettingsError when there is none.
    """
    from gameserver.protocol.netcode.addresses import make_address

    port = _listen_port(settings, me, "udp")
    hosts = dict.fromkeys([me.address, *(address for _, address in me.addresses), settings.pod_ip])
    found: dict[tuple[str, int], None] = {}
    for host in filter(None, hosts):
        try:
            ips = [make_address(host, port)[0]]
        except ValueError:
            ips = await _looked_up(host)
        found |= dict.fromkeys((ip, at) for ip in ips for at in (me.ports.get("udp", port), port))
    if not found:
        raise SettingsError(
            f"the udp transport is reached at an IP address, but this GameServer has none: its address is {me.address!r}"
        )
    return list(found)


async def _looked_up(name: str) -> list[str]:
    try:
        async with asyncio.timeout(_LOOKUP_TIMEOUT_S):
            rows = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_DGRAM)
    except OSError as error:  # and TimeoutError
        log.warning("own_name_not_looked_up", name=name, error=str(error))
        return []
    return list(dict.fromkeys(str(row[4][0]) for row in rows))


def _udp(settings: Settings, me: SDKGameServer, gate: Gate, addresses: list[tuple[str, int]]) -> "UdpTransport":
    # Imported here: servers without UDP start 14 ms sooner without it.
    from gameserver.protocol.netcode.tokens import protocol_id_of
    from gameserver.transports.udp import UdpTransport

    port = _listen_port(settings, me, "udp")
    try:
        return UdpTransport(
            gate.accept,
            host=_bind_host(settings),
            port=port,
            protocol_id=protocol_id_of(settings.fleet),
            private_key=settings.netcode_key,
            other_keys=settings.netcode_other_keys,
            addresses=addresses,
            max_connections=_most_connections(settings),
            dscp=settings.dscp,
        )
    except ValueError as error:
        raise SettingsError(f"WARMFLEET_BIND_HOST: the udp transport listens on an IP address: {error}") from None


def _listen_port(settings: Settings, me: SDKGameServer, transport: str) -> int:
    port = settings.listen_ports.get(transport) or me.ports.get(transport)
    if port is None:
        raise SettingsError(
            f"no port for {transport}: set WARMFLEET_{transport.upper()}_PORT, or name one of the GameServer's ports "
            f"{transport!r} (it has: {', '.join(me.ports) or 'none'})"
        )
    return port
