"""
The two fleets of a rollout in a cluster, and its memory in a ConfigMap beside them.

The ConfigMap holds the state and both versions of the Fleet as objects, so that whoever goes on (another run of the command, on another machine)
needs no files, and an undo needs no history of images. Its resourceVersion guards the state: of two runners one reads again.
"""

import copy
import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, assert_never

from allocator.ports import RETIRE_LABEL, TRACK_LABEL
from fleets.cluster.ports import Cluster, ClusterError, Ref, Refused
from fleets.render.agones import VERSION_LABEL
from fleets.render.manifest import FLEET_LABEL, Manifest, manifest
from fleets.rollout.model import (
    Action,
    Health,
    Limits,
    Observed,
    Phase,
    Promote,
    RemoveCanary,
    Restore,
    SetCanary,
    State,
    Track,
)
from fleets.rollout.ports import HealthSource, StateChanged
from fleets.spec.fleet import canary_of

_AGONES_FLEET = "agones.dev/fleet"
_READY = {"Ready"}
_BUSY = {"Allocated", "Reserved"}
_FAILED = {"Unhealthy", "Error"}


class NoRollout(ClusterError):
    """There is nothing to go on with; the message says what to call."""


class ClusterTracks:
    """Implements Tracks for one fleet of one namespace."""

    def __init__(
        self, cluster: Cluster, namespace: str, fleet: str, health: Callable[[str], HealthSource] | None = None
    ) -> None:
        """`health`: makes the source of a URL; None: only servers' states count."""
        self._cluster = cluster
        self._namespace = namespace
        self.fleet = fleet
        self._health = health
        self._memory = Ref(api_version="v1", kind="ConfigMap", namespace=namespace, name=f"warmfleet-rollout-{fleet}")
        self._revision = ""
        self._versions: dict[str, Manifest] = {}
        self._limits: Limits | None = None

    def begin(self, new: Manifest, limits: Limits, now_s: float) -> State:
        """
        Remember a rollout of `new`, a Fleet as rendered. Where the same is under way, it is taken up.

        Raises: NoRollout when the fleet is not there yet, is of that version already, or another rollout is under way.
        """
        live = self._cluster.fetch(self._ref(self.fleet))
        if live is None:
            raise NoRollout(f"there is no Fleet {self.fleet} yet: `warmfleet apply` brings its first version in")
        before = self.load()
        if before is not None and before.phase not in (Phase.DONE, Phase.ABORTED):
            if before.new == version(new):
                return before
            raise NoRollout(f"a rollout to {before.new} is {before.phase}: let it end, or `warmfleet rollout abort` it")
        if version(live) == version(new):
            raise NoRollout(f"Fleet {self.fleet} is of version {version(new)} already")
        state = State(phase=Phase.STEPPING, old=version(live), new=version(new), since_s=now_s)
        self._versions, self._limits = {"old": _declared(live), "new": copy.deepcopy(new)}, limits
        self._write(state)
        return state

    def turn_back(self, now_s: float) -> State:
        """After a rollout that is done: the old version again, at once, by Agones' own update. Raises NoRollout."""
        state = self.load()
        if state is None or state.phase is not Phase.DONE:
            raise NoRollout(f"there is no done rollout of {self.fleet} to undo")
        self._versions = {"old": self._versions["new"], "new": self._versions["old"]}
        turned = State(phase=Phase.PROMOTING, old=state.new, new=state.old, since_s=now_s, reason="undone")
        self._write(turned)
        return turned

    @property
    def limits(self) -> Limits:
        """What the studio allows the new version, as remembered with it. After `begin` or `load`."""
        assert self._limits is not None
        return self._limits

    def load(self) -> State | None:
        """Read the ConfigMap."""
        found = self._cluster.fetch(self._memory)
        if found is None:
            return None
        self._revision = found["metadata"].get("resourceVersion", "")
        data = found.get("data") or {}
        try:
            self._versions = {name: json.loads(data[name]) for name in ("old", "new")}
            limits, raw = json.loads(data["limits"]), json.loads(data["state"])
            self._limits = Limits(**{**limits, "steps": tuple(limits["steps"])})
            return State(**{**raw, "phase": Phase(raw["phase"])})
        except (KeyError, TypeError, ValueError) as error:
            raise NoRollout(
                f"ConfigMap {self._memory.name} holds no rollout ({error}): remove it to begin anew"
            ) from None

    def save(self, state: State) -> None:
        """Write the state alone, if nobody else did meanwhile."""
        change = {"metadata": {"resourceVersion": self._revision}, "data": {"state": _text(state)}}
        try:
            written = self._cluster.patch(self._memory, change)
        except Refused as error:
            if "modified" in str(error):
                raise StateChanged(str(error)) from None
            raise
        self._revision = written["metadata"].get("resourceVersion", "")

    def observe(self, state: State) -> Observed:
        """Both Fleets, and their servers by state and version."""
        live = self._cluster.fetch(self._ref(self.fleet))
        if live is None:
            raise NoRollout(f"Fleet {self.fleet} is gone")
        other = self._cluster.fetch(self._ref(canary_of(self.fleet)))
        servers = self._cluster.listed("agones.dev/v1", "GameServer", self._namespace, {FLEET_LABEL: self.fleet})
        canary = None if other is None else self._track(other, servers)
        return Observed(stable=self._track(live, servers), canary=canary, health=self._healthy(servers))

    def act(self, action: Action) -> None:
        """By server-side apply, as the one who owns these fields."""
        match action:
            case SetCanary(replicas=0):
                self._scale_to_nothing()
            case SetCanary():
                self._cluster.apply(_canary(self._versions["new"], action.replicas), dry_run=False, force=True)
            case Promote():
                self._cluster.apply(self._versions["new"], dry_run=False, force=True)
            case Restore():
                self._cluster.apply(self._versions["old"], dry_run=False, force=True)
            case RemoveCanary():
                self._cluster.remove(self._ref(canary_of(self.fleet)))
            case _:
                assert_never(action)

    def _scale_to_nothing(self) -> None:
        """Agones keeps Allocated servers; the allocator is told by a label to give them no new sessions, and to let empty ones go."""
        name = canary_of(self.fleet)
        live = self._cluster.fetch(self._ref(name))
        if live is not None and live["spec"].get("replicas"):
            self._cluster.patch(self._ref(name), {"spec": {"replicas": 0}})
        servers = self._cluster.listed("agones.dev/v1", "GameServer", self._namespace, {_AGONES_FLEET: name})
        for server in servers:
            if server["metadata"]["labels"].get(RETIRE_LABEL) != "true":
                self._retire(server["metadata"]["name"])

    def _retire(self, server: str) -> None:
        ref = Ref(api_version="agones.dev/v1", kind="GameServer", namespace=self._namespace, name=server)
        try:
            self._cluster.patch(ref, {"metadata": {"labels": {RETIRE_LABEL: "true"}}})
        except Refused as error:
            if "not found" not in str(error):  # gone meanwhile, as it should be
                raise

    def _ref(self, name: str) -> Ref:
        return Ref(api_version="agones.dev/v1", kind="Fleet", namespace=self._namespace, name=name)

    def _write(self, state: State) -> None:
        assert self._limits is not None
        data = {"state": _text(state), "limits": json.dumps(dataclasses.asdict(self._limits))}
        data |= {name: json.dumps(item) for name, item in self._versions.items()}
        item = manifest("v1", "ConfigMap", self._memory.name, namespace=self._namespace, data=data)
        written = self._cluster.apply(item, dry_run=False, force=True)
        self._revision = written["metadata"].get("resourceVersion", "")

    def _track(self, live: Manifest, servers: Sequence[Manifest]) -> Track:
        name = live["metadata"]["name"]
        ours = [server for server in servers if server["metadata"].get("labels", {}).get(_AGONES_FLEET) == name]
        ready = Counter(
            server["metadata"]["labels"].get(VERSION_LABEL, "") for server in ours if _state(server) in _READY
        )
        return Track(
            version=version(live),
            wanted=int(live["spec"].get("replicas") or 0),
            ready=sum(ready.values()),
            busy=sum(_state(server) in _BUSY for server in ours),
            ready_by_version=dict(ready),
        )

    def _healthy(self, servers: Sequence[Manifest]) -> Health:
        name = canary_of(self.fleet)
        present = {
            s["metadata"]["name"]: _state(s) for s in servers if s["metadata"]["labels"].get(_AGONES_FLEET) == name
        }
        failed = {server for server, state in present.items() if state in _FAILED} | self._told_failed(name)
        url = self.limits.prometheus
        beyond = self._health(url).health(name) if self._health is not None and url else Health()
        return dataclasses.replace(beyond, started=len(present.keys() | failed), failed=len(failed))

    def _told_failed(self, fleet: str) -> set[str]:
        """Servers that failed and were replaced meanwhile: Agones tells of each in an Event whose reason is the state."""
        found = self._cluster.get(f"/api/v1/namespaces/{self._namespace}/events") or {"items": []}
        return {
            event["involvedObject"]["name"]
            for event in found["items"]
            if event.get("reason") in _FAILED
            and event.get("involvedObject", {}).get("kind") == "GameServer"
            and str(event["involvedObject"].get("name", "")).startswith(f"{fleet}-")
        }


