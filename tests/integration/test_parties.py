"""Parties over real HTTP: who gets in, who is ready, one ticket for all, and what a leaver takes along."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from matchmaker_api import SQUAD, Api, directing, problem
from matchmaking import until

from gameserver.sessions.client import StoreClient
from matchmaker.model import TicketId
from matchmaker.parties.model import PartyId
from matchmaker.parties.store import PREFIX, PartyStore
from matchmaker.store import TicketStore

BRINGS = {"attributes": {"mode": "ctf", "maps": ["ice"]}, "latencies": {"eu": 20}}


async def create(api: Api, leader: str = "ann") -> dict[str, Any]:
    reply = await api.ask("POST", "/v1/parties", by=leader, json=BRINGS)
    assert reply.status_code == 201, reply.text
    assert reply.headers["location"] == f"/v1/parties/{reply.json()['id']}"
    return dict(reply.json())


async def join(api: Api, party: dict[str, Any], player: str) -> dict[str, Any]:
    reply = await api.ask("POST", "/v1/parties/join", by=player, json={"code": party["code"], **BRINGS})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def ready(api: Api, party: dict[str, Any], player: str, *, says: bool = True) -> httpx.Response:
    return await api.ask("PUT", f"/v1/parties/{party['id']}/members/{player}", by=player, json={"ready": says})


async def queue(api: Api, party: dict[str, Any], *, by: str = "ann", queue: str = "squad") -> httpx.Response:
    return await api.ask("POST", f"/v1/parties/{party['id']}/tickets", by=by, json={"queue": queue})


async def queued(api: Api) -> tuple[dict[str, Any], str]:
    """Ann's party with Bob, and the ticket under which it waits."""
    party = await create(api)
    await join(api, party, "bob")
    await ready(api, party, "bob")
    reply = await queue(api, party)
    assert reply.status_code == 201, reply.text
    return party, reply.json()["id"]


async def look(api: Api, party: dict[str, Any], *, by: str = "ann") -> dict[str, Any]:
    reply = await api.ask("GET", f"/v1/parties/{party['id']}", by=by)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def test_a_party_is_made_joined_by_its_code_and_seen_by_its_members(api: Api) -> None:
    party = await create(api)
    assert party["leader"] == "ann"
    assert party["size"] == 2
    assert party["members"] == [{"id": "ann", "ready": False, **BRINGS}]
    joined = await join(api, {"code": party["code"].lower()}, "bob")
    assert [member["id"] for member in joined["members"]] == ["ann", "bob"]
    assert await join(api, party, "bob") == joined, "joining may be repeated"
    assert await look(api, party) == joined == (await api.ask("GET", "/v1/parties/mine", by="bob")).json()
    await api.refused(404, "not-found", "GET", f"/v1/parties/{party['id']}", by="eve")
    await api.refused(404, "not-found", "GET", "/v1/parties/mine", by="eve")


async def test_a_party_has_a_size_and_a_player_one_party(api: Api) -> None:
    party = await create(api)
    await join(api, party, "bob")
    code = {"code": party["code"]}
    await api.refused(409, "party-full", "POST", "/v1/parties/join", by="cat", json=code)
    body = await api.refused(409, "in-party", "POST", "/v1/parties", by="bob", json={})
    assert body["party"] == party["id"]
    other = await create(api, "dan")
    await api.refused(409, "in-party", "POST", "/v1/parties/join", by="bob", json={"code": other["code"]})


async def test_codes_cannot_be_guessed(api: Api) -> None:
    """After ten wrong ones even the right one is not looked at; other players are not held up."""
    party = await create(api)
    for number in range(10):
        await api.refused(404, "not-found", "POST", "/v1/parties/join", by="eve", json={"code": f"WRONG{number}"})
    reply = await api.ask("POST", "/v1/parties/join", by="eve", json={"code": party["code"]})
    problem(reply, 429, "rate-limit")
    assert 1 <= int(reply.headers["retry-after"]) <= 301
    await join(api, party, "bob")


