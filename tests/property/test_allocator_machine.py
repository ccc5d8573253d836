"""
The allocator's machine (tests/allocator_machine.py) on a store that is always there, and on stores that restart and fail over.

Stated outcomes (docs/decisions/0034): a restart from an append-only file that is always synced loses nothing. A failover to a replica may lose what it
had not been sent: matches, ends and moves of the last moment are undone, and everything is consistent nevertheless: rooms add up, no match is played by two
servers that are listened to, servers that the store has forgotten are found at the backend. What waited for a replica is never lost.
"""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from agones_fake import Effect, FakeAgones, Fault
from allocating import FLEET, PREFIX, SEATS, SETTLE_S, Stage
from allocator_machine import AllocatorMachine, run_machine
from hypothesis.stateful import rule
from valkeys import Name, Valkey

from allocator.backends.cluster import ClusterApi
from allocator.backends.kubernetes import KubernetesBackend, game_server
from allocator.backends.settings import ClusterSettings
from allocator.model import Allocation, AllocationRequest, GameServer, ServerState
from allocator.ports import RECYCLE_LABEL
from allocator.service import Allocator
from allocator.shelf import Shelf
from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import FleetName, MatchId, ServerName

TIMEOUT_S = 0.3
"""Of a call to the cluster."""
ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")


class RestartingMachine(AllocatorMachine):
    """The store is killed at any time and comes back with all that it acknowledged."""

    def __init__(self, store: Valkey) -> None:
        self.store = store
        super().__init__(store.url)

    @rule()
    def the_store_restarts(self) -> None:
        self.store.kill()
        self.store.start()


class FailoverMachine(AllocatorMachine):
    """The replica takes over behind the same name, with everything or with what it had some time ago."""

    def __init__(self, pair: list[Valkey]) -> None:
        self.pair = pair
        """The primary and its replica."""
        self.name = Name(pair[0])
        self.durable = 0
        super().__init__("")

    async def connected(self, url: str) -> StoreClient:
        self._serving = self.name.serving()
        await self._serving.__aenter__()
        return await super().connected(self.name.url)

    async def close(self) -> None:
        await super().close()
        await self._serving.__aexit__(None, None, None)
        self._in_step()

    @rule()
    def replication_stops(self) -> None:
        """From now on the replica hears nothing."""
        self.pair[1].promote()

    @rule()
    def the_replica_takes_over(self) -> None:
        """What it was not sent has never been; the old primary follows it from now on."""
        old, new = self.pair
        if new.follows(old):
            new.catch_up(old)
        old.kill()
        new.promote()
        self.name.target = new
        old.start()
        self.pair.reverse()
        self._in_step()
        self.records.clear()
        self.floor.clear()

    @rule(number=st.integers(0, 999))
    def a_claim_that_waits_for_the_replica(self, number: int) -> None:
        """It is answered only once the replica has it, so a failover right after it finds it there."""
        if not self.pair[1].follows(self.pair[0]):
            return
        allocator = Allocator(Shelf(self.client, replicas=1), self.client, [self.policy], self.backend)
        request = AllocationRequest(match=MatchId(f"durable-{number}"), fleets=(FLEET,), seats=SEATS)
        found = self.run(allocator.allocate(request, deadline_s=10, wait=False))
        if isinstance(found, Allocation):
            record = f"{PREFIX}session:{found.session.id}"
            assert self.pair[1].ask("HGET", record, "server").decode() == found.session.server

    def _in_step(self) -> None:
        self.pair[1].follow(self.pair[0])


