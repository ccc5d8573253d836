"""Replicas of directors on a real Valkey: which of them leads which queue, and how a queue goes from one to another."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import pytest
from matchmaking import DUEL, FakeAllocator, until

import matchmaker.director
import matchmaker.replicas
from gameserver.sessions.client import StoreClient, connect
from matchmaker import metrics
from matchmaker.director import Director
from matchmaker.model import QueueName
from matchmaker.replicas import Replicas, preferred
from matchmaker.store import TicketStore

QUEUES = [replace(DUEL, name=QueueName(f"shared{index}")) for index in range(6)]


@dataclass(frozen=True)
class Process:
    """What a director process is made of."""

    replicas: Replicas
    directors: list[Director]
    tasks: list[asyncio.Task[None]]

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)

    def leads_what_it_should(self) -> bool:
        return all(each.leading == self.replicas.preferred(each.queue.name) for each in self.directors)


@asynccontextmanager
async def process(valkey_url: str, name: str) -> AsyncIterator[Process]:
    async with AsyncExitStack() as stack:
        client = connect(valkey_url)
        stack.push_async_callback(client.aclose)
        store = TicketStore(client)
        replicas = Replicas(store, name=name)
        directors = [Director(queue, store, FakeAllocator(), replicas=replicas) for queue in QUEUES]
        runs = [replicas.run, *(director.run for director in directors)]
        here = Process(replicas, directors, [asyncio.create_task(run()) for run in runs])
        stack.push_async_callback(here.stop)
        yield here


@pytest.fixture
def takeovers() -> dict[QueueName, float]:
    """By queue: how often a director of this process has begun to lead it before."""
    return {queue.name: _takeovers(queue.name) for queue in QUEUES}


def _takeovers(queue: QueueName) -> float:
    return metrics.TAKEOVERS.labels(queue)._value.get()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats and looks in tenths of a second."""
    for module, name, value in (
        (matchmaker.director, "LEASE_S", 0.5),
        (matchmaker.director, "_TICK_S", 0.03),
        (matchmaker.director, "_ADOPT_S", 0.03),
        (matchmaker.replicas, "_BEAT_S", 0.1),
        (matchmaker.replicas, "_ALIVE_S", 1.0),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.mark.usefixtures("hasty")
async def test_a_queue_goes_once_to_the_replica_that_comes_and_should_lead_it(
    valkey: StoreClient, valkey_url: str, takeovers: dict[QueueName, float]
) -> None:
    async with process(valkey_url, "r0") as first:
        await until(lambda: _true(all(director.leading for director in first.directors)))
        async with process(valkey_url, "r1") as second:

            def settled() -> bool:
                both = sum(d.leading for d in (*first.directors, *second.directors)) == len(QUEUES)
                return both and first.leads_what_it_should() and second.leads_what_it_should()

            await until(lambda: _true(len(first.replicas._alive) == len(second.replicas._alive) == 2 and settled()))
            await asyncio.sleep(0.5)
            assert settled()
            for queue in QUEUES:
                moves = 2 if preferred(queue.name, ["r0", "r1"]) == "r1" else 1
                assert _takeovers(queue.name) - takeovers[queue.name] == moves, queue.name


@pytest.mark.usefixtures("hasty")
async def test_who_takes_over_from_a_dead_replica_does_not_hand_the_queue_back_to_it(
    valkey: StoreClient, valkey_url: str, takeovers: dict[QueueName, float]
) -> None:
    """The dead one is counted as alive for longer than its lease lasts."""
    store = TicketStore(valkey)
    await store.beat("r0", alive_s=1.0)
    async with process(valkey_url, "r1") as second:
        await until(lambda: _true(all(director.leading for director in second.directors)))
        assert len(second.replicas._alive) == 2, "it is still counted"
        await until(lambda: _true(len(second.replicas._alive) == 1))
        assert all(director.leading for director in second.directors)
        assert all(_takeovers(queue.name) - takeovers[queue.name] == 1 for queue in QUEUES)


async def test_a_lease_that_is_kept_for_a_replica_is_taken_by_its_director_alone(valkey: StoreClient) -> None:
    store = TicketStore(valkey)
    assert await store.hold_lease(DUEL.name, "r0.a", lease_s=60)
    await store.release_lease(DUEL.name, "r0.a", heir="r1")
    for other in ("r0.a", "r2.b", "plain", "r10.c"):
        assert not await store.hold_lease(DUEL.name, other, lease_s=60), other
    assert await store.hold_lease(DUEL.name, "r1.d", lease_s=60)
    await store.release_lease(DUEL.name, "r1.d", heir="gone")
    await until(lambda: store.hold_lease(DUEL.name, "r2.b", lease_s=60))


async def _true(value: bool) -> bool:
    return value
