"""
How many replicas of a service run, and how large: HorizontalPodAutoscaler, KEDA's ScaledObject, VerticalPodAutoscaler.

KEDA counts the tickets that wait in Valkey itself: its redis triggers take a list's length, and of a sorted set its cardinality, which is
what a queue's pool is (matchmaker/store.py). Source: pkg/scalers/redis_scaler.go of KEDA 2.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fleets.render.manifest import Manifest, manifest
from fleets.render.store import SERVICE as VALKEY
from fleets.spec.platform import Autoscale, PlatformBody

_CALM_DOWN_S = 300
"""Scale-down looks back so far: a queue breathes with its matches, and each change of replicas moves leases."""


def scaling(
    platform: PlatformBody, name: str, labels: Mapping[str, str], scale: Autoscale, queues: Sequence[str]
) -> list[Manifest]:
    """What scales the Deployment `name`; by the depth of `queues` where that is asked for."""
    if scale.tickets_per_replica is not None and queues:
        return _keda(platform, name, labels, scale, queues)
    return [_hpa(platform, name, labels, scale)]


def recommendations(
    platform: PlatformBody, name: str, labels: Mapping[str, str], *, api_version: str, kind: str
) -> list[Manifest]:
    """A VerticalPodAutoscaler that only recommends: what it would request stands in its status."""
    if not platform.vertical_recommendations:
        return []
    return [
        manifest(
            "autoscaling.k8s.io/v1",
            "VerticalPodAutoscaler",
            name,
            namespace=platform.namespace,
            labels=labels,
            spec={
                "targetRef": {"apiVersion": api_version, "kind": kind, "name": name},
                "updatePolicy": {"updateMode": "Off"},
                "resourcePolicy": {
                    "containerPolicies": [{"containerName": "*", "controlledResources": ["cpu", "memory"]}]
                },
            },
        )
    ]


def _behavior() -> dict[str, Any]:
    return {
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": _CALM_DOWN_S,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
        },
    }


def _hpa(platform: PlatformBody, name: str, labels: Mapping[str, str], scale: Autoscale) -> Manifest:
    metrics: list[dict[str, Any]] = [
        {
            "type": "Pods",
            "pods": {
                "metric": {"name": metric.name},
                "target": {"type": "AverageValue", "averageValue": metric.per_replica},
            },
        }
        for metric in scale.metrics
    ]
    if scale.cpu is not None or not metrics:
        target = {"type": "Utilization", "averageUtilization": scale.cpu or 60}
        metrics.insert(0, {"type": "Resource", "resource": {"name": "cpu", "target": target}})
    return manifest(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        name,
        namespace=platform.namespace,
        labels=labels,
        spec={
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": scale.min,
            "maxReplicas": scale.max,
            "metrics": metrics,
            "behavior": _behavior(),
        },
    )


def _keda(
    platform: PlatformBody, name: str, labels: Mapping[str, str], scale: Autoscale, queues: Sequence[str]
) -> list[Manifest]:
    valkey = platform.valkey
    password = valkey.in_cluster.password if valkey.in_cluster is not None else valkey.password
    triggers: list[dict[str, Any]] = []
    for queue in queues:
        metadata = {
            **_address(platform),
            "listName": f"wf:q:{{{queue}}}:pool",
            "listLength": str(scale.tickets_per_replica),
        }
        if valkey.mode != "cluster":
            metadata["databaseIndex"] = "0"
        if valkey.tls:
            metadata["enableTLS"] = "true"
        kind = {"standalone": "redis", "sentinel": "redis-sentinel", "cluster": "redis-cluster"}[valkey.mode]
        trigger: dict[str, Any] = {"type": kind, "metadata": metadata}
        if password is not None:
            trigger["authenticationRef"] = {"name": name}
        triggers.append(trigger)
    if scale.cpu is not None:
        triggers.append({"type": "cpu", "metricType": "Utilization", "metadata": {"value": str(scale.cpu)}})
    items = []
    if password is not None:
        secret = {"parameter": "password", "name": password.secret, "key": password.key}
        items.append(
            manifest(
                "keda.sh/v1alpha1",
                "TriggerAuthentication",
                name,
                namespace=platform.namespace,
                labels=labels,
                spec={"secretTargetRef": [secret]},
            )
        )
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicaCount": scale.min,
        "maxReplicaCount": scale.max,
        "pollingInterval": 5,
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior()}},
        "triggers": triggers,
    }
    items.append(
        manifest("keda.sh/v1alpha1", "ScaledObject", name, namespace=platform.namespace, labels=labels, spec=spec)
    )
    return items


def _address(platform: PlatformBody) -> dict[str, str]:
    valkey = platform.valkey
    if valkey.in_cluster is not None:
        return {"address": f"{VALKEY}.{platform.namespace}.svc:{valkey.port}"}
    if valkey.mode == "standalone":
        return {"address": valkey.addresses[0] if valkey.addresses else ""}
    found = {"addresses": ",".join(valkey.addresses)}
    if valkey.sentinel_master is not None:
        found["sentinelMaster"] = valkey.sentinel_master
    return found
