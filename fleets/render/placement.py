"""
Which nodes a fleet's pods may run on: pools, labels, taints, zones, neighbours.

Pure. The pods that pull a fleet's image ahead go to the same nodes, so they take `nodes` too.
"""

from typing import Any

from fleets.render.manifest import FLEET_LABEL
from fleets.spec.fleet import FleetSpec, LowLatency
from fleets.spec.platform import NodePool, PlatformBody

NETWORK_LABEL = "warmfleet.dev/network"
KERNEL_LABEL = "warmfleet.dev/kernel"
NUMA_LABEL = "warmfleet.dev/numa"
POOL_LABEL = "warmfleet.dev/pool"
_ZONE, _HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
_SPOT_LABELS = {
    "cloud.google.com/gke-spot": "true",
    "kubernetes.azure.com/scalesetpriority": "spot",
    "eks.amazonaws.com/capacityType": "SPOT",
    "karpenter.sh/capacity-type": "spot",
}
"""How GKE, AKS, EKS and Karpenter mark nodes that go at short notice."""
_SPOT_TAINTS = {"cloud.google.com/gke-spot": "true", "kubernetes.azure.com/scalesetpriority": "spot"}
"""Those of them that are taints as well."""


def in_host_network(fleet: FleetSpec) -> bool:
    """Whether its pods share their node's network."""
    return fleet.spec.low_latency.network == "host"


def one_per_node(fleet: FleetSpec, platform: PlatformBody) -> bool:
    """Without the webhook, sidecars in the host network are kept apart by having a node each."""
    return in_host_network(fleet) and platform.admission is None


def pool_of(fleet: FleetSpec, platform: PlatformBody) -> NodePool | None:
    """Where it runs: as the platform says of the pool, else by our own label and taint."""
    name = fleet.spec.low_latency.node_pool
    if name is None:
        return None
    default = {"labels": {POOL_LABEL: name}, "taints": [{"key": POOL_LABEL, "value": name}]}
    return platform.node_pools.get(name) or NodePool.model_validate(default)


def nodes(fleet: FleetSpec, platform: PlatformBody) -> dict[str, Any]:
    """Members of a pod's spec that choose its nodes, whatever runs there already."""
    levers, pool = fleet.spec.low_latency, pool_of(fleet, platform)
    selector = dict(pool.labels) if pool is not None else {}
    if levers.kernel == "realtime":
        selector[KERNEL_LABEL] = "realtime"
    if levers.numa == "single":
        selector[NUMA_LABEL] = "single"
    if levers.architecture is not None:
        selector["kubernetes.io/arch"] = levers.architecture
    selector |= levers.node_labels
    spec: dict[str, Any] = {}
    if selector:
        spec["nodeSelector"] = selector
    if affinity := _node_affinity(levers):
        spec["affinity"] = {"nodeAffinity": affinity}
    if tolerations := _tolerations(levers, pool):
        spec["tolerations"] = tolerations
    return spec


def neighbours(fleet: FleetSpec, platform: PlatformBody) -> dict[str, Any]:
    """Members of a pod's spec that keep the fleet's pods apart; `affinity` is to be merged with that of `nodes`."""
    levers = fleet.spec.low_latency
    same = {"matchLabels": {FLEET_LABEL: fleet.metadata.name}}
    required: list[dict[str, Any]] = []
    preferred: list[dict[str, Any]] = []
    if one_per_node(fleet, platform):  # also from every other such fleet's pods, in every namespace
        host = {"matchLabels": {NETWORK_LABEL: "host"}}
        required.append({"topologyKey": _HOST, "namespaceSelector": {}, "labelSelector": host})
    if levers.anti_affinity == "require":
        required.append({"topologyKey": _HOST, "labelSelector": same})
    elif levers.anti_affinity == "prefer":
        preferred.append({"weight": 100, "podAffinityTerm": {"topologyKey": _HOST, "labelSelector": same}})
    spec: dict[str, Any] = {}
    if required or preferred:
        apart = {
            "requiredDuringSchedulingIgnoredDuringExecution": required,
            "preferredDuringSchedulingIgnoredDuringExecution": preferred,
        }
        spec["affinity"] = {"podAntiAffinity": {key: terms for key, terms in apart.items() if terms}}
    if levers.zone_spread != "none":
        wanted = "DoNotSchedule" if levers.zone_spread == "require" else "ScheduleAnyway"
        spec["topologySpreadConstraints"] = [
            {"maxSkew": 1, "topologyKey": _ZONE, "whenUnsatisfiable": wanted, "labelSelector": same}
        ]
    return spec


def _node_affinity(levers: LowLatency) -> dict[str, Any]:
    affinity: dict[str, Any] = {}
    if levers.spot == "never":
        away = [{"key": key, "operator": "NotIn", "values": [value]} for key, value in _SPOT_LABELS.items()]
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [{"matchExpressions": away}]}
    liked = dict(levers.prefer_node_labels)
    if levers.spot == "prefer":
        liked |= _SPOT_LABELS
    if liked:
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = [
            {"weight": 100, "preference": {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}}
            for key, value in liked.items()
        ]
    return affinity


def _tolerations(levers: LowLatency, pool: NodePool | None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"key": taint.key, "operator": "Equal", "value": taint.value, "effect": taint.effect}
        for taint in (pool.taints if pool is not None else [])
    ]
    if levers.kernel == "realtime":
        rows.append({"key": KERNEL_LABEL, "operator": "Equal", "value": "realtime", "effect": "NoSchedule"})
    if levers.spot in ("tolerate", "prefer"):
        rows += [
            {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}
            for key, value in _SPOT_TAINTS.items()
        ]
    for given in levers.tolerations:
        row: dict[str, Any] = {"operator": given.operator}
        if given.key is not None:
            row = {"key": given.key, **row}
        if given.operator == "Equal":
            row["value"] = given.value
        if given.effect is not None:
            row["effect"] = given.effect
        if given.seconds is not None:
            row["tolerationSeconds"] = given.seconds
        rows.append(row)
    return [row for i, row in enumerate(rows) if row not in rows[:i]]
