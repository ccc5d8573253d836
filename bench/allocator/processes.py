"""
Claims per second of several allocator processes at one Valkey.

Each process has its own client and `Allocator` and claims with 16 callers from one filled shelf; all begin together, and the rate is of all claims
from the first begin to the last end. Repeated in rounds with one process and with three in turn; quoted are medians.
"""

import asyncio
import multiprocessing
import statistics
import time
from contextlib import aclosing
from multiprocessing.connection import Connection

import redis
import uvloop

from allocator.model import Allocation, AllocationRequest, FleetPolicy, GameServer, ServerState
from allocator.service import Allocator
from allocator.shelf import Shelf
from bench.allocator.claims import FLEET, SEATS, NoBackend, valkey
from bench.report import Report
from fleets.garbage import settle
from gameserver.sessions.client import connect
from gameserver.sessions.model import MatchId, ServerName

CALLERS = 16
ROOMS = 500
GOALS = {1: 5_000, 3: 15_000}


async def _fill(url: str, rooms: int) -> None:
    async with aclosing(connect(url)) as client:
        await client.flushdb()
        shelf = Shelf(client)
        for index in range(rooms // ROOMS + 1):
            name = ServerName(f"bench-{index}")
            server = GameServer(
                name=name, fleet=FLEET, state=ServerState.ALLOCATED, host="127.0.0.1", ports={"udp": index}
            )
            await shelf.register(server, rooms=ROOMS)


async def _claim(url: str, name: str, claims: int, pipe: Connection) -> None:
    async with aclosing(connect(url)) as client:
        allocator = Allocator(Shelf(client), client, [FleetPolicy(name=FLEET, rooms=ROOMS)], NoBackend())

        async def caller(index: int) -> None:
            for number in range(claims // CALLERS):
                request = AllocationRequest(match=MatchId(f"{name}-{index}-{number}"), fleets=(FLEET,), seats=SEATS)
                found = await allocator.allocate(request, deadline_s=30)
                assert isinstance(found, Allocation)

        warm = AllocationRequest(match=MatchId(f"{name}-warm"), fleets=(FLEET,), seats=SEATS)
        await allocator.allocate(warm, deadline_s=5)
        settle()  # as the served parts do
        pipe.send("ready")
        pipe.recv()
        begun_s, cpu_s = time.monotonic(), time.process_time()
        await asyncio.gather(*(caller(index) for index in range(CALLERS)))
        pipe.send((begun_s, time.monotonic(), (time.process_time() - cpu_s) / claims))


def _process(url: str, name: str, claims: int, pipe: Connection) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_claim(url, name, claims, pipe))


def _valkey_cpu_s(url: str) -> float:
    with redis.Redis.from_url(url) as client:
        used = client.info("cpu")
    return float(used["used_cpu_user_main_thread"]) + float(used["used_cpu_sys_main_thread"])


def _rate(url: str, processes: int, claims: int, name: str) -> tuple[float, float, float]:
    """Claims per second, and a claim's CPU in the client and in Valkey in s."""
    asyncio.run(_fill(url, processes * claims + processes))
    context = multiprocessing.get_context("spawn")
    started = []
    for index in range(processes):
        ours, theirs = context.Pipe()
        process = context.Process(target=_process, args=(url, f"{name}-{index}", claims, theirs))
        process.start()
        started.append((process, ours))
    for _, pipe in started:
        pipe.recv()
    before_s = _valkey_cpu_s(url)
    for _, pipe in started:
        pipe.send("go")
    times = [pipe.recv() for _, pipe in started]
    valkey_s = _valkey_cpu_s(url) - before_s
    for process, _ in started:
        process.join()
    whole_s = max(end for _, end, _ in times) - min(begun for begun, _, _ in times)
    claimed = processes * (claims // CALLERS) * CALLERS
    return claimed / whole_s, statistics.mean(cpu for _, _, cpu in times), valkey_s / claimed


def measure(report: Report, quick: bool) -> None:
    """Measure on a Valkey of its own."""
    rounds, claims = (1, 3_200) if quick else (5, 16_000)
    found: dict[int, list[tuple[float, float, float]]] = {processes: [] for processes in GOALS}
    with valkey() as url:
        for number in range(rounds):
            for processes in GOALS:
                found[processes].append(_rate(url, processes, claims, f"r{number}-{processes}"))
    for processes, goal in GOALS.items():
        where = f"{processes} process{'es' if processes > 1 else ''}"
        rate, client_s, valkey_s = (statistics.median(column) for column in zip(*found[processes], strict=True))
        report.add(f"claims per second, {where}", rate, "1/s", goal=goal, at_least=True)
        report.add(f"CPU of a claim in the client, {where}", client_s * 1e6, "µs", goal=60.0)
        report.add(f"CPU of a claim in Valkey, its network included, {where}", valkey_s * 1e6, "µs", goal=30.0)
