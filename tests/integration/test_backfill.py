"""Running sessions that want players: before new matches, as long as they run."""

from dataclasses import replace

from directing import (
    all_in,
    directing,
    queued,
    record_of,
    ticket_of,
)
from matchmaking import DUEL, FakeAllocator, FakeSeats, solo, until

from matchmaker.backfill import Backfill
from matchmaker.model import Team, TicketState
from matchmaker.store import TicketStore

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
