"""The UDP transport and its client on real sockets, with the real gate, room and arena behind them."""

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import AsyncIterator, Callable

import pytest

from gameserver.client.session import Ended, Happened, Moving, Seated, WorldSeen
from gameserver.client.udp import UdpGameClient
from gameserver.client.websocket import ConnectFailed
from gameserver.games.arena import Arena
from gameserver.gate import Gate
from gameserver.protocol import messages as m
from gameserver.protocol.netcode.client import NetcodeClient
from gameserver.protocol.netcode.limits import HandshakeLimits
from gameserver.protocol.netcode.tokens import issue_connect_token, protocol_id_of
from gameserver.room import Room
from gameserver.seats import SeatGrant, SeatIssuer, SeatVerifier
from gameserver.sessions.model import PlayerId, ServerName, Session, SessionId, SessionState
from gameserver.transports.port import Connection
from gameserver.transports.udp import UdpTransport, parse_dscp

ISSUER = SeatIssuer(bytes(range(32)))
SERVER = ServerName("arena-1")
SESSION = SessionId("arena.m1")
KEY = bytes(range(32))
PROTOCOL = protocol_id_of("arena")


def connect_token(port: int, host: str = "127.0.0.1", **changes: object) -> bytes:
    arguments = {"protocol_id": PROTOCOL, "private_key": KEY, "now_unix_s": time.time()} | changes
    return issue_connect_token([(host, port)], **arguments)  # type: ignore[arg-type]


def seat_token(player: str, seat: int = 0) -> str:
    grant = SeatGrant(player=PlayerId(player), seat=seat, team=player, session=SESSION, server=SERVER, epoch=1)
    return ISSUER.issue(grant, time.time())


class Stage:
    """One room behind the gate, on a UDP port."""

    def __init__(self, transport: UdpTransport, room: Room) -> None:
        self.transport = transport
        self.room = room

    def client(self, player: str, seat: int = 0, *, port: int = 0, **changes: object) -> UdpGameClient:
        token = connect_token(self.transport.port, **changes)
        if port:  # the public part leads elsewhere: to a proxy
            token = token.replace(
                b"\1\x7f\0\0\1" + self.transport.port.to_bytes(2, "little"),
                b"\1\x7f\0\0\1" + port.to_bytes(2, "little"),
            )
        return UdpGameClient(token, seat_token(player, seat), timeout_s=8)


@contextlib.asynccontextmanager
async def staged(**options: object) -> AsyncIterator[Stage]:
    session = Session(id=SESSION, server=SERVER, room=0, epoch=1, state=SessionState.LIVE, seats=())
    room = Room(session, Arena, seats=4, tick_rate_hz=30, store=None)

    async def find_room(grant: SeatGrant) -> Room:
        return room

    gate = Gate(SeatVerifier([ISSUER.public_key], SERVER), find_room)
    arguments = {"host": "127.0.0.1", "port": 0, "protocol_id": PROTOCOL, "private_key": KEY} | options
    async with UdpTransport(gate.accept, **arguments) as transport:  # type: ignore[arg-type]
        running = asyncio.create_task(room.run())
        try:
            yield Stage(transport, room)
        finally:
            room.stop(m.CloseCode.GOING_AWAY, "the test is over")
            await running


async def test_two_players_see_each_other_move() -> None:
    """Both are seated, an input of one moves it in the other's world, events come once and in order."""
    async with asyncio.timeout(20), staged() as stage, stage.client("ann") as ann, stage.client("bob", 1) as bob:
        seen: list[object] = []

        async def follow(client: UdpGameClient, until: Callable[[], bool]) -> None:
            async for event in client.events():
                seen.append(event)
                if until():
                    return

        await follow(ann, lambda: ann.world is not None and len(ann.world.tables[0].ids) == 2)
        await follow(bob, lambda: bob.world is not None and len(bob.world.tables[0].ids) == 2)
        assert sum(isinstance(event, Seated) for event in seen) == 2
        assert bob.world is not None
        before = bob.world.values("players")["x"][0]
        for _ in range(10):
            await ann.send_input(move_x=1.0 if before < 20 else -1.0, aim=1.0)
        await follow(bob, lambda: bool(abs(bob.world.values("players")["x"][0] - before) > 0.5))
        await follow(ann, lambda: ann.session.ack_input == 10)
        assert ann.session.rtt_s >= 0.0


