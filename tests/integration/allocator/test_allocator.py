"""The allocator on a real Valkey: claims, waiting, keeping, recovery."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest
import redis.asyncio
from fakes import FakeBackend

from allocator import metrics
from allocator.keeper import ShelfKeeper
from allocator.model import (
    Allocation,
    AllocationRequest,
    Cause,
    FleetPolicy,
    GameServer,
    ServerState,
    Strategy,
    Temperature,
    Unavailable,
)
from allocator.ports import BackendUnavailable
from allocator.service import Allocator
from allocator.shelf import LeaseLost, NoRoom, Shelf
from gameserver.sessions.model import FleetName, MatchId, PlayerId, Seat, ServerName, SessionState, session_id
from gameserver.sessions.valkey import ValkeySessions, session_key

FLEET, OTHER = FleetName("arena"), FleetName("spare")
POLICY = FleetPolicy(name=FLEET, rooms=2, shelf=2)
SEATS = (Seat(index=0, player=PlayerId("ann"), team="red"), Seat(index=1, player=PlayerId("bob"), team="blue"))


def request(match: str, *fleets: FleetName, retried: bool = False) -> AllocationRequest:
    return AllocationRequest(match=MatchId(match), fleets=fleets or (FLEET,), seats=SEATS, retried=retried)


class Stage:
    def __init__(self, client: redis.asyncio.Redis, policy: FleetPolicy = POLICY, ready: int = 3) -> None:
        self.backend = FakeBackend(policy.name, ready)
        self.shelf = Shelf(client)
        self.keeper = ShelfKeeper(policy, self.shelf, client, self.backend)
        self.sessions = ValkeySessions(client, policy.name)
        self.allocator = Allocator(self.shelf, client, (policy, FleetPolicy(name=OTHER)), self.backend)

    async def settle(self) -> None:
        for _ in range(20):
            if not await self.keeper.round():
                return
        raise AssertionError("the keeper does not come to rest")

    async def allocate(self, match: str, deadline_s: float = 0.3, **values: object) -> Allocation:
        found = await self.allocator.allocate(request(match, **values), deadline_s=deadline_s)  # type: ignore[arg-type]
        assert isinstance(found, Allocation), found
        return found


@pytest.fixture
async def stage(valkey: redis.asyncio.Redis) -> Stage:
    stage = Stage(valkey)
    await stage.settle()
    return stage


async def test_a_match_gets_a_warm_room_and_the_same_one_again(stage: Stage) -> None:
    """The claim writes the session; asked again it returns it, in whatever state it is."""
    first = await stage.allocate("m1")
    assert first.temperature is Temperature.SHELF
    assert (first.session.epoch, first.session.state, first.session.seats) == (1, SessionState.PENDING, SEATS)
    assert first.ports == stage.backend.all[first.session.server].ports
    again = await stage.allocate("m1", retried=True)
    assert (again.session, again.host) == (first.session, first.host)
    assert await stage.allocator.find(first.session.id) is not None


async def test_rooms_are_filled_fullest_first(stage: Stage) -> None:
    """Two matches share a server while one has room: packing leaves whole servers free."""
    one, two, three = [await stage.allocate(f"m{i}") for i in range(2)] + [None]
    assert three is None
    assert one.session.server == two.session.server
    assert {one.session.room, two.session.room} == {0, 1}


async def test_the_keeper_refills_and_hands_back(stage: Stage) -> None:
    """Claimed rooms are replaced from the Ready servers; once matches end, the surplus goes back to Ready."""
    for i in range(2):
        await stage.allocate(f"m{i}")
    await stage.settle()
    assert (await stage.shelf.observe(FLEET)).free == 2
    assert len(stage.backend.given) == 2
    for i in range(2):
        await stage.allocator.end(session_id(FLEET, MatchId(f"m{i}")), reason="test")
    await stage.settle()
    state = await stage.shelf.observe(FLEET)
    assert (state.free, len(state.entries)) == (2, 1)
    assert sum(server.state is ServerState.READY for server in stage.backend.all.values()) == 2


async def test_a_match_that_finds_nothing_waits_for_a_ready_server(stage: Stage) -> None:
    """With the shelf empty a request is served from the buffer as soon as the keeper has filled, and says so."""
    asking = [asyncio.create_task(stage.allocate(f"m{i}", deadline_s=20)) for i in range(6)]
    while (await stage.shelf.observe(FLEET)).waiters < 4:
        await asyncio.sleep(0.01)
    keeping = asyncio.create_task(stage.keeper.run())
    found = await asyncio.gather(*asking)
    keeping.cancel()
    await asyncio.wait([keeping])
    assert len({(a.session.server, a.session.room) for a in found}) == 6
    assert {a.temperature for a in found} <= {Temperature.SHELF, Temperature.BUFFER, Temperature.COLD}
    assert any(a.temperature is not Temperature.SHELF for a in found)


async def test_nothing_within_the_deadline_holds_nothing(valkey: redis.asyncio.Redis) -> None:
    """A request that runs out of time is told so; a server that comes later is free for others."""
    stage = Stage(valkey, ready=0)
    assert await stage.allocator.allocate(request("m1"), deadline_s=0.2) == Unavailable(
        reason="no server within 0.2 s; fleet arena: 0 of at most 10000 servers, 0 requests ahead"
    )
    stage.backend.add()
    await stage.settle()
    state = await stage.shelf.observe(FLEET)
    assert (state.waiters, state.free) == (0, 2)
    assert (await stage.allocator.allocate(request("m2"), deadline_s=1)).__class__ is Allocation


async def test_an_unknown_fleet_is_named(stage: Stage) -> None:
    """A fleet that nobody keeps is an answer, not an exception."""
    found = await stage.allocator.allocate(request("m", FleetName("nope")), deadline_s=1)
    assert found == Unavailable(reason="unknown fleet 'nope'", cause=Cause.UNKNOWN_FLEET)


async def test_waiters_are_served_in_order(valkey: redis.asyncio.Redis) -> None:
    """A later request does not overtake an earlier one, whoever asks first once a room is there."""
    stage = Stage(valkey, FleetPolicy(name=FLEET, rooms=1, shelf=0), ready=0)
    sessions = [session_id(FLEET, MatchId(f"m{i}")) for i in range(3)]

    async def claim(index: int) -> object:
        return await stage.shelf.claim(
            FLEET, sessions[index], seats=SEATS, options={}, temperature=Temperature.COLD, waited_s=0.0
        )

    for index in range(3):
        await claim(index)
    stage.backend.add(2)
    await stage.settle()
    assert not isinstance(await claim(2), Allocation)
    assert isinstance(await claim(1), Allocation)
    assert isinstance(await claim(0), Allocation)
    assert not isinstance(await claim(2), Allocation)


async def test_a_silent_waiter_does_not_block_the_others(valkey: redis.asyncio.Redis) -> None:
    """A request whose process died leaves the queue after two seconds."""
    stage = Stage(valkey, FleetPolicy(name=FLEET, rooms=1, shelf=0), ready=0)
    dead = session_id(FLEET, MatchId("dead"))
    await stage.shelf.claim(FLEET, dead, seats=SEATS, options={}, temperature=Temperature.COLD, waited_s=0.0)
    stage.backend.add()
    await stage.settle()
    assert (await stage.allocate("m1", deadline_s=5)).session.server == "arena-1"


async def test_several_fleets_in_order_and_after_a_crash(valkey: redis.asyncio.Redis) -> None:
    """The first fleet with a room is taken; a repeated run finds the session wherever it is and claims no second."""
    stage = Stage(valkey)
    spare = GameServer(name=ServerName("spare-1"), fleet=OTHER, state=ServerState.ALLOCATED, host="h", ports={})
    await stage.shelf.register(spare, rooms=1)
    first = await stage.allocator.allocate(request("m1", FLEET, OTHER), deadline_s=1)
    assert isinstance(first, Allocation)
    assert first.session.fleet == OTHER
    await stage.settle()
    again = await stage.allocator.allocate(request("m1", FLEET, OTHER, retried=True), deadline_s=1)
    assert isinstance(again, Allocation)
    assert again.session.id == first.session.id
    assert (await stage.shelf.observe(FLEET)).free == 2


async def test_an_ended_match_frees_its_room(stage: Stage) -> None:
    """The game server ends the session; the keeper frees the room, once."""
    found = await stage.allocate("m1")
    await stage.sessions.open(found.session.id, server=found.session.server, epoch=1)
    await stage.sessions.end(found.session.id, epoch=1, results=b"{}")
    await stage.sessions.end(found.session.id, epoch=1, results=b"{}")
    await stage.settle()
    state = await stage.shelf.observe(FLEET)
    assert (state.free, state.ended) == (2, ())


async def test_a_fleet_that_replaces_uses_no_room_twice(valkey: redis.asyncio.Redis) -> None:
    """With recycle off, a server whose matches are over is deleted and its rooms are not claimed again."""
    stage = Stage(valkey, FleetPolicy(name=FLEET, rooms=1, shelf=1, recycle=False), ready=2)
    await stage.settle()
    found = await stage.allocate("m1")
    await stage.allocator.end(found.session.id, reason="over")
    assert await stage.shelf.claim(
        FLEET, session_id(FLEET, MatchId("m2")), seats=SEATS, options={}, temperature=Temperature.SHELF
    ) == NoRoom()  # fmt: skip
    await stage.settle()
    assert found.session.server not in stage.backend.all


async def test_a_lost_server_has_its_sessions_moved(stage: Stage) -> None:
    """Its sessions get another server and the next epoch; a write of the old one is refused."""
    found = await stage.allocate("m1")
    await stage.sessions.open(found.session.id, server=found.session.server, epoch=1)
    await stage.sessions.checkpoint(found.session.id, epoch=1, tick=30, state=b"saved")
    counted = metrics.SESSIONS_MOVED.labels("lost")._value.get()
    stage.backend.kill(found.session.server)
    await stage.settle()
    moved = await stage.allocator.find(found.session.id)
    assert moved is not None
    assert metrics.SESSIONS_MOVED.labels("lost")._value.get() == counted + 1
    assert moved.session.server != found.session.server
    assert (moved.session.epoch, moved.session.state, moved.session.checkpoint_tick) == (2, SessionState.LIVE, 30)
    with pytest.raises(Exception, match="epoch 1"):
        await stage.sessions.checkpoint(found.session.id, epoch=1, tick=60, state=b"old")
    assert (await stage.sessions.open(found.session.id, server=moved.session.server, epoch=2))[1] == b"saved"


async def test_a_match_that_brings_its_servers_down_ends(valkey: redis.asyncio.Redis) -> None:
    """After the sixth server that it gets no further on, before it takes the other matches of a seventh with it; one that gets on is moved for ever."""
    stage = Stage(valkey, ready=20)
    await stage.settle()
    found = await stage.allocate("m1")
    for progress, times in ((True, 8), (False, 5)):
        for _ in range(times):
            here = await stage.allocator.find(found.session.id)
            assert here is not None
            assert here.session.state is not SessionState.ENDED
            epoch, tick = here.session.epoch, here.session.checkpoint_tick + progress
            await stage.sessions.open(found.session.id, server=here.session.server, epoch=epoch)
            await stage.sessions.checkpoint(found.session.id, epoch=epoch, tick=tick, state=b"saved")
            stage.backend.kill(here.session.server)
            await stage.settle()
    ended = await stage.allocator.find(found.session.id)
    assert ended is not None
    assert ended.session.state is SessionState.ENDED
    assert b"one after another" in await valkey.hget(session_key(found.session.id), "results")


async def test_a_lost_session_may_land_on_a_server_of_the_same_name(stage: Stage) -> None:
    """A server that was dropped and is back on the shelf is as good as any other; one that still has the session is left."""
    found = await stage.allocate("m1")
    server = stage.backend.all[found.session.server]
    await stage.shelf.drop(FLEET, server.name)
    await stage.shelf.register(server, rooms=1)
    moved = await stage.shelf.move(found.session.id, epoch=1)
    assert isinstance(moved, Allocation)
    assert (moved.session.server, moved.session.epoch) == (server.name, 2)
    assert await stage.shelf.move(found.session.id, epoch=2) == NoRoom()


async def test_a_foreign_servers_end_ends_its_session(valkey: redis.asyncio.Redis) -> None:
    """A server that is not ours takes its session with it, whether it is gone or back at Ready."""
    stage = Stage(valkey, FleetPolicy(name=FLEET, shelf=1, managed=False), ready=1)
    await stage.settle()
    found = await stage.allocate("m1")
    stage.backend.kill(found.session.server)
    await stage.settle()
    ended = await stage.allocator.find(found.session.id)
    assert ended is not None
    assert ended.session.state is SessionState.ENDED


async def test_a_leaked_server_is_adopted(stage: Stage) -> None:
    """An allocation for the shelf whose registration never came is found by its label."""
    stage.backend.lose_replies = 1.0
    await stage.allocate("m1")
    await stage.allocate("m2")
    with pytest.raises(Exception, match="lost"):
        await stage.keeper.round()
    stage.backend.lose_replies = 0.0
    await stage.settle()
    assert (await stage.shelf.observe(FLEET)).free == 2
    assert len(stage.backend.given) == len(set(stage.backend.given)) == 2


async def test_a_cancelled_request_holds_nothing(stage: Stage) -> None:
    """Cancelled at any moment of its wait or claim, a request leaves neither a waiter nor a session behind."""
    for pause_us in [0, 500, 1000, 2000, 5000, 20000]:
        asking = [asyncio.create_task(stage.allocate(f"c{pause_us}-{i}", deadline_s=5)) for i in range(4)]
        await asyncio.sleep(pause_us / 1e6)
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        for task in asking:
            if not task.cancelled():
                await stage.allocator.end(task.result().session.id, reason="test")
        state = await stage.shelf.observe(FLEET)
        assert (state.waiters, state.free) == (0, 2), pause_us


async def test_one_keeper_works_at_a_time(stage: Stage, valkey: redis.asyncio.Redis) -> None:
    """Of two keepers one holds the lease; the other takes over when it is given up."""
    other = ShelfKeeper(POLICY, stage.shelf, valkey, stage.backend)
    running = asyncio.create_task(stage.keeper.run())
    await asyncio.sleep(0.1)
    waiting = asyncio.create_task(other.run())
    await asyncio.sleep(0.1)
    assert other.seen is None
    running.cancel()
    await asyncio.wait([running])
    async with asyncio.timeout(3):
        while other.seen is None:
            await asyncio.sleep(0.02)
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_a_keeper_that_slept_through_its_lease_changes_nothing(stage: Stage, valkey: redis.asyncio.Redis) -> None:
    """Every write of a keeper carries its lease's token: once another holds the lease, or nobody does, it is refused."""
    found = await stage.allocate("m1")
    server = ServerName(found.session.server)
    late, now = stage.shelf.under("late"), stage.shelf.under("now")
    assert await late.hold(FLEET, lease_s=3) is False  # the stage's own keeper has it
    await valkey.delete(f"wf:{{{FLEET}}}:keeper")
    assert await late.hold(FLEET, lease_s=3)
    await valkey.delete(f"wf:{{{FLEET}}}:keeper")
    before = await stage.shelf.observe(FLEET)
    for held_by_another in (False, True):
        if held_by_another:
            assert await now.hold(FLEET, lease_s=3)
        writes = [
            late.observe(FLEET),
            late.register(stage.backend.all[server], rooms=9),
            late.drop(FLEET, server),
            late.drain(FLEET, server),
            late.unshelve(FLEET, server),
            late.move(found.session.id, epoch=1),
            late.end(found.session.id, reason="late", recycle=True),
            late.release(found.session.id, recycle=True),
        ]
        for write in writes:
            with pytest.raises(LeaseLost, match=FLEET):
                await write
        assert await late.hold(FLEET, lease_s=3, take=False) is False
    after = await stage.shelf.observe(FLEET)
    assert [entry.sessions[0].session for entry in after.entries if entry.sessions] == [found.session.id]
    assert len(after.entries) == len(before.entries)
    await late.give_up(FLEET)
    assert await now.hold(FLEET, lease_s=3, take=False)


