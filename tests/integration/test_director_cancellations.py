"""A director's steps cut short at every wait, before the answer and with it: a match is placed once, and no ticket is lost between two states."""

import itertools
from collections.abc import Coroutine
from typing import Any

import pytest
from cutting import at_every_wait
from matchmaking import DUEL, FLEET, FakeAllocator, solo

from allocator.model import Allocation, AllocationRequest
from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import MatchId, PlayerId
from matchmaker.model import Match, TicketState
from matchmaker.placing import assignment_of
from matchmaker.records import TicketRecord
from matchmaker.store import TicketStore

TOKEN = "director"
NUMBERS = itertools.count()


class Placing:
    """Matches of two tickets, committed and given a session, one after the other."""

    def __init__(self, client: StoreClient) -> None:
        self.store = TicketStore(client)
        self.allocator = FakeAllocator()

    async def begin(self) -> None:
        number, tickets = next(NUMBERS), []
        for index in range(2):
            made = await self.store.create(DUEL.name, solo(f"p{number}-{index}"), idempotency="", max_tickets=100)
            assert isinstance(made, TicketRecord)
            tickets.append(made.ticket.id)
        seats = ((PlayerId(f"p{number}-0"), "red"), (PlayerId(f"p{number}-1"), "blue"))
        self.match = Match(id=MatchId(f"m{number}"), tickets=tuple(tickets), seats=seats, fleets=(FLEET,))
        assert await self.store.hold_lease(DUEL.name, TOKEN, lease_s=60)
        assert await self.store.commit(DUEL.name, TOKEN, [self.match]) == [True]
        request = AllocationRequest(match=self.match.id, fleets=(FLEET,), seats=())
        found = await self.allocator.allocate(request, deadline_s=1)
        assert isinstance(found, Allocation)
        self.placed = found

    def assign(self) -> Coroutine[Any, Any, Any]:
        return self.store.assign(DUEL.name, self.match, assignment_of(self.placed, self.match))

    def give_back(self) -> Coroutine[Any, Any, Any]:
        return self.store.give_back(DUEL.name, self.match.id, reason="test", token=TOKEN)

    async def states(self) -> set[TicketState]:
        found = [await self.store.fetch(ticket) for ticket in self.match.tickets]
        return {record.state for record in found if record is not None}


@pytest.fixture
def placing(valkey: StoreClient) -> Placing:
    return Placing(valkey)


async def test_an_assignment_cut_short_is_made_whole(placing: Placing) -> None:
    """However far it came: asked again, both tickets are sent to the session that they were to be sent to, and nothing is placing any more."""
    await placing.begin()

    async def check() -> None:
        assert await placing.assign() == placing.placed.session.id
        assert await placing.states() == {TicketState.ASSIGNED}
        assert placing.match.id not in await placing.store.placing(DUEL.name)
        await placing.begin()

    assert await at_every_wait(placing.assign, check) >= 1


async def test_a_return_cut_short_is_made_whole(placing: Placing) -> None:
    """Both tickets wait again or both are still being placed; asked again, they wait, in one pool, once each."""
    await placing.begin()

    async def check() -> None:
        (state,) = await placing.states()
        placed = placing.match.id in await placing.store.placing(DUEL.name)
        assert (state is TicketState.PLACING) == placed
        assert await placing.give_back() == placed
        assert await placing.states() <= {TicketState.QUEUED, TicketState.SEARCHING}
        await placing.begin()

    assert await at_every_wait(placing.give_back, check) >= 1
