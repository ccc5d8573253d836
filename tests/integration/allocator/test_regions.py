"""
The whole way from tickets to servers over several clusters.

Each match goes where its slowest player is nearest, is shared by weight among those as near, and goes elsewhere when a cluster is cut off.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from fakes import FakeBackend
from matchmaking import until

from allocator.backends.several import Several
from allocator.keeper import ShelfKeeper
from allocator.model import FleetPolicy
from allocator.service import Allocator
from allocator.shelf import Shelf
from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import FleetName, PlayerId, fleet_of
from matchmaker.director import Director
from matchmaker.model import QueueConfig, QueueName, Team, TicketId, TicketPlayer, TicketState
from matchmaker.records import TicketRecord
from matchmaker.store import TicketStore

EU, US, BIG = FleetName("arena-eu"), FleetName("arena-us"), FleetName("arena-us-big")
POLICIES = (
    FleetPolicy(name=EU, region="eu", shelf=8),
    FleetPolicy(name=US, region="us", shelf=8, weight=1),
    FleetPolicy(name=BIG, region="us", shelf=24, weight=19),
)
QUEUE = QueueConfig(
    name=QueueName("duel"),
    fleets=(EU, US, BIG),
    teams=(Team(name="red", players=1), Team(name="blue", players=1)),
    regions={EU: "eu", US: "us", BIG: "us"},
)


@dataclass
class World:
    store: TicketStore
    backends: dict[FleetName, FakeBackend]
    keepers: dict[FleetName, "asyncio.Task[None]"]

    async def play(self, name: str, *latencies: dict[str, float]) -> FleetName:
        """A duel of two players; the fleet that it was given."""
        tickets = []
        for index, latency in enumerate(latencies):
            player = TicketPlayer(id=PlayerId(f"{name}-{index}"), latencies_ms=latency)
            made = await self.store.create(QUEUE.name, [player], idempotency="", max_tickets=QUEUE.max_tickets)
            assert isinstance(made, TicketRecord)
            tickets.append(made.ticket.id)

        async def placed() -> bool:
            return (await self.record(tickets[0])).state is TicketState.ASSIGNED

        await until(placed)
        assignment = (await self.record(tickets[0])).assignment
        assert assignment is not None
        return fleet_of(assignment["session"])

    async def record(self, ticket: TicketId) -> TicketRecord:
        found = await self.store.fetch(ticket)
        assert found is not None
        return found


@asynccontextmanager
async def _world(client: StoreClient) -> AsyncIterator[World]:
    backends = {policy.name: FakeBackend(policy.name, 40) for policy in POLICIES}
    backend = Several(dict(backends))
    shelf = Shelf(client)
    keepers = {p.name: ShelfKeeper(p, shelf, client, backend) for p in POLICIES}
    store = TicketStore(client)
    director = Director(QUEUE, store, Allocator(shelf, client, POLICIES, backend))
    tasks = {name: asyncio.create_task(keeper.run()) for name, keeper in keepers.items()}
    directing = asyncio.create_task(director.run())
    try:

        async def stocked() -> bool:
            return min((await shelf.free_rooms([EU, US, BIG])).values()) >= 8

        await until(stocked)
        yield World(store, backends, tasks)
    finally:
        for task in (*tasks.values(), directing):
            task.cancel()
        await asyncio.wait([*tasks.values(), directing])


@pytest.fixture
async def world(valkey: StoreClient) -> AsyncIterator[World]:
    async with _world(valkey) as world:
        yield world


async def test_the_slowest_players_nearest_region_is_taken(world: World) -> None:
    """Not the queue's order: where the worst of both is best."""
    assert await world.play("a", {"eu": 20, "us": 110}, {"eu": 30, "us": 100}) == EU
    assert await world.play("b", {"eu": 120, "us": 90}, {"eu": 20, "us": 80}) in (US, BIG)


async def test_fleets_as_near_share_by_weight(world: World) -> None:
    """19 to 1 here: of 16 matches, 10 at least go to the heavier one (but for once in 300,000 runs)."""
    given = [await world.play(f"m{index}", {"eu": 150, "us": 20}, {"eu": 150, "us": 20}) for index in range(16)]
    assert {US, BIG} >= set(given)
    assert given.count(BIG) >= 10


async def test_a_cluster_that_is_cut_off_comes_last(world: World) -> None:
    """Nobody keeps its fleet any more: matches go to the next region, though its shelf still has rooms."""
    world.keepers[EU].cancel()
    await asyncio.wait([world.keepers[EU]])

    numbers = itertools.count()
    near = {"eu": 20.0, "us": 60.0}

    async def elsewhere() -> bool:
        return await world.play(f"x{next(numbers)}", near, near) != EU

    await until(elsewhere)