async def test_a_round_that_loses_its_lease_stops(stage: Stage, valkey: redis.asyncio.Redis) -> None:
    """Fenced in the midst of a round, a keeper leaves the rest to whoever leads now; nothing leaks."""
    other = ShelfKeeper(POLICY, stage.shelf, valkey, stage.backend)
    taken = stage.backend.allocate

    async def slow(*args: object, **options: object) -> GameServer | None:
        server = await taken(*args, **options)  # type: ignore[arg-type]
        await valkey.delete(f"wf:{{{FLEET}}}:keeper")
        stage.backend.allocate = taken  # type: ignore[method-assign]
        assert await other.round() is True  # adopts what was just allocated
        return server

    await stage.allocate("m1")
    await stage.allocate("m2")
    stage.backend.allocate = slow  # type: ignore[method-assign]
    assert await stage.keeper.round() is False
    assert (stage.keeper.leading, other.leading) == (False, True)
    state = await stage.shelf.observe(FLEET)
    assert sorted(entry.server for entry in state.entries) == ["arena-1", "arena-2"]


async def test_an_outside_target_sizes_the_shelf(stage: Stage) -> None:
    """What the autoscaler wants holds until it is withdrawn or expires; the keeper is woken for it."""
    await stage.shelf.set_target(FLEET, 5)
    await stage.settle()
    assert (await stage.shelf.observe(FLEET)).free == 6
    await stage.shelf.set_target(FLEET, None)
    await stage.settle()
    assert (await stage.shelf.observe(FLEET)).free == 2


