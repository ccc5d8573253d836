"""
What it costs to have many tickets followed at once: memory and CPU of one API process, and how soon everybody hears.

Valkey, one process with the API, and this one with the followers, half of them by server-sent events and half by WebSocket, each of a ticket of its own on a
bare socket. Memory is the API process's resident set, before and after; idle CPU is counted while nothing happens but signs of life. Then all tickets change
in one message, and the time runs until the last follower has read it. The limit of open files must allow twice as many; it is raised where that is allowed.

Then the same of a studio's service, which follows 20,000 tickets over `_SERVICES` WebSockets.
"""

import asyncio
import base64
import hashlib
import resource
import secrets
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import orjson
import uvicorn
import uvloop
import websockets

from bench.matchmaker.system import SECRET, cpu_s, heard, process
from bench.report import Report
from fleets.garbage import settle
from fleets.local.valkey import EmbeddedValkey
from gameserver.seats import SeatIssuer
from gameserver.sessions.client import connect
from gameserver.sessions.model import PlayerId
from matchmaker.api.app import create_app
from matchmaker.api.auth import ApiKeys, PlayerTokens, Role
from matchmaker.api.many import MOST_AT_ONCE
from matchmaker.model import TicketId, TicketPlayer
from matchmaker.store import TicketStore, changed_channel

from matchmaking import DUEL, FakeAllocator  # isort: skip (bench.matchmaker.system finds it)

QUEUE = replace(DUEL, rules=())
_IDLE_S = 16.0
"""Long enough for a sign of life each."""
_AT_ONCE = 200
_SERVICES = 4
_KEY = "bench"


async def _serve(url: str, ready: Connection) -> None:
    app, beside = create_app(
        client=connect(url),
        queues=[QUEUE],
        allocator=FakeAllocator(),
        seats=SeatIssuer(bytes(32)),
        players=PlayerTokens(SECRET),
        keys=ApiKeys({hashlib.sha256(_KEY.encode()).hexdigest(): ("bench", Role.BACKEND)}),
    )
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, ws="websockets-sansio", backlog=4096)
    server = uvicorn.Server(config)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(beside.run())
        tasks.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 (uvicorn tells it no other way)
            await asyncio.sleep(0.01)
        settle()
        ready.send(server.servers[0].sockets[0].getsockname()[1])


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def _allow_files() -> int:
    """Raise the limit of open files as far as it goes; returns it."""
    for wanted in (65_536, resource.getrlimit(resource.RLIMIT_NOFILE)[1]):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            break
        except (ValueError, OSError):
            continue
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


_PING = b"\x89"
"""Of a WebSocket; answered by a pong with a mask of zeros."""


class _Followed(asyncio.Protocol):
    """One follower on a bare socket: counts what it is told."""

    def __init__(self, request: bytes, told: "_Told") -> None:
        self._request = request
        self._told = told
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if data[:1] == _PING:
            self._transport.write(b"\x8a" + bytes([0x80 | data[1]]) + bytes(4) + data[2 : 2 + data[1]])
            return
        self._buffer += data
        if b'"state":"' in self._buffer:
            self._buffer = b""
            self._told.count += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._told.lost += 1


class _Told:
    count = 0
    lost = 0

    async def reaches(self, number: int) -> None:
        """Wait until so much was told."""
        async with asyncio.timeout(120):
            while self.count < number:  # noqa: ASYNC110 (thousands of sockets count)
                await asyncio.sleep(0.005)


def _request(ticket: TicketId, token: str, *, websocket: bool) -> bytes:
    head = f"GET /v1/tickets/{ticket}/{'watch' if websocket else 'events'} HTTP/1.1\r\nHost: bench\r\n"
    if websocket:
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        head += (
            f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            f"Sec-WebSocket-Protocol: warmfleet.tickets.1, bearer.{token}\r\n\r\n"
        )
    else:
        head += f"Authorization: Bearer {token}\r\n\r\n"
    return head.encode()


async def watchers(report: Report, count: int) -> None:
    """Measure so many followers, and so many tickets followed by a few."""
    await _serving(report, min(count, _allow_files() - 200), _measure)
    await _serving(report, count, _measure_services)


