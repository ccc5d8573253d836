"""
The simulated cluster: objects with resourceVersions and their history, and the controllers that Agones runs over them.

Knows no wire. Everything happens in one event loop, each write in one step.
"""

import asyncio
import copy
import datetime
import hashlib
import json
import random
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from agones_fake import schemas

Object = dict[str, Any]
Key = tuple[str, str, str]
"""(resource, namespace, name)."""

KINDS = {
    "gameservers": ("agones.dev/v1", "GameServer"),
    "gameserversets": ("agones.dev/v1", "GameServerSet"),
    "fleets": ("agones.dev/v1", "Fleet"),
    "pods": ("v1", "Pod"),
}
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_HISTORY = 10_000
FINALIZER = "agones.dev/controller"
FLEET_LABEL = "agones.dev/fleet"
SET_LABEL = "agones.dev/gameserverset"
KEPT = ("Allocated", "Reserved")
"""States that a fleet never scales away."""
BROKEN = ("Unhealthy", "Error", "Shutdown")


@dataclass(kw_only=True)
class Timing:
    """How long things take, in s. The defaults are for tests that are not about time."""

    batch_s: float = 0.005
    """Agones' ALLOCATION_BATCH_WAIT_TIME, 0.5 by default there."""
    cache_lag_s: float = 0.0
    """How far the allocators' own cache of servers is behind."""
    watch_lag_s: float = 0.0
    """How far watches are behind writes."""
    lead_s: float = 0.02
    """From a server's creation to Ready."""
    delete_s: float = 0.02
    """From a deletion to the object's end."""
    sdk_flush_s: float = 0.01
    """From an SDK call to the object (500 ms in Agones)."""
    bookmark_s: float = 1.0
    """Between a watch's bookmarks (about a minute in Kubernetes)."""
    write_s: float = 0.0
    """Of an allocation's update of the object."""

    @classmethod
    def real(cls) -> "Timing":
        """As observed on Agones 1.57 and Kubernetes 1.36, with default settings."""
        return cls(
            batch_s=0.5, cache_lag_s=0.005, watch_lag_s=0.004, lead_s=1.3, delete_s=1.0, sdk_flush_s=0.5,
            bookmark_s=60.0, write_s=0.004,
        )  # fmt: skip


class NotFound(Exception):
    """404."""


class Conflict(Exception):
    """409."""


class Invalid(Exception):
    """422."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One entry of a resource's history."""

    version: int
    type: str
    """ADDED, MODIFIED or DELETED."""
    object: Object
    before: Object | None
    at_s: float


@dataclass
class Table:
    """One resource's objects and history."""

    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    history: deque[Change] = field(default_factory=lambda: deque(maxlen=_HISTORY))
    compacted: int = 0
    """Resuming from before this version is Gone."""


