"""The REST API over real HTTP: tickets, their followers, seats, and every refusal."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import jwt
import pytest
import websockets
from conftest import free_port
from matchmaker_api import RATED, SEATS, SECRET, Api, directing, make, problem, running, serving, ticket, token
from matchmaking import FakeAllocator, until

from gameserver.client.matchmaking import Matchmaking, development_player
from gameserver.seats import SeatRefused, SeatVerifier
from gameserver.sessions.client import StoreClient, connect
from gameserver.sessions.model import FleetName, ServerName, SessionState
from gameserver.sessions.port import StoreUnavailable
from matchmaker.api.app import MAX_BODY_BYTES
from matchmaker.director import Director
from matchmaker.store import TicketStore


async def test_create_read_cancel(api: Api) -> None:
    reply = await api.ask("POST", "/v1/tickets", json=ticket("ann"))
    made = reply.json()
    assert reply.status_code == 201
    assert reply.headers["location"] == f"/v1/tickets/{made['id']}"
    assert made.pop("createdAt").endswith("Z")
    player = {"id": "ann", "attributes": {"rating": 1500}, "latencies": {}}
    assert made == {"id": made["id"], "queue": "duel", "state": "queued", "players": [player]}
    path = f"/v1/tickets/{made['id']}"
    assert (await api.ask("GET", path)).json()["state"] == "queued"
    assert (await api.ask("GET", "/v1/queues", by="")).json()[0] == {
        "name": "duel",
        "depth": 1,
        "playersPerMatch": 2,
        "teams": {"red": 1, "blue": 1},
        "partyMax": 1,
    }
    for _ in range(2):
        reply = await api.ask("DELETE", path)
        assert (reply.status_code, reply.content) == (204, b"")
    assert (await api.ask("GET", path)).json()["state"] == "cancelled"


async def test_every_kind_of_attribute_comes_back(api: Api) -> None:
    players = [
        {"id": name, "attributes": {"mode": "ctf", "maps": ["ice", "rock"], "level": 3}, "latencies": {"eu": 20.5}}
        for name in ("ann", "bob")
    ]
    reply = await api.ask("POST", "/v1/tickets", json={"queue": "squad", "players": players})
    assert reply.status_code == 201, reply.text
    assert reply.json()["players"] == players
    assert (await api.ask("GET", reply.headers["location"], by="bob")).json()["players"] == players


async def test_idempotency_keys(api: Api) -> None:
    first = await api.queue("ann", headers={"Idempotency-Key": "k"})
    assert await api.queue("ann", headers={"Idempotency-Key": "k"}) == first
    assert (await api.queue("bob", headers={"Idempotency-Key": "k"}))["id"] != first["id"], "keys are a player's own"


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Basic YW5uOmFubg==",
        "Bearer rubbish",
        "Bearer a.b.c d",
        f"Bearer {jwt.encode({'sub': 'ann', 'exp': 1}, SECRET)}",
        f"Bearer {jwt.encode({'sub': 'ann'}, SECRET)}",
        f"Bearer {jwt.encode({'exp': 10**10}, SECRET)}",
        f"Bearer {jwt.encode({'sub': '', 'exp': 10**10}, SECRET)}",
        f"Bearer {jwt.encode({'sub': 'a' * 65, 'exp': 10**10}, SECRET)}",
        f"Bearer {jwt.encode({'sub': 'ann', 'exp': 10**10}, b'another secret of thirty-two bytes..')}",
        f"Bearer {jwt.encode({'sub': 'ann', 'exp': 10**10}, None, algorithm='none')}",
    ],
)
async def test_401(api: Api, authorization: str) -> None:
    for method, path in (
        ("POST", "/v1/tickets"),
        ("GET", "/v1/tickets/duel.x"),
        ("DELETE", "/v1/tickets/duel.x"),
        ("GET", "/v1/tickets/duel.x/events"),
        ("GET", "/v1/sessions/arena.x/seat"),
    ):
        headers = {"Authorization": authorization} if authorization else {}
        reply = await api.ask(method, path, by="", headers=headers, json=ticket("ann") if method == "POST" else None)
        problem(reply, 401, "unauthorized")
        assert reply.headers["www-authenticate"] == "Bearer"


async def test_403_for_a_party_without_oneself(api: Api) -> None:
    await api.refused(403, "not-your-party", "POST", "/v1/tickets", by="eve", json=ticket("ann"))


async def test_404(api: Api) -> None:
    """What does not exist and what belongs to others look the same."""
    made = await api.queue("ann")
    for name in (made["id"], "duel.unknown", "nowhere.x", "x", "%00", "%ff.%ff"):
        for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/events")):
            await api.refused(404, "not-found", method, f"/v1/tickets/{name}{rest}", by="eve")
    await api.refused(404, "", "GET", "/v1/nothing")
    await api.refused(405, "", "PUT", "/v1/tickets")


async def test_409_for_a_second_live_ticket(api: Api) -> None:
    made = await api.queue("ann")
    body = await api.refused(409, "live-ticket", "POST", "/v1/tickets", json=ticket("ann"))
    assert body["ticket"] == made["id"]


async def test_409_for_a_ticket_that_is_being_placed(api: Api, valkey: StoreClient) -> None:
    api.allocator.hold.clear()
    async with directing(api, valkey):
        made = [await api.queue(name) for name in ("ann", "bob")]
        path = f"/v1/tickets/{made[0]['id']}"
        await until(lambda: _state_is(api, path, "placing"))
        await api.refused(409, "too-late", "DELETE", path)
        api.allocator.hold.set()
        await until(lambda: _state_is(api, path, "assigned"))


async def _state_is(api: Api, path: str, state: str) -> bool:
    return (await api.ask("GET", path)).json()["state"] == state


async def test_413_whether_the_length_is_declared_or_not(api: Api) -> None:
    large = b" " * MAX_BODY_BYTES + b"{}"

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(large), 8192):
            yield large[start : start + 8192]

    await api.refused(413, "too-large", "POST", "/v1/tickets", content=large)
    chunked = {"Content-Type": "application/json"}
    await api.refused(413, "too-large", "POST", "/v1/tickets", content=pieces(), headers=chunked)


SQUADDIE = {"id": "ann", "attributes": {"mode": "ctf", "maps": ["ice"]}, "latencies": {"eu": 20}}


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("", "body"),
        ("{", "body"),
        ("[]", "body"),
        ("{}", "queue"),
        (json.dumps(ticket("ann") | {"extra": 1}), "extra"),
        (json.dumps(ticket("ann", queue="nowhere")), "there are: duel, squad, small"),
        (json.dumps({"queue": "duel", "players": []}), "players"),
        (json.dumps(ticket("ann", "bob")), "a larger party"),
        (json.dumps(ticket("ann", "ann", queue="squad")), "twice"),
        (json.dumps(ticket("ann", rating=float("nan"))), "rating"),
        (json.dumps(ticket("ann", rating=float("-inf"))), "rating"),
        (json.dumps(ticket("ann")).replace("1500", "1e999"), "rating"),
        (json.dumps(ticket("ann", rating=True)), "rating"),
        (json.dumps(ticket("ann", rating=None)), "rating"),
        (json.dumps(ticket("ann", rating="1500")), "players.0.attributes.rating: queue duel wants a number"),
        (json.dumps(ticket("ann", rating=["1500"])), "players.0.attributes.rating: queue duel wants a number"),
        (json.dumps(ticket("ann", rating=[1500])), "rating"),
        (json.dumps(ticket("ann", rating={"mean": 1500})), "rating"),
        (json.dumps({"queue": "duel", "players": [{"id": "ann"}]}), "players.0.attributes.rating"),
        (json.dumps(ticket("an n")), "players.0.id"),
        (json.dumps(ticket("a{nn}")), "players.0.id"),
        (json.dumps(ticket("a" * 65)), "players.0.id"),
        (json.dumps(ticket("a\x00")), "players.0.id"),
        ('{"queue": "duel", "players": [{"id": "\\ud800"}]}', "body"),
        (json.dumps({"queue": "squad", "players": [SQUADDIE | {"latencies": {}}]}), "players.0.latencies"),
        (
            json.dumps({"queue": "squad", "players": [SQUADDIE | {"latencies": {"mars": 5}}]}),
            "players.0.latencies: queue squad wants the round trip to one of its regions, in ms: eu",
        ),
        (
            json.dumps({"queue": "squad", "players": [SQUADDIE | {"latencies": {f"r{i}": 5 for i in range(65)}}]}),
            "players.0.latencies: ",
        ),
        (
            '{"queue": "squad", "players": [{"id": "ann", "attributes": {"skill": {"tank": NaN}}}]}',
            "body.players.0.attributes.skill: a number, a string of 256 characters at most, a list of 64 strings",
        ),
        (
            json.dumps({"queue": "squad", "players": [SQUADDIE | {"attributes": {"mode": None}}]}),
            "body.players.0.attributes.mode: a number, a string",
        ),
        (json.dumps({"queue": "squad", "players": [SQUADDIE | {"latencies": {"eu": -1}}]}), "latencies.eu"),
        (
            json.dumps({"queue": "squad", "players": [SQUADDIE | {"latencies": {"eu": float("nan")}}]}),
            "eu: true, false, NaN",
        ),
        (json.dumps({"queue": "squad", "players": [SQUADDIE | {"latencies": {"eu": True}}]}), "eu: true, false, NaN"),
        (json.dumps({"queue": "squad", "players": [SQUADDIE | {"attributes": {"maps": ["ice"]}}]}), "mode"),
        (json.dumps({"queue": "squad", "players": [SQUADDIE | {"attributes": {"mode": "ctf"}}]}), "maps"),
        (
            json.dumps({"queue": "squad", "players": [SQUADDIE | {"attributes": {"mode": "ctf", "maps": "ice"}}]}),
            "players.0.attributes.maps: queue squad wants a list of strings",
        ),
    ],
)
async def test_422_names_the_field(api: Api, body: str, names: str) -> None:
    headers = {"Content-Type": "application/json"}
    refused = await api.refused(422, "invalid", "POST", "/v1/tickets", content=body, headers=headers)
    assert names in refused["detail"]
    assert (await api.ask("GET", "/v1/queues")).json()[0]["depth"] == 0


@pytest.mark.parametrize("wait", ["nan", "-1", "61", "inf", "soon"])
async def test_422_for_a_wait_that_is_none(api: Api, wait: str) -> None:
    made = await api.queue("ann")
    await api.refused(422, "invalid", "GET", f"/v1/tickets/{made['id']}", params={"wait": wait})


async def test_a_number_too_long_to_parse_is_refused(api: Api) -> None:
    headers = {"Content-Type": "application/json"}
    body = json.dumps(ticket("ann")).replace("1500", "1" * 5000)
    reply = await api.ask("POST", "/v1/tickets", content=body, headers=headers)
    assert reply.status_code in (400, 422)
    made = await api.queue("ann")
    headers = {"Last-Event-ID": "9" * 5000}
    await api.refused(422, "invalid", "GET", f"/v1/tickets/{made['id']}/events", headers=headers)


async def test_429_says_when_to_come_back_and_is_each_players_own(valkey: StoreClient) -> None:
    app, _ = make(valkey, FakeAllocator(), requests_per_s=0.5)
    async with serving(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        api = Api(url, http, FakeAllocator())
        for _ in range(2):
            await api.refused(404, "not-found", "GET", "/v1/tickets/duel.x")
        reply = await api.ask("GET", "/v1/tickets/duel.x")
        problem(reply, 429, "rate-limit")
        assert 1 <= int(reply.headers["retry-after"]) <= 3
        await api.refused(404, "not-found", "GET", "/v1/tickets/duel.x", by="bob")


async def test_503_when_the_queue_is_full_or_the_store_is_away(api: Api) -> None:
    reply = await api.ask("POST", "/v1/tickets", json=ticket("ann", queue="small"))
    problem(reply, 503, "queue-full")
    assert reply.headers["retry-after"] == "5"
    nowhere = connect(f"redis://127.0.0.1:{free_port()}/0")
    app, _ = make(nowhere, FakeAllocator())
    async with serving(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        away = Api(url, http, FakeAllocator())
        for method, path in (
            ("POST", "/v1/tickets"),
            ("GET", "/v1/tickets/duel.x"),
            ("DELETE", "/v1/tickets/duel.x"),
            ("GET", "/v1/tickets/duel.x/events"),
            ("GET", "/v1/queues"),
            ("GET", "/readyz"),
        ):
            reply = await away.ask(method, path, json=ticket("ann") if method == "POST" else None)
            problem(reply, 503, "store-unavailable")
            assert reply.headers["retry-after"] == "1"
        assert (await away.ask("GET", "/healthz")).text == "ok\n"
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            await watch(away, "duel.x")
        assert refused.value.response.status_code == 503
    await nowhere.aclose()


async def test_500_has_an_id_and_no_secrets(valkey: StoreClient) -> None:
    class Broken(FakeAllocator):
        async def find(self, session: object) -> None:
            raise RuntimeError("the password is swordfish")

    app, _ = make(valkey, Broken())
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(base_url="http://127.0.0.1", transport=transport) as http:
        body = await Api("", http, Broken()).refused(500, "internal", "GET", "/v1/sessions/arena.x/seat")
    assert "swordfish" not in json.dumps(body)


def events_of(text: str) -> list[tuple[int, dict[str, Any]]]:
    found = []
    for block in filter(None, text.split("\n\n")):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            assert fields["event"] == "state"
            found.append((int(fields["id"]), json.loads(fields["data"])))
    return found


async def test_events_are_followed_to_the_end_and_resumed(api: Api, valkey: StoreClient) -> None:
    ann = await api.queue("ann")
    path = f"/v1/tickets/{ann['id']}/events"
    following = asyncio.create_task(api.ask("GET", path))
    async with directing(api, valkey):
        await until(lambda: _state_is(api, f"/v1/tickets/{ann['id']}", "searching"))
        await api.queue("bob")
        reply = await following
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["cache-control"] == "no-store"
    events = events_of(reply.text)
    ids = [number for number, _ in events]
    assert ids == sorted(set(ids))
    states = [body["state"] for _, body in events]
    order = ("queued", "searching", "placing", "assigned")
    assert states == [state for state in order if state in states]
    assert states[-1] == "assigned"
    last = events[-1][1]["assignment"]
    assert last["ports"] == {"websocket": 7001}
    for after, wanted in ((ids[-1] - 1, [ids[-1]]), (ids[-1], []), (0, [ids[-1]])):
        resumed = await api.ask("GET", path, headers={"Last-Event-ID": str(after)})
        assert [number for number, _ in events_of(resumed.text)] == wanted
    rubbish = await api.ask("GET", path, headers={"Last-Event-ID": "rubbish"})
    assert [number for number, _ in events_of(rubbish.text)] == [ids[-1]]


async def test_an_outage_swallows_no_event(api: Api, valkey: StoreClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The allocator's part of the store is away while the last event is made up: it is made up again."""
    ann = await api.queue("ann")
    path = f"/v1/tickets/{ann['id']}"
    async with directing(api, valkey):
        await api.queue("bob")
        await until(lambda: _state_is(api, path, "assigned"))
    monkeypatch.setattr("matchmaker.api.tickets._FRESH_S", 0.0)
    find, failures = api.allocator.find, 2

    async def failing(session: Any) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise StoreUnavailable("away")
        return await find(session)

    api.allocator.find = failing  # type: ignore[method-assign]
    events = events_of((await api.ask("GET", f"{path}/events")).text)
    assert not failures
    assert events[-1][1]["state"] == "assigned"