async def _serving(report: Report, count: int, measure: Callable[..., Awaitable[None]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with EmbeddedValkey(Path(folder)) as valkey:
            with process(_serve, valkey.url) as (pid, says):
                port = heard(says)
                client = connect(valkey.url)
                try:
                    await measure(report, count, TicketStore(client), pid, port)
                finally:
                    await client.aclose()


async def _measure(report: Report, count: int, store: TicketStore, pid: int, port: int) -> None:
    loop, told, transports = asyncio.get_running_loop(), _Told(), list[Any]()
    tokens, tickets = PlayerTokens(SECRET), list[TicketId]()
    requests = []
    for number in range(count):
        player = PlayerId(f"p{number}")
        made: Any = await store.create(QUEUE.name, (TicketPlayer(id=player),), idempotency="", max_tickets=10**6)
        tickets.append(made.ticket.id)
        requests.append(_request(made.ticket.id, tokens.issue(player), websocket=bool(number % 2)))
    before = _resident_bytes(pid)
    begun_s = time.perf_counter()
    for start in range(0, count, _AT_ONCE):
        source = (f"127.0.0.{2 + start * 2 // 20_000}", 0)
        some = [
            loop.create_connection(
                lambda request=request: _Followed(request, told), "127.0.0.1", port, local_addr=source
            )  # type: ignore[misc]
            for request in requests[start : start + _AT_ONCE]
        ]
        transports += [transport for transport, _ in await asyncio.gather(*some)]
        await told.reaches(len(transports))
    name = f"{count:,} followers of one process"
    report.add(f"{name}, all let in after", time.perf_counter() - begun_s, "s")
    begun_cpu_s = cpu_s(pid)
    report.add(f"{name}, memory of each", (_resident_bytes(pid) - before) / count / 1024, "KiB")
    await asyncio.sleep(_IDLE_S)
    idle_s = cpu_s(pid)
    report.add(f"{name}, CPU while nothing happens", 100 * (idle_s - begun_cpu_s) / _IDLE_S, "%")
    took_s = [await _tell_all(store, tickets, told, event) for event in (2, 3, 4)]
    report.add(f"{name}, a change of all tickets has reached the last after", statistics.median(took_s), "s")
    report.add(f"{name}, CPU to tell one of them a change", 1e6 * (cpu_s(pid) - idle_s) / (3 * count), "µs")
    report.add(f"{name}, cut off", told.lost, "", goal=0)
    for transport in transports:
        transport.abort()


async def _measure_services(report: Report, count: int, store: TicketStore, pid: int, port: int) -> None:
    told, tickets = _Told(), list[TicketId]()
    for number in range(count):
        player = TicketPlayer(id=PlayerId(f"p{number}"))
        made: Any = await store.create(QUEUE.name, (player,), idempotency="", max_tickets=10**6)
        tickets.append(made.ticket.id)
    before = _resident_bytes(pid)

    async def follow(some: list[TicketId]) -> None:
        login = {"Authorization": f"Bearer {_KEY}"}
        url = f"ws://127.0.0.1:{port}/v1/tickets/watch"
        async with websockets.connect(url, additional_headers=login, proxy=None, compression=None) as socket:
            for start in range(0, len(some), MOST_AT_ONCE):
                await socket.send(orjson.dumps({"follow": some[start : start + MOST_AT_ONCE]}).decode())
            async for _ in socket:
                told.count += 1

    following = [asyncio.create_task(follow(tickets[at::_SERVICES])) for at in range(_SERVICES)]
    await told.reaches(count)
    name = f"{count:,} tickets followed over {_SERVICES} WebSockets"
    report.add(f"{name}, memory of each", (_resident_bytes(pid) - before) / count / 1024, "KiB")
    begun_s = cpu_s(pid)
    took_s = [await _tell_all(store, tickets, told, event) for event in (2, 3, 4)]
    report.add(f"{name}, a change of all has reached the last after", statistics.median(took_s), "s")
    report.add(f"{name}, CPU to tell one change", 1e6 * (cpu_s(pid) - begun_s) / (3 * count), "µs")
    report.add(f"{name}: connections cut off", sum(task.done() for task in following), "", goal=0)
    for task in following:
        task.cancel()
    await asyncio.wait(following)


async def _tell_all(store: TicketStore, tickets: list[TicketId], told: _Told, event: int) -> float:
    """Publish a change of all tickets, as the store's functions do; returns how long it took until everybody knew, in s."""
    wanted, begun_s = told.count + len(tickets) - told.lost, time.perf_counter()
    change = {"state": "queued", "tickets": dict.fromkeys(tickets, event)}
    await store.client.publish(changed_channel(QUEUE.name), orjson.dumps([change]))
    await told.reaches(wanted)
    return time.perf_counter() - begun_s


def measure(report: Report, quick: bool) -> None:
    """Measure it."""
    uvloop.run(watchers(report, 2_000 if quick else 20_000))
