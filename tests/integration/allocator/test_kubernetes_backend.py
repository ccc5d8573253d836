"""Backend `kubernetes` against the fake API server: what an API server does on good and on bad days."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from agones_fake import Effect, FakeAgones, Fault, Timing

from allocator.backends.cluster import ClusterApi
from allocator.backends.informer import Informer
from allocator.backends.kubernetes import KubernetesBackend, game_server
from allocator.backends.settings import ClusterSettings
from allocator.model import GameServer, ServerState
from allocator.ports import SHELF_LABEL, BackendUnavailable
from gameserver.sessions.model import FleetName

FLEET = FleetName("arena")
SHELVED = {SHELF_LABEL: "yes"}


@asynccontextmanager
async def stage(
    folder: Path, timing: Timing | None = None, *, ready: int = 3, token: str = "", address_type: str = ""
) -> AsyncIterator[tuple[FakeAgones, KubernetesBackend]]:
    async with FakeAgones(folder, timing, token=token) as fake:
        await fake.add_fleet(FLEET, ready)
        settings = ClusterSettings(kubeconfig=fake.kubeconfig)
        api = ClusterApi(settings, timeout_s=3.0)
        async with KubernetesBackend(settings, api=api, address_type=address_type) as backend:
            yield fake, backend


async def allocate(backend: KubernetesBackend, **labels: str) -> GameServer | None:
    return await backend.allocate(FLEET, labels=labels or SHELVED, annotations={})


async def states(backend: KubernetesBackend) -> dict[str, ServerState]:
    return {server.name: server.state for server in await backend.servers(FLEET)}


async def until_watched(fake: FakeAgones) -> None:
    async with asyncio.timeout(20):
        while not fake.kube.watching:
            await asyncio.sleep(0.01)


async def until_same(fake: FakeAgones, backend: KubernetesBackend) -> None:
    """Until the copy is the truth."""
    async with asyncio.timeout(20):
        while True:
            try:
                seen = {n: s.value for n, s in (await states(backend)).items() if s is not ServerState.SHUTDOWN}
            except BackendUnavailable:
                seen = {}
            if seen == fake.cluster.states(FLEET):
                return
            await asyncio.sleep(0.02)


async def test_a_look_costs_no_call(tmp_path: Path) -> None:
    """One list and one watch serve every look and every watcher of a fleet."""
    async with stage(tmp_path) as (fake, backend):
        for _ in range(50):
            await backend.servers(FLEET)
        async with aclosing(backend.watch(FLEET)) as watch:  # type: ignore[type-var]
            await anext(watch)
        await until_watched(fake)
        assert (fake.faults.calls["list"], fake.faults.calls["watch"]) == (1, 1)


async def test_a_broken_watch_is_resumed_where_it_was(tmp_path: Path) -> None:
    """What happened meanwhile comes, without a new list."""
    async with stage(tmp_path) as (fake, backend):
        await backend.servers(FLEET)
        for _ in range(3):
            await until_watched(fake)
            fake.kube.cut_watches()
            fake.cluster.kill(next(iter(fake.cluster.states(FLEET))))
            await fake.until_ready(FLEET, 3)
            await until_same(fake, backend)
        assert fake.faults.calls["list"] == 1
        assert fake.faults.calls["watch"] >= 4


@pytest.mark.parametrize("by_status", [False, True])
async def test_a_version_that_is_gone_is_listed_anew(tmp_path: Path, by_status: bool) -> None:
    """410, as an event or as the watch's status: the truth is taken up from a list."""
    async with stage(tmp_path) as (fake, backend):
        await backend.servers(FLEET)
        fake.kube.gone_by_status = by_status
        gone = next(iter(fake.cluster.states(FLEET)))
        fake.kube.cut_watches()
        fake.cluster.kill(gone)
        fake.cluster.compact()
        await fake.until_ready(FLEET, 3)
        await until_same(fake, backend)
        assert gone not in await states(backend)
        assert fake.faults.calls["list"] == 2


async def test_what_was_just_done_is_seen_though_watches_lag(tmp_path: Path) -> None:
    """An allocation, a label and a deletion are in the list when the call returns."""
    async with stage(tmp_path, Timing(watch_lag_s=1.0)) as (fake, backend):
        await until_same(fake, backend)
        server = await allocate(backend)
        assert server is not None
        assert (await states(backend))[server.name] is ServerState.ALLOCATED
        await backend.label(server.name, {"a": "b"})
        assert {s.labels.get("a") for s in await backend.servers(FLEET) if s.name == server.name} == {"b"}
        await backend.delete(server.name)
        assert (await states(backend)).get(server.name) in (None, ServerState.SHUTDOWN)
        assert fake.faults.calls["list"] == 1


