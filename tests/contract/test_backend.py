"""
The Backend port's contract, on every backend: in memory, the laptop's, and those of a cluster on the fake Agones.

On real Agones too, where one is named: WARMFLEET_TEST_KUBECONFIG, with a Fleet of 3 replicas called WARMFLEET_TEST_FLEET (warmfleet-test) in the
kubeconfig's namespace, which is the tests' own; and for gRPC WARMFLEET_TEST_ALLOCATOR (host:port), with tls.crt, tls.key and ca.crt in the
folder WARMFLEET_TEST_ALLOCATOR_CERTIFICATES and, if it differs, the certificate's name in WARMFLEET_TEST_ALLOCATOR_NAME.
"""

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from agones_fake import FakeAgones
from fakes import FakeBackend

from allocator.backends.agones import AgonesBackend
from allocator.backends.endpoints import Endpoint
from allocator.backends.kubernetes import KubernetesBackend
from allocator.backends.settings import ClusterSettings
from allocator.model import GameServer, ServerState
from allocator.ports import Backend
from fleets.local.agones import LocalAgones
from fleets.local.planner import LocalFleet
from fleets.render.rendering import render
from fleets.spec.platform import PlatformBody
from gameserver.certificates import CertificateFiles
from gameserver.sessions.model import FleetName, ServerName

FLEET = FleetName("f")
UNKNOWN = ServerName("f-unknown")
GONE = (None, ServerState.SHUTDOWN)
"""How a server is listed that was told to go."""
READY = textwrap.dedent(
    """
    import os, signal, sys, time, urllib.request
    def post(path):
        url = f"http://127.0.0.1:{os.environ['AGONES_SDK_HTTP_PORT']}/{path}"
        urllib.request.urlopen(urllib.request.Request(url, b"{}", {"Content-Type": "application/json"})).read()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    post("ready")
    while True:
        post("health")
        time.sleep(0.2)
    """
)


@dataclass
class Stage:
    """A backend with three Ready servers, and how to end one of them from outside."""

    backend: Backend
    kill: Callable[[ServerName], None] | None
    fleet: FleetName = FLEET

    async def state(self, name: ServerName) -> ServerState | None:
        return next((s.state for s in await self.backend.servers(self.fleet) if s.name == name), None)

    async def allocate(self) -> GameServer:
        server = await self.backend.allocate(self.fleet, labels={"match": "m1"}, annotations={"note": "n"})
        assert server is not None
        return server


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(15):
        while not await check():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def fake(_: Path) -> AsyncIterator[Stage]:
    backend = FakeBackend(FLEET, ready=3)
    yield Stage(backend, backend.kill)


@asynccontextmanager
async def local(logs: Path) -> AsyncIterator[Stage]:
    # No more than three at a time, so that nothing replaces an allocated one.
    fleet = LocalFleet(name=FLEET, command=(sys.executable, "-c", READY), min=3, max=3, buffer=0)
    async with LocalAgones([fleet], logs=logs) as agones:

        def kill(name: ServerName) -> None:
            (pid,) = [s.pid for s in agones.status()[0].servers if s.server.name == name]
            os.kill(pid, signal.SIGKILL)

        async def all_ready() -> bool:
            return [s.state for s in await agones.servers(FLEET)] == [ServerState.READY] * 3

        await until(all_ready)
        yield Stage(agones, kill)


def role_of_the_allocator() -> list[dict[str, Any]]:
    """As it is rendered: the contract must be kept with it."""
    images = {"repository": "registry.example/warmfleet", "tag": "1"}
    server = {"game": "g:G", "image": "i", "transports": ["websocket"]}
    fleet = {"apiVersion": "warmfleet.dev/v1", "kind": "Fleet", "metadata": {"name": "f"}, "spec": {"server": server}}
    items = render([], PlatformBody.model_validate({"images": images, "services": {}}), [fleet])
    (role,) = [i for i in items if (i["kind"], i["metadata"]["name"]) == ("Role", "warmfleet-allocator")]
    rules: list[dict[str, Any]] = role["rules"]
    return rules