class LossyProxy(asyncio.DatagramProtocol):
    """Stands between clients and a server and loses, delays and doubles."""

    def __init__(self, server: tuple[str, int], seed: int, loss: float) -> None:
        self._server = server
        self._rng = random.Random(seed)
        self._loss = loss
        self._out: dict[tuple[str, int], socket.socket] = {}
        self.lost = 0

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if addr not in self._out:
            out = self._out[addr] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            out.setblocking(False)
            out.connect(self._server)
            asyncio.get_running_loop().add_reader(out, self._back, out, addr)
        self._pass(self._out[addr].send, data)

    def _back(self, out: socket.socket, client: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):
            data = out.recv(2048)
            self._pass(lambda late: self.transport.sendto(late, client), data)

    def _pass(self, send: Callable[[bytes], object], data: bytes) -> None:
        copies = 0 if self._rng.random() < self._loss else 1 + (self._rng.random() < 0.1)
        self.lost += copies == 0
        for _ in range(copies):
            asyncio.get_running_loop().call_later(self._rng.random() * 0.03, self._later, send, data)

    def _later(self, send: Callable[[bytes], object], data: bytes) -> None:
        with contextlib.suppress(OSError):
            send(data)

    def close(self) -> None:
        for out in self._out.values():
            asyncio.get_running_loop().remove_reader(out)
            out.close()
        self.transport.close()


async def test_a_lossy_path() -> None:
    """With a quarter of all datagrams lost, late or doubled, players are welcomed, acknowledged, told events once in order, and told the end."""
    async with asyncio.timeout(30), staged() as stage:
        where = ("127.0.0.1", stage.transport.port)
        loop = asyncio.get_running_loop()
        transport, proxy = await loop.create_datagram_endpoint(
            lambda: LossyProxy(where, 7, 0.25), local_addr=("127.0.0.1", 0)
        )
        port = transport.get_extra_info("sockname")[1]
        try:
            async with stage.client("ann", port=port) as ann:
                told: list[int] = []
                number = 0
                async for event in ann.events():
                    if isinstance(event, Happened) and event.data["name"] == "count":
                        told.append(event.data["n"])
                    if isinstance(event, WorldSeen):
                        if number < 40:
                            stage.room.event("count", n=number)
                            number += 1
                        await ann.send_input(move_x=1.0)
                        if len(told) == 40 and ann.session.ack_input > 30:
                            stage.room.stop(m.CloseCode.NORMAL, "enough")
                    if isinstance(event, Ended):
                        assert (event.code, event.reason) == (m.CloseCode.NORMAL, "enough")
                assert told == list(range(40))
                assert proxy.lost > 20
        finally:
            proxy.close()


