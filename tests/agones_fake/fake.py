"""The fake as one thing: cluster, both allocators, both APIs, and what clients need to reach them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import yaml

from agones_fake.allocation import Allocator
from agones_fake.certificates import Certificates
from agones_fake.cluster import FakeCluster, Timing
from agones_fake.faults import Faults
from agones_fake.grpc_api import GrpcApi
from agones_fake.kube_api import KubeApi


class FakeAgones:
    """An Agones cluster while entered."""

    def __init__(self, folder: Path, timing: Timing | None = None, *, tls: bool = True, token: str = "", seed: int = 0):
        """`folder`: for certificates and the kubeconfig."""
        self.folder = folder
        self.cluster = FakeCluster(timing, seed=seed)
        self.faults = Faults(seed)
        self.certificates = Certificates(folder / "certificates")
        self.extensions = Allocator(self.cluster)
        """Behind the HTTP API."""
        self.allocator = Allocator(self.cluster)
        """Behind the gRPC API."""
        self.kube = KubeApi(self.cluster, self.extensions, self.faults, token=token)
        self.grpc = GrpcApi(self.allocator, self.faults, self.certificates if tls else None)
        self.kubeconfig = folder / "kubeconfig"
        self._stack = AsyncExitStack()

    @property
    def grpc_address(self) -> str:
        return self.grpc.address

    async def __aenter__(self) -> Self:
        for work, name in (
            (self.cluster.run(), "fake-controllers"),
            (self.extensions.run(), "fake-extensions"),
            (self.allocator.run(), "fake-allocator"),
        ):
            task = asyncio.create_task(work, name=name)
            self._stack.push_async_callback(_end, task)
        await self.kube.start()
        self._stack.push_async_callback(self.kube.stop)
        await self.grpc.start()
        self._stack.push_async_callback(self.grpc.stop)
        self._write_kubeconfig()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def add_fleet(self, name: str, ready: int, **options: Any) -> None:
        """Make a fleet (`FakeCluster.make_fleet`) and wait until so many are Ready."""
        self.cluster.make_fleet(name, ready, **options)
        await self.until_ready(name, ready)

    async def until_ready(self, fleet: str, count: int) -> None:
        """Wait for at least `count` Ready servers."""
        async with asyncio.timeout(30):
            while list(self.cluster.states(fleet).values()).count("Ready") < count:
                await asyncio.sleep(0.005)

    @asynccontextmanager
    async def api_away(self) -> AsyncIterator[None]:
        """The Kubernetes API refuses connections."""
        await self.kube.stop()
        try:
            yield
        finally:
            await self.kube.start()

    @asynccontextmanager
    async def grpc_away(self) -> AsyncIterator[None]:
        """The allocation service refuses connections."""
        await self.grpc.stop()
        try:
            yield
        finally:
            await self.grpc.start()

    def _write_kubeconfig(self) -> None:
        user = {"token": self.kube.token} if self.kube.token else {}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.kube.url}}],
            "users": [{"name": "fake", "user": user}],
            "contexts": [
                {
                    "name": "fake",
                    "context": {"cluster": "fake", "user": "fake", "namespace": self.cluster.namespace},
                }
            ],
        }
        self.kubeconfig.write_text(yaml.safe_dump(document))


async def _end(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.wait([task])
