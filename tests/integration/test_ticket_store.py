"""Tickets as the store keeps them: one for each player and queue, repeated calls, a full queue."""

import asyncio
from dataclasses import replace

from directing import (
    all_in,
    assert_each_is_in_one_match,
    directing,
    queued,
    ticket_of,
)
from matchmaking import DUEL, FakeAllocator, solo, until

from gameserver.sessions.model import PlayerId
from matchmaker.model import QueueName, TicketId, TicketState
from matchmaker.records import (
    PlayerBusy,
    QueueFull,
)
from matchmaker.store import TicketStore


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
