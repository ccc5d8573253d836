"""What a rollout does to the matches under way: the keeper on a real Valkey, game servers by what they say to it."""

from dataclasses import replace

import pytest
import redis.asyncio
from fakes import FakeBackend

from allocator.keeper import ShelfKeeper
from allocator.model import Allocation, AllocationRequest, FleetPolicy, ServerState
from allocator.ports import RETIRE_LABEL
from allocator.recovery import Recovery
from allocator.service import Allocator
from allocator.shelf import Shelf
from gameserver.sessions.model import (
    FleetName,
    MatchId,
    Orders,
    PlayerId,
    Seat,
    ServerMode,
    ServerName,
    Session,
)
from gameserver.sessions.valkey import ValkeySessions

FLEET = FleetName("arena")


class Cluster:
    """A fleet of the old version with one match under way."""

    def __init__(self, client: redis.asyncio.Redis, *, migrate: bool) -> None:
        policy = FleetPolicy(name=FLEET, shelf=1, migrate=migrate)
        self.backend = FakeBackend(FLEET, 2)
        self.shelf = Shelf(client)
        self.keeper = ShelfKeeper(policy, self.shelf, client, self.backend)
        self.recovery = Recovery(policy, self.shelf)
        self.allocator = Allocator(self.shelf, client, [policy], self.backend)
        self.sessions = ValkeySessions(client, FLEET)

    async def play(self) -> Session:
        """A match begins, is opened by its server, and has got to tick 7."""
        for name, server in self.backend.all.items():
            self.backend.all[name] = replace(server, version="1")
        await self.settle()
        request = AllocationRequest(match=MatchId("m"), fleets=(FLEET,), seats=(Seat(index=0, player=PlayerId("ann")),))
        given = await self.allocator.allocate(request, deadline_s=1.0)
        assert isinstance(given, Allocation)
        opened, _ = await self.sessions.open(given.session.id, server=given.session.server, epoch=1)
        await self.beat(opened.server, opened)
        await self.sessions.checkpoint(opened.id, epoch=1, tick=7, state=b"seven")
        return opened

    async def beat(self, server: ServerName, *open_: Session) -> Orders:
        rooms = {session.id: session.epoch for session in open_}
        return await self.sessions.beat(server, ttl_s=60, mode=ServerMode.SERVE, rooms=rooms)

    async def settle(self) -> None:
        for _ in range(4):
            await self.keeper.round()
            await self.recovery.round()

    def promote(self) -> None:
        """As Agones' own update does it: the Ready servers are replaced, the Allocated ones left alone."""
        for server in [s for s in self.backend.all.values() if s.state is ServerState.READY]:
            self.backend.kill(server.name)
        before = set(self.backend.all)
        self.backend.add(2)
        for name in set(self.backend.all) - before:
            self.backend.all[name] = replace(self.backend.all[name], version="2")

    def retire(self, server: ServerName) -> None:
        """As a rollout does to a canary that is to go."""
        held = self.backend.all[server]
        self.backend.all[server] = replace(held, labels={**held.labels, RETIRE_LABEL: "true"})


@pytest.mark.parametrize("retired", [False, True], ids=["promoted", "retired"])
async def test_with_migrate_a_match_moves_to_the_other_version(valkey: redis.asyncio.Redis, retired: bool) -> None:
    """Live, at its server's own tick; its old server is then replaced."""
    cluster = Cluster(valkey, migrate=True)
    match = await cluster.play()
    cluster.promote()
    if retired:
        cluster.retire(match.server)
    await cluster.settle()
    orders = await cluster.beat(match.server, match)
    assert [placed.session for placed in orders.placed if placed.reserved] == [match.id]
    moved = await cluster.sessions.hand_over(match, tick=9, state=b"nine")
    assert moved is not None
    assert (moved.epoch, moved.server == match.server) == (2, False)
    assert cluster.backend.all[moved.server].version == "2"
    again, state = await cluster.sessions.open(match.id, server=moved.server, epoch=2)
    assert (again.checkpoint_tick, state) == (9, b"nine")
    await cluster.settle()
    assert match.server not in cluster.backend.all


@pytest.mark.parametrize("retired", [False, True], ids=["promoted", "retired"])
async def test_with_finish_a_match_is_played_to_its_end(valkey: redis.asyncio.Redis, retired: bool) -> None:
    """Nobody asks its server to give it away, and nobody new comes to it; once it is over the server is replaced."""
    cluster = Cluster(valkey, migrate=False)
    match = await cluster.play()
    cluster.promote()
    if retired:
        cluster.retire(match.server)
    await cluster.settle()
    orders = await cluster.beat(match.server, match)
    assert not [placed for placed in orders.placed if placed.reserved]
    assert not orders.fenced
    entry = next(e for e in (await cluster.shelf.observe(FLEET)).entries if e.server == match.server)
    assert entry.draining
    await cluster.sessions.end(match.id, epoch=1, results=b"{}")
    await cluster.settle()
    assert match.server not in cluster.backend.all