class Recorder:
    """A handler that keeps what comes and does what a test says."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.messages: list[bytes] = []
        self.losses = 0
        self.react: Callable[[Connection, bytes], None] = lambda connection, message: None

    def accept(self, connection: Connection) -> "Recorder":
        self.connections.append(connection)
        return self

    def received(self, message: bytes) -> None:
        self.messages.append(message)
        self.react(self.connections[-1], message)

    def lost(self) -> None:
        self.losses += 1


WELCOME = m.encode(
    m.Welcome(seat=0, tick_rate_hz=30, tick=0, epoch=1, room={"schema": Arena.schema.describe(), "inputs": Arena.inputs.describe(), "info": "x" * 5000})
)  # fmt: skip


@contextlib.asynccontextmanager
async def recorded(**options: object) -> AsyncIterator[tuple[Recorder, UdpTransport]]:
    recorder = Recorder()
    arguments = {"host": "127.0.0.1", "port": 0, "protocol_id": PROTOCOL, "private_key": KEY} | options
    async with UdpTransport(recorder.accept, **arguments) as transport:  # type: ignore[arg-type]
        yield recorder, transport


async def first(client: UdpGameClient, kind: type) -> object:
    async for event in client.events():
        if isinstance(event, kind):
            return event
    raise AssertionError("the connection ended")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_long_welcome_and_a_goodbye(host: str) -> None:
    """A message over 1,100 bytes arrives in one piece; Migrate and Bye are seen once; the handler hears of the loss once."""
    async with asyncio.timeout(10), recorded(host=host) as (recorder, transport):
        recorder.react = lambda connection, message: connection.send(WELCOME)
        async with UdpGameClient(connect_token(transport.port, host), "seat") as client:
            seated = await first(client, Seated)
            assert isinstance(seated, Seated)
            assert seated.welcome.room["info"] == "x" * 5000
            connection = recorder.connections[0]
            assert connection.peer == host
            assert not connection.reliable
            connection.send(m.encode(m.Migrate(data={"session": "s"})))
            connection.close(m.CloseCode.KICKED, "rude " * 500)
            connection.close(m.CloseCode.NORMAL)
            connection.send(WELCOME)
            assert not connection.send_snapshot(m.SharedSnapshot(1, 0, b"b"), 0)
            events = [event async for event in client.events()]
            assert [type(event) for event in events] == [Moving, Ended]
            assert events[-1].code == m.CloseCode.KICKED
        assert recorder.losses == 1


async def test_a_repeated_hello_gets_the_same_welcome() -> None:
    """Without the handler's doing, and not for every copy of a flood."""
    async with asyncio.timeout(10), recorded() as (recorder, transport):
        small = m.encode(m.Welcome(seat=0, tick_rate_hz=30, tick=0, epoch=1, room={}))
        recorder.react = lambda connection, message: connection.send(small) if len(recorder.messages) == 1 else None
        async with UdpGameClient(connect_token(transport.port), "seat") as client:
            with pytest.raises(
                m.MalformedMessage
            ):  # a Welcome without a schema: the session says so each time it comes
                await first(client, Seated)
            with pytest.raises(m.MalformedMessage):
                await first(client, Seated)
        assert len(recorder.messages) >= 2


async def test_a_handler_that_raises_costs_its_own_client() -> None:
    """That one is told; the transport serves others."""
    async with asyncio.timeout(10), recorded() as (recorder, transport):

        def fail(connection: Connection, message: bytes) -> None:
            raise RuntimeError("a fault of ours")

        recorder.react = fail
        async with UdpGameClient(connect_token(transport.port), "seat") as client:
            ended = await first(client, Ended)
            assert isinstance(ended, Ended)
            assert ended.code == m.CloseCode.GAME_ERROR
        recorder.react = lambda connection, message: connection.send(WELCOME)
        async with UdpGameClient(connect_token(transport.port), "seat") as client:
            await first(client, Seated)


async def test_refused_connections() -> None:
    """Full, another key, nobody there: ConnectFailed says which."""
    async with asyncio.timeout(20), recorded(max_connections=1) as (_, transport):
        async with UdpGameClient(connect_token(transport.port), "seat"):
            with pytest.raises(ConnectFailed, match="connection denied"):
                await UdpGameClient(connect_token(transport.port), "seat").__aenter__()
        with pytest.raises(ConnectFailed, match="request timed out"):
            await UdpGameClient(connect_token(transport.port, private_key=bytes(32), timeout_s=1), "seat").__aenter__()
        with pytest.raises(ConnectFailed, match="sending connection request"):
            await UdpGameClient(connect_token(transport.port, protocol_id=1), "seat", timeout_s=0.2).__aenter__()
        with pytest.raises(ConnectFailed, match="invalid connect token"):
            await UdpGameClient(b"junk", "seat").__aenter__()
        assert transport.ignored > 0


