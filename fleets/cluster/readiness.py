"""
Whether an object does what it was applied for, from its status; pure.

Fleets have no conditions: one is ready when its servers that are Ready, Allocated or Reserved are as many as it wants, and as many as its
autoscaler's buffer keeps.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fleets.render.manifest import FLEET_LABEL, Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """How far an object is."""

    ready: bool
    said: str
    """As 2 of 3 servers."""


def readiness(live: Manifest | None, *, at_least: int = 0) -> Readiness | None:
    """None for kinds that are done once applied. `at_least`: servers that a Fleet should have, whatever it says itself."""
    if live is None:
        return Readiness(ready=False, said="is not there")
    check = _CHECKS.get(live["kind"])
    return None if check is None else check(live, at_least)


def wanted_servers(items: Sequence[Manifest]) -> dict[str, int]:
    """Fleet to the servers that its autoscaler keeps Ready."""
    found = {}
    for item in items:
        if item["kind"] == "FleetAutoscaler":
            policy = item["spec"]["policy"]
            buffers = [p["buffer"] for p in [policy, *policy.get("chain", [])] if p.get("buffer")]
            sizes = [size for b in buffers if isinstance(size := b.get("bufferSize"), int)]
            found[item["spec"]["fleetName"]] = max(sizes, default=0)
    return found


def pod_reasons(pods: Sequence[Manifest], *, most: int = 3) -> tuple[str, ...]:
    """Why pods do not run, in their own words, each reason once."""
    reasons: dict[str, None] = {}
    for pod in pods:
        status = pod.get("status", {})
        for condition in status.get("conditions") or []:
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                reasons[f"not scheduled: {condition.get('message', '')}"] = None
        for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
            waiting = (container.get("state") or {}).get("waiting") or {}
            ended = (container.get("lastState") or {}).get("terminated") or {}
            if waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
                reasons[f"{container.get('name')}: {waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")] = (
                    None
                )
            elif ended.get("reason") not in (None, "Completed"):
                code = ended.get("exitCode")
                reasons[f"{container.get('name')}: ended with {code} ({ended['reason']})"] = None
    return tuple(list(reasons)[:most])


def pods_of(item: Manifest) -> Mapping[str, str]:
    """Labels of an object's pods; empty where it has none."""
    if item["kind"] == "Fleet":
        return {FLEET_LABEL: item["metadata"]["labels"].get(FLEET_LABEL, item["metadata"]["name"])}
    found: Mapping[str, str] = item.get("spec", {}).get("selector", {}).get("matchLabels", {})
    return found if item["kind"] in ("Deployment", "StatefulSet", "DaemonSet") else {}


def _fleet(live: Manifest, at_least: int) -> Readiness:
    status = live.get("status") or {}
    alive = sum(int(status.get(key) or 0) for key in ("readyReplicas", "allocatedReplicas", "reservedReplicas"))
    wanted = max(int(live["spec"].get("replicas") or 0), at_least)
    said = f"{alive} of {wanted} servers ({status.get('allocatedReplicas') or 0} allocated)"
    return Readiness(ready=alive >= wanted, said=said)


def _rolled_out(live: Manifest, _: int) -> Readiness:
    status, wanted = live.get("status") or {}, live["spec"].get("replicas", 1)
    updated, available = status.get("updatedReplicas") or 0, status.get("availableReplicas") or 0
    seen = int(status.get("observedGeneration") or 0) >= int(live["metadata"].get("generation") or 0)
    said = f"{min(updated, available)} of {wanted} pods"
    return Readiness(ready=seen and updated >= wanted and available >= wanted, said=said)


def _daemon_set(live: Manifest, _: int) -> Readiness:
    status = live.get("status") or {}
    wanted, ready = status.get("desiredNumberScheduled") or 0, status.get("numberAvailable") or 0
    seen = int(status.get("observedGeneration") or 0) >= int(live["metadata"].get("generation") or 0)
    return Readiness(ready=seen and ready >= wanted, said=f"{ready} of {wanted} nodes")


def _condition(live: Manifest, _: int) -> Readiness:
    for condition in (live.get("status") or {}).get("conditions") or []:
        if condition.get("type") in ("Ready", "Programmed"):
            return Readiness(ready=condition.get("status") == "True", said=str(condition.get("message") or "not ready"))
    return Readiness(ready=False, said="no condition yet")


_CHECKS: dict[str, Callable[[Manifest, int], Readiness]] = {
    "Fleet": _fleet,
    "Deployment": _rolled_out,
    "StatefulSet": _rolled_out,
    "DaemonSet": _daemon_set,
    "Certificate": _condition,
    "ScaledObject": _condition,
    "Gateway": _condition,
}
