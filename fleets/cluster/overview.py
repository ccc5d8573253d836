"""What runs of ours in a cluster: fleets with their servers and scalers, and services. Reads only."""

from collections.abc import Iterator
from typing import Any

from fleets.cluster.ports import Cluster, Refused, UnknownKind
from fleets.cluster.readiness import pod_reasons, pods_of, readiness
from fleets.render.manifest import FLEET_LABEL, Manifest

_OURS = {"app.kubernetes.io/managed-by": "warmfleet"}


def overview(cluster: Cluster, namespace: str) -> dict[str, Any]:
    """Everything that `warmfleet status --cluster` shows. Raises ClusterError; UnknownKind where Agones is not installed."""
    scalers = {
        item["spec"]["fleetName"]: item
        for item in cluster.listed("autoscaling.agones.dev/v1", "FleetAutoscaler", namespace, _OURS)
    }
    fleets = [_fleet(cluster, item, scalers) for item in cluster.listed("agones.dev/v1", "Fleet", namespace, _OURS)]
    return {"namespace": namespace, "fleets": fleets, "services": list(_services(cluster, namespace))}


def _fleet(cluster: Cluster, item: Manifest, scalers: dict[str, Manifest]) -> dict[str, Any]:
    status, name = item.get("status") or {}, item["metadata"]["name"]
    found = readiness(item)
    assert found is not None
    row: dict[str, Any] = {
        "name": name,
        "fleet": (item["metadata"].get("labels") or {}).get(FLEET_LABEL, name),
        "ready": found.ready,
        "said": found.said,
        "replicas": item["spec"].get("replicas") or 0,
        **{key: status.get(f"{key}Replicas") or 0 for key in ("ready", "allocated", "reserved")},
    }
    row["readyServers"] = row.pop("ready")
    row["ready"] = found.ready
    scaler = scalers.get(name)
    if scaler is not None:
        state = scaler.get("status") or {}
        row["autoscaler"] = {
            "policy": scaler["spec"]["policy"]["type"],
            "wants": state.get("desiredReplicas") or 0,
            "able": bool(state.get("ableToScale", False)),
            "limited": bool(state.get("scalingLimited", False)),
            "lastApplied": state.get("lastAppliedPolicy") or "",
        }
    if not found.ready:
        row["why"] = list(_why(cluster, item))
    return row


def _services(cluster: Cluster, namespace: str) -> Iterator[dict[str, Any]]:
    for kind in ("Deployment", "StatefulSet", "DaemonSet"):
        for item in cluster.listed("apps/v1", kind, namespace, _OURS):
            found = readiness(item)
            assert found is not None
            row: dict[str, Any] = {
                "kind": kind,
                "name": item["metadata"]["name"],
                "ready": found.ready,
                "said": found.said,
            }
            if not found.ready:
                row["why"] = list(_why(cluster, item))
            yield row


def _why(cluster: Cluster, item: Manifest) -> tuple[str, ...]:
    try:
        return pod_reasons(cluster.listed("v1", "Pod", item["metadata"]["namespace"], pods_of(item)))
    except (Refused, UnknownKind):
        return ()
