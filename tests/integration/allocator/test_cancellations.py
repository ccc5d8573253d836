"""Cancelled at every wait, before the answer and with it: rooms add up after each, and what was cut short is put right by the next rounds."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from cutting import at_every_wait
from fakes import FakeBackend

from allocator.keeper import ShelfKeeper
from allocator.model import Allocation, AllocationRequest, FleetPolicy, SeatRequest
from allocator.recovery import Recovery
from allocator.service import Allocator
from allocator.shelf import Shelf
from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import (
    FleetName,
    MatchId,
    PlayerId,
    Seat,
    ServerMode,
    Session,
    SessionId,
    SessionState,
)
from gameserver.sessions.valkey import ValkeySessions

FLEET = FleetName("arena")
PREFIX = f"wf:{{{FLEET}}}:"
POLICY = FleetPolicy(name=FLEET, rooms=2, shelf=2)


class Stage:
    """One match is played; each kind of work finds something to do, and may find it done."""

    def __init__(self, client: StoreClient) -> None:
        self.client = client
        self.backend = FakeBackend(FLEET, 60)
        self.shelf = Shelf(client)
        self.sessions = ValkeySessions(client, FLEET)
        self.keeper = ShelfKeeper(POLICY, self.shelf, client, self.backend)
        self.recovery = Recovery(POLICY, self.shelf)
        self.allocator = Allocator(self.shelf, client, [POLICY], self.backend)
        self.matches = 0

    async def settle(self) -> None:
        for _ in range(30):
            if not await self.keeper.round() and not await self.recovery.round():
                return
        raise AssertionError("it does not come to rest")

    async def begin(self, **options: Any) -> Session:
        self.matches += 1
        seats = (Seat(index=0, player=PlayerId("ann")),)
        request = AllocationRequest(match=MatchId(f"m{self.matches}"), fleets=(FLEET,), seats=seats, **options)
        found = await self.allocator.allocate(request, deadline_s=30)
        assert isinstance(found, Allocation)
        await self.sessions.open(found.session.id, server=found.session.server, epoch=1)
        return found.session

    async def rooms_add_up(self) -> None:
        """Each room is free or held by a match that knows it, and the shelf has every server's free rooms."""
        shelf = dict(await self.client.zrange(f"{PREFIX}shelf", 0, -1, withscores=True))
        for entry in (await self.shelf.observe(FLEET)).entries:
            assert entry.free + len(entry.sessions) + entry.spent == entry.rooms
            assert int(shelf.get(entry.server.encode(), 0)) == (0 if entry.draining else entry.free)
            for room in entry.sessions:
                record = await self.client.hgetall(f"{PREFIX}session:{room.session}")
                places = (record[b"server"].decode(), record.get(b"next_server", b"").decode())
                assert room.state is SessionState.ENDED or entry.server in places

    async def found(self, session: SessionId) -> Session:
        found = await self.shelf.find(session)
        assert found is not None
        return found.session


Work = Callable[[Stage, Session], Coroutine[Any, Any, Any]]


async def _waits(stage: Stage, _: Session) -> None:
    request = AllocationRequest(match=MatchId("waiter"), fleets=(FLEET,), seats=())
    await stage.allocator.allocate(request, deadline_s=0.02)


async def _release(stage: Stage, session: Session) -> None:
    await stage.sessions.end(session.id, epoch=session.epoch, results=b"{}")
    await stage.shelf.release(session.id, recycle=True)


async def _drain(stage: Stage, session: Session) -> None:
    await stage.shelf.drain(FLEET, session.server)
    await stage.sessions.beat(session.server, ttl_s=60, mode=ServerMode.MIGRATE, rooms={session.id: 1})
    await stage.recovery.round()


async def _lost(stage: Stage, session: Session) -> None:
    await stage.shelf.drop(FLEET, session.server)
    await stage.recovery.round()


async def _seat(stage: Stage, session: Session) -> None:
    party = ((PlayerId("bo"), ""), (PlayerId("cy"), ""))
    await stage.allocator.seat(SeatRequest(id="party", fleets=(FLEET,), party=party))


@pytest.mark.parametrize(
    "work",
    [
        _waits,
        _release,
        _drain,
        _lost,
        _seat,
        lambda stage, session: stage.allocator.end(session.id, reason="test"),
        lambda stage, session: stage.keeper.round(),
        lambda stage, session: stage.shelf.move(session.id, epoch=1),
    ],
    ids=["wait", "release", "drain", "recovery", "seat", "end", "keeper", "move"],
)
async def test_work_that_is_cut_short(valkey: StoreClient, work: Work) -> None:
    """However far it came, no room is lost or held twice; left alone, all is as it should be, and a match that was not ended goes on."""
    stage = Stage(valkey)
    await stage.settle()
    begun = [await stage.begin(free_seats=3)]

    def make() -> Coroutine[Any, Any, Any]:
        return work(stage, begun[-1])

    async def check() -> None:
        await stage.rooms_add_up()
        if work not in (_drain, _lost, _seat):  # these go on where they were cut
            await stage.settle()
            begun.append(await stage.begin(free_seats=3))

    assert await at_every_wait(make, check) >= 1
    await stage.settle()
    await stage.rooms_add_up()
    state = await stage.shelf.observe(FLEET)
    assert (state.waiters, state.ended, state.lost) == (0, (), ())
    for session in begun:
        now = await stage.found(session.id)
        assert now.state is SessionState.ENDED or now.epoch >= session.epoch
        seated = [seat.player for seat in now.seats]
        assert seated in (["ann"], ["ann", "bo", "cy"])


async def test_allocations_that_are_cut_short_hold_nothing(valkey: StoreClient) -> None:
    """At every wait of a claim that finds a room: either it was answered, or the room is free again."""
    stage = Stage(valkey)
    await stage.settle()
    free = (await stage.shelf.observe(FLEET)).free

    def make() -> Awaitable[Any]:
        stage.matches += 1
        request = AllocationRequest(match=MatchId(f"m{stage.matches}"), fleets=(FLEET,), seats=())
        return stage.allocator.allocate(request, deadline_s=30)

    async def check() -> None:
        session = SessionId(f"{FLEET}.m{stage.matches}")
        found = await stage.shelf.find(session)
        held = found is not None and found.session.state is not SessionState.ENDED
        assert (await stage.shelf.observe(FLEET)).free == free - held
        if held:  # it was not cut: the answer came
            await stage.allocator.end(session, reason="test")

    assert await at_every_wait(make, check) >= 1  # type: ignore[arg-type]
