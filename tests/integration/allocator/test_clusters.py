"""Allocators on whole (fake) clusters: several of them behind one, and one whose API server is away for a minute."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import yaml
from agones_fake import FakeAgones
from fast_clock import hurried

from allocator.backends.kubernetes import KubernetesBackend
from allocator.backends.settings import ClusterSettings
from allocator.keeper import ShelfKeeper
from allocator.model import Allocation, AllocationRequest, FleetPolicy, Unavailable
from allocator.ports import SHELF_LABEL, Backend, BackendUnavailable
from allocator.service import Allocator
from allocator.shelf import Shelf
from fleets.serve.backends import clusters_of, make_backend
from fleets.serve.settings import BackendName, ServeSettings, SettingsError
from fleets.spec.loader import Specs, load
from gameserver.sessions.client import StoreClient, connect
from gameserver.sessions.model import FleetName, MatchId

ARENA, EU, US = FleetName("arena"), FleetName("arena-eu"), FleetName("arena-us")
SPEED = 25.0


def request(match: str, *fleets: FleetName) -> AllocationRequest:
    return AllocationRequest(match=MatchId(match), fleets=fleets, seats=())


@asynccontextmanager
async def keeping(
    client: StoreClient, policies: list[FleetPolicy], backend: Backend
) -> AsyncIterator[tuple[Shelf, Allocator]]:
    shelf = Shelf(client)
    keepers = [ShelfKeeper(policy, shelf, client, backend) for policy in policies]
    tasks = [asyncio.create_task(keeper.run()) for keeper in keepers]
    try:
        async with asyncio.timeout(600):
            for policy in policies:
                while (await shelf.free_rooms([policy.name]))[policy.name] < policy.shelf:
                    await asyncio.sleep(0.05)
        yield shelf, Allocator(shelf, client, policies, backend)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def in_agreement(fake: FakeAgones, shelf: Shelf, fleet: FleetName) -> None:
    """Comes to be: what is allocated for the shelf stands on it, and nothing else does."""
    async with asyncio.timeout(600):
        while True:
            ours = {
                item["metadata"]["name"]
                for item in fake.cluster.servers(fleet)
                if item["status"]["state"] == "Allocated" and item["metadata"]["labels"].get(SHELF_LABEL)
            }
            entries = {entry.server for entry in (await shelf.observe(fleet)).entries}
            if ours == entries:
                return
            await asyncio.sleep(0.1)


def test_an_api_server_that_is_away_for_a_minute(valkey_url: str, tmp_path: Path) -> None:
    """Matches are placed from the shelf and rooms of ended ones used again; who finds none waits, and is served once it is back; nothing leaks."""
    with hurried(SPEED) as make_loop, asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(_away_for_a_minute(valkey_url, tmp_path))


async def _away_for_a_minute(url: str, folder: Path) -> None:
    policy = FleetPolicy(name=ARENA, rooms=2, shelf=4, managed=True)
    async with AsyncExitStack() as stack:
        client = connect(url)
        stack.push_async_callback(client.aclose)
        await client.flushall()
        fake = await stack.enter_async_context(FakeAgones(folder))
        await fake.add_fleet(ARENA, ready=8)
        backend = await stack.enter_async_context(KubernetesBackend(ClusterSettings(kubeconfig=fake.kubeconfig)))
        shelf, allocator = await stack.enter_async_context(keeping(client, [policy], backend))
        loop = asyncio.get_running_loop()
        begun_s, given = loop.time(), list[Allocation]()
        async with fake.api_away():
            while loop.time() - begun_s < 60:
                found = await allocator.allocate(request(f"m{len(given)}", ARENA), deadline_s=5)
                if isinstance(found, Allocation):
                    given.append(found)
                else:  # the shelf is empty: a match ends, and its room is the next one's
                    assert "does not answer" in found.reason or "of at most" in found.reason
                    await allocator.end(given[0].session.id, reason="over")
                await asyncio.sleep(1)
            assert len(given) > 4
            number = 0
            while isinstance(
                await allocator.allocate(request(f"last-{number}", ARENA), deadline_s=60, wait=False), Allocation
            ):
                number += 1  # until the shelf is empty
            waiting = asyncio.create_task(allocator.allocate(request("waits", ARENA), deadline_s=300))
            await asyncio.sleep(5)
        assert isinstance(await waiting, Allocation)
        await in_agreement(fake, shelf, ARENA)
        live = [one for one in given[1:] if (await shelf.find(one.session.id)) is not None]
        places = {(one.session.server, one.session.room) for one in live}
        assert len(places) == len(live)


async def test_fleets_of_several_clusters(valkey: StoreClient, tmp_path: Path) -> None:
    """Each fleet is in its region's cluster; one cluster that is away takes nothing from the other, and the match goes there."""
    async with AsyncExitStack() as stack:
        eu = await stack.enter_async_context(FakeAgones(tmp_path / "eu"))
        us = await stack.enter_async_context(FakeAgones(tmp_path / "us"))
        await eu.add_fleet(EU, ready=3)
        await us.add_fleet(US, ready=3)
        settings = ServeSettings.read(
            {
                "WARMFLEET_KUBECONFIG": str(_kubeconfig(tmp_path, {"one": eu, "two": us})),
                "WARMFLEET_CLUSTERS": "eu-west = one, us-east = two",
            }
        )
        backend = await make_backend(settings, _specs(tmp_path), BackendName.KUBERNETES, stack)
        assert [fleets for _, fleets in clusters_of(backend, [EU, US])] == [(EU,), (US,)]
        policies = [FleetPolicy(name=EU, region="eu-west"), FleetPolicy(name=US, region="us-east")]
        shelf, allocator = await stack.enter_async_context(keeping(valkey, policies, backend))
        await stack.enter_async_context(eu.api_away())
        with pytest.raises(BackendUnavailable):
            await backend.servers(EU, fresh=True)
        wanted = AllocationRequest(
            match=MatchId("m"), fleets=(EU, US), seats=(), latency_ms={"eu-west": 1, "us-east": 90}
        )
        given = []
        for number in range(3):
            found = await allocator.allocate(_named(wanted, f"m{number}"), deadline_s=20)
            assert not isinstance(found, Unavailable)
            given.append(found.session.fleet)
        assert given == [EU, US, US]  # what stood on the shelf, and then where servers can still be had
        await in_agreement(us, shelf, US)