class FakeCluster:
    """Objects and controllers; `run` beside it."""

    def __init__(self, timing: Timing | None = None, *, namespace: str = "default", nodes: int = 2, seed: int = 0):
        self.timing = timing or Timing()
        self.namespace = namespace
        self.nodes = nodes
        self.rng = random.Random(seed)
        self.version = 100
        self.tables = {resource: Table() for resource in KINDS}
        self.start_pod: Callable[[str], Awaitable[None]] | None = None
        """What a kubelet does for a Scheduled server; without one, servers become Ready by themselves."""
        self.stop_pod: Callable[[str], Awaitable[None]] | None = None
        self.frozen = False
        """Fleets make and remove nothing."""
        self.pods_with_ip = 1.0
        """The share of servers whose status.addresses has the PodIP."""
        self._changed: set[asyncio.Event] = set()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._made = self._pods = 0

    # Objects.

    def get(self, resource: str, name: str, namespace: str | None = None) -> Object:
        """The object itself, not to be changed. Raises NotFound."""
        try:
            return self.tables[resource].objects[namespace or self.namespace, name]
        except KeyError:
            raise NotFound(f'{resource}.agones.dev "{name}" not found') from None

    def list(self, resource: str, namespace: str | None = None) -> list[Object]:
        found = self.tables[resource].objects.items()
        return [item for (space, _), item in sorted(found) if namespace is None or space == namespace]

    def create(self, resource: str, item: Object, namespace: str | None = None) -> Object:
        """Raises Conflict, Invalid."""
        item = copy.deepcopy(item)
        api, kind = KINDS[resource]
        item |= {"apiVersion": api, "kind": kind}
        meta = item.setdefault("metadata", {})
        if not meta.get("name"):
            meta["name"] = meta.get("generateName", "") + "".join(self.rng.choice(_LETTERS) for _ in range(5))
        meta["namespace"] = namespace or self.namespace
        key = (meta["namespace"], meta["name"])
        if key in self.tables[resource].objects:
            raise Conflict(f'{resource}.agones.dev "{meta["name"]}" already exists')
        meta |= {"uid": str(uuid.UUID(int=self.rng.getrandbits(128), version=4)), "generation": 1}
        meta["creationTimestamp"] = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._check(kind, item)
        self._write(resource, "ADDED", item, None)
        return item

    def update(
        self,
        resource: str,
        name: str,
        change: Callable[[Object], None],
        *,
        namespace: str | None = None,
        version: str | None = None,
    ) -> Object:
        """Change an object in one step; with `version`, only if it still has that one. Raises NotFound, Conflict, Invalid."""
        before = self.get(resource, name, namespace)
        if version is not None and version != before["metadata"]["resourceVersion"]:
            raise Conflict(
                f'Operation cannot be fulfilled on {resource}.agones.dev "{name}": the object has been modified; '
                "please apply your changes to the latest version and try again"
            )
        after = copy.deepcopy(before)
        change(after)
        for fixed in ("name", "namespace", "uid", "creationTimestamp", "generation", "resourceVersion"):
            after["metadata"][fixed] = before["metadata"][fixed]
        if after == before:
            return before
        self._check(after["kind"], after)
        if {k: v for k, v in after.items() if k != "metadata"} != {k: v for k, v in before.items() if k != "metadata"}:
            after["metadata"]["generation"] += 1
        if after["metadata"].get("deletionTimestamp") and not after["metadata"].get("finalizers"):
            self._write(resource, "DELETED", after, before)
        else:
            self._write(resource, "MODIFIED", after, before)
        return after

    def delete(self, resource: str, name: str, namespace: str | None = None) -> Object:
        """Begin to delete: gone at once, or once its finalizers are. Raises NotFound."""
        before = self.get(resource, name, namespace)
        if before["metadata"].get("deletionTimestamp"):
            return before
        after = copy.deepcopy(before)
        if after["metadata"].get("finalizers"):
            after["metadata"]["deletionTimestamp"] = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            after["metadata"]["deletionGracePeriodSeconds"] = 0
            self._write(resource, "MODIFIED", after, before)
        else:
            self._write(resource, "DELETED", after, before)
        if resource == "fleets":
            for item in self.servers(name):
                self.delete("gameservers", item["metadata"]["name"], namespace)
        return after

    def compact(self) -> None:
        """Forget the history: whoever resumes from an older version is told 410 Gone."""
        for table in self.tables.values():
            table.history.clear()
            table.compacted = self.version + 1
        self.version += 1

    def changes(self) -> asyncio.Event:
        """An event that is set at every write; give it back with `unwatch`."""
        event = asyncio.Event()
        self._changed.add(event)
        return event

    def unwatch(self, event: asyncio.Event) -> None:
        self._changed.discard(event)

    def _write(self, resource: str, kind: str, item: Object, before: Object | None) -> None:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        table, key = self.tables[resource], (item["metadata"]["namespace"], item["metadata"]["name"])
        if kind == "DELETED":
            table.objects.pop(key, None)
        else:
            table.objects[key] = item
        change = Change(version=self.version, type=kind, object=item, before=before, at_s=time.monotonic())
        table.history.append(change)
        for event in self._changed:
            event.set()
        self._wake.set()

    def _check(self, kind: str, item: Object) -> None:
        if problems := schemas.problems(kind, item):
            raise Invalid(f"{kind} {item['metadata']['name']} is invalid: {'; '.join(problems)}")

    # What tests do to it.

    def servers(self, fleet: str) -> "list[Object]":
        """A fleet's GameServers, those being deleted too."""
        return [item for item in self.list("gameservers") if item["metadata"]["labels"].get(FLEET_LABEL) == fleet]

    def states(self, fleet: str) -> dict[str, str]:
        """Name to state, of those not being deleted."""
        alive = [item for item in self.servers(fleet) if not item["metadata"].get("deletionTimestamp")]
        return {item["metadata"]["name"]: item["status"]["state"] for item in alive}

    def set_state(self, name: str, state: str) -> Object:
        """What the SDK or a controller does; not to be done by clients."""
        return self.update("gameservers", name, lambda item: item["status"].__setitem__("state", state))

    def kill(self, name: str) -> None:
        """Its process dies: Unhealthy, then deleted, and replaced by its fleet."""
        self.set_state(name, "Unhealthy")

    def scale(self, fleet: str, replicas: int) -> None:
        self.update("fleets", fleet, lambda item: item["spec"].__setitem__("replicas", replicas))

    def new_version(self, fleet: str, image: str) -> None:
        """A new template: a new GameServerSet."""

        def change(item: Object) -> None:
            item["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]["image"] = image

        self.update("fleets", fleet, change)

    def make_fleet(
        self,
        name: str,
        replicas: int,
        *,
        ports: tuple[str, ...] = ("websocket", "udp"),
        labels: dict[str, str] | None = None,
        counters: dict[str, Object] | None = None,
        lists: dict[str, Object] | None = None,
        image: str = "registry.example/game:1",
    ) -> Object:
        """A Fleet as `warmfleet render` and Agones' defaults make it."""
        port_specs = [
            {
                "name": port,
                "portPolicy": "Dynamic",
                "containerPort": 7001 + index,
                "protocol": "UDP" if port == "udp" else "TCP",
            }
            for index, port in enumerate(ports)
        ]
        spec: Object = {
            "container": "game",
            "ports": port_specs,
            "health": {"disabled": False, "periodSeconds": 5, "failureThreshold": 3, "initialDelaySeconds": 5},
            "scheduling": "Packed",
            "sdkServer": {"logLevel": "Info", "grpcPort": 9357, "httpPort": 9358},
            "template": {"spec": {"containers": [{"name": "game", "image": image}]}},
        }
        if counters:
            spec["counters"] = counters
        if lists:
            spec["lists"] = lists
        template = {"metadata": {"labels": labels or {}}, "spec": spec}
        body = {"replicas": replicas, "scheduling": "Packed", "template": template}
        return self.create("fleets", {"metadata": {"name": name}, "spec": body})

    # Controllers.

    async def run(self) -> None:
        """Reconcile until cancelled; each server's life is a task of its own."""
        try:
            while True:
                self._wake.clear()
                for fleet in () if self.frozen else self.list("fleets"):
                    self._reconcile(fleet)
                for server in self.list("gameservers"):
                    self._tend(server)
                await self._wake.wait()
                await asyncio.sleep(0)
        finally:
            for task in tuple(self._tasks):
                task.cancel()

    def _reconcile(self, fleet: Object) -> None:
        name, spec = fleet["metadata"]["name"], fleet["spec"]
        active = self._active_set(fleet)
        alive = [
            item
            for item in self.servers(name)
            if not item["metadata"].get("deletionTimestamp") and item["status"]["state"] not in BROKEN
        ]
        current = [item for item in alive if item["metadata"]["labels"][SET_LABEL] == active]
        old = [item for item in alive if item["metadata"]["labels"][SET_LABEL] != active]
        for item in old:
            if item["status"]["state"] not in KEPT:
                self.delete("gameservers", item["metadata"]["name"])
        wanted = max(0, spec["replicas"] - sum(item["status"]["state"] in KEPT for item in old))
        for _ in range(wanted - len(current)):
            self._create_server(fleet, active)
        surplus = len(current) - wanted
        idle = [item for item in current if item["status"]["state"] not in KEPT]
        for item in idle[: max(0, surplus)]:
            self.delete("gameservers", item["metadata"]["name"])
        states = list(self.states(name).values())
        status = {
            "replicas": len(states),
            "readyReplicas": states.count("Ready"),
            "reservedReplicas": states.count("Reserved"),
            "allocatedReplicas": states.count("Allocated"),
        }
        self.update("fleets", name, lambda item: item.__setitem__("status", status))

    def _active_set(self, fleet: Object) -> str:
        template = json.dumps(fleet["spec"]["template"], sort_keys=True)
        name = f"{fleet['metadata']['name']}-{hashlib.sha256(template.encode()).hexdigest()[:5]}"
        try:
            self.get("gameserversets", name)
        except NotFound:
            labels = {FLEET_LABEL: fleet["metadata"]["name"]}
            body = {"replicas": fleet["spec"]["replicas"], "template": fleet["spec"]["template"]}
            self.create("gameserversets", {"metadata": {"name": name, "labels": labels}, "spec": body})
        return name

    def _create_server(self, fleet: Object, server_set: str) -> None:
        template = copy.deepcopy(fleet["spec"]["template"])
        self._made += 1
        status: Object = {
            "state": "PortAllocation", "ports": None, "address": "", "addresses": None, "nodeName": "", "players": None,
        }  # fmt: skip
        for kind in ("counters", "lists"):
            if kind in template["spec"]:
                status[kind] = copy.deepcopy(template["spec"][kind])
        for index, port in enumerate(template["spec"]["ports"]):
            port["hostPort"] = 7000 + (self._made * 4 + index) % 1000
        meta = {
            "generateName": f"{server_set}-",
            "labels": template["metadata"].get("labels", {})
            | {FLEET_LABEL: fleet["metadata"]["name"], SET_LABEL: server_set},
            "annotations": {"agones.dev/sdk-version": "1.57.0-dev"} | template["metadata"].get("annotations", {}),
            "finalizers": [FINALIZER],
        }
        item = {"metadata": meta, "spec": template["spec"], "status": status}
        name = self.create("gameservers", item)["metadata"]["name"]
        self._spawn(self._live(name, f"node-{self._made % self.nodes}"), f"life-{name}")

    async def _live(self, name: str, node: str) -> None:
        """From creation to Ready."""
        try:
            for state in ("Creating", "Starting", "Scheduled", "RequestReady", "Ready"):
                await asyncio.sleep(self.timing.lead_s / 5)
                if self.get("gameservers", name)["metadata"].get("deletionTimestamp"):
                    return
                if state == "Starting":
                    self._make_pod(name, node)
                if state == "RequestReady" and self.start_pod is not None:
                    await self.start_pod(name)
                    return
                if state == "Scheduled":
                    self.update("gameservers", name, lambda item: self._schedule(item, node))
                else:
                    self.set_state(name, state)
        except NotFound:
            pass

    def _make_pod(self, name: str, node: str) -> None:
        self._pods += 1
        number = self._pods
        status = {"phase": "Running", "podIP": f"10.0.{number // 250}.{number % 250 + 1}", "hostIP": "127.0.0.1"}
        meta = {"name": name, "labels": {"agones.dev/role": "gameserver", "agones.dev/gameserver": name}}
        self.create("pods", {"metadata": meta, "spec": {"nodeName": node, "containers": []}, "status": status})

    def _schedule(self, item: Object, node: str) -> None:
        addresses = [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": node}]
        if self.rng.random() < self.pods_with_ip:
            pod = self.get("pods", item["metadata"]["name"])
            addresses.append({"type": "PodIP", "address": pod["status"]["podIP"]})
        ports = [{"name": port["name"], "port": port["hostPort"]} for port in item["spec"]["ports"]]
        item["status"] |= {
            "state": "Scheduled", "address": "127.0.0.1", "addresses": addresses, "nodeName": node, "ports": ports,
        }  # fmt: skip

    def _tend(self, server: Object) -> None:
        meta = server["metadata"]
        if meta.get("deletionTimestamp"):
            name = f"end-{meta['name']}"
            if all(task.get_name() != name for task in self._tasks):
                self._spawn(self._end(meta["name"]), name)
        elif server["status"]["state"] in BROKEN:
            self.delete("gameservers", meta["name"])

    async def _end(self, name: str) -> None:
        await asyncio.sleep(self.timing.delete_s)
        if self.stop_pod is not None:
            await self.stop_pod(name)
        try:
            self.update("gameservers", name, lambda item: item["metadata"].__setitem__("finalizers", []))
            self.delete("pods", name)
        except NotFound:
            pass

    def _spawn(self, work: Any, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