@pytest.mark.parametrize("strategy", Strategy)
async def test_matches_are_packed_or_spread(valkey: redis.asyncio.Redis, strategy: Strategy) -> None:
    """Packed fills one server before it opens the next; Distributed takes the emptiest each time."""
    stage = Stage(valkey, FleetPolicy(name=FLEET, rooms=2, shelf=6, strategy=strategy))
    await stage.settle()
    servers = [(await stage.allocate(f"m{i}")).session.server for i in range(4)]
    assert len(set(servers[:2])) == (1 if strategy is Strategy.PACKED else 2)
    assert len(set(servers)) == (2 if strategy is Strategy.PACKED else 3)


async def test_a_fleet_without_capacity_is_refused_at_once(valkey: redis.asyncio.Redis) -> None:
    """A fleet that may have no server is not waited for, and the answer says so."""
    stage = Stage(valkey, FleetPolicy(name=FLEET, shelf=0, max=0))
    found = await stage.allocator.allocate(request("m1"), deadline_s=60)
    assert found == Unavailable(reason="no capacity: arena may have 0 servers at most", cause=Cause.NO_CAPACITY)


async def test_the_answer_says_how_warm_and_why(valkey: redis.asyncio.Redis) -> None:
    """A room on the shelf, a room that came free, a Ready server, a new one: each is told apart, now and when asked again."""
    stage = Stage(valkey, FleetPolicy(name=FLEET, rooms=1, shelf=1), ready=2)
    await stage.settle()
    first = await stage.allocate("m1")
    assert (first.temperature, first.reason) == (Temperature.SHELF, "a room was on the shelf")
    await stage.settle()
    await stage.allocate("m2")

    asking = asyncio.create_task(stage.allocate("m3", deadline_s=5))
    while not (await stage.shelf.observe(FLEET)).waiters:
        await asyncio.sleep(0.01)
    await stage.allocator.end(first.session.id, reason="over")
    freed = await asking
    assert freed.temperature is Temperature.SHELF
    assert freed.reason == "the shelf was empty; a room of a running server came free"

    asking = asyncio.create_task(stage.allocate("m4", deadline_s=5))
    while not (await stage.shelf.observe(FLEET)).waiters:
        await asyncio.sleep(0.01)
    stage.backend.add()
    await stage.settle()
    cold = await asking
    again = await stage.allocator.find(cold.session.id)
    assert again is not None
    assert (again.temperature, again.reason) == (cold.temperature, cold.reason)
    assert cold.reason.startswith("the shelf was empty")
    assert cold.waited_s > 0