async def test_an_api_server_that_goes_away(tmp_path: Path) -> None:
    """What was last heard counts for two seconds, then the backend says that it does not know; afterwards everything goes on."""
    async with stage(tmp_path) as (fake, backend):
        assert len(await backend.servers(FLEET)) == 3
        async with fake.api_away():
            with pytest.raises(BackendUnavailable, match="allocate"):
                await allocate(backend)
            async with asyncio.timeout(10):
                with pytest.raises(BackendUnavailable, match="gameservers are not known"):
                    while True:
                        assert len(await backend.servers(FLEET)) == 3
                        await asyncio.sleep(0.05)
            fake.cluster.kill(next(iter(fake.cluster.states(FLEET))))
        await fake.until_ready(FLEET, 3)
        await until_same(fake, backend)
        assert await allocate(backend) is not None


async def test_a_watch_that_died_without_a_word_is_found_out(tmp_path: Path) -> None:
    """Nothing comes and nothing breaks: the watch is asked to end in time, and one that does not is given up."""
    async with FakeAgones(tmp_path) as fake:
        await fake.add_fleet(FLEET, 2)
        async with ClusterApi(ClusterSettings(kubeconfig=fake.kubeconfig)) as api:
            informer: Informer[GameServer] = Informer(
                api, "gameservers", "", decode=game_server, ended=lambda s: s, watch_s=1
            )
            running = asyncio.create_task(informer.run())
            assert len(await informer.values(wait_s=5)) == 2
            fake.kube.stalled = True
            fake.cluster.scale(FLEET, 5)
            await fake.until_ready(FLEET, 5)
            fake.faults.add(Fault(on="watch", effect=Effect.DELAY, seconds=0, times=None))
            await asyncio.sleep(0)
            async with asyncio.timeout(20):
                while fake.faults.calls["watch"] < 2:
                    await asyncio.sleep(0.05)
            fake.kube.stalled = False
            async with asyncio.timeout(20):
                while len(await informer.values(wait_s=5)) < 5:
                    await asyncio.sleep(0.05)
            running.cancel()
            await asyncio.wait([running])


async def test_fresh_looks_see_through_a_silent_watch(tmp_path: Path) -> None:
    """`fresh` asks the source, and what it says is in the copy from then on."""
    async with stage(tmp_path) as (fake, backend):
        await backend.servers(FLEET)
        fake.kube.stalled = True
        gone = next(iter(fake.cluster.states(FLEET)))
        fake.cluster.frozen = True
        fake.cluster.delete("gameservers", gone)
        async with asyncio.timeout(5):
            while gone in fake.cluster.states(FLEET) or len(fake.cluster.servers(FLEET)) == 3:
                await asyncio.sleep(0.01)
        assert gone in await states(backend)
        assert gone not in {server.name for server in await backend.servers(FLEET, fresh=True)}
        assert gone not in await states(backend)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(on="allocate", effect=Effect.CONTENTION, times=2),
        Fault(on="allocate", effect=Effect.STATUS, status=429, times=2, headers={"Retry-After": "0"}),
        Fault(on="allocate", effect=Effect.STATUS, status=409, times=2),
    ],
    ids=["contention", "429", "409"],
)
async def test_what_surely_changed_nothing_is_asked_again(tmp_path: Path, fault: Fault) -> None:
    """Contention and being turned away are no answer: the next try gets the server, and only one is taken."""
    async with stage(tmp_path) as (fake, backend):
        fake.faults.add(fault)
        assert await allocate(backend) is not None
        assert fake.faults.calls["allocate"] == 3
        assert list(fake.cluster.states(FLEET).values()).count("Allocated") == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault(on="allocate", effect=Effect.DROP_AFTER),
        Fault(on="allocate", effect=Effect.DROP_BEFORE),
        Fault(on="allocate", effect=Effect.STATUS, status=503),
        Fault(on="allocate", effect=Effect.STATUS, status=500),
        Fault(on="allocate", effect=Effect.STALL_AFTER),
    ],
    ids=["lost-reply", "dropped", "503", "500", "stalled"],
)
async def test_what_may_have_happened_is_not_repeated(tmp_path: Path, fault: Fault) -> None:
    """The caller is told; a server that was taken all the same carries the labels by which it is found."""
    async with stage(tmp_path) as (fake, backend):
        fake.faults.add(fault)
        with pytest.raises(BackendUnavailable):
            await allocate(backend)
        assert fake.faults.calls["allocate"] == 1
        taken = [s for s in await backend.servers(FLEET, fresh=True) if s.state is ServerState.ALLOCATED]
        after = fault.effect in (Effect.DROP_AFTER, Effect.STALL_AFTER)
        assert [server.labels[SHELF_LABEL] for server in taken] == ["yes"] * after