async def watch(api: Api, name: str, *, by: str = "ann") -> websockets.ClientConnection:
    url = f"{api.url.replace('http', 'ws')}/v1/tickets/{name}/watch"
    protocols = [websockets.Subprotocol("warmfleet.tickets.1"), websockets.Subprotocol(f"bearer.{token(by)}")]
    return await websockets.connect(url, subprotocols=protocols, proxy=None)


async def test_watching_over_websocket(api: Api, valkey: StoreClient) -> None:
    ann = await api.queue("ann")
    socket = await watch(api, ann["id"])
    assert socket.subprotocol == "warmfleet.tickets.1"
    assert json.loads(await socket.recv())["state"] == "queued"
    async with directing(api, valkey):
        await api.queue("bob")
        states = [json.loads(message) async for message in socket]
    assert states[-1]["state"] == "assigned"
    assert states[-1]["assignment"]["seat"]["team"] in ("red", "blue")
    assert socket.close_code == 1000


async def test_a_watch_is_refused_with_a_problem(api: Api) -> None:
    ann = await api.queue("ann")
    for name, by, status in ((ann["id"], "", 401), (ann["id"], "eve", 404), ("duel.x", "ann", 404)):
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            await watch(api, name, by=by)
        assert refused.value.response.status_code == status
        assert refused.value.response.headers["content-type"] == "application/problem+json"


