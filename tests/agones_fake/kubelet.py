"""
A kubelet for the simulated cluster: each Scheduled GameServer gets an SDK sidecar and a real process.

    async with FakeAgones(folder) as fake, Kubelet(fake.cluster, [sys.executable, "-m", "gameserver"], env, folder):
        await fake.add_fleet("arena", ready=2)

The sidecar is the laptop's (`fleets.local.endpoints`); its state goes to the object after `Timing.sdk_flush_s`, as Agones' sidecar flushes, and what
happens to the object comes to the process by WatchGameServer.
"""

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

from agones_fake.cluster import FLEET_LABEL, SET_LABEL, FakeCluster, NotFound, Object
from allocator.model import ServerState
from fleets.local.endpoints import serve_grpc
from fleets.local.ports import PortRange
from fleets.local.process import ServerProcess
from fleets.local.states import GameServerRecord, HealthSpec, ServerEvent
from gameserver.sessions.model import FleetName, ServerName


class Kubelet:
    """Runs the pods of every fleet with one command."""

    def __init__(self, cluster: FakeCluster, command: Sequence[str], env: Mapping[str, str], folder: Path):
        self._cluster, self._command, self._env, self._folder = cluster, command, env, folder
        self._ports = PortRange()
        self._pods: dict[str, _Pod] = {}

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._cluster.start_pod, self._cluster.stop_pod = self._start, self._stop
        return self

    async def __aexit__(self, *_: object) -> None:
        self._cluster.start_pod = None
        for name in tuple(self._pods):
            await self._stop(name, grace_s=0.0)

    def pid(self, name: str) -> int:
        """Of a server's process."""
        return self._pods[name].process.pid

    async def _start(self, name: str) -> None:
        item = self._cluster.get("gameservers", name)
        taken = [port for pod in self._pods.values() for port in pod.record.ports.values()]
        ports = self._ports.take([port["name"] for port in item["spec"]["ports"]], taken)
        status = [{"name": name, "port": port} for name, port in ports.items()]
        item = self._cluster.update("gameservers", name, lambda item: item["status"].__setitem__("ports", status))
        labels = item["metadata"]["labels"]
        record = GameServerRecord(
            name=ServerName(name),
            fleet=FleetName(labels[FLEET_LABEL]),
            version=labels[SET_LABEL],
            uid=item["metadata"]["uid"],
            created_at_s=time.time(),
            health=HealthSpec(),
            state=ServerState.SCHEDULED,
            ports=ports,
            labels=dict(labels),
            annotations=dict(item["metadata"]["annotations"]),
        )
        record.healthy_at_s = time.monotonic() + 30
        sdk, port = await serve_grpc(record, time.monotonic)
        env = {**os.environ, **self._env, "AGONES_SDK_GRPC_PORT": str(port), "POD_NAME": name}
        process = await ServerProcess.start(self._command, env=env, log=self._folder / f"{name}.log")
        pod = _Pod(self._cluster, record, process)
        pod.stack.push_async_callback(sdk.stop, 0)
        self._pods[name] = pod
        pod.begin()

    async def _stop(self, name: str, grace_s: float = 10.0) -> None:
        pod = self._pods.pop(name, None)
        if pod is not None:
            pod.leaving = True
            await pod.process.end(grace_s=grace_s)
            await pod.stack.aclose()


class _Pod:
    """One pod: keeps the sidecar's record and the object in step."""

    def __init__(self, cluster: FakeCluster, record: GameServerRecord, process: ServerProcess):
        self.cluster, self.record, self.process = cluster, record, process
        self.leaving = False
        self.stack = AsyncExitStack()
        self._said = record.state
        self._changed = cluster.changes()
        self.stack.callback(cluster.unwatch, self._changed)
        record.listeners.append(self._changed.set)

    def begin(self) -> None:
        for work in (self._keep_in_step(), self._wait()):
            task = asyncio.create_task(work, name=f"pod-{self.record.name}")
            self.stack.push_async_callback(_ended, task)

    async def _keep_in_step(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._up()
                self._down(self.cluster.get("gameservers", self.record.name))
            except NotFound:
                return

    async def _up(self) -> None:
        """What the SDK said."""
        if self.record.state is self._said:
            return
        await asyncio.sleep(self.cluster.timing.sdk_flush_s)
        self._said = state = self.record.state
        if state is ServerState.READY and not self._is("Allocated"):
            self.cluster.set_state(self.record.name, "RequestReady")
        self.cluster.set_state(self.record.name, state.value)

    def _down(self, item: Object) -> None:
        """What happened to the object."""
        meta, state = item["metadata"], ServerState(item["status"]["state"])
        own = (self.record.labels, self.record.annotations)
        labels, annotations = {**own[0], **meta["labels"]}, {**own[1], **meta["annotations"]}
        moved = state in (ServerState.ALLOCATED, ServerState.READY) and self.record.state is self._said is not state
        if moved or (labels, annotations) != own:
            self.record.labels, self.record.annotations = labels, annotations
            if moved:
                self.record.state = self._said = state
            self.record.touch()

    def _is(self, state: str) -> bool:
        return bool(self.cluster.get("gameservers", self.record.name)["status"]["state"] == state)

    async def _wait(self) -> None:
        await self.process.wait()
        if not self.leaving and self.record.happen(ServerEvent.CRASHED, time.monotonic()):
            try:
                self.cluster.kill(self.record.name)
            except NotFound:
                pass


async def _ended(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.wait([task])
