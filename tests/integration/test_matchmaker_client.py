"""The typed client against the real API: every endpoint, every refusal, and answers that were lost on the way."""

import asyncio
import hashlib
import inspect
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from matchmaker_api import QUEUES, RATED, SQUAD, Api, directing, make, running, token
from matchmaking import FakeAllocator
from starlette.routing import compile_path

from gameserver.sessions.client import StoreClient
from matchmaker import client as exported
from matchmaker.api.auth import ApiKeys
from matchmaker.client import (
    Client,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    MemberRequest,
    NotFound,
    PlayerBody,
    RateLimited,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from matchmaker.client.errors import ApiError
from matchmaker.model import RatingConfig

KEY = "operator's key"
SQUADDIE = MemberRequest(attributes={"mode": "ctf", "maps": ["ice"]}, latencies={"eu": 20})


def player(name: str, rating: float = 1500) -> PlayerBody:
    return PlayerBody(id=name, attributes={"rating": rating}, latencies={}, blocked=[], avoided=[])


@pytest.fixture
async def api(valkey: StoreClient) -> AsyncIterator[Api]:
    keys = ApiKeys.parse(f"ops:operator:{hashlib.sha256(KEY.encode()).hexdigest()}")
    rated = replace(RATED, ratings=RatingConfig())
    async with running(valkey, queues=[rated, *QUEUES[1:]], keys=keys) as served:
        yield served


def of(api: Api, name: str, **values: Any) -> Client:
    return Client(api.url, KEY if name == "key" else token(name), **values)


async def test_a_ticket_s_whole_way(api: Api, valkey: StoreClient) -> None:
    async with of(api, "ann") as ann, of(api, "bob") as bob, directing(api, valkey):
        made = await ann.create_ticket("duel", [player("ann")], idempotency_key="k")
        assert (await ann.create_ticket("duel", [player("ann")], idempotency_key="k")).id == made.id
        assert (await ann.explanation(made.id)).verdict in ("few-players", "teams")
        following = asyncio.create_task(_states(ann, made.id))
        other = await bob.create_ticket("duel", [player("bob")])
        states = await following
        assert states[-1] == "assigned"
        assigned = await ann.ticket(made.id, wait_s=5)
        assert assigned.assignment is not None
        session = assigned.assignment.session
        assert (await ann.seat(session)).seat == assigned.assignment.seat
        assert [seat.player for seat in (await bob.session(session)).seats] == ["ann", "bob"]
        assert not await bob.cancel_ticket(other.id), "too late"
        assert (await ann.rating("duel", "ann")).matches == 0
        assert {queue.name for queue in await ann.queues()} == {"duel", "squad", "small"}
    async with of(api, "key") as key:
        assert (await key.add_spectator(session, "caster")).seat.index == 0xFFFF
        assert not await key.requeue("unknown")
        api.allocator.end(api.allocator.sessions[session].session.id)  # type: ignore[index]
        with pytest.raises(Gone):
            await key.seat(session, player="ann")


async def _states(client: Client, ticket: str) -> list[str]:
    return [found.state async for found in client.follow_ticket(ticket)]


async def test_a_party_s_whole_way(api: Api) -> None:
    async with of(api, "ann") as ann, of(api, "bob") as bob:
        party = await ann.create_party(SQUADDIE)
        seen: list[int] = []

        async def follow() -> None:
            async for found in bob.follow_party(party.id):
                seen.append(len(found.members))

        assert len((await bob.join_party(party.code, SQUADDIE)).members) == 2
        following = asyncio.create_task(follow())
        with pytest.raises(Conflict) as refused:
            await ann.queue_party(party.id, SQUAD.name)
        assert (refused.value.kind, refused.value.extra["player"]) == ("unready", "bob")
        await bob.set_ready(party.id, "bob")
        ticket = await ann.queue_party(party.id, SQUAD.name)
        assert (await bob.my_party()).ticket == ticket.id == (await ann.party(party.id)).ticket
        assert await bob.cancel_ticket(ticket.id)
        for _ in range(2):
            await bob.leave_party(party.id, "bob")
        await asyncio.wait_for(following, 20)
        assert set(seen) == {2}
        with pytest.raises(NotFound):
            await bob.my_party()


async def test_refusals_are_typed(api: Api) -> None:
    async with of(api, "ann") as ann, of(api, "key") as key, Client(api.url, "rubbish") as stranger:
        with pytest.raises(Unauthorized):
            await stranger.ticket("duel.x")
        with pytest.raises(NotFound):
            await ann.ticket("duel.x")
        with pytest.raises(Forbidden):
            await ann.close_queue("duel", "paused")
        with pytest.raises(Invalid, match="there are: duel"):
            await ann.create_ticket("nowhere", [player("ann")])
        with pytest.raises(Invalid) as refused:
            await key.close_queue("duel", "shut")
        assert refused.value.extra["errors"][0]["field"] == "body.closed"
        made = await ann.create_ticket("duel", [player("ann")])
        with pytest.raises(Conflict) as busy:
            await ann.create_ticket("duel", [player("ann")])
        assert (busy.value.kind, busy.value.extra["ticket"]) == ("live-ticket", made.id)
        with pytest.raises(Conflict):
            await ann.accept(made.id)
    async with of(api, "bob", patience_s=0.0) as hurried, of(api, "key") as key:
        await key.close_queue("duel", "draining")
        with pytest.raises(Unavailable) as closed:
            await hurried.create_ticket("duel", [player("bob")])
        assert (closed.value.kind, closed.value.retry_after_s) == ("closed", 30)


async def test_a_rate_limit_is_waited_out_or_told(valkey: StoreClient) -> None:
    async with running(valkey, requests_per_s=0.5) as api:
        async with Client(api.url, token("ann"), patience_s=0.0) as ann:
            for _ in range(2):
                with pytest.raises(NotFound):
                    await ann.ticket("duel.x")
            with pytest.raises(RateLimited) as limited:
                await ann.ticket("duel.x")
        async with Client(api.url, token("ann"), patience_s=limited.value.retry_after_s + 5) as ann:
            with pytest.raises(NotFound):
                await ann.ticket("duel.x")


class Lossy(httpx.AsyncHTTPTransport):
    """Loses answers: the request arrives, and nothing comes back."""

    def __init__(self, losses: int) -> None:
        super().__init__()
        self.losses = losses

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        reply = await super().handle_async_request(request)
        if self.losses:
            self.losses -= 1
            await reply.aread()
            raise httpx.ReadError("lost", request=request)
        return reply


async def test_a_lost_answer_is_asked_for_again_and_makes_no_second_ticket(api: Api) -> None:
    async with of(api, "ann", transport=Lossy(2)) as ann:
        made = await ann.create_ticket("duel", [player("ann")])
        assert (await ann.queues())[0].depth == 1
        assert await ann.cancel_ticket(made.id)
    async with of(api, "bob", transport=Lossy(1)) as bob:
        with pytest.raises(Unreachable):
            await bob.create_party()
        with pytest.raises(Conflict) as refused:
            await bob.create_party()
        assert refused.value.extra["party"] == (await bob.my_party()).id


async def test_an_api_that_is_nowhere() -> None:
    async with Client("http://127.0.0.1:1", "t", patience_s=0.3) as client:
        with pytest.raises(Unreachable):
            await client.queues()


@pytest.mark.parametrize("content", [b"<html>", b"[1]", b"null", b""])
async def test_answers_of_proxies(content: bytes) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(502, content=content))
    async with Client("http://proxy", "t", transport=transport) as client:
        with pytest.raises(ApiError) as refused:
            await client.queues()
    assert refused.value.status == 502