async def test_many_waiters_share_one_subscription(valkey: redis.asyncio.Redis) -> None:
    """However many wait, one connection hears their calls; each is called by name when there is a room for it."""
    stage = Stage(valkey, FleetPolicy(name=FLEET, rooms=4, shelf=0), ready=0)
    asking = [asyncio.create_task(stage.allocate(f"m{i}", deadline_s=10)) for i in range(40)]
    while (await stage.shelf.observe(FLEET)).waiters < 40:
        await asyncio.sleep(0.01)
    assert (await valkey.pubsub_numsub(f"wf:{{{FLEET}}}:called"))[0][1] == 1
    stage.backend.add(10)
    await stage.settle()
    found = await asyncio.gather(*asking)
    assert len({(a.session.server, a.session.room) for a in found}) == 40
    async with asyncio.timeout(5):
        while (await valkey.pubsub_numsub(f"wf:{{{FLEET}}}:called"))[0][1]:
            await asyncio.sleep(0.01)


async def test_a_match_goes_to_the_nearest_fleet_that_is_kept(valkey: redis.asyncio.Redis) -> None:
    """By measured latency; without a keeper (its cluster is cut off) a fleet comes last, with its warm rooms still there."""
    eu, us = (FleetPolicy(name=FleetName(name), region=name) for name in ("eu", "us"))
    shelf = Shelf(valkey)
    for policy in (eu, us):
        server = GameServer(name=ServerName(f"{policy.name}-1"), fleet=policy.name, state=ServerState.ALLOCATED)
        await shelf.register(server, rooms=9)

    async def place(match: str) -> str:
        allocator = Allocator(shelf, valkey, (us, eu), FakeBackend(eu.name))
        asked = replace(request(match, us.name, eu.name), latency_ms={"eu": 20.0, "us": 110.0})
        found = await allocator.allocate(asked, deadline_s=1)
        assert isinstance(found, Allocation)
        return found.session.fleet

    for name in ("eu", "us"):
        await shelf.under(name).hold(FleetName(name), lease_s=60)
    assert await place("m1") == "eu"
    await shelf.under("eu").give_up(eu.name)
    assert await place("m2") == "us"
    await shelf.under("us").give_up(us.name)
    assert await place("m3") == "eu"


