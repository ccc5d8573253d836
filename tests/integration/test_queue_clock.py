"""A store whose clock jumps while tickets wait: nobody's time is over for it."""

import pytest
from matchmaking import DUEL, solo

from gameserver.sessions.client import StoreClient
from gameserver.sessions.clock import StoreClock
from gameserver.sessions.model import MatchId
from matchmaker.model import Match, TicketId, TicketState
from matchmaker.records import Look, TicketRecord
from matchmaker.store import TicketStore

HOUR_MS = 3_600_000
JUMPED = f"wf:q:{{{DUEL.name}}}:jumped"
"""What is taken off the store's clock: to change it by hand is to let that clock jump the other way."""


@pytest.fixture
def store(valkey: StoreClient) -> TicketStore:
    return TicketStore(valkey)


async def ticket_of(store: TicketStore, name: str) -> TicketId:
    made = await store.create(DUEL.name, solo(name), idempotency="", max_tickets=10)
    assert isinstance(made, TicketRecord)
    return made.ticket.id


async def look(store: TicketStore, clock: StoreClock, *, cursor: str = "", token: str = "d") -> Look | None:
    return await store.look(
        DUEL.name, token, lease_s=60, cursor=cursor, ticket_timeout_s=DUEL.ticket_timeout_s, clock=clock
    )


async def ages_s(store: TicketStore) -> dict[TicketId, float]:
    now_s = await store.now_s(DUEL.name)
    return {ticket: now_s - created_s for ticket, created_s in (await store.pool(DUEL.name)).items()}


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS])
async def test_tickets_are_not_older_for_a_jump(valkey: StoreClient, store: TicketStore, jump_ms: int) -> None:
    """One that waited before, and one that came between the jump and the next look; when all are gone, the queue goes by the store's clock again."""
    clock = StoreClock()
    await valkey.set(JUMPED, jump_ms)
    before = await ticket_of(store, "ann")
    seen = await look(store, clock)
    assert seen is not None
    await valkey.set(JUMPED, 0)
    during = await ticket_of(store, "ben")
    seen = await look(store, clock, cursor=seen.cursor)
    assert seen is not None
    assert not seen.complete  # the director is to read all anew
    seen = await look(store, clock, cursor=seen.cursor)
    assert seen is not None
    assert seen.complete
    ages = await ages_s(store)
    assert ages.keys() == {before, during}
    assert all(-1 < age_s < 30 for age_s in ages.values()), ages
    record = await store.fetch(during)
    assert record is not None
    assert abs(record.ticket.created_at_s - seen.now_s) < 30
    assert abs(int(await valkey.get(JUMPED)) - jump_ms) < 30_000
    for ticket in (before, during):
        assert await store.cancel(ticket) is TicketState.CANCELLED
    await look(store, clock, cursor=seen.cursor)
    assert not await valkey.exists(JUMPED)


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS])
async def test_nobody_is_blamed_for_a_jump(valkey: StoreClient, store: TicketStore, jump_ms: int) -> None:
    """Players who are asked to accept have the time that they were given, whenever it was that they were asked."""
    clock = StoreClock()
    await valkey.set(JUMPED, jump_ms)
    tickets = [await ticket_of(store, name) for name in ("ann", "ben", "cid", "dan")]
    assert await look(store, clock)

    async def ask(match: str, some: list[TicketId]) -> None:
        seats = tuple((player.id, "red") for player in solo("x"))
        made = Match(id=MatchId(match), tickets=tuple(some), seats=seats, fleets=DUEL.fleets)
        assert await store.commit(DUEL.name, "d", [made], accept_s=30) == [True]

    await ask("m1", tickets[:2])
    await valkey.set(JUMPED, 0)
    await ask("m2", tickets[2:])
    for _ in range(2):
        assert await look(store, clock)
    for ticket in tickets:
        record = await store.fetch(ticket)
        assert record is not None
        assert record.state is TicketState.PROPOSED


async def test_a_lease_does_not_outlast_a_clock_that_is_set_back(valkey: StoreClient, store: TicketStore) -> None:
    """Whoever looks cuts what a director that is gone has left, to what a lease can be."""
    key = f"wf:q:{{{DUEL.name}}}:lease"
    await valkey.set(key, "gone", px=HOUR_MS)
    assert await look(store, StoreClock()) is None
    assert await valkey.pttl(key) <= 60_000


async def test_a_replica_does_not_outlive_a_clock_that_is_set_back(valkey: StoreClient, store: TicketStore) -> None:
    """One that was last heard of when the clock was an hour ahead takes no queue any more."""
    now_ms = int((await valkey.time())[0]) * 1000
    await valkey.zadd("wf:directors", {"gone": now_ms + HOUR_MS, "there": now_ms + 1500})
    assert await store.beat("here", alive_s=2.0) == ("here", "there")
