"""
How long a player waits from POST to assigned.

Valkey, one process with API and director (its allocator answers at once from memory), and this process with the players, who follow their
tickets by server-sent events; both players of a match post at the same moment. Time is from a player's POST until it reads `assigned`.
"""

import asyncio
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import uvicorn
import uvloop

from bench.report import Report
from fleets.local.valkey import EmbeddedValkey
from gameserver.client.matchmaking import Matchmaking
from gameserver.seats import SeatIssuer
from gameserver.sessions.client import connect
from gameserver.sessions.model import PlayerId
from matchmaker.api.app import create_app
from matchmaker.api.auth import PlayerTokens
from matchmaker.director import Director
from matchmaker.model import DifferenceRule, Limit, QueueConfig, Step, Team
from matchmaker.store import TicketStore

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from matchmaking import DUEL, FakeAllocator

SECRET = bytes(32)
RATING = DifferenceRule(attribute="rating", limit=Limit(value=100, expand=(Step(after_s=30, limit=500),)))


def queue(team: int) -> QueueConfig:
    """Two teams of so many players."""
    return replace(DUEL, teams=(Team(name="red", players=team), Team(name="blue", players=team)), rules=(RATING,))


def serve(valkey_url: str, ready: Connection) -> None:
    """The matchmaker as a process: API, watch, director."""

    async def run() -> None:
        client = connect(valkey_url)
        allocator = FakeAllocator()
        config = queue(1)
        app, watch = create_app(
            client=client,
            queues=[config],
            allocator=allocator,
            seats=SeatIssuer(bytes(32)),
            players=PlayerTokens(SECRET),
            requests_per_s=1e6,
        )
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watch.run())
            tasks.create_task(Director(config, TicketStore(client), allocator).run())
            tasks.create_task(server.serve())
            while not server.started:  # noqa: ASYNC110 (uvicorn tells it no other way)
                await asyncio.sleep(0.01)
            ready.send(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


@contextmanager
def serving(valkey_url: str) -> Iterator[str]:
    """Run `serve` in a process of its own; gives its URL."""
    processes = multiprocessing.get_context("spawn")
    mine, theirs = processes.Pipe()
    process = processes.Process(target=serve, args=(valkey_url, theirs))
    process.start()
    try:
        if not mine.poll(30):
            raise RuntimeError("the matchmaker does not come up")
        yield mine.recv()
    finally:
        process.kill()
        process.join()


def player_of(url: str, name: str) -> Matchmaking:
    """A player's client."""
    return Matchmaking(url, PlayerTokens(SECRET).issue(PlayerId(name)))


async def assigned_s(client: Matchmaking, player: str) -> float:
    """One player's POST to its assignment, in s."""
    begun_s = time.perf_counter()
    ticket = await client.create_ticket("duel", [{"id": player, "attributes": {"rating": 1500}}])
    await client.assignment(ticket["id"])
    return time.perf_counter() - begun_s


async def latency(report: Report, url: str, pairs: int, at_once: int) -> None:
    """Pairs of players, so many pairs at a time; each pair plays one match after the other."""
    took_s: list[float] = []

    async def in_turn(clients: dict[str, Matchmaking]) -> None:
        for _ in range(pairs // at_once):
            took_s.extend(await asyncio.gather(*(assigned_s(client, name) for name, client in clients.items())))

    async with AsyncExitStack() as stack:
        names = [(f"{at_once}-{lane}-a", f"{at_once}-{lane}-b") for lane in range(at_once)]
        lanes = [{name: await stack.enter_async_context(player_of(url, name)) for name in pair} for pair in names]
        begun_s = time.perf_counter()
        await asyncio.gather(*(in_turn(lane) for lane in lanes))
        whole_s = time.perf_counter() - begun_s
    where = f"POST to assigned, {at_once} pair{'s' if at_once > 1 else ''} at once"
    quantiles = statistics.quantiles(took_s, n=100, method="inclusive")
    report.add(f"{where}, median of {len(took_s):,}", statistics.median(took_s) * 1e3, "ms")
    report.add(f"{where}, p99", quantiles[98] * 1e3, "ms")
    report.add(f"{where}, worst", max(took_s) * 1e3, "ms")
    report.add(f"{where}, players assigned", len(took_s) / whole_s, "1/s")


async def latencies(report: Report, pairs: int) -> None:
    """Time players, alone and in a crowd."""
    with tempfile.TemporaryDirectory() as folder:
        async with EmbeddedValkey(Path(folder)) as valkey:
            with serving(valkey.url) as url:
                for at_once in (1, 16):
                    await latency(report, url, pairs, at_once)


def measure(report: Report, quick: bool) -> None:
    """Measure it."""
    asyncio.run(latencies(report, 32 if quick else 480))