async def test_while_the_backend_is_away_the_store_goes_on(stage: Stage) -> None:
    """Claims are served from the shelf, rooms of ended matches are freed, and nothing is dropped."""
    first = await stage.allocate("m1")
    stage.backend.down = True
    second = await stage.allocate("m2")
    for found in (first, second):
        await stage.sessions.open(found.session.id, server=found.session.server, epoch=1)
        await stage.sessions.end(found.session.id, epoch=1, results=b"{}")
        with pytest.raises(BackendUnavailable):
            await stage.keeper.round()
    state = await stage.shelf.observe(FLEET)
    assert [entry.sessions for entry in state.entries] == [()] * len(state.entries)
    assert [entry.free for entry in state.entries] == [2] * len(state.entries)
    stage.backend.down = False
    await stage.settle()
    assert (await stage.shelf.observe(FLEET)).free >= POLICY.shelf


async def test_what_cannot_be_taken_back_rests_on_fresh_news(valkey: redis.asyncio.Redis) -> None:
    """A backend that answers from a copy which lacks a server does not make the keeper drop it."""

    class Lagging(FakeBackend):
        lacks: ServerName | None = None

        async def servers(self, fleet: FleetName, *, fresh: bool = False) -> tuple[GameServer, ...]:
            found = await super().servers(fleet)
            return tuple(server for server in found if fresh or server.name != self.lacks)

    stage = Stage(valkey)
    stage.backend.__class__ = Lagging
    await stage.settle()
    found = await stage.allocate("m1")
    stage.backend.lacks = found.session.server  # type: ignore[attr-defined]
    await stage.settle()
    assert (await stage.allocate("m1")).session.epoch == 1
    stage.backend.kill(found.session.server)
    await stage.settle()
    assert (await stage.allocate("m1")).session.epoch == 2


async def test_a_large_shelf_is_filled_many_at_a_time(valkey: redis.asyncio.Redis) -> None:
    """Allocations are under way together: a cluster answers a batch as fast as one."""

    class Batched(FakeBackend):
        most = under_way = 0

        async def allocate(
            self, fleet: FleetName, *, labels: Mapping[str, str], annotations: Mapping[str, str]
        ) -> GameServer | None:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            await asyncio.sleep(0)
            self.under_way -= 1
            return await super().allocate(fleet, labels=labels, annotations=annotations)

    stage = Stage(valkey, replace(POLICY, rooms=1, shelf=40), ready=30)
    stage.backend.__class__ = Batched
    await stage.settle()
    assert (await stage.shelf.observe(FLEET)).free == 30
    assert stage.backend.most == 16  # type: ignore[attr-defined]
    assert len(stage.backend.given) == len(set(stage.backend.given)) == 30
