"""
The allocator's machine (tests/allocator_machine.py) on a store that is always there, and on stores that restart and fail over.

Stated outcomes (docs/decisions/0034): a restart from an append-only file that is always synced loses nothing. A failover to a replica may lose what it
had not been sent: matches, ends and moves of the last moment are undone, and everything is consistent nevertheless: rooms add up, no match is played by two
servers that are listened to, servers that the store has forgotten are found at the backend. What waited for a replica is never lost.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis.strategies as st
import pytest
from allocating import FLEET, PREFIX, SEATS, SETTLE_S
from allocator_machine import AllocatorMachine, run_machine
from hypothesis.stateful import rule
from valkeys import Name, Valkey

from allocator.model import Allocation, AllocationRequest
from allocator.service import Allocator
from allocator.shelf import Shelf
from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import MatchId

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


def test_a_store_that_restarts_loses_nothing(restarting: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between any two steps: all invariants hold over the restart."""
    monkeypatch.setattr("allocator.planner.SETTLE_S", SETTLE_S)
    run_machine(lambda: RestartingMachine(restarting), examples=6)


def test_a_failover_leaves_a_consistent_whole(pair: list[Valkey], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost are the last writes at most; rooms, matches and servers fit together again by themselves."""
    monkeypatch.setattr("allocator.planner.SETTLE_S", SETTLE_S)
    run_machine(lambda: FailoverMachine(pair), examples=8)