@pytest.mark.parametrize("effect", [Effect.DROP_BEFORE, Effect.DROP_AFTER, Effect.STATUS])
async def test_labels_and_deletions_are_repeated(tmp_path: Path, effect: Effect) -> None:
    """They may happen twice: a few tries pass over what breaks in between."""
    async with stage(tmp_path) as (fake, backend):
        server = await allocate(backend)
        assert server is not None
        for call in ("patch", "delete"):
            fake.faults.add(Fault(on=call, effect=effect, times=2, status=503))
        await backend.label(server.name, {"a": "b"})
        assert fake.cluster.get("gameservers", server.name)["metadata"]["labels"]["a"] == "b"
        await backend.delete(server.name)
        assert server.name not in fake.cluster.states(FLEET)


@pytest.mark.parametrize(
    ("status", "says"), [(403, "lacks the right"), (404, "is Agones installed"), (422, "injected")]
)
async def test_refusals_say_the_mend(tmp_path: Path, status: int, says: str) -> None:
    """What will not pass by itself is said in words."""
    async with stage(tmp_path) as (fake, backend):
        fake.faults.add(Fault(on="allocate", effect=Effect.STATUS, status=status))
        with pytest.raises(BackendUnavailable, match=says):
            await allocate(backend)
        fake.faults.add(Fault(on="list", effect=Effect.STATUS, status=status, times=None))
        with pytest.raises(BackendUnavailable, match=says):
            await backend.servers(FLEET, fresh=True)


async def test_a_rotated_token_is_read_anew(tmp_path: Path) -> None:
    """An API server that no longer takes the token makes the credentials be read again."""
    async with stage(tmp_path, token="first") as (fake, backend):
        assert await allocate(backend) is not None
        fake.kubeconfig.write_text(fake.kubeconfig.read_text().replace("first", "second"))
        fake.kube.token = "second"
        fake.kube.cut_watches()
        assert await allocate(backend) is not None
        await until_same(fake, backend)


async def test_the_pods_own_address_is_found_where_agones_left_it_out(tmp_path: Path) -> None:
    """Agones writes the PodIP into status.addresses only sometimes."""
    async with FakeAgones(tmp_path) as fake:
        fake.cluster.pods_with_ip = 0.5
        await fake.add_fleet(FLEET, 6)
        backend = KubernetesBackend(ClusterSettings(kubeconfig=fake.kubeconfig), address_type="PodIP")
        async with backend:
            for _ in range(6):
                assert await allocate(backend) is not None
            servers = await backend.servers(FLEET)
            pods = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in fake.cluster.list("pods")}
            assert {server.name: server.host for server in servers} == pods


async def test_fleets_are_counted(tmp_path: Path) -> None:
    """The Fleets of the namespace with their own numbers, followed by a watch."""
    async with stage(tmp_path) as (fake, backend):
        await backend.fleet_counts()
        await allocate(backend)
        async with asyncio.timeout(10):
            while [(f.name, f.replicas, f.ready, f.allocated) for f in await backend.fleet_counts()] != [
                (FLEET, 3, 2, 1)
            ]:
                await asyncio.sleep(0.02)
        assert fake.faults.calls["list"] <= 2


async def test_pages_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that comes in pages is one list."""
    monkeypatch.setattr("allocator.backends.cluster._PAGE", 2)
    async with stage(tmp_path, ready=5) as (_, backend):
        assert len(await backend.servers(FLEET)) == 5


async def test_cancelled_at_any_moment_it_goes_on_working(tmp_path: Path) -> None:
    """Calls cut short leave the client usable; every server that was taken is found by its label."""
    rng = random.Random(5)
    async with stage(tmp_path, ready=6) as (fake, backend):
        await backend.servers(FLEET)
        for _ in range(12):
            asking = asyncio.create_task(allocate(backend))
            await asyncio.sleep(rng.uniform(0, 0.02))
            asking.cancel()
            await asyncio.wait([asking])
        await asyncio.sleep(0.05)
        found = await backend.servers(FLEET, fresh=True)
        taken = {server.name for server in found if server.labels.get(SHELF_LABEL)}
        assert taken == {name for name, state in fake.cluster.states(FLEET).items() if state == "Allocated"}
        await backend.label(found[0].name, {"a": "b"})


async def test_a_new_version_is_told_by_its_set(tmp_path: Path) -> None:
    """A new template makes a new GameServerSet; the Allocated server keeps its old one."""
    async with stage(tmp_path) as (fake, backend):
        server = await allocate(backend)
        assert server is not None
        fake.cluster.new_version(FLEET, "registry.example/game:2")
        async with asyncio.timeout(10):
            while len(fake.cluster.list("gameserversets")) < 2:
                await asyncio.sleep(0.02)
        await fake.until_ready(FLEET, 2)
        await until_same(fake, backend)
        versions = {s.version for s in await backend.servers(FLEET) if s.state is ServerState.READY}
        assert len(versions) == 1
        assert server.version not in versions