class OnAgones:
    """The backend `kubernetes` on the fake Agones, whose faults are Agones' own."""

    def __init__(self, fake: FakeAgones) -> None:
        self.fake = fake
        self.rng = random.Random(0)
        settings = ClusterSettings(kubeconfig=fake.kubeconfig)
        self.backend = KubernetesBackend(settings, api=ClusterApi(settings, timeout_s=TIMEOUT_S))
        self._rate = 0.0

    @property
    def all(self) -> dict[ServerName, GameServer]:
        return {ServerName(item["metadata"]["name"]): game_server(item) for item in self.fake.cluster.servers(FLEET)}

    @property
    def lose_replies(self) -> float:
        return self._rate

    @lose_replies.setter
    def lose_replies(self, rate: float) -> None:
        self._rate = rate
        self.fake.faults.clear()
        if rate:
            self.fake.faults.add(
                Fault(on="allocate", effect=Effect.DROP_AFTER, times=None, chance=rate / 3),
                Fault(on="allocate", effect=Effect.CONTENTION, times=None, chance=rate / 3),
                Fault(on="allocate", effect=Effect.STATUS, status=429, times=None, chance=rate / 3),
                Fault(on="allocate", effect=Effect.STALL_AFTER, seconds=2 * TIMEOUT_S, times=None, chance=rate / 3),
                Fault(on="allocate", effect=Effect.DROP_BEFORE, times=None, chance=rate),
                Fault(on="patch", effect=Effect.DROP_AFTER, times=None, chance=rate / 2),
                Fault(on="delete", effect=Effect.DROP_AFTER, times=None, chance=rate / 2),
            )

    def add(self, count: int = 1) -> None:
        replicas = self.fake.cluster.get("fleets", FLEET)["spec"]["replicas"]
        self.fake.cluster.scale(FLEET, replicas + count)

    def kill(self, name: ServerName) -> None:
        if name in self.all:
            self.fake.cluster.kill(name)

    async def allocate(self, fleet: FleetName, *, labels: Any, annotations: Any) -> GameServer | None:
        return await self.backend.allocate(fleet, labels=labels, annotations=annotations)

    async def servers(self, fleet: FleetName, *, fresh: bool = False) -> tuple[GameServer, ...]:
        return await self.backend.servers(fleet, fresh=fresh)

    def watch(self, fleet: FleetName) -> AsyncIterator[GameServer]:
        return self.backend.watch(fleet)

    async def label(self, server: ServerName, labels: Any) -> None:
        try:
            await self.backend.label(server, labels)
        finally:
            held = self.all.get(server)
            if held is not None and held.labels.get(RECYCLE_LABEL) == "ready" and held.state is ServerState.ALLOCATED:
                self.fake.cluster.set_state(server, "Ready")  # as the game server's own agent does

    async def delete(self, server: ServerName) -> None:
        await self.backend.delete(server)


class AgonesMachine(AllocatorMachine):
    """Allocations come from Agones' API, and fail as there: UnAllocated, Contention, 429, timeouts, replies that are lost."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self.stack = AsyncExitStack()
        super().__init__(url)

    async def made_backend(self, ready: int) -> Stage:
        fake = await self.stack.enter_async_context(FakeAgones(self.folder))
        await fake.add_fleet(FLEET, ready=ready)
        self.stage = OnAgones(fake)
        await self.stack.enter_async_context(self.stage.backend)
        return self.stage

    async def stock(self, count: int) -> None:
        await super().stock(count)
        await self.stage.fake.until_ready(FLEET, count)

    async def close(self) -> None:
        await self.stack.aclose()
        await super().close()


@pytest.fixture
def restarting(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path / "durable", *ALWAYS) as valkey:
        yield valkey


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[Valkey]]:
    with ExitStack() as stack:
        found = [stack.enter_context(Valkey(tmp_path / name, "--appendonly", "no")) for name in ("one", "two")]
        found[1].follow(found[0])
        yield found


def test_allocators_keepers_and_servers_among_faults(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No step gives a room twice, no fault leaves anything behind, no match is lost or played by two."""
    monkeypatch.setattr("allocator.planner.SETTLE_S", SETTLE_S)
    run_machine(lambda: AllocatorMachine(valkey_url), examples=25)


def test_allocations_from_agones(valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on Agones' own API with its faults: no server is given twice, and none is left behind."""
    monkeypatch.setattr("allocator.planner.SETTLE_S", SETTLE_S)
    run_machine(lambda: AgonesMachine(valkey_url, tmp_path), examples=5, steps=30)


def test_a_store_that_restarts_loses_nothing(restarting: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between any two steps: all invariants hold over the restart."""
    monkeypatch.setattr("allocator.planner.SETTLE_S", SETTLE_S)
    run_machine(lambda: RestartingMachine(restarting), examples=6)


def test_a_failover_leaves_a_consistent_whole(pair: list[Valkey], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost are the last writes at most; rooms, matches and servers fit together again by themselves."""
    monkeypatch.setattr("allocator.planner.SETTLE_S", SETTLE_S)
    run_machine(lambda: FailoverMachine(pair), examples=8)