@asynccontextmanager
async def kubernetes(folder: Path) -> AsyncIterator[Stage]:
    async with FakeAgones(folder) as fake:
        fake.kube.rules = role_of_the_allocator()
        await fake.add_fleet(FLEET, ready=3)
        fake.cluster.frozen = True  # nothing replaces a deleted one
        backend = KubernetesBackend(ClusterSettings(kubeconfig=fake.kubeconfig))
        async with backend:
            yield Stage(backend, fake.cluster.kill)


@asynccontextmanager
async def agones(folder: Path) -> AsyncIterator[Stage]:
    async with FakeAgones(folder) as fake:
        fake.kube.rules = role_of_the_allocator()
        await fake.add_fleet(FLEET, ready=3)
        fake.cluster.frozen = True  # nothing replaces a deleted one
        files = fake.certificates
        backend = AgonesBackend(
            [Endpoint(address=fake.grpc_address)],
            files=CertificateFiles(certificate=files.client.certificate, key=files.client.key, ca=files.ca),
            cluster=KubernetesBackend(ClusterSettings(kubeconfig=fake.kubeconfig)),
        )
        async with backend:
            yield Stage(backend, fake.cluster.kill)


@asynccontextmanager
async def real_kubernetes(_: Path) -> AsyncIterator[Stage]:
    async with cluster_of_environment() as (cluster, fleet):
        yield Stage(cluster, None, fleet)


@asynccontextmanager
async def real_agones(_: Path) -> AsyncIterator[Stage]:
    if not (address := os.environ.get("WARMFLEET_TEST_ALLOCATOR")):
        pytest.skip("WARMFLEET_TEST_ALLOCATOR is not set: no real allocation service to try")
    folder = Path(os.environ["WARMFLEET_TEST_ALLOCATOR_CERTIFICATES"])
    files = CertificateFiles(certificate=folder / "tls.crt", key=folder / "tls.key", ca=folder / "ca.crt")
    async with cluster_of_environment() as (cluster, fleet):
        name = os.environ.get("WARMFLEET_TEST_ALLOCATOR_NAME", "")
        backend = AgonesBackend([Endpoint(address=address)], files=files, cluster=cluster, server_name=name)
        async with backend:
            yield Stage(backend, None, fleet)


@asynccontextmanager
async def cluster_of_environment() -> AsyncIterator[tuple[KubernetesBackend, FleetName]]:
    """The cluster of the environment, once three servers of the fleet are Ready and it has no others."""
    if not (kubeconfig := os.environ.get("WARMFLEET_TEST_KUBECONFIG")):
        pytest.skip("WARMFLEET_TEST_KUBECONFIG is not set: no real cluster to try")
    fleet = FleetName(os.environ.get("WARMFLEET_TEST_FLEET", "warmfleet-test"))
    backend = KubernetesBackend(ClusterSettings(kubeconfig=Path(kubeconfig)))
    async with backend:
        for server in await backend.servers(fleet):
            if server.state is not ServerState.READY:
                await backend.delete(server.name)
        async with asyncio.timeout(120):
            while [s.state for s in await backend.servers(fleet, fresh=True)] != [ServerState.READY] * 3:
                await asyncio.sleep(0.5)
        yield backend, fleet


@pytest.fixture(params=[fake, local, kubernetes, agones, real_kubernetes, real_agones])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    async with request.param(tmp_path) as stage:
        yield stage


async def test_an_allocated_server_has_its_metadata(stage: Stage) -> None:
    """What is returned and what is listed afterwards are the same: Allocated, dialable, with labels and annotations."""
    server = await stage.allocate()
    assert server.state is ServerState.ALLOCATED
    assert (server.labels["match"], server.annotations["note"]) == ("m1", "n")
    assert server.host
    assert server.ports
    assert server in await stage.backend.servers(stage.fleet)


async def test_nobody_sees_it_allocated_without_its_metadata(stage: Stage) -> None:
    """State and metadata change in one step: a watcher sees both or neither."""
    async with aclosing(stage.backend.watch(stage.fleet)) as watch:  # type: ignore[type-var]
        for _ in range(3):
            assert (await anext(watch)).state is ServerState.READY
        server = await stage.allocate()
        async with asyncio.timeout(5):
            seen = await anext(watch)
    assert (seen.name, seen.state, seen.labels["match"]) == (server.name, ServerState.ALLOCATED, "m1")
    assert seen.annotations["note"] == "n"


