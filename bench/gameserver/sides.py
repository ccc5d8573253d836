"""The servers that are compared, each a fresh process per measurement: ours as a fleet starts it, the same on `websockets.broadcast()`, Colyseus."""

import asyncio
import base64
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from allocator.model import ServerState
from bench.gameserver import colyseus, compiled
from fleets.local.agones import LocalAgones
from fleets.local.planner import LocalFleet
from gameserver.protocol.netcode.tokens import issue_connect_token, protocol_id_of
from gameserver.seats import SeatGrant, SeatIssuer
from gameserver.sessions.model import FleetName, PlayerId, ServerName, SessionId

ISSUER = SeatIssuer(bytes(range(32)))
NETCODE_KEY = bytes(range(32))
FLEET = FleetName("bench")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server, and what its players need."""

    kind: str
    """Of `load.KINDS`."""
    pid: int
    port: int
    tokens: Callable[[int], list[str]]
    """So many players' tokens."""


Side = Callable[[int], AbstractAsyncContextManager[Running]]
"""Start a server for so many players."""


class Run(Protocol):
    """One measurement (`bench.gameserver.__main__.run`): what `load` says."""

    async def __call__(
        self, side: Side, players: int, *, warm_s: float, measure_s: float, still: float = 0.0
    ) -> dict[str, float]:
        """Start a fresh server, load it, and measure; `still`: the share of players that do not move."""


@asynccontextmanager
async def ours(
    players: int, *, transport: str = "websocket", game: str = "bench.gameserver.swarm:Swarm", rate_hz: int = 30,
    path: tuple[Path, ...] = (),
) -> AsyncIterator[Running]:  # fmt: skip
    """`python -m gameserver` under the laptop's Agones, as `warmfleet up` starts it, with every check on; `path`: where it is looked for first."""
    env = {
        "WARMFLEET_GAME": game, "WARMFLEET_FLEET": FLEET, "WARMFLEET_SEATS": str(players),
        "WARMFLEET_TICK_RATE": str(rate_hz), "WARMFLEET_TRANSPORTS": transport,
        "WARMFLEET_SEAT_KEYS": ISSUER.public_key, "WARMFLEET_DRAIN_TIMEOUT_S": "0", "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT))),
    }  # fmt: skip
    if transport == "udp":
        env["WARMFLEET_NETCODE_KEY"] = base64.urlsafe_b64encode(NETCODE_KEY).decode()
    fleet = LocalFleet(
        name=FLEET,
        command=(sys.executable, "-P", "-m", "gameserver"),
        env=env,
        ports=(transport,),
        min=1,
        max=1,
        buffer=0,
    )
    with tempfile.TemporaryDirectory() as logs:
        async with LocalAgones([fleet], logs=Path(logs)) as agones:
            async with asyncio.timeout(30):
                while not (ready := [s for s in await agones.servers(FLEET) if s.state is ServerState.READY]):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            server = ready[0]
            port = server.ports[transport]

            def tokens(count: int) -> list[str]:
                made = seat_tokens(count, server.name)
                return made if transport == "websocket" else [f"{_connect_token(port)} {token}" for token in made]

            pid = agones.status()[0].servers[0].pid
            yield Running(kind=transport, pid=pid, port=port, tokens=tokens)


@asynccontextmanager
async def udp(players: int) -> AsyncIterator[Running]:
    """Ours over netcode."""
    async with ours(players, transport="udp") as running:
        yield running


@asynccontextmanager
async def ours_compiled(players: int) -> AsyncIterator[Running]:
    """Ours as images have it."""
    async with ours(players, path=(compiled.folder(),)) as running:
        yield running


@asynccontextmanager
async def udp_compiled(players: int) -> AsyncIterator[Running]:
    """The same over netcode."""
    async with ours(players, transport="udp", path=(compiled.folder(),)) as running:
        yield running


@asynccontextmanager
async def heavy(players: int) -> AsyncIterator[Running]:
    """Ours, with a game that asks for more than there is."""
    async with ours(players, game="bench.gameserver.capacity:Heavy") as running:
        yield running


@asynccontextmanager
async def near(players: int) -> AsyncIterator[Running]:
    """A thousand things, of which everyone sees the near ones."""
    async with ours(players, game="bench.gameserver.fields:Near") as running:
        yield running


@asynccontextmanager
async def whole(players: int) -> AsyncIterator[Running]:
    """A thousand things, of which everyone sees all."""
    async with ours(players, game="bench.gameserver.fields:Whole") as running:
        yield running


@asynccontextmanager
async def broadcast(players: int) -> AsyncIterator[Running]:
    """The same rooms and checks on `websockets.broadcast()` and `async for`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.gameserver.broadcast", str(players), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            port = int(await process.stdout.readline())
        yield Running(
            kind="websocket", pid=process.pid, port=port, tokens=lambda count: seat_tokens(count, ServerName("bench-1"))
        )
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def peer(players: int) -> AsyncIterator[Running]:
    """Colyseus."""
    async with colyseus.colyseus() as (pid, port):
        yield Running(kind="colyseus", pid=pid, port=port, tokens=lambda count: [""] * count)


def seat_tokens(count: int, server: ServerName) -> list[str]:
    """Seats of one session."""
    session = SessionId("bench.room")
    return [
        ISSUER.issue(
            SeatGrant(player=PlayerId(f"p{k}"), seat=k, team="", session=session, server=server, epoch=1),
            time.time(),
            lifetime_s=300,
        )
        for k in range(count)
    ]


def _connect_token(port: int) -> str:
    return issue_connect_token(
        [("127.0.0.1", port)], protocol_id=protocol_id_of(FLEET), private_key=NETCODE_KEY, now_unix_s=time.time(),
        lifetime_s=300,
    ).hex()  # fmt: skip
