"""Valkey read-only, full, restarted, failed over, with another clock: stated outcomes, and nothing lost or given twice."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from fakes import FakeBackend
from valkeys import Cluster, Name, Valkey

from allocator.api.app import create_app
from allocator.keeper import ShelfKeeper
from allocator.model import Allocation, AllocationRequest, FleetPolicy, Unavailable
from allocator.service import Allocator
from allocator.shelf import Shelf
from gameserver.sessions.client import StoreClient, connect
from gameserver.sessions.clock import StoreClock
from gameserver.sessions.model import FleetName, MatchId, PlayerId, Seat, ServerMode, SessionId, session_id
from gameserver.sessions.port import SessionGone, StoreUnavailable
from gameserver.sessions.valkey import ValkeySessions
from matchmaker.model import QueueName
from matchmaker.store import TicketStore, new_ticket_id

FLEET = FleetName("arena")
PREFIX = f"wf:{{{FLEET}}}:"
POLICY = FleetPolicy(name=FLEET, rooms=4, shelf=40)
HOUR_MS = 3_600_000


def request(match: str) -> AllocationRequest:
    return AllocationRequest(
        match=MatchId(match), fleets=(FLEET,), seats=(Seat(index=0, player=PlayerId("ann")),), retried=True
    )


class Stage:
    def __init__(self, client: StoreClient, *, replicas: int = 0, policy: FleetPolicy = POLICY) -> None:
        self.client = client
        self.backend = FakeBackend(FLEET, 30)
        self.shelf = Shelf(client, replicas=replicas)
        self.keeper = ShelfKeeper(policy, self.shelf, client, self.backend)
        self.allocator = Allocator(self.shelf, client, [policy], self.backend)

    async def settle(self) -> None:
        for _ in range(60):
            if not await self.keeper.round():
                return
        raise AssertionError("the keeper does not come to rest")

    async def allocate(self, match: str, deadline_s: float = 15) -> Allocation:
        found = await self.allocator.allocate(request(match), deadline_s=deadline_s)
        assert isinstance(found, Allocation), found
        return found

    async def nothing_given_twice(self, given: list[Allocation]) -> None:
        """Every acknowledged claim is there as it was given, and no two share a room."""
        for one in given:
            found = await self.shelf.find(one.session.id)
            assert found is not None, f"{one.session.id} is lost"
            assert (found.session.server, found.session.room) == (one.session.server, one.session.room)
        places = [(one.session.server, one.session.room) for one in given]
        assert len(set(places)) == len(places)


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path / "primary") as valkey:
        yield valkey


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path / "cluster") as cluster:
        yield cluster


@pytest.fixture
def replica(tmp_path: Path, primary: Valkey) -> Iterator[Valkey]:
    with Valkey(tmp_path / "replica") as valkey:
        valkey.follow(primary)
        yield valkey


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


def opened(stack: AsyncExitStack, url: str) -> StoreClient:
    client = connect(url)
    stack.push_async_callback(client.aclose)
    return client


async def test_a_read_only_store_is_named(stack: AsyncExitStack, primary: Valkey, replica: Valkey) -> None:
    """A replica that has not taken over: 503 with the reason and Retry-After, nothing held; once it has, the same request is served."""
    before = Stage(opened(stack, primary.url))
    await before.settle()
    stage = Stage(opened(stack, replica.url))
    stage.backend = before.backend
    with pytest.raises(StoreUnavailable, match="shelf_claim") as caught:
        await stage.allocator.allocate(request("m1"), deadline_s=0.3)
    assert caught.value.why == "the session store is read-only (a replica that has not taken over)"
    app = create_app(allocator=stage.allocator, shelf=stage.shelf, tokens=None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as http:
        body = {"id": "m1", "fleets": [FLEET], "timeoutS": 0.3}
        reply = await http.post("/v1/allocations", json=body)
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        assert "read-only" in reply.json()["detail"]
        replica.promote()
        reply = await http.post("/v1/allocations", json={**body, "timeoutS": 10})
        assert reply.status_code == 201


async def test_a_full_store_refuses_what_adds_and_lets_the_rest_go_on(stack: AsyncExitStack, primary: Valkey) -> None:
    """Claims and checkpoints are refused whole; matches end, the keeper works, and with room again everything goes on."""
    stage = Stage(opened(stack, primary.url))
    sessions = ValkeySessions(stage.client, FLEET)
    await stage.settle()
    first = await stage.allocate("m1")
    await sessions.open(first.session.id, server=first.session.server, epoch=1)
    primary.ask("CONFIG", "SET", "maxmemory", "1mb")
    primary.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    with pytest.raises(StoreUnavailable) as caught:
        await stage.allocator.allocate(request("m2"), deadline_s=0.3)
    assert caught.value.why == "the session store is full (maxmemory)"
    assert await stage.shelf.find(session_id(FLEET, MatchId("m2"))) is None
    with pytest.raises(StoreUnavailable):
        await sessions.checkpoint(first.session.id, epoch=1, tick=1, state=b"x" * 1000)
    await sessions.beat(first.session.server, ttl_s=3, mode=ServerMode.SERVE, rooms={first.session.id: 1})
    await sessions.end(first.session.id, epoch=1, results=b"{}")
    await stage.keeper.round()
    assert (await stage.shelf.observe(FLEET)).ended == ()
    primary.ask("CONFIG", "SET", "maxmemory", "0")
    await stage.settle()
    await stage.nothing_given_twice([await stage.allocate("m2"), await stage.allocate("m3")])


async def test_a_store_killed_under_load_loses_no_claim(stack: AsyncExitStack, tmp_path: Path) -> None:
    """Killed and started again from its append-only file: what was acknowledged is there, and callers in between wait it out."""
    always = ("--appendonly", "yes", "--appendfsync", "always")
    valkey = stack.enter_context(Valkey(tmp_path / "durable", *always))
    stage = Stage(opened(stack, valkey.url), policy=replace(POLICY, shelf=100))
    await stage.settle()
    tasks = [asyncio.create_task(stage.allocate(f"m{index}")) for index in range(10)]
    for index in range(10, 60):
        tasks.append(asyncio.create_task(stage.allocate(f"m{index}")))
        if index in (20, 40):
            await asyncio.sleep(0.002)
            valkey.kill()
            await asyncio.sleep(0.05)
            await asyncio.to_thread(valkey.start)
    given = await asyncio.gather(*tasks)
    await stage.nothing_given_twice(list(given))
    await stage.settle()
    assert (await stage.shelf.observe(FLEET)).waiters == 0


async def test_a_failover_loses_no_claim_that_waited_for_a_replica(
    stack: AsyncExitStack, primary: Valkey, replica: Valkey
) -> None:
    """The primary dies, its replica takes over behind the same name: acknowledged claims are all there, callers wait it out."""
    name = await stack.enter_async_context(Name(primary).serving())
    stage = Stage(opened(stack, name.url), replicas=1, policy=replace(POLICY, shelf=100))
    await stage.settle()
    given = list(await asyncio.gather(*(stage.allocate(f"m{index}") for index in range(20))))
    tasks = [asyncio.create_task(stage.allocate(f"m{index}")) for index in range(20, 50)]
    await asyncio.sleep(0.003)
    primary.kill()
    done = [task.result() for task in tasks if task.done()]
    replica.promote()
    name.target = replica
    await stage.nothing_given_twice([*given, *done])
    # Nobody is left to wait for: claims say so instead of pretending, and go on once there is a replica again.
    with pytest.raises(StoreUnavailable, match=r"0 of 1 replicas|no answer"):
        await stage.allocator.allocate(request("alone"), deadline_s=1.5)
    await asyncio.to_thread(primary.start)
    await asyncio.to_thread(primary.follow, replica)
    await stage.nothing_given_twice([*given, *await asyncio.gather(*tasks)])


async def test_a_primary_that_was_demoted_is_left(stack: AsyncExitStack, primary: Valkey, replica: Valkey) -> None:
    """It lives on as a replica with our connections open: the first refusal sends us to where the name leads by now."""
    name = await stack.enter_async_context(Name(primary).serving())
    stage = Stage(opened(stack, name.url))
    await stage.settle()
    first = await stage.allocate("m1")
    replica.promote()
    primary.ask("REPLICAOF", "127.0.0.1", replica.port)
    name.target = replica
    second = await stage.allocate("m2")
    await stage.nothing_given_twice([first, second])
    await stage.settle()


async def test_a_claim_lost_in_a_failover_is_fenced(stack: AsyncExitStack, primary: Valkey, replica: Valkey) -> None:
    """Without waiting for replicas an acknowledged claim can be lost; then its room is another's, and its server is refused."""
    stage = Stage(opened(stack, primary.url))
    await stage.settle()
    replica.ask("REPLICAOF", "NO", "ONE")  # it hears of nothing that comes now
    lost = await stage.allocate("m1")
    sessions = ValkeySessions(stage.client, FLEET)
    await sessions.open(lost.session.id, server=lost.session.server, epoch=1)
    primary.kill()
    after = Stage(opened(stack, replica.url))
    after.backend = stage.backend
    other = await after.allocate("m2")
    assert (other.session.server, other.session.room) == (lost.session.server, lost.session.room)
    theirs = ValkeySessions(after.client, FLEET)
    with pytest.raises(SessionGone):
        await theirs.checkpoint(lost.session.id, epoch=1, tick=1, state=b"old")
    with pytest.raises(SessionGone):
        await theirs.open(lost.session.id, server=lost.session.server, epoch=1)
    await theirs.open(other.session.id, server=other.session.server, epoch=1)