@pytest.mark.parametrize("servers", [1, 2])
async def test_a_machine_without_ipv6(servers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token's IPv4 server is reached all the same; with none of those, ConnectFailed says what is missing."""
    async with asyncio.timeout(10), recorded() as (_, transport):
        loop = asyncio.get_running_loop()
        make = loop.create_datagram_endpoint

        async def without_v6(*args: object, **options: object) -> object:
            if options["family"] == socket.AF_INET6:
                raise OSError("Address family not supported")
            return await make(*args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(loop, "create_datagram_endpoint", without_v6)
        listed = [("::1", 9), ("127.0.0.1", transport.port)][:servers]
        token = issue_connect_token(listed, protocol_id=PROTOCOL, private_key=KEY, now_unix_s=time.time(), timeout_s=1)
        if servers == 1:
            with pytest.raises(ConnectFailed, match="no UDP socket: Address family"):
                await UdpGameClient(token, "seat").__aenter__()
        else:
            async with UdpGameClient(token, "seat") as client:
                assert client._core.server == ("127.0.0.1", transport.port)


async def test_a_server_that_goes_says_so() -> None:
    """Leaving the transport's context closes every connection with going_away."""
    async with asyncio.timeout(10):
        async with recorded() as (recorder, transport):
            recorder.react = lambda connection, message: connection.send(WELCOME)
            client = UdpGameClient(connect_token(transport.port), "seat")
            await client.__aenter__()
            await first(client, Seated)
        ended = await first(client, Ended)
        assert isinstance(ended, Ended)
        assert ended.code == m.CloseCode.GOING_AWAY
        await client.__aexit__(None, None, None)
        assert recorder.losses == 1


async def test_bye_travels_three_times() -> None:
    """Nobody asks for it again."""
    async with asyncio.timeout(10), recorded() as (recorder, transport):
        async with UdpGameClient(connect_token(transport.port), "seat") as client:
            arrived: list[int] = []
            take = client._message
            client._message = lambda message, now_s: (arrived.append(message[0]), take(message, now_s))[1]  # type: ignore[method-assign]
            recorder.connections[0].close(m.CloseCode.NORMAL)
            await first(client, Ended)
            while client._core.state > 0:
                await asyncio.sleep(0.01)
            assert arrived.count(0x86) == 3


async def test_an_accept_that_raises_costs_its_own_client() -> None:
    """It is told, and the next one is served."""
    async with asyncio.timeout(10), recorded() as (recorder, transport):
        accept, transport._accept = transport._accept, lambda connection: {}["no place"]  # type: ignore[assignment]
        async with UdpGameClient(connect_token(transport.port), "seat") as client:
            ended = await first(client, Ended)
            assert isinstance(ended, Ended)
            assert ended.code == m.CloseCode.GAME_ERROR
        transport._accept = accept
        recorder.react = lambda connection, message: connection.send(WELCOME)
        async with UdpGameClient(connect_token(transport.port), "seat") as client:
            await first(client, Seated)


async def test_a_client_that_vanishes_times_out() -> None:
    """Its handler hears of it after the token's timeout."""
    async with asyncio.timeout(10), recorded() as (recorder, transport):
        client = UdpGameClient(connect_token(transport.port, timeout_s=1), "seat")
        await client.__aenter__()
        client._running.cancel()
        for sockets in client._sockets.values():
            sockets.close()
        while not recorder.losses:
            await asyncio.sleep(0.05)


async def test_a_client_that_does_not_read_is_not_waited_for() -> None:
    """It keeps its seat while it sends, the others notice nothing, and what it reads later is the newest world."""
    async with asyncio.timeout(20), staged() as stage, stage.client("ann") as ann, stage.client("bob", 1) as bob:
        await first(bob, WorldSeen)
        transport, loop = bob._sockets[False], asyncio.get_running_loop()
        descriptor = transport.get_extra_info("socket").fileno()
        loop._remove_reader(descriptor)  # type: ignore[attr-defined]
        stopped = bob.session.tick
        async for _ in ann.events():
            if bob.session.welcome is not None:
                await bob.send_input(aim=1.0)
            if ann.session.tick > stopped + 20:
                break
        assert stage.room.roster.connected == 2
        assert bob.session.tick == stopped
        reached = ann.session.tick
        loop._add_reader(descriptor, transport._read_ready)  # type: ignore[attr-defined]
        async for _ in bob.events():
            if bob.session.tick > reached and bob.session.ack_input > 0:
                break


async def test_junk_from_the_network() -> None:
    """Datagrams of any size and content, empty ones too, disturb nobody."""
    rng = random.Random(3)
    async with asyncio.timeout(10), recorded() as (recorder, transport):
        recorder.react = lambda connection, message: connection.send(WELCOME)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            async with UdpGameClient(connect_token(transport.port), "seat") as client:
                for _ in range(500):
                    size = rng.choice((0, 1, 17, 18, 100, 1078, 1225, 1300, 9000))
                    sender.sendto(rng.randbytes(size), ("127.0.0.1", transport.port))
                await first(client, Seated)
                while transport.ignored < 400:
                    await asyncio.sleep(0.01)
        assert len(recorder.connections) == 1


async def test_handshake_limits_reach_the_core() -> None:
    """With no allowance, valid requests are not looked into."""
    async with asyncio.timeout(10), recorded(limits=HandshakeLimits(per_s=0.001, burst_s=1)) as (_, transport):
        with pytest.raises(ConnectFailed):
            await UdpGameClient(connect_token(transport.port), "seat", timeout_s=0.3).__aenter__()
        assert transport.ignored >= 1


async def test_what_cannot_be_listened_on() -> None:
    """A host name, a wildcard without addresses, a port in use."""
    with pytest.raises(ValueError, match="example"):
        async with recorded(host="example.com"):
            pass
    with pytest.raises(ValueError, match="addresses"):
        async with recorded(host="0.0.0.0"):
            pass
    async with recorded() as (_, transport):
        with pytest.raises(OSError):
            async with recorded(port=transport.port):
                pass
    async with asyncio.timeout(10), recorded(host="::", addresses=[("127.0.0.1", 1)]) as (recorder, transport):
        token = connect_token(1).replace(b"\1\x7f\0\0\1\1\0", b"\1\x7f\0\0\1" + transport.port.to_bytes(2, "little"))
        async with UdpGameClient(token, "seat"):
            pass
        assert len(recorder.connections) == 1


@pytest.mark.parametrize(
    ("name", "value"), [("EF", 46), ("AF41", 34), ("CS5", 40), ("DF", 0), ("63", 63), ("LE", 1), ("VA", 44)]
)
async def test_dscp(name: str, value: int) -> None:
    """Names of the registry; what is sent to clients of either family arrives marked, on a socket for both too."""
    assert parse_dscp(name) == value
    v4, v6 = (socket.IPPROTO_IP, socket.IP_RECVTOS), (socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS)
    for bound, host, told in (
        ("127.0.0.1", "127.0.0.1", v4),
        ("::1", "::1", v6),
        ("::", "127.0.0.1", v4),
        ("::", "::1", v6),
    ):
        async with recorded(host=bound, addresses=[(host, 1)], dscp=parse_dscp(name)) as (_, transport):
            core = NetcodeClient(connect_token(1, host), time.monotonic())
            (_, request), *_ = core.data_to_send(time.monotonic())
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.setblocking(False)
                client.setsockopt(*told, 1)
                client.sendto(request, (host, transport.port))
                async with asyncio.timeout(10):
                    while True:
                        try:
                            _, marks, _, _ = client.recvmsg(2048, 256)
                            break
                        except BlockingIOError:
                            await asyncio.sleep(0.005)
        assert [mark[0] for _, _, mark in marks] == [value << 2]


@pytest.mark.parametrize("name", ["", "ef", "AF50", "CS8", "64", "-1"])
def test_no_dscp(name: str) -> None:
    """Anything else is refused with what is wanted."""
    with pytest.raises(ValueError, match="EF, VA"):
        parse_dscp(name)
