"""Rooms and players shown to Agones, on the local Agones' real gRPC endpoint."""

import time
from collections.abc import AsyncIterator

import pytest

from fleets.local.endpoints import serve_grpc
from fleets.local.states import CounterStatus, GameServerRecord, HealthSpec, ListStatus
from gameserver.agones.mirror import Mirror, Occupancy
from gameserver.agones.sdk import AgonesSDK, SDKNotFound
from gameserver.sessions.model import FleetName, ServerName


@pytest.fixture
async def stage() -> AsyncIterator[tuple[GameServerRecord, AgonesSDK]]:
    record = GameServerRecord(
        name=ServerName("f-1"),
        fleet=FleetName("f"),
        version="1",
        uid="u",
        created_at_s=1_700_000_000,
        health=HealthSpec(),
    )
    server, port = await serve_grpc(record, time.monotonic)
    async with AgonesSDK(port) as sdk:
        yield record, sdk
    await server.stop(0)


async def test_what_is_declared_is_kept_up_to_date(stage: tuple[GameServerRecord, AgonesSDK]) -> None:
    """Counters and lists follow, up to their capacity; what has not changed is not said again."""
    record, sdk = stage
    record.counters = {"rooms": CounterStatus(capacity=2), "players": CounterStatus(capacity=1)}
    record.lists = {"players": ListStatus(capacity=2)}
    mirror = Mirror(sdk, await sdk.get_game_server())
    await mirror.show(Occupancy(rooms=("f.m1",), players=("bob", "ann", "eve")))
    assert (record.counters["rooms"].count, record.counters["players"].count) == (1, 1)
    assert record.lists["players"].values == ["ann", "bob"]
    version = record.resource_version
    await mirror.show(Occupancy(rooms=("f.m2",), players=("ann", "bob")))
    assert record.resource_version == version
    await mirror.show(Occupancy())
    assert (record.counters["rooms"].count, record.lists["players"].values) == (0, [])


async def test_what_is_not_declared_or_refused_stops_nothing(stage: tuple[GameServerRecord, AgonesSDK]) -> None:
    """A GameServer that declares nothing is told nothing; one whose capacity shrank meanwhile refuses, and is asked again."""
    record, sdk = stage
    me = await sdk.get_game_server()
    await Mirror(sdk, me).show(Occupancy(rooms=("f.m1",)))
    record.counters = {"rooms": CounterStatus(capacity=2)}
    mirror = Mirror(sdk, await sdk.get_game_server())
    record.counters["rooms"].capacity = 0
    await mirror.show(Occupancy(rooms=("f.m1",)))
    assert record.counters["rooms"].count == 0
    record.counters["rooms"].capacity = 2
    await mirror.show(Occupancy(rooms=("f.m1",)))
    assert record.counters["rooms"].count == 1


async def test_the_sdk_knows_the_whole_game_server(stage: tuple[GameServerRecord, AgonesSDK]) -> None:
    """Metadata, health and addresses are typed; what is not there is told apart from what is refused."""
    _, sdk = stage
    me = await sdk.get_game_server()
    assert (me.name, me.namespace, me.uid, me.created_at.year, me.deleted_at) == ("f-1", "default", "u", 2023, None)
    assert (me.health.period_s, me.health.failure_threshold) == (5, 3)
    assert me.addresses == (("InternalIP", "127.0.0.1"),)
    with pytest.raises(SDKNotFound):
        await sdk.get_counter("nope")
    with pytest.raises(SDKNotFound):
        await sdk.remove_list_value("nope", "x")
