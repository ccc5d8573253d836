"""
What sessions cost their store: CPU of Valkey itself for each call that a large service makes all the time (docs/scale.md).

A Valkey of its own, without persistence; 200 servers of 8 rooms, all of them played. Each call is made from 50 coroutines; the store's own
`used_cpu` before and after says what it cost there, whoever called. What the callers cost is in `bench.allocator` and `bench.gameserver`.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable

import redis.asyncio

from allocator.model import Allocation, AllocationRequest, FleetPolicy, GameServer, ServerState
from allocator.service import Allocator
from allocator.shelf import Shelf
from bench.allocator.claims import NoBackend, valkey
from bench.report import Report
from gameserver.sessions.client import connect
from gameserver.sessions.model import FleetName, MatchId, PlayerId, Seat, ServerMode, ServerName, Session
from gameserver.sessions.valkey import ValkeySessions

FLEET = FleetName("arena")
SERVERS, ROOMS, PLAYERS = 200, 8, 10
CALLERS = 50
STATE_BYTES = 8192


def measure(report: Report, quick: bool) -> None:
    """Add the rows."""
    with valkey() as url:
        asyncio.run(_measure(report, url, 5_000 if quick else 50_000))


async def _measure(report: Report, url: str, calls: int) -> None:
    async with connect(url) as client:
        shelf, sessions = Shelf(client), ValkeySessions(client, FLEET)
        allocator = Allocator(shelf, client, [FleetPolicy(name=FLEET, rooms=ROOMS)], NoBackend())
        for index in range(SERVERS):
            name = ServerName(f"arena-{index}")
            server = GameServer(name=name, fleet=FLEET, state=ServerState.ALLOCATED, host="h", ports={"websocket": 1})
            await shelf.register(server, rooms=ROOMS)
        played: list[Session] = []

        async def claim(index: int) -> None:
            seats = tuple(Seat(index=seat, player=PlayerId(f"p{index}-{seat}")) for seat in range(PLAYERS))
            request = AllocationRequest(match=MatchId(f"m{index}"), fleets=(FLEET,), seats=seats)
            given = await allocator.allocate(request, deadline_s=5)
            assert isinstance(given, Allocation)
            opened, _ = await sessions.open(given.session.id, server=given.session.server, epoch=1)
            played.append(opened)

        cost_us = await _cost_us(client, SERVERS * ROOMS, claim)
        report.add("claim and open of a match of 10, CPU of Valkey", cost_us, "µs")

        def save(state: bytes | None) -> Callable[[int], Awaitable[None]]:
            async def call(index: int) -> None:
                await sessions.checkpoint(played[index % len(played)].id, epoch=1, tick=index + 1, state=state)

            return call

        report.add(
            "checkpoint of 8 KiB, CPU of Valkey", await _cost_us(client, calls, save(os.urandom(STATE_BYTES))), "µs"
        )
        report.add("checkpoint, unchanged, CPU of Valkey", await _cost_us(client, calls, save(None)), "µs")
        rooms: dict[ServerName, dict[object, int]] = {}
        for session in played:
            rooms.setdefault(session.server, {})[session.id] = 1
        names = sorted(rooms)

        async def beat(index: int) -> None:
            name = names[index % len(names)]
            orders = await sessions.beat(name, ttl_s=60, mode=ServerMode.SERVE, rooms=rooms[name])  # type: ignore[arg-type]
            assert not orders.fenced

        report.add("heartbeat of a server with 8 rooms, CPU of Valkey", await _cost_us(client, calls, beat), "µs")


async def _cost_us(client: redis.asyncio.Redis, calls: int, call: Callable[[int], Awaitable[None]]) -> float:
    """CPU of the store, each call's share."""
    before_s = await _used_s(client)
    indices = iter(range(calls))

    async def caller() -> None:
        for index in indices:
            await call(index)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CALLERS):
            tasks.create_task(caller())
    return 1e6 * (await _used_s(client) - before_s) / calls


async def _used_s(client: redis.asyncio.Redis) -> float:
    info = await client.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])
