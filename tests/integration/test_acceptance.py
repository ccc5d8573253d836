"""Matches that wait for their players' word, and what it costs to refuse, to be silent or to leave."""

import asyncio
from dataclasses import replace

from directing import (
    all_in,
    assert_each_is_in_one_match,
    directing,
    queued,
    record_of,
    ticket_of,
)
from matchmaking import DUEL, FLEET, FakeAllocator, solo, until

from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import MatchId, PlayerId, session_id
from gameserver.sessions.notices import Notices
from gameserver.sessions.valkey import ValkeySessions, session_key
from matchmaker.model import TicketState
from matchmaker.records import (
    PlayerBarred,
)
from matchmaker.store import TicketStore

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


async def _is_barred(store: TicketStore, name: str, why: str = "declined") -> bool:
    made = await queued(store, *solo(name))
    if isinstance(made, str):
        await store.cancel(made)
    return isinstance(made, PlayerBarred) and 0 < made.remaining_s <= 30 and made.reason == why


async def test_who_does_not_answer_is_out_in_the_end(store: TicketStore) -> None:
    async with directing(store, FakeAllocator(), replace(ASKED, acceptance_s=0.3)):
        ann, bob = [await ticket_of(store, name) for name in ("ann", "bob")]
        await until(lambda: all_in(store, [ann, bob], TicketState.PROPOSED))
        await store.accept(ann, PlayerId("ann"), accept=True)
        await until(lambda: all_in(store, [bob], TicketState.CANCELLED))
        assert (await record_of(store, bob)).reason == "not accepted in time"
        assert await all_in(store, [ann], TicketState.SEARCHING)


async def test_who_leaves_a_running_match_is_barred_once_if_the_queue_says_so(
    valkey: StoreClient, store: TicketStore
) -> None:
    """However often its server says so, and whoever directs."""
    sessions, left = ValkeySessions(valkey, FLEET), session_id(FLEET, MatchId("m"))
    record = {"epoch": 1, "state": "live", "seats": '[[0,"ann","red"],[1,"bob","blue"]]', "options": '{"queue":"duel"}'}
    await valkey.hset(session_key(left), mapping=record)
    await sessions.seats(left, epoch=1, came=(), left=[PlayerId("ann"), PlayerId("bob")], excused=[PlayerId("bob")])
    async with directing(store, FakeAllocator(), replace(ASKED, leave_running=False)):
        await asyncio.sleep(1.2)
        assert not await _is_barred(store, "ann", "left")
    for _ in range(2):
        async with directing(store, FakeAllocator(), ASKED):
            await until(lambda: _all_heard(valkey))
            await until(lambda: _is_barred(store, "ann", "left"))
        await sessions.seats(left, epoch=1, came=[PlayerId("ann")], left=())
        await sessions.seats(left, epoch=1, came=(), left=[PlayerId("ann")])
    assert isinstance(await queued(store, *solo("bob")), str)


async def _all_heard(valkey: StoreClient) -> bool:
    return not await Notices(valkey).leavers(FLEET, DUEL.name)