async def test_every_endpoint_has_a_method(valkey: StoreClient) -> None:
    """What the OpenAPI document offers, but for the operations', is asked for by some method of the client."""

    app, _ = make(valkey, FakeAllocator())
    asked: set[str] = set()
    patterns = [
        (f"{method.upper()} {path}", compile_path(path)[0])
        for path, operations in app.openapi()["paths"].items()
        for method, operation in operations.items()
        if "operations" not in operation["tags"]
    ]

    def record(request: httpx.Request) -> httpx.Response:
        fitting = [
            label
            for label, pattern in patterns
            if label.startswith(f"{request.method} ") and pattern.fullmatch(request.url.path)
        ]
        asked.add(min(fitting, key=lambda label: label.count("{")))
        return httpx.Response(404)

    samples: dict[str, Any] = {"players": [player("ann")], "teams": {"red": 1}, "results": {}}
    async with Client("http://api", "t", transport=httpx.MockTransport(record)) as client:
        for name, method in inspect.getmembers(client, callable):
            if name.startswith("_"):
                continue
            wanted = [p for p in inspect.signature(method).parameters.values() if p.default is p.empty]
            made = method(**{p.name: samples.get(p.name, "x") for p in wanted})
            try:
                if inspect.isasyncgen(made):
                    await anext(made)
                else:
                    await made
            except ApiError:
                pass
    assert asked == {label for label, _ in patterns}


async def test_the_page_names_every_endpoint(valkey: StoreClient) -> None:
    """docs/rest.md, whatever it calls what stands in braces."""
    app, _ = make(valkey, FakeAllocator())
    page = (Path(__file__).parents[2] / "docs" / "rest.md").read_text(encoding="utf-8")
    told = {
        (method, re.sub(r"{\w+}", "{}", path))
        for methods, path in re.findall(r"`((?:[A-Z]+)(?:`, `[A-Z]+)*) (/v1/[^`?]*)", page)
        for method in methods.split("`, `")
    }
    there = {
        (method.upper(), re.sub(r"{\w+}", "{}", path))
        for path, operations in app.openapi()["paths"].items()
        for method in operations
        if path.startswith("/v1/")
    }
    assert there - told == set()
    assert {one for one in told - there if one[0] != "WS"} == set()


def test_the_package_exports_what_it_says() -> None:
    assert all(hasattr(exported, name) for name in exported.__all__)
