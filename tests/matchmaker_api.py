"""What the tests of the REST API share: the API served over real HTTP, somebody who asks, a director when one is wanted."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from matchmaking import DUEL, FLEET, FakeAllocator

from gameserver.seats import SeatIssuer
from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import PlayerId
from matchmaker.api.app import create_app
from matchmaker.api.auth import PlayerTokens
from matchmaker.director import Director
from matchmaker.model import (
    DifferenceRule,
    EqualRule,
    IntersectionRule,
    LatencyRule,
    Limit,
    QueueConfig,
    QueueName,
    Team,
)
from matchmaker.store import TicketStore

SECRET = b"a secret of thirty-two bytes, no less"
SEATS = SeatIssuer(bytes(range(32)))
RATED = replace(DUEL, rules=(DifferenceRule(attribute="rating", limit=Limit(value=100)),))
SQUAD = replace(
    DUEL,
    name=QueueName("squad"),
    teams=(Team(name="red", players=2), Team(name="blue", players=2)),
    party_max=2,
    regions={FLEET: "eu"},
    rules=(
        LatencyRule(limit=Limit(value=60)),
        EqualRule(attribute="mode"),
        IntersectionRule(attribute="maps"),
    ),
)
SMALL = replace(DUEL, name=QueueName("small"), max_tickets=0)
QUEUES = (RATED, SQUAD, SMALL)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    config = uvicorn.Config(
        app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=1, ws="websockets-sansio"
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


def make(client: StoreClient, allocator: FakeAllocator, **changed: Any) -> tuple[FastAPI, Any]:
    settings: dict[str, Any] = {
        "queues": QUEUES,
        "players": PlayerTokens(SECRET),
        "requests_per_s": 1e6,
        "development": True,
    }
    return create_app(client=client, allocator=allocator, seats=SEATS, **{**settings, **changed})


@dataclass
class Api:
    """A running API and somebody who asks."""

    url: str
    http: httpx.AsyncClient
    allocator: FakeAllocator

    def token(self, player: str) -> str:
        return token(player)

    async def ask(
        self, method: str, path: str, *, by: str = "ann", headers: Mapping[str, str] | None = None, **values: Any
    ) -> httpx.Response:
        bearer = {"Authorization": f"Bearer {token(by)}"} if by else {}
        return await self.http.request(method, path, headers={**bearer, **(headers or {})}, **values)

    async def queue(self, name: str, *, rating: float = 1500, **values: Any) -> dict[str, Any]:
        reply = await self.ask("POST", "/v1/tickets", by=name, json=ticket(name, rating=rating), **values)
        assert reply.status_code == 201, reply.text
        return dict(reply.json())

    async def refused(self, status: int, kind: str, method: str, path: str, **values: Any) -> dict[str, Any]:
        return problem(await self.ask(method, path, **values), status, kind)


def problem(reply: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """A reply is the wanted problem, in full form."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = reply.json()
    assert body["type"] == (f"urn:warmfleet:problem:{kind}" if kind else "about:blank")
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    return body


def token(player: str) -> str:
    return PlayerTokens(SECRET).issue(PlayerId(player))


def ticket(*names: str, queue: str = "duel", rating: Any = 1500) -> dict[str, Any]:
    return {"queue": queue, "players": [{"id": name, "attributes": {"rating": rating}} for name in names]}


@asynccontextmanager
async def running(valkey: StoreClient, **settings: Any) -> AsyncIterator[Api]:
    """The API, with what runs beside it; tickets stay where they are."""
    allocator = FakeAllocator()
    app, beside = make(valkey, allocator, **settings)
    watching = asyncio.create_task(beside.run())
    try:
        async with serving(app) as url, httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as http:
            yield Api(url, http, allocator)
    finally:
        watching.cancel()
        await asyncio.wait([watching])


@asynccontextmanager
async def directing(api: Api, client: StoreClient, queue: QueueConfig = RATED) -> AsyncIterator[None]:
    task = asyncio.create_task(Director(queue, TicketStore(client), api.allocator).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
