"""A director on a real Valkey: tickets assigned, returned, taken over, timed out."""

import asyncio
import random
from dataclasses import replace

import pytest
import redis.asyncio
from directing import (
    all_in,
    assert_each_is_in_one_match,
    crowd,
    directing,
    look,
    queued,
    record_of,
    ticket_of,
)
from matchmaking import DUEL, FLEET, FakeAllocator, solo, until

from gameserver.sessions.client import connect
from gameserver.sessions.model import MatchId, PlayerId
from gameserver.sessions.port import StoreUnavailable
from matchmaker.director import Director
from matchmaker.model import Match, QueueName, Team, TicketId, TicketState
from matchmaker.records import (
    Closed,
    QueueClosed,
)
from matchmaker.replicas import Replicas
from matchmaker.store import TicketStore


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