def version(fleet: Manifest) -> str:
    """Of a Fleet, by the label that its servers carry."""
    template = fleet["spec"]["template"]
    found: str = (template.get("metadata", {}).get("labels") or {}).get(VERSION_LABEL, "")
    return found


def _state(server: Manifest) -> str:
    return str((server.get("status") or {}).get("state", ""))


def _text(state: State) -> str:
    return json.dumps(dataclasses.asdict(state))


def _declared(live: Manifest) -> Manifest:
    """What of a Fleet as it is would be declared again: without what the server and the autoscaler put in."""
    metadata = {
        key: live["metadata"][key] for key in ("name", "namespace", "labels", "annotations") if key in live["metadata"]
    }
    spec = {key: value for key, value in live["spec"].items() if key != "replicas"}
    template = {key: value for key, value in spec["template"].items() if key != "metadata"}
    kept = {
        key: value for key, value in spec["template"].get("metadata", {}).items() if key in ("labels", "annotations")
    }
    return {
        "apiVersion": live["apiVersion"],
        "kind": live["kind"],
        "metadata": metadata,
        "spec": {**spec, "template": {"metadata": kept, **template}},
    }


def _canary(new: Manifest, replicas: int) -> Manifest:
    """The new version as a fleet of its own, with the servers' labels of the old one, so that the allocator takes them for the same fleet."""
    item = copy.deepcopy(new)
    item["metadata"]["name"] = canary_of(new["metadata"]["name"])
    item["metadata"].setdefault("labels", {})[TRACK_LABEL] = "canary"
    item["spec"]["replicas"] = replicas
    labels: dict[str, Any] = item["spec"]["template"].setdefault("metadata", {}).setdefault("labels", {})
    labels[TRACK_LABEL] = "canary"
    return item