async def test_a_watcher_that_has_gone_is_forgotten(valkey: StoreClient) -> None:
    app, ticket_watch = make(valkey, FakeAllocator())
    async with serving(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        api = Api(url, http, FakeAllocator())
        ann = await api.queue("ann")
        socket = await watch(api, ann["id"])
        await socket.recv()
        assert ticket_watch.tickets._followers
        await socket.close()

        async def forgotten() -> bool:
            return not ticket_watch.tickets._followers

        await until(forgotten)


async def test_long_poll(api: Api, valkey: StoreClient) -> None:
    ann = await api.queue("ann")
    path = f"/v1/tickets/{ann['id']}"
    assert (await api.ask("GET", path, params={"wait": 0.05})).json()["state"] == "queued"
    polling = asyncio.create_task(api.ask("GET", path, params={"wait": 20}))
    await asyncio.sleep(0.05)
    assert (await api.ask("DELETE", path)).status_code == 204
    assert (await polling).json()["state"] == "cancelled"
    assert (await api.ask("GET", path, params={"wait": 20})).json()["state"] == "cancelled"


@pytest.mark.parametrize(
    ("domain", "address", "host"),
    [
        ("", "203.0.113.7", "203.0.113.7"),
        ("games.example", "203.0.113.7", "203-0-113-7.games.example"),
        ("games.example", "2001:db8::1", "2001-0db8-0000-0000-0000-0000-0000-0001.games.example"),
        ("games.example", "node-1.example", "node-1.example"),
    ],
)
async def test_players_are_told_of_tls(valkey: StoreClient, domain: str, address: str, host: str) -> None:
    """Of a fleet that speaks it, with a name that its certificate can be for."""
    async with running(valkey, secure={FleetName("arena"): domain}) as api, directing(api, valkey):
        api.allocator.host = address
        async with Matchmaking(api.url, token("ann")) as ann:
            made = await api.queue("ann")
            await api.queue("bob")
            assignment = await ann.assignment(made["id"])
            again = await ann.seat(assignment["session"])
    for told in (assignment, again):
        assert (told["host"], told["secure"]) == (host, True)


async def test_seats(api: Api, valkey: StoreClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh token each time that the server takes once; nobody else's seat, and none of a match that is over."""
    async with directing(api, valkey), Matchmaking(api.url, token("ann")) as ann:
        made = await api.queue("ann")
        await api.queue("bob")
        assignment = await ann.assignment(made["id"])
        first, second = await ann.seat(assignment["session"]), await ann.seat(assignment["session"])
    assert first["host"] == "h"
    assert "secure" not in first
    assert {**first, "token": ""} == {**second, "token": ""} == {**assignment, "token": ""}
    verifier = SeatVerifier([SEATS.public_key], ServerName(first["server"]))
    assert len({assignment["token"], first["token"], second["token"]}) == 3
    for each in (assignment, first, second):
        grant = verifier.verify(each["token"], time.time())
        assert (grant.player, grant.session, grant.epoch) == ("ann", first["session"], 1)
        assert (grant.seat, grant.team) == (each["seat"]["index"], each["seat"]["team"])
    with pytest.raises(SeatRefused):
        verifier.verify(first["token"], time.time())
    path = f"/v1/sessions/{first['session']}/seat"
    await api.refused(403, "no-seat", "GET", path, by="eve")
    await api.refused(404, "not-found", "GET", "/v1/sessions/arena.unknown/seat")
    await api.refused(404, "not-found", "GET", "/v1/sessions/rubbish/seat")
    (name, placed), *_ = api.allocator.sessions.items()
    api.allocator.sessions[name] = replace(
        placed, session=replace(placed.session, epoch=2, server=ServerName("arena-2"))
    )
    moved = (await api.ask("GET", path)).json()
    assert (moved["epoch"], moved["server"]) == (2, "arena-2")
    assert SeatVerifier([SEATS.public_key], ServerName("arena-2")).verify(moved["token"], time.time()).epoch == 2
    api.allocator.sessions[name] = replace(placed, session=replace(placed.session, state=SessionState.ENDED))
    await api.refused(410, "over", "GET", path)
    monkeypatch.setattr("matchmaker.api.tickets._FRESH_S", 0.0)
    over = (await api.ask("GET", f"/v1/tickets/{made['id']}")).json()
    assert over["reason"] == "the match is over"
    assert "assignment" not in over


async def test_a_match_is_accepted_over_http(api: Api, valkey: StoreClient) -> None:
    """Each player sees how many have accepted, and until when; who declines is told so, and the other is back in the queue."""
    asked = replace(RATED, acceptance_s=20.0)
    task = asyncio.create_task(Director(asked, TicketStore(valkey), api.allocator).run())
    made = {name: await api.queue(name) for name in ("ann", "bob")}
    paths = {name: f"/v1/tickets/{body['id']}" for name, body in made.items()}
    await until(lambda: _state_is(api, paths["ann"], "proposed"))
    reply = await api.ask("POST", f"{paths['ann']}/acceptance", json={"accept": True})
    assert reply.status_code == 200
    acceptance = reply.json()["acceptance"]
    assert acceptance.pop("deadline").endswith("Z")
    assert acceptance == {"accepted": 1, "players": 2}
    await api.refused(404, "not-found", "POST", f"{paths['bob']}/acceptance", json={"accept": True})
    await api.refused(422, "invalid", "POST", f"{paths['ann']}/acceptance", json={"accept": 1})
    reply = await api.ask("POST", f"{paths['bob']}/acceptance", by="bob", json={"accept": False})
    assert (reply.status_code, reply.json()["state"], reply.json()["reason"]) == (200, "cancelled", "declined")
    assert (await api.ask("GET", paths["ann"])).json()["state"] == "searching"
    await api.refused(409, "too-late", "POST", f"{paths['bob']}/acceptance", by="bob", json={"accept": True})
    bob = await api.queue("bob")
    await until(lambda: _state_is(api, paths["ann"], "proposed"))
    for name, path in (("ann", paths["ann"]), ("bob", f"/v1/tickets/{bob['id']}")):
        reply = await api.ask("POST", f"{path}/acceptance", by=name, json={"accept": True})
        assert reply.status_code == 200
    await until(lambda: _state_is(api, paths["ann"], "assigned"))
    await api.refused(409, "too-late", "POST", f"{paths['ann']}/acceptance", json={"accept": False})
    task.cancel()
    await asyncio.wait([task])


async def test_development_players(api: Api) -> None:
    (one, bearer), (other, _) = await development_player(api.url, "Ann B."), await development_player(api.url, "Ann B.")
    assert one.startswith("Ann-B-")
    assert one != other
    headers = {"Authorization": f"Bearer {bearer}"}
    reply = await api.ask("POST", "/v1/tickets", by="", headers=headers, json=ticket(one))
    assert reply.status_code == 201