async def test_a_party_is_queued_by_its_leader_once_all_are_ready_as_one_ticket(api: Api, valkey: StoreClient) -> None:
    party = await create(api)
    await join(api, party, "bob")
    assert problem(await queue(api, party), 409, "unready")["player"] == "bob"
    problem(await queue(api, party, by="bob"), 403, "not-leader")
    await api.refused(403, "forbidden", "PUT", f"/v1/parties/{party['id']}/members/bob", by="ann", json={"ready": True})
    assert (await ready(api, party, "bob")).json()["members"][1]["ready"]
    made = await queue(api, party)
    assert made.status_code == 201
    assert [player["id"] for player in made.json()["players"]] == ["ann", "bob"]
    again = await queue(api, party)
    assert (again.status_code, again.json()["id"]) == (200, made.json()["id"])
    for player in ("ann", "bob"):
        assert (await look(api, party, by=player))["ticket"] == made.json()["id"]
        assert (await api.ask("GET", made.headers["location"], by=player)).status_code == 200
    problem(await ready(api, party, "bob", says=False), 409, "queued")
    await api.refused(409, "queued", "POST", "/v1/parties/join", by="eve", json={"code": party["code"]})
    async with directing(api, valkey, queue=SQUAD):
        for name in ("cat", "dan"):
            await api.ask("POST", "/v1/tickets", by=name, json={"queue": "squad", "players": [{"id": name, **BRINGS}]})
        await until(lambda: _is(api, made.headers["location"], "assigned"))
    after = await look(api, party)
    assert "ticket" not in after
    assert after["lastTicket"] == made.json()["id"]
    assert not any(member["ready"] for member in after["members"])


async def _is(api: Api, path: str, state: str) -> bool:
    return (await api.ask("GET", path)).json()["state"] == state


async def test_what_a_queue_refuses_gives_the_party_back(api: Api) -> None:
    party = await create(api)
    problem(await queue(api, party, queue="duel"), 422, "invalid")  # its rating is missing
    problem(await queue(api, party, queue="nowhere"), 422, "invalid")
    assert "ticket" not in await look(api, party)
    assert (await queue(api, party)).status_code == 201


@pytest.mark.parametrize(("by", "gone"), [("bob", "bob"), ("ann", "bob"), ("ann", "ann")])
async def test_whoever_leaves_takes_the_ticket_back(api: Api, by: str, gone: str) -> None:
    """Leaves, is removed, or leads: nobody waits for a match that the party is too small for, and the others say anew that they are ready."""
    party, waiting = await queued(api)
    reply = await api.ask("DELETE", f"/v1/parties/{party['id']}/members/{gone}", by=by)
    assert reply.status_code == 204, reply.text
    stays = "ann" if gone == "bob" else "bob"
    assert (await api.ask("GET", f"/v1/tickets/{waiting}", by=stays)).json()["state"] == "cancelled"
    left = await look(api, party, by=stays)
    assert left["leader"] == stays
    assert left["members"] == [{"id": stays, "ready": False, **BRINGS}]
    assert "ticket" not in left
    reply = await api.ask("POST", "/v1/parties/join", by=gone, json={"code": party["code"]})
    assert reply.status_code == (403 if by != gone else 200), "who was removed does not come back"


async def test_only_the_leader_removes_others(api: Api) -> None:
    party = await create(api)
    await join(api, party, "bob")
    path = f"/v1/parties/{party['id']}/members"
    await api.refused(403, "not-leader", "DELETE", f"{path}/ann", by="bob")
    await api.refused(404, "not-found", "DELETE", f"{path}/eve", by="ann")
    await api.refused(404, "not-found", "DELETE", f"{path}/ann", by="eve")


