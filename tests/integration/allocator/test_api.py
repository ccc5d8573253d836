"""The allocator's REST API, over real HTTP on a real Valkey."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import schemathesis
import schemathesis.specs.openapi.checks as openapi_checks
import uvicorn
from fakes import FakeBackend
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode, checks

from allocator.api.app import MAX_BODY_BYTES, create_app
from allocator.api.tokens import ServiceTokens, TokensUnusable
from allocator.keeper import ShelfKeeper
from allocator.model import FleetPolicy
from allocator.service import Allocator
from allocator.shelf import Shelf
from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import FleetName

FLEET = FleetName("arena")
POLICY = FleetPolicy(name=FLEET, rooms=2, shelf=4, region="eu")
NONE = FleetPolicy(name=FleetName("none"), shelf=0, max=0)
TOKEN, OTHER = "matchmaker-0123456789", "console-0123456789"


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = _Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


class Api:
    """The application, its shelf and a client with a good token."""

    def __init__(self, client: StoreClient, file: Path, ready: int = 8) -> None:
        self.backend = FakeBackend(FLEET, ready)
        self.shelf = Shelf(client)
        self.keeper = ShelfKeeper(POLICY, self.shelf, client, self.backend)
        self.allocator = Allocator(self.shelf, client, (POLICY, NONE), self.backend)
        self.app = create_app(allocator=self.allocator, shelf=self.shelf, tokens=ServiceTokens(file))
        self.url = ""
        self.http = httpx.AsyncClient()

    async def settle(self) -> None:
        while await self.keeper.round():
            pass

    async def ask(self, method: str, path: str, *, token: str = TOKEN, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return await self.http.request(method, self.url + path, headers=headers, **more)

    async def refused(self, status: int, kind: str, method: str, path: str, **more: Any) -> dict[str, Any]:
        reply = await self.ask(method, path, **more)
        assert (reply.status_code, reply.headers["content-type"]) == (status, "application/problem+json"), reply.text
        body: dict[str, Any] = reply.json()
        assert body["type"] == f"urn:warmfleet:problem:{kind}"
        return {**body, "headers": reply.headers}

    async def allocate(self, match: str, **more: Any) -> dict[str, Any]:
        body = {"id": match, "fleets": ["arena"], "players": [{"id": "ann", "team": "red"}], **more}
        reply = await self.ask("POST", "/v1/allocations", json=body)
        assert reply.status_code == 201, reply.text
        found: dict[str, Any] = reply.json()
        assert reply.headers["location"] == f"/v1/allocations/{found['id']}"
        return found


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text(f"# who may ask\nmatchmaker:{TOKEN}\n\n{OTHER}\n")
    return file


@pytest.fixture
async def api(valkey: StoreClient, tokens: Path) -> AsyncIterator[Api]:
    api = Api(valkey, tokens)
    await api.settle()
    async with api.http, serving(api.app) as api.url:
        yield api


async def test_a_match_is_allocated_found_and_released(api: Api) -> None:
    """One life of an allocation; every request may be repeated."""
    first = await api.allocate("m1", options={"map": "dust"}, freeSeats=1)
    assert first | {"server": "", "room": 0, "host": "", "ports": {}, "waitedS": 0} == {
        "id": "arena.m1", "fleet": "arena", "server": "", "room": 0, "epoch": 1, "state": "pending", "host": "", "ports": {},
        "temperature": "shelf", "reason": "a room was on the shelf", "waitedS": 0, "freeSeats": 1, "options": {"map": "dust"},
        "seats": [{"index": 0, "player": "ann", "team": "red"}],
    }  # fmt: skip
    assert first["ports"] == api.backend.all[first["server"]].ports
    assert (await api.allocate("m1"))["server"] == first["server"]
    assert (await api.ask("GET", "/v1/allocations/arena.m1")).json()["room"] == first["room"]
    for _ in range(2):
        assert (await api.ask("DELETE", "/v1/allocations/arena.m1")).status_code == 204
    assert (await api.ask("GET", "/v1/allocations/arena.m1")).json()["state"] == "ended"
    await api.refused(409, "ended", "POST", "/v1/allocations", json={"id": "m1", "fleets": ["arena"]})
    for path in ("/v1/allocations/arena.m2", "/v1/allocations/nonsense"):
        await api.refused(404, "not-found", "GET", path)
        await api.refused(404, "not-found", "DELETE", path)


async def test_seats_are_reserved_and_given_up(api: Api) -> None:
    """A party in this match or in whichever fits, all of it or nobody."""
    await api.allocate("m1", freeSeats=3, options={"queue": "q"})
    two = {"players": [{"id": "bob"}, {"id": "cat"}]}
    reply = await api.ask("POST", "/v1/allocations/arena.m1/seats", json=two)
    assert [seat["player"] for seat in reply.json()["seats"]] == ["ann", "bob", "cat"]
    party = {"id": "p1", "fleets": ["arena"], "queue": "q", "players": [{"id": "dan"}, {"id": "eve"}]}
    body = await api.refused(409, "no-seats", "POST", "/v1/seats", json=party)
    assert body["detail"] == "no running session has 2 free seats together"
    body = await api.refused(
        409, "no-seats", "POST", "/v1/allocations/arena.m1/seats", json={"players": party["players"]}
    )
    assert body["detail"] == "1 seats are free, 2 are wanted"
    assert (await api.ask("DELETE", "/v1/allocations/arena.m1/seats/bob")).status_code == 204
    for _ in range(2):
        reply = await api.ask("POST", "/v1/seats", json=party)
        assert [seat["player"] for seat in reply.json()["seats"]] == ["ann", "cat", "dan", "eve"]
    await api.refused(422, "invalid", "POST", "/v1/seats", json={**party, "players": [{"id": "x"}, {"id": "x"}]})
    await api.ask("DELETE", "/v1/allocations/arena.m1")
    await api.refused(409, "closed", "POST", "/v1/allocations/arena.m1/seats", json=two)
    await api.refused(409, "closed", "DELETE", "/v1/allocations/arena.m1/seats/ann")


async def test_allocations_are_listed_in_pages(api: Api) -> None:
    """Every allocation of the fleet once, over pages, filtered by state."""
    for index in range(7):
        await api.allocate(f"m{index}")
        await api.settle()
    await api.ask("DELETE", "/v1/allocations/arena.m0")
    for limit in (1, 2, 100):
        seen: list[str] = []
        after: str | None = ""
        while after is not None:
            reply = await api.ask("GET", "/v1/allocations", params={"fleet": "arena", "limit": limit, "after": after})
            body = reply.json()
            assert len(body["items"]) <= limit + POLICY.rooms
            seen += [item["id"] for item in body["items"]]
            after = body["next"]
        assert sorted(seen) == [f"arena.m{i}" for i in range(1, 7)]
    reply = await api.ask("GET", "/v1/allocations", params={"fleet": "arena", "state": "live"})
    assert reply.json() == {"items": [], "next": None}
    await api.refused(404, "unknown-fleet", "GET", "/v1/allocations", params={"fleet": "nope"})


async def test_fleets_say_how_they_stand(api: Api) -> None:
    """Rooms that can be claimed, whether a keeper is there; the target is set from outside."""
    await api.keeper.round()
    (arena, none) = (await api.ask("GET", "/v1/fleets")).json()
    assert arena == {
        "name": "arena", "region": "eu", "kept": True, "claimable": 4, "rooms": 2, "shelf": 4, "min": 0, "max": 10_000
    }  # fmt: skip
    assert (none["kept"], none["claimable"]) == (False, 0)
    assert (await api.ask("PUT", "/v1/fleets/arena/target", json={"rooms": 6})).status_code == 204
    await api.settle()
    assert (await api.ask("GET", "/v1/fleets")).json()[0]["claimable"] == 6
    await api.refused(422, "invalid", "PUT", "/v1/fleets/arena/target", json={"rooms": -1})
    await api.refused(404, "unknown-fleet", "PUT", "/v1/fleets/nope/target", json={"rooms": 1})


async def test_refusals_name_the_field_and_the_mend(api: Api) -> None:
    """Unknown fleets, no capacity, nothing free, wrong bodies."""
    good = {"id": "m", "fleets": ["arena"]}
    body = await api.refused(422, "unknown-fleet", "POST", "/v1/allocations", json={**good, "fleets": ["nope"]})
    assert body["detail"] == "fleets: unknown fleet 'nope'"
    body = await api.refused(503, "no-capacity", "POST", "/v1/allocations", json={**good, "fleets": ["none"]})
    assert body["detail"] == "no capacity: none may have 0 servers at most"
    assert body["headers"]["retry-after"] == "60"
    for wrong, field in [
        ({"fleets": []}, "fleets"),
        ({"id": "no spaces"}, "id"),
        ({"timeoutS": 61}, "timeoutS"),
        ({"timeoutS": "NaN"}, "timeoutS"),
        ({"latencyMs": {"eu": -1}}, "latencyMs"),
        ({"players": [{"id": "a"}, {"id": "a"}]}, "players"),
        ({"unknown": 1}, "unknown"),
    ]:
        body = await api.refused(422, "invalid", "POST", "/v1/allocations", json={**good, **wrong})
        assert field in body["detail"]
    await api.refused(413, "too-large", "POST", "/v1/allocations", content=b" " * (MAX_BODY_BYTES + 1))
    for index in range(4):
        await api.allocate(f"m{index}")
    body = await api.refused(503, "no-server", "POST", "/v1/allocations", json={**good, "timeoutS": 0})
    assert (body["detail"], body["headers"]["retry-after"]) == ("no room can be claimed now", "1")
    body = await api.refused(503, "no-server", "POST", "/v1/allocations", json={**good, "timeoutS": 0.1})
    assert body["detail"].startswith(
        "no server within 0.1 s; fleet arena: 8 of at most 10000 servers, 0 requests ahead"
    )


async def test_only_services_with_a_token_are_served(api: Api, tokens: Path) -> None:
    """Several tokens are good; a changed file is taken up, and one that is half written is not."""
    for wrong in ("", "x", TOKEN[:-1], TOKEN + "0"):
        body = await api.refused(401, "unauthorized", "GET", "/v1/fleets", token=wrong)
        assert body["headers"]["www-authenticate"] == "Bearer"
        assert TOKEN not in body["detail"]
    for good in (TOKEN, OTHER):
        assert (await api.ask("GET", "/v1/fleets", token=good)).status_code == 200
    tokens.write_text("short\n")
    os.utime(tokens, (1, 1))
    assert (await api.ask("GET", "/v1/fleets")).status_code == 200
    tokens.write_text("new:another-0123456789\n")
    os.utime(tokens, (2, 2))
    await api.refused(401, "unauthorized", "GET", "/v1/fleets")
    assert (await api.ask("GET", "/v1/fleets", token="another-0123456789")).status_code == 200
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert (await api.ask("GET", path, token="")).status_code == 200


@pytest.mark.parametrize("text", [None, "", "# nothing\n", "name:short\n", "name:with a space in it\n"])
def test_a_file_without_tokens_is_refused_at_the_start(tmp_path: Path, text: str | None) -> None:
    """The message names the file and what is wanted."""
    file = tmp_path / "tokens"
    if text is not None:
        file.write_text(text)
    with pytest.raises(TokensUnusable, match=str(file)):
        ServiceTokens(file)


CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]


async def test_the_openapi_document_tells_the_truth(api: Api) -> None:
    """Random requests, valid and not: never an error of ours, and every reply is what the document says."""
    api.backend.add(200)
    await api.shelf.set_target(FLEET, 400)
    await api.settle()
    await api.allocate("there", freeSeats=900)
    schema = schemathesis.openapi.from_dict((await api.http.get(f"{api.url}/openapi.json")).json())
    seen: Counter[tuple[str, int]] = Counter()
    await asyncio.to_thread(_explore, schema, api.url, seen)
    assert {
        ("POST /v1/allocations", 201),
        ("POST /v1/allocations", 422),
        ("GET /v1/allocations", 200),
        ("GET /v1/allocations/{allocation}", 200),
        ("GET /v1/allocations/{allocation}", 404),
        ("POST /v1/allocations/{allocation}/seats", 200),
        ("DELETE /v1/allocations/{allocation}/seats/{player}", 204),
        ("POST /v1/seats", 409),
        ("GET /v1/fleets", 200),
        ("PUT /v1/fleets/{fleet}/target", 204),
    } <= set(seen), seen


def _explore(schema: Any, url: str, seen: Counter[tuple[str, int]]) -> None:
    """Ask every operation; of the valid requests half are made to mean something: a fleet and an allocation that exist."""
    with requests.Session() as session:
        session.trust_env = False
        for result in schema.get_all_operations():
            operation = result.ok()
            for mode in GenerationMode:

                @settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
                @given(
                    operation.as_strategy(generation_mode=mode), st.booleans() if mode.is_positive else st.just(False)
                )
                def ask(case: Any, sensible: bool) -> None:
                    if sensible:
                        _make_sensible(case, f"p{seen.total()}")
                    if isinstance(case.body, dict) and "timeoutS" in case.body:
                        case.body["timeoutS"] = 0
                    if case.operation.label == "DELETE /v1/allocations/{allocation}" and sensible:
                        return  # the others need it
                    headers = {"Authorization": f"Bearer {TOKEN}"}
                    reply = case.call(base_url=url, session=session, headers=headers, timeout=30)
                    if reply.status_code != 503:  # nothing is free any more: an answer, not an error of ours
                        case.validate_response(reply, checks=CHECKS)
                    seen[case.operation.label, reply.status_code] += 1

                try:
                    ask()
                except Unsatisfiable:
                    pass  # nothing about this operation can be wrong


def _make_sensible(case: Any, player: str) -> None:
    there = {"allocation": "arena.there", "fleet": "arena"}
    case.path_parameters.update({name: there.get(name, value) for name, value in case.path_parameters.items()})
    if "fleet" in (case.query or {}):
        case.query["fleet"] = "arena"
    if isinstance(case.body, dict) and "fleets" in case.body:
        case.body |= {"fleets": ["arena"], "players": [{"id": player}]}