async def test_no_server_is_given_twice(stage: Stage) -> None:
    """Of more concurrent allocations than Ready servers each gets another server, and the surplus ones None."""
    asked = [stage.backend.allocate(stage.fleet, labels={"match": str(i)}, annotations={}) for i in range(7)]
    taken = await asyncio.gather(*asked)
    given = {server.name: server.labels["match"] for server in taken if server is not None}
    assert len(given) == 3
    assert taken.count(None) == 4
    assert {s.name: s.labels["match"] for s in await stage.backend.servers(stage.fleet)} == given


async def test_none_left_is_an_answer(stage: Stage) -> None:
    """Without a Ready server an allocation is None, and changes none of the others."""
    for _ in range(3):
        await stage.allocate()
    before = await stage.backend.servers(stage.fleet)
    assert await stage.backend.allocate(stage.fleet, labels={"match": "m2"}, annotations={}) is None
    assert await stage.backend.servers(stage.fleet) == before


async def test_labels_are_added_to_those_that_are_there(stage: Stage) -> None:
    """A label is set or changed, the others stay, and so does the state."""
    server = await stage.allocate()
    await stage.backend.label(server.name, {"match": "", "more": "yes"})
    (found,) = [s for s in await stage.backend.servers(stage.fleet) if s.name == server.name]
    assert dict(found.labels) == {**server.labels, "match": "", "more": "yes"}
    assert (found.state, found.annotations) == (ServerState.ALLOCATED, server.annotations)


async def test_a_server_that_is_not_there_is_no_error(stage: Stage) -> None:
    """Labelling and deleting are asked of servers that may be gone already."""
    before = {server.name for server in await stage.backend.servers(stage.fleet)}
    await stage.backend.label(UNKNOWN, {"a": "b"})
    await stage.backend.delete(UNKNOWN)
    server = await stage.allocate()
    await stage.backend.delete(server.name)
    await stage.backend.delete(server.name)
    await stage.backend.label(server.name, {"a": "b"})
    assert before >= {server.name}
    assert await stage.state(server.name) in GONE


async def test_a_deleted_server_is_not_given_any_more(stage: Stage) -> None:
    """Deleted while Ready or Allocated, it is not allocated again, and listed as Shutdown at most while its process ends."""
    allocated = await stage.allocate()
    ready = [s.name for s in await stage.backend.servers(stage.fleet) if s.state is ServerState.READY]
    await stage.backend.delete(allocated.name)
    await stage.backend.delete(ready[0])
    given = await stage.allocate()
    assert given.name == ready[1]
    assert await stage.state(allocated.name) in GONE


@pytest.mark.parametrize("how", ["delete", "kill"])
async def test_a_watcher_sees_every_server_first_then_changes(stage: Stage, how: str) -> None:
    """First every live server, then each change; one that is gone comes a last time with state Shutdown."""
    if stage.kill is None and how == "kill":
        pytest.skip("a real server's process is not killed from here")
    live = {server.name for server in await stage.backend.servers(stage.fleet)}
    async with asyncio.timeout(15), aclosing(stage.backend.watch(stage.fleet)) as watch:  # type: ignore[type-var]
        assert {(await anext(watch)).name for _ in range(3)} == live
        server = await stage.allocate()
        assert (await anext(watch)).name == server.name
        if how == "delete":
            await stage.backend.delete(server.name)
        else:
            stage.kill(server.name)
        states = []
        while ServerState.SHUTDOWN not in states:
            seen = await anext(watch)
            if seen.name == server.name:
                states.append(seen.state)
    assert set(states) <= {ServerState.ALLOCATED, ServerState.UNHEALTHY, ServerState.SHUTDOWN}

    async def gone() -> bool:
        return await stage.state(server.name) is None

    await until(gone)


async def test_a_watcher_that_leaves_disturbs_nobody(stage: Stage) -> None:
    """Of two watchers one ends; the other goes on seeing changes."""
    first, second = stage.backend.watch(stage.fleet), stage.backend.watch(stage.fleet)
    async with asyncio.timeout(15), aclosing(second):  # type: ignore[type-var]
        async with aclosing(first):  # type: ignore[type-var]
            await anext(first)
            for _ in range(3):
                await anext(second)
        server = await stage.allocate()
        assert (await anext(second)).name == server.name
