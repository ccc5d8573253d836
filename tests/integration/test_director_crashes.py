"""Directors that die at every one of their steps, and a store that restarts or fails over under two of them: each player is in exactly one match."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeBackend
from matchmaking import DUEL, FLEET, solo, until
from redis.exceptions import ConnectionError as RedisConnectionError
from valkeys import Name, Valkey

import matchmaker.director
import matchmaker.placing
from allocator.model import FleetPolicy, GameServer, ServerState
from allocator.service import Allocator
from allocator.shelf import Shelf
from gameserver.sessions.client import StoreClient, connect
from gameserver.sessions.model import ServerName, SessionId, SessionState
from gameserver.sessions.port import StoreUnavailable
from matchmaker.director import Director
from matchmaker.model import QueueConfig, TicketId, TicketState
from matchmaker.records import PlayerBusy, TicketRecord
from matchmaker.store import TicketStore

_ROOMS = 200


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases and orphans in tenths of a second."""
    for name, value in (
        ("LEASE_S", 0.3),
        ("_ORPHAN_AFTER_S", 0.1),
        ("_TICK_S", 0.03),
        ("_RETRY_S", 0.03),
        ("_ADOPT_S", 0.03),
    ):
        monkeypatch.setattr(matchmaker.director, name, value)
    monkeypatch.setattr(matchmaker.placing, "_RETRY_S", 0.03)
    monkeypatch.setattr(matchmaker.placing, "LAST_WORDS_S", 0.0)


class Mortal(StoreClient):
    """A client whose process dies at its n-th function call, before or after that takes effect: nothing of it reaches the store from then on."""

    calls = 0
    dies_at = 0
    after = False
    dead = False

    async def call_function(self, function: str, keys: Sequence[str], *args: str | int | float | bytes) -> Any:
        if self.dead:
            raise RedisConnectionError("dead")
        self.calls += 1
        if self.calls < self.dies_at:
            return await super().call_function(function, keys, *args)
        self.dead = True
        if self.after:
            await super().call_function(function, keys, *args)
        raise RedisConnectionError("dead")


def director_of(client: StoreClient, queue: QueueConfig = DUEL, *, replicas: int = 0) -> Director:
    allocator = Allocator(Shelf(client, replicas=replicas), client, [FleetPolicy(name=FLEET)], FakeBackend(FLEET))
    return Director(queue, TicketStore(client), allocator, supply=allocator)


@asynccontextmanager
async def directing(*directors: Director) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(director.run()) for director in directors]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def shelve(client: StoreClient) -> None:
    server = GameServer(
        name=ServerName("arena-1"), fleet=FLEET, state=ServerState.ALLOCATED, host="h", ports={"websocket": 7001}
    )
    await Shelf(client).register(server, rooms=_ROOMS)


async def queued(store: TicketStore, name: str) -> TicketId:
    """A player's ticket, as a client asks for one until it is answered."""
    while True:
        try:
            made = await store.create(DUEL.name, solo(name), idempotency=f"{name}:k", max_tickets=1000)
        except StoreUnavailable:
            await asyncio.sleep(0.02)
            continue
        if isinstance(made, PlayerBusy):
            return made.ticket
        assert isinstance(made, TicketRecord | str), made
        return made.ticket.id if isinstance(made, TicketRecord) else made


async def assigned(store: TicketStore, tickets: Sequence[TicketId]) -> bool:
    records = [await store.fetch(ticket) for ticket in tickets]
    return all(record is not None and record.state is TicketState.ASSIGNED for record in records)


async def assert_sound(client: StoreClient, tickets: dict[str, TicketId]) -> None:
    """Each player sits in the session that its ticket names, in no other one, and no room is held by anybody else."""
    store, shelf = TicketStore(client), Shelf(client)
    sessions: Counter[SessionId] = Counter()
    for name, ticket in tickets.items():
        record = await store.fetch(ticket)
        assert record is not None
        assert record.assignment is not None
        session = SessionId(record.assignment["session"])
        found = await shelf.find(session)
        assert found is not None
        assert found.session.state is SessionState.PENDING, found.session.results
        assert name in {seat.player for seat in found.session.seats}
        sessions[session] += 1
    assert set(sessions.values()) == {DUEL.players}
    assert await store.depth(DUEL.name) == 0
    assert await store.placing(DUEL.name) == []
    assert await client.hlen(f"wf:q:{{{DUEL.name}}}:owners") == 0

    async def no_other_room_is_held() -> bool:
        return (await shelf.free_rooms([FLEET]))[FLEET] == _ROOMS - len(sessions)

    await until(no_other_room_is_held)


