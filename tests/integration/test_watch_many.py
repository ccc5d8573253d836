"""Many tickets followed over one WebSocket, against the API over real HTTP."""

import json
from typing import Any

import pytest
import websockets
from matchmaker_api import Api, directing, token
from matchmaking import until

from gameserver.sessions.client import StoreClient
from matchmaker.api import many


async def watch(api: Api, *, by: str = "ann") -> websockets.ClientConnection:
    url = f"{api.url.replace('http', 'ws')}/v1/tickets/watch"
    protocols = [websockets.Subprotocol("warmfleet.tickets.1"), websockets.Subprotocol(f"bearer.{token(by)}")]
    return await websockets.connect(url, subprotocols=protocols, proxy=None)


async def say(socket: websockets.ClientConnection, **words: Any) -> None:
    await socket.send(json.dumps(words))


async def test_tickets_are_followed_until_they_are_over_and_the_connection_stays(api: Api, valkey: StoreClient) -> None:
    ann = await api.queue("ann")
    async with await watch(api) as socket:
        await say(socket, follow=[ann["id"], ann["id"], "duel.none"])
        heard = [json.loads(await socket.recv()) for _ in range(2)]
        assert {message["id"]: message.get("state", "error") for message in heard} == {
            ann["id"]: "queued",
            "duel.none": "error",
        }
        async with directing(api, valkey):
            bob = await api.queue("bob")
            last = json.loads(await socket.recv())
            while last["state"] != "assigned":
                last = json.loads(await socket.recv())
            assert last["assignment"]["seat"]["team"] in ("red", "blue")
        await say(socket, follow=[bob["id"]])
        assert "error" in json.loads(await socket.recv()), "another player's"
        again = await api.queue("ann")
        await say(socket, follow=[again["id"]])
        assert json.loads(await socket.recv())["state"] == "queued"
        await say(socket, unfollow=[again["id"]], follow=["duel.none"])
        assert json.loads(await socket.recv())["id"] == "duel.none"
        await api.ask("DELETE", f"/v1/tickets/{again['id']}")
        await say(socket, follow=["duel.last"])
        assert json.loads(await socket.recv())["id"] == "duel.last", "of a ticket that is not followed nothing is told"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("no", "JSON"),
        ("[1]", "JSON"),
        ('{"follow": "duel.x"}', "list"),
        ('{"follow": [1]}', "list"),
        ('{"follow": [], "other": 1}', "nothing else"),
        (json.dumps({"follow": ["x"] * 1001}), "1000"),
    ],
)
async def test_what_cannot_be_understood_closes_the_connection_with_a_reason(api: Api, said: str, why: str) -> None:
    async with await watch(api) as socket:
        await socket.send(said)
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 1008
        assert why in (socket.close_reason or "")


async def test_no_more_tickets_are_followed_than_may_be(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "MOST", 1)
    ann, other = await api.queue("ann"), "duel.other"
    async with await watch(api) as socket:
        await say(socket, follow=[ann["id"], other])
        with pytest.raises(websockets.ConnectionClosed):
            while True:
                await socket.recv()
        assert socket.close_code == 1008


async def test_strangers_and_other_paths_are_refused(api: Api) -> None:
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        await watch(api, by="")
    assert refused.value.response.status_code == 401
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        await websockets.connect(f"{api.url.replace('http', 'ws')}/v1/tickets/other", proxy=None)
    assert refused.value.response.status_code == 404


async def test_followers_go_with_their_connection(api: Api) -> None:
    ann = await api.queue("ann")
    socket = await watch(api)
    await say(socket, follow=[ann["id"]])
    await socket.recv()
    before = await _watchers(api)
    await socket.close()

    async def fewer() -> bool:
        return await _watchers(api) == before - 1

    await until(fewer)


async def _watchers(api: Api) -> float:
    lines = (await api.ask("GET", "/metrics", by="")).text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith("warmfleet_") and "watchers " in line)
