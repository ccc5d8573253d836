"""Explanations and estimated waits over HTTP."""

import asyncio
from functools import partial
from typing import Any

from matchmaker_api import RATED, Api, directing, problem, running
from matchmaking import until

from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import FleetName
from matchmaker.model import QueueName
from matchmaker.records import Closed
from matchmaker.store import TicketStore


class Warm:
    """So many rooms."""

    free = 0

    async def free_rooms(self, fleets: Any) -> dict[FleetName, int]:
        return dict.fromkeys(fleets, self.free)


async def explained(api: Api, ticket: dict[str, Any], *, by: str = "ann") -> dict[str, Any]:
    reply = await api.ask("GET", f"/v1/tickets/{ticket['id']}/explanation", by=by)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def test_a_wait_is_explained_by_the_rule_that_blocks(api: Api) -> None:
    ann = await api.queue("ann", rating=1500)
    assert (await explained(api, ann))["verdict"] == "few-players"
    await asyncio.sleep(2.1)  # for so long the others are not read again
    await api.queue("bob", rating=1700)
    found = await explained(api, ann)
    assert (found["verdict"], found["blocking"]) == ("rule", 0)
    assert found["rules"] == [
        {"rule": "difference rating", "limit": 100, "fits": 0, "fitsNext": 0, "alone": 1, "nearest": 200}
    ]
    assert found["waiting"] == {"tickets": 1, "lookedAt": 1}
    assert found["candidates"] == {"tickets": 0, "players": 0, "wanted": 1}
    assert found["supply"] == {"waits": False}
    assert "bob" not in str(found), "no other player is named"


async def test_an_explanation_is_for_the_ticket_s_own(api: Api) -> None:
    ann = await api.queue("ann")
    problem(await api.ask("GET", f"/v1/tickets/{ann['id']}/explanation", by="eve"), 404, "not-found")
    problem(await api.ask("GET", f"/v1/tickets/{ann['id']}/explanation", by=""), 401, "unauthorized")


async def test_servers_and_operators_are_named_where_they_are_the_matter(valkey: StoreClient) -> None:
    supply = Warm()
    async with running(valkey, supply=supply) as api:
        ann = await api.queue("ann")
        await TicketStore(valkey).close(QueueName("duel"), Closed.PAUSED)
        assert (await explained(api, ann))["verdict"] == "paused"
        await TicketStore(valkey).close(QueueName("duel"), Closed.OPEN)
        api.allocator.hold.clear()
        async with directing(api, valkey):
            await api.queue("bob")

            async def placing() -> bool:
                return (await explained(api, ann))["state"] == "placing"

            await until(placing)
            found = await explained(api, ann)
            assert (found["verdict"], found["supply"]) == ("server", {"free": 0, "waits": True})
            supply.free = 3
            assert (await explained(api, ann))["supply"] == {"free": 3, "waits": False}
            api.allocator.hold.set()

            async def over() -> bool:
                return (await explained(api, ann))["verdict"] == "over"

            await until(over)


async def test_tickets_are_told_how_long_they_will_wait(api: Api, valkey: StoreClient) -> None:
    """Nothing at first; then what others waited, and the queue says how far off that was."""
    assert "estimatedWait" not in await api.queue("zoe", rating=9000)
    async with directing(api, valkey):
        for number in range(12):
            pair = [await api.queue(f"{name}{number}") for name in ("a", "b")]
            for name, ticket in zip(("a", "b"), pair, strict=True):
                await until(partial(_assigned, api, f"/v1/tickets/{ticket['id']}", f"{name}{number}"))
    late = await api.queue("ann")
    assert 0 <= late["estimatedWait"]["seconds"] <= late["estimatedWait"]["within"]
    queue = next(q for q in (await api.ask("GET", "/v1/queues")).json() if q["name"] == RATED.name)
    assert queue["estimatedWait"]["seconds"] <= queue["estimatedWait"]["within"]
    assert queue["estimatedWait"]["error"] >= 0
    text = (await api.ask("GET", "/metrics")).text
    assert 'warmfleet_wait_estimate_error_seconds_count{queue="duel"}' in text


async def _assigned(api: Api, path: str, player: str) -> bool:
    return (await api.ask("GET", path, by=player)).json()["state"] == "assigned"