@pytest.mark.one_server
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_director_that_dies_at_any_step_leaves_everything_to_the_next(
    valkey: StoreClient, valkey_url: str, after: bool
) -> None:
    """The n-th call of a function, for every n until nothing is left to do."""
    for dies_at in range(1, 40):
        if not await _dies(valkey, valkey_url, dies_at, after=after):
            assert dies_at > 5, "the test would prove little"
            return
    raise AssertionError("it is never done")


async def _dies(valkey: StoreClient, url: str, dies_at: int, *, after: bool) -> bool:
    """Two matches by a director that dies then, and by the next; False when the first was done before."""
    await valkey.flushall()
    await shelve(valkey)
    store = TicketStore(valkey)
    tickets = {name: await queued(store, name) for name in ("ann", "bob", "cat", "dan")}
    mortal = Mortal.from_url(url, socket_timeout=None, protocol=3)
    mortal.dies_at, mortal.after = dies_at, after

    async def all_assigned() -> bool:
        return await assigned(store, list(tickets.values()))

    async def dead_or_done() -> bool:
        return mortal.dead or await all_assigned()

    async with directing(director_of(mortal)):
        await until(dead_or_done)
        died = mortal.dead
        async with directing(director_of(valkey)):
            await until(all_assigned)
    await assert_sound(valkey, tickets)
    await mortal.aclose()
    return died


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path / "one", "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@pytest.fixture
def replica(tmp_path: Path, primary: Valkey) -> Iterator[Valkey]:
    with Valkey(tmp_path / "two") as server:
        server.follow(primary)
        yield server


async def post(url: str, names: Sequence[str], pause_s: float = 0.004) -> dict[str, TicketId]:
    client = connect(url)
    tickets = {}
    for name in names:
        tickets[name] = await queued(TicketStore(client), name)
        await asyncio.sleep(pause_s)
    await client.aclose()
    return tickets


NAMES = [f"p{index}" for index in range(60)]


async def settled(url: str, tickets: dict[str, TicketId]) -> None:
    client = connect(url)
    store = TicketStore(client)
    await until(lambda: assigned(store, list(tickets.values())), patience_s=40)
    await assert_sound(client, tickets)
    await client.aclose()


async def test_a_restart_of_the_store_under_two_directors(primary: Valkey) -> None:
    """kill -9 of a Valkey that writes everything down, while players come and matches are placed."""
    clients = [connect(primary.url) for _ in range(3)]
    await shelve(clients[2])
    async with directing(*(director_of(client) for client in clients[:2])):
        posting = asyncio.create_task(post(primary.url, NAMES))
        await asyncio.sleep(0.12)
        primary.kill()
        await asyncio.sleep(0.5)
        await asyncio.to_thread(primary.start)
        await settled(primary.url, await posting)
    for client in clients:
        await client.aclose()


async def test_a_failover_to_a_replica_under_two_directors(primary: Valkey, replica: Valkey) -> None:
    """
    What the replica has not heard of never was: players whose tickets it lost ask again, and nobody ends in two matches.

    Claims wait for the replica, so that no player is sent to a session that is lost.
    """
    async with AsyncExitStack() as stack:
        name = await stack.enter_async_context(Name(primary).serving())
        clients = [connect(name.url) for _ in range(3)]
        for client in clients:
            stack.push_async_callback(client.aclose)
        await shelve(clients[2])
        async with directing(*(director_of(client, replicas=1) for client in clients[:2])):
            tickets = await post(name.url, NAMES[:30])
            posting = asyncio.create_task(post(name.url, NAMES[30:]))
            await asyncio.sleep(0.05)
            primary.kill()
            replica.promote()
            name.target = replica
            tickets |= await posting
            await asyncio.to_thread(primary.start)
            await asyncio.to_thread(primary.follow, replica)
            store = TicketStore(clients[2])
            for player, ticket in tickets.items():
                if await _fetched(store, ticket) is None:
                    tickets[player] = await queued(store, player)
            await settled(name.url, tickets)


async def _fetched(store: TicketStore, ticket: TicketId) -> TicketRecord | None:
    while True:
        try:
            return await store.fetch(ticket)
        except StoreUnavailable:
            await asyncio.sleep(0.02)