async def test_the_last_to_leave_ends_the_party(api: Api, valkey: StoreClient) -> None:
    party = await create(api)
    await api.ask("DELETE", f"/v1/parties/{party['id']}/members/ann")
    await api.refused(404, "not-found", "GET", f"/v1/parties/{party['id']}")
    assert await valkey.keys(f"{PREFIX}*") == []
    await create(api)


async def test_everything_about_a_party_expires(api: Api, valkey: StoreClient) -> None:
    party = await create(api)
    await join(api, party, "bob")
    await api.ask("POST", "/v1/parties/join", by="eve", json={"code": "WRONG"})
    for key in await valkey.keys(f"{PREFIX}*"):
        assert 0 < await valkey.pttl(key) <= 3_600_000, key


async def test_a_ticket_that_was_noted_and_never_made_does_not_hold_a_party(
    api: Api, valkey: StoreClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that queued the party died between the two steps: the leader's repetition makes that very ticket, and a look frees the party."""
    party = await create(api)
    store = PartyStore(valkey)
    await store.queue(PartyId(party["id"]), "ann", SQUAD.name, TicketId("squad.ghost"))  # type: ignore[arg-type]
    assert (await look(api, party))["ticket"] == "squad.ghost"
    reply = await queue(api, party)
    assert (reply.status_code, reply.json()["id"]) == (200, "squad.ghost")
    await TicketStore(valkey).cancel(TicketId("squad.ghost"))
    assert "ticket" not in await look(api, party)
    await store.queue(PartyId(party["id"]), "ann", SQUAD.name, TicketId("squad.ghost-2"))  # type: ignore[arg-type]
    monkeypatch.setattr("matchmaker.api.parties._CREATION_S", 0.0)
    assert "ticket" not in await look(api, party)


async def events(reply: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in reply.aiter_lines():
        if line.startswith("data:"):
            yield json.loads(line[5:])


async def test_a_party_is_followed_through_its_ticket_until_one_is_out(api: Api, valkey: StoreClient) -> None:
    party = await create(api)
    headers = {"Authorization": f"Bearer {api.token('ann')}"}
    async with api.http.stream("GET", f"/v1/parties/{party['id']}/events", headers=headers) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        async with aclosing(events(reply)) as changes:

            async def after(wanted: Any) -> dict[str, Any]:
                async with asyncio.timeout(20):
                    while not wanted(seen := await anext(changes)):
                        pass
                return seen

            await after(lambda seen: len(seen["members"]) == 1)
            await join(api, party, "bob")
            await after(lambda seen: len(seen["members"]) == 2)
            await ready(api, party, "bob")
            await after(lambda seen: seen["members"][1]["ready"])
            made = (await queue(api, party)).json()["id"]
            await after(lambda seen: seen.get("ticket") == made)
            await api.ask("DELETE", f"/v1/tickets/{made}", by="bob")
            last = await after(lambda seen: "ticket" not in seen)
            assert last["lastTicket"] == made
            await api.ask("DELETE", f"/v1/parties/{party['id']}/members/ann")
            assert [seen async for seen in changes] == [], "the stream ends with the membership"


async def test_members_only_and_nobody_else_follow(api: Api) -> None:
    party = await create(api)
    await api.refused(404, "not-found", "GET", f"/v1/parties/{party['id']}/events", by="eve")
    await api.refused(401, "unauthorized", "GET", f"/v1/parties/{party['id']}/events", by="")
    await api.refused(401, "unauthorized", "POST", "/v1/parties", by="", json={})


async def test_two_who_join_at_once_do_not_both_get_the_last_place(api: Api) -> None:
    party = await create(api)
    names = ("bob", "cat", "dan", "eve")
    replies = await asyncio.gather(
        *(api.ask("POST", "/v1/parties/join", by=name, json={"code": party["code"]}) for name in names)
    )
    assert sorted(reply.status_code for reply in replies) == [200, 409, 409, 409]
    assert len((await look(api, party))["members"]) == 2