async def test_a_shards_failover_loses_no_claim_that_waited_for_its_replica(
    stack: AsyncExitStack, cluster: Cluster
) -> None:
    """The fleet's primary in a Cluster dies among claims; its replica takes over by itself, and they go on once that has a replica again."""
    stage = Stage(opened(stack, cluster.url), replicas=1, policy=replace(POLICY, shelf=100))
    await stage.settle()
    given = list(await asyncio.gather(*(stage.allocate(f"m{index}", 40) for index in range(20))))
    tasks = [asyncio.create_task(stage.allocate(f"m{index}", 40)) for index in range(20, 50)]
    await asyncio.sleep(0.003)
    old = cluster.holder(PREFIX)
    old.kill()
    done = [task.result() for task in tasks if task.done()]
    await asyncio.to_thread(Valkey.until, lambda: cluster.holder(PREFIX) is not old)
    await eventually(lambda: stage.nothing_given_twice([*given, *done]))
    await asyncio.to_thread(old.start)
    await stage.nothing_given_twice([*given, *await asyncio.gather(*tasks)])
    await stage.settle()


async def test_a_claim_lost_in_a_shards_failover_is_fenced(stack: AsyncExitStack, cluster: Cluster) -> None:
    """What a killed primary of a Cluster had told nobody is gone: the room is another's, and the server of the lost match is refused."""
    stage = Stage(opened(stack, cluster.url))
    await stage.settle()
    old = cluster.holder(PREFIX)
    replica = cluster.replica_of(old)
    replica.catch_up(old)
    os.kill(replica.pid, signal.SIGSTOP)
    old.ask("CLIENT", "KILL", "TYPE", "REPLICA")  # nothing more is on its way to it
    lost = await stage.allocate("m1")
    sessions = ValkeySessions(stage.client, FLEET)
    await sessions.open(lost.session.id, server=lost.session.server, epoch=1)
    old.kill()
    os.kill(replica.pid, signal.SIGCONT)
    await asyncio.to_thread(Valkey.until, lambda: cluster.holder(PREFIX) is replica)
    other = await stage.allocate("m2", 40)
    assert (other.session.server, other.session.room) == (lost.session.server, lost.session.room)
    with pytest.raises(SessionGone):
        await sessions.checkpoint(lost.session.id, epoch=1, tick=1, state=b"old")
    with pytest.raises(SessionGone):
        await sessions.open(lost.session.id, server=lost.session.server, epoch=1)
    await sessions.open(other.session.id, server=other.session.server, epoch=1)


