"""A real game server process under the laptop's Agones, with sessions of the test's making: what tests of whole servers hold."""

import asyncio
import base64
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import redis.asyncio

from allocator.model import GameServer, ServerState
from fleets.local.agones import LocalAgones
from fleets.local.planner import LocalFleet
from gameserver.client.session import Ended, WorldSeen
from gameserver.client.udp import UdpGameClient
from gameserver.client.websocket import GameClient
from gameserver.protocol.netcode.tokens import issue_connect_token, protocol_id_of
from gameserver.seats import SeatGrant, SeatIssuer
from gameserver.sessions.model import FleetName, MatchId, PlayerId, Seat, SessionId, session_id
from gameserver.sessions.valkey import encode_seats, session_key

FLEET = FleetName("arena")
ISSUER = SeatIssuer(bytes(range(32)))
NETCODE_KEY = bytes(range(32))
TRANSPORTS = ("websocket", "udp")


class Stage:
    """One running server and the means to make sessions on it."""

    def __init__(self, agones: LocalAgones, valkey: redis.asyncio.Redis, server: GameServer) -> None:
        self.agones = agones
        self.valkey = valkey
        self.server = server

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.server.ports['websocket']}"

    async def session(self, match: str, *players: str, epoch: int = 1, **options: str) -> SessionId:
        session = session_id(FLEET, MatchId(match))
        seats = tuple(Seat(index=i, player=PlayerId(p), team=p) for i, p in enumerate(players))
        record = {
            "server": self.server.name, "room": 0, "epoch": epoch, "state": "pending",
            "seats": encode_seats(seats), "options": json.dumps(options), "checkpoint_tick": 0,
        }  # fmt: skip
        await self.valkey.hset(session_key(session), mapping=record)
        return session

    def token(self, session: SessionId, player: str, seat: int = 0, epoch: int = 1, lifetime_s: float = 60) -> str:
        grant = SeatGrant(
            player=PlayerId(player), seat=seat, team=player, session=session, server=self.server.name, epoch=epoch
        )
        return ISSUER.issue(grant, time.time(), lifetime_s=lifetime_s)

    def client(
        self, transport: str, session: SessionId, player: str, seat: int = 0, *, epoch: int = 1, host: str = "127.0.0.1"
    ) -> "GameClient | UdpGameClient":
        """A player of either transport, not yet connected; a spectator with its seat."""
        token = self.token(session, player, seat, epoch)
        return self.connection(transport, token, host=host)

    def connection(self, transport: str, token: str, *, host: str = "127.0.0.1") -> "GameClient | UdpGameClient":
        if transport == "websocket":
            name = f"[{host}]" if ":" in host else host
            return GameClient(f"ws://{name}:{self.server.ports['websocket']}", token)
        return UdpGameClient(self.connect_token(host), token)

    def connect_token(self, host: str = "127.0.0.1") -> bytes:
        port = self.server.ports["udp"]
        return issue_connect_token(
            [(host, port)], protocol_id=protocol_id_of(FLEET), private_key=NETCODE_KEY, now_unix_s=int(time.time())
        )

    async def state(self, session: SessionId) -> str:
        return (await self.valkey.hget(session_key(session), "state")).decode()


@contextlib.asynccontextmanager
async def started(tmp_path: Path, valkey: redis.asyncio.Redis, valkey_url: str, **more: str) -> AsyncIterator[Stage]:
    env = {
        "WARMFLEET_GAME": "gameserver.games.arena:Arena", "WARMFLEET_FLEET": FLEET, "WARMFLEET_ROOMS": "2",
        "WARMFLEET_SEATS": "4", "WARMFLEET_VALKEY_URL": valkey_url, "WARMFLEET_SEAT_KEYS": ISSUER.public_key,
        "WARMFLEET_TRANSPORTS": ",".join(TRANSPORTS), "WARMFLEET_NETCODE_KEY": base64.urlsafe_b64encode(NETCODE_KEY).decode(),
        "WARMFLEET_DRAIN_TIMEOUT_S": "1", "WARMFLEET_CHECKPOINT_INTERVAL_S": "0.2", **more,
    }  # fmt: skip
    fleet = LocalFleet(
        name=FLEET, command=(sys.executable, "-m", "gameserver"), env=env, ports=TRANSPORTS, min=1, max=1, buffer=0
    )
    async with LocalAgones([fleet], logs=tmp_path) as agones:
        async with asyncio.timeout(20):
            while not (servers := [s for s in await agones.servers(FLEET) if s.state is ServerState.READY]):
                await asyncio.sleep(0.02)
        yield Stage(agones, valkey, servers[0])


async def until_world(client: GameClient | UdpGameClient, count: int) -> None:
    """Follow until so many players are seen."""
    async for event in client.events():
        if isinstance(event, WorldSeen) and len(event.world.tables[0].ids) == count:
            return
    raise AssertionError("the connection ended")


async def ending(client: GameClient | UdpGameClient) -> Ended:
    async for event in client.events():
        if isinstance(event, Ended):
            return event
    raise AssertionError("no Bye")
