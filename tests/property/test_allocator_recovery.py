"""Faults that the allocator's state machine or a look at it brought up, each by itself on a real Valkey."""

import asyncio

import redis.asyncio
from fakes import FakeBackend

from allocator.keeper import ShelfKeeper
from allocator.model import Allocation, AllocationRequest, FleetPolicy, GameServer, Unavailable
from allocator.service import Allocator
from allocator.shelf import Shelf
from gameserver.sessions.model import FleetName, MatchId, PlayerId, Seat, Session, SessionState, session_id

FLEET = FleetName("arena")
POLICY = FleetPolicy(name=FLEET, rooms=2, shelf=2)
SEATS = (Seat(index=0, player=PlayerId("ann")),)
PREFIX = f"wf:{{{FLEET}}}:"


class Stage:
    def __init__(self, client: redis.asyncio.Redis, ready: int = 4, backend: FakeBackend | None = None) -> None:
        self.client = client
        self.backend = backend or FakeBackend(FLEET, ready)
        self.shelf = Shelf(client)
        self.allocator = Allocator(self.shelf, client, [POLICY], self.backend)
        self.keepers = [ShelfKeeper(POLICY, self.shelf, client, self.backend) for _ in range(2)]

    async def settle(self, keeper: int = 0) -> None:
        await self.client.delete(f"{PREFIX}keeper")  # as if the other's lease had run out
        for _ in range(20):
            if not await self.keepers[keeper].round():
                return
        raise AssertionError("the keeper does not come to rest")

    async def place(self, match: str) -> Session:
        request = AllocationRequest(match=MatchId(match), fleets=(FLEET,), seats=SEATS)
        found = await self.allocator.allocate(request, deadline_s=1)
        assert isinstance(found, Allocation)
        return found.session


async def test_a_long_match_is_moved_too(valkey: redis.asyncio.Redis) -> None:
    """The time limit for a move begins when the server is lost, not when the match began."""
    stage = Stage(valkey)
    await stage.settle()
    session = await stage.place("m1")
    record = f"{PREFIX}session:{session.id}"
    changed_ms = int(await valkey.hget(record, "changed_ms"))
    await valkey.hset(record, mapping={"state": "live", "changed_ms": changed_ms - 600_000})
    stage.backend.kill(session.server)
    await stage.settle()
    moved = await stage.shelf.find(session.id)
    assert moved is not None
    assert (moved.session.state, moved.session.epoch) == (SessionState.LIVE, 2)


async def test_the_room_of_an_expired_record_is_freed(valkey: redis.asyncio.Redis) -> None:
    """When no keeper ran before a record expired, its room is found by the server that holds it."""
    stage = Stage(valkey)
    await stage.settle()
    session = await stage.place("m1")
    await valkey.delete(f"{PREFIX}session:{session.id}")
    await stage.settle()
    state = await stage.shelf.observe(FLEET)
    assert [(entry.free, entry.sessions) for entry in state.entries] == [(2, ())]


async def test_a_server_shelved_meanwhile_is_not_dropped(valkey: redis.asyncio.Redis) -> None:
    """A keeper whose backend answers late overlaps with the next one, and takes nothing from the servers that one shelved."""

    class Late(FakeBackend):
        async def servers(self, fleet: FleetName, *, fresh: bool = False) -> tuple[GameServer, ...]:
            seen = await super().servers(fleet)
            if not late.is_set():
                late.set()
                await answer.wait()
            return seen

    late, answer = asyncio.Event(), asyncio.Event()
    late.set()
    stage = Stage(valkey, backend=Late(FLEET, 2))
    await stage.settle()
    sessions = [await stage.place(match) for match in ("m1", "m2")]
    await stage.settle()
    sessions += [await stage.place(match) for match in ("m3", "m4")]
    late.clear()
    slow = asyncio.create_task(stage.keepers[0].round())
    await late.wait()
    stage.backend.add()
    await stage.settle(1)
    sessions.append(await stage.place("m5"))
    assert sessions[-1].server == "arena-3"
    answer.set()
    await slow
    stage.backend.add()
    await stage.settle(1)
    for session in sessions:
        found = await stage.shelf.find(session.id)
        assert found is not None
        assert found.session == session
    assert (await stage.shelf.observe(FLEET)).lost == ()


async def test_cancelled_while_giving_up_it_holds_nothing(valkey: redis.asyncio.Redis) -> None:
    """A caller that goes at the very moment of the deadline leaves no waiter behind."""

    class Slow(Shelf):
        async def abandon(self, *args: object, **options: object) -> bool:
            giving_up.set()
            await asyncio.sleep(0.01)
            return await super().abandon(*args, **options)  # type: ignore[arg-type]

    giving_up = asyncio.Event()
    stage = Stage(valkey, ready=0)
    allocator = Allocator(Slow(valkey), valkey, [POLICY], stage.backend)
    request = AllocationRequest(match=MatchId("m1"), fleets=(FLEET,), seats=SEATS)
    asking = asyncio.create_task(allocator.allocate(request, deadline_s=0.5))
    await giving_up.wait()
    assert await valkey.zcard(PREFIX + "waiters") == 1
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    assert await valkey.zcard(PREFIX + "waiters") == 0
    later = await allocator.allocate(request, deadline_s=0.05)
    assert isinstance(later, Unavailable)


async def test_a_session_that_ended_as_its_server_died_is_only_freed(valkey: redis.asyncio.Redis) -> None:
    """Lost and ended at once: it is neither moved nor revived."""
    stage = Stage(valkey)
    await stage.settle()
    session = await stage.place("m1")
    await stage.shelf.drop(FLEET, session.server)
    stage.backend.kill(session.server)
    await stage.allocator.end(session_id(FLEET, MatchId("m1")), reason="test")
    await stage.settle()
    found = await stage.shelf.find(session.id)
    assert found is not None
    assert (found.session.state, found.session.epoch) == (SessionState.ENDED, 1)
    state = await stage.shelf.observe(FLEET)
    assert (state.lost, state.free) == ((), 2)