async def eventually(check: Callable[[], Awaitable[None]]) -> None:
    """Through an outage of the store."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await check()
            except StoreUnavailable:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS])
async def test_a_clock_that_jumps_harms_nobody(stack: AsyncExitStack, primary: Valkey, jump_ms: int) -> None:
    """A store whose clock is an hour off from that of the one before it: waiters, leases and servers are as they should be within seconds."""
    stage = Stage(opened(stack, primary.url), policy=replace(POLICY, shelf=4))
    await stage.settle()
    live = await stage.allocate("m1")
    dead = SessionId(f"{FLEET}.dead")
    # As if everything had been written by a clock that was `jump_ms` ahead of (or behind) this one.
    now_ms = int(primary.ask("TIME")[0]) * 1000
    await stage.client.zadd(f"{PREFIX}waiters", {dead: 0})
    await stage.client.hset(f"{PREFIX}waiting", dead, now_ms + 1000 + jump_ms)
    for raw in await stage.client.smembers(f"{PREFIX}servers"):
        record = f"{PREFIX}server:{raw.decode()}"
        await stage.client.hset(
            record, mapping={"registered_ms": now_ms + jump_ms, "silent_since_ms": now_ms + max(jump_ms, 0)}
        )
        await stage.client.set(f"{PREFIX}beat:{raw.decode()}", "serve", px=60_000)
    await stage.client.set(f"{PREFIX}keeper", "another", px=max(1, 3000 + jump_ms) if jump_ms > 0 else 1)
    assert isinstance(await stage.allocate("m2"), Allocation)  # the dead waiter does not stand in the way
    async with asyncio.timeout(15):
        while not await stage.keeper.round() and not stage.keeper.leading:
            await asyncio.sleep(0.1)
    await stage.settle()
    found = await stage.shelf.find(live.session.id)
    assert found is not None
    assert (found.session.server, found.session.epoch) == (live.session.server, 1)
    stage.backend.kill(live.session.server)
    await stage.settle()
    moved = await stage.shelf.find(live.session.id)
    assert moved is not None
    assert moved.session.epoch == 2


async def test_a_store_that_is_away_is_no_server(stack: AsyncExitStack, tmp_path: Path) -> None:
    """Away until the deadline: the error says so, and is told apart from no server being free."""
    valkey = Valkey(tmp_path / "away")
    stage = Stage(opened(stack, valkey.url))
    with pytest.raises(StoreUnavailable, match=str(valkey.port)):
        await stage.allocator.allocate(request("m1"), deadline_s=0.3)
    with valkey:
        found = await stage.allocator.allocate(request("m1"), deadline_s=0.3)
        assert isinstance(found, Unavailable)


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS])
async def test_nothing_is_older_for_a_jump(stack: AsyncExitStack, primary: Valkey, jump_ms: int) -> None:
    """A keeper that has looked before: a match whose players are on their way is not ended, nor a server dropped, for a clock that is an hour off."""
    shown_s = [0.0]
    clock = StoreClock(lambda: shown_s[0])
    stage = Stage(opened(stack, primary.url), policy=replace(POLICY, shelf=4))
    await stage.settle()
    keeper = Shelf(stage.client, lease="keeper")
    await stage.client.set(f"{PREFIX}keeper", "keeper")
    before = await stage.allocate("m1")
    server = f"{PREFIX}server:{before.session.server}"
    # As if all this had been before the jump, and the last look too.
    now_ms = int(primary.ask("TIME")[0]) * 1000
    await stage.client.hset(f"{PREFIX}session:{before.session.id}", "changed_ms", now_ms - 1000 - jump_ms)
    await stage.client.hset(
        server, mapping={"registered_ms": now_ms - 5000 - jump_ms, "silent_since_ms": now_ms - 500 - jump_ms}
    )
    clock.saw((now_ms - jump_ms) / 1000)
    during = await stage.allocate("m2")
    for _ in range(2):  # the second look finds no jump
        seen = await keeper.observe(FLEET, clock)
        ages = {room.session: room.age_s for entry in seen.entries for room in entry.sessions}
        assert 0.9 <= ages[before.session.id] < 20
        assert 0 <= ages[during.session.id] < 20
        (entry,) = [entry for entry in seen.entries if entry.server == before.session.server]
        assert 4.9 <= entry.age_s < 25
        assert 0.4 <= entry.silent_s < 20


async def test_a_sign_of_life_does_not_outlast_a_clock_that_is_set_back(stack: AsyncExitStack, primary: Valkey) -> None:
    """Written when the clock was an hour ahead, by a server that is gone since."""
    stage = Stage(opened(stack, primary.url), policy=replace(POLICY, shelf=4))
    await stage.settle()
    (raw,) = await stage.client.smembers(f"{PREFIX}servers")
    await stage.client.set(f"{PREFIX}beat:{raw.decode()}", "serve", px=HOUR_MS)
    await stage.keeper.round()
    assert await stage.client.pttl(f"{PREFIX}beat:{raw.decode()}") <= 10_000


async def test_a_moved_session_is_played_once_replicas_have_its_move(
    stack: AsyncExitStack, primary: Valkey, replica: Valkey
) -> None:
    """Else a failover forgets the move, the session moves anew, and two servers play it at one epoch."""
    client = opened(stack, primary.url)
    stage = Stage(client, policy=replace(POLICY, shelf=8))
    await stage.settle()
    sessions = ValkeySessions(client, FLEET, replicas=1)
    one = (await stage.allocate("m1")).session
    os.kill(replica.pid, signal.SIGSTOP)
    try:
        await sessions.open(one.id, server=one.server, epoch=1)  # its claim is another's to confirm
        moved = await stage.shelf.move(one.id, epoch=1)
        assert isinstance(moved, Allocation)
        for _ in range(2):  # the second call finds nothing to change
            with pytest.raises(StoreUnavailable):
                await sessions.open(one.id, server=moved.session.server, epoch=2)
    finally:
        os.kill(replica.pid, signal.SIGCONT)
    await sessions.open(one.id, server=moved.session.server, epoch=2)


async def test_what_replicas_do_not_confirm_is_not_missing(
    stack: AsyncExitStack, primary: Valkey, replica: Valkey
) -> None:
    """A primary that another has replaced does not know the newest tickets and sessions: it must not say that there are none."""
    client = opened(stack, primary.url)
    shelf, tickets = Shelf(client, replicas=1), TicketStore(client, replicas=1)
    session, ticket = session_id(FLEET, MatchId("m1")), new_ticket_id(QueueName("duel"))
    assert await shelf.find(session) is None
    assert await tickets.fetch(ticket) is None
    replica.promote()
    with pytest.raises(StoreUnavailable):
        await shelf.find(session)
    with pytest.raises(StoreUnavailable):
        await tickets.fetch(ticket)
