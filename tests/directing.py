"""What the directors' tests share: one that runs, tickets to give it, and what became of them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from matchmaking import DUEL, FLEET, FakeAllocator, FakeSeats, solo

from gameserver.sessions.model import session_id
from matchmaker.director import Director
from matchmaker.model import QueueConfig, TicketId, TicketPlayer, TicketState
from matchmaker.records import (
    Look,
    Refused,
    TicketRecord,
)
from matchmaker.store import TicketStore


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