async def test_clusters_that_no_fleet_is_in_are_named(tmp_path: Path) -> None:
    """A region that is misspelt is said at the start; so is a cluster without an allocation endpoint."""
    async with AsyncExitStack() as stack:
        misspelt = ServeSettings.read({"WARMFLEET_CLUSTERS": "eu-wset=one"})
        with pytest.raises(SettingsError, match="eu-wset"):
            await make_backend(misspelt, _specs(tmp_path), BackendName.KUBERNETES, stack)
        env = {
            "WARMFLEET_BACKEND": "agones",
            "WARMFLEET_CLUSTERS": "eu-west=one,us-east=two",
            "WARMFLEET_ALLOCATION_ENDPOINTS": "a:443@eu-west",
            "WARMFLEET_KUBECONFIG": str(tmp_path / "none"),
        }
        with pytest.raises(SettingsError, match="@us-east"):
            ServeSettings.read(env).endpoints_of("us-east")


def _named(request: AllocationRequest, match: str) -> AllocationRequest:
    return AllocationRequest(match=MatchId(match), fleets=request.fleets, seats=(), latency_ms=request.latency_ms)


def _specs(folder: Path) -> Specs:
    fleets = [
        {
            "apiVersion": "warmfleet.dev/v1",
            "kind": "Fleet",
            "metadata": {"name": name, "labels": {"region": region}},
            "spec": {"server": {"game": "gameserver.games.arena:Arena", "image": "registry.example/arena:1"}},
        }
        for name, region in ((EU, "eu-west"), (US, "us-east"))
    ]
    (folder / "fleets.yaml").write_text(yaml.safe_dump_all(fleets))
    return load([folder / "fleets.yaml"])


def _kubeconfig(folder: Path, clusters: dict[str, FakeAgones]) -> Path:
    """One file with a context for each."""
    file = folder / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": fake.kube.url}} for name, fake in clusters.items()],
        "users": [{"name": "fake", "user": {}}],
        "contexts": [
            {"name": name, "context": {"cluster": name, "user": "fake", "namespace": fake.cluster.namespace}}
            for name, fake in clusters.items()
        ],
    }
    file.write_text(yaml.safe_dump(document))
    return file
