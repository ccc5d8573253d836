"""A fleet as Agones' objects: Fleet and FleetAutoscaler. Source of the fields: Agones' CRDs and their Go validation."""

import hashlib
import json
import math
from typing import Any

from fleets.render.manifest import FLEET_LABEL, Manifest, manifest
from fleets.render.placement import one_per_node
from fleets.render.pod import CONTAINER, inner_ports, pod_template, port_policy, ports
from fleets.spec.fleet import FleetSpec
from fleets.spec.platform import PlatformBody

_AUTOSCALER_WAITS_S = 600
"""Cluster Autoscaler's --max-graceful-termination-sec: it kills a pod that takes longer."""
_UPGRADE_WAITS_S = 3600
"""What managed clusters wait for one pod when they upgrade a node."""


_LIST_CAPACITY = 1000
"""Agones' own limit; more are not listed."""
VERSION_LABEL = "warmfleet.dev/version"
"""On every server: changes when anything of its template does."""


def eviction(fleet: FleetSpec) -> str:
    """
    Agones' `eviction.safe`: who may evict, by whether the drain fits into what they wait.

    Returns: Always (scale-down and upgrades), OnUpgrade, or Never (a drain longer than an hour would be cut short).
    """
    drain = fleet.spec.disruption
    if drain.drain_timeout > _UPGRADE_WAITS_S:
        return "Never"
    return "Always" if drain.on_drain == "migrate" and drain.drain_timeout <= _AUTOSCALER_WAITS_S else "OnUpgrade"


def agones_fleet(fleet: FleetSpec, platform: PlatformBody) -> Manifest:
    """The Fleet, without `replicas`: that number is the autoscaler's, and a declared one would fight it at every apply."""
    labels = {**fleet.metadata.labels, FLEET_LABEL: fleet.metadata.name}
    apart = one_per_node(fleet, platform) or fleet.spec.low_latency.anti_affinity != "none"
    game_server: dict[str, Any] = {
        "container": CONTAINER,
        "ports": _ports(fleet),
        "health": _health(fleet),
        "eviction": {"safe": eviction(fleet)},
        **_mirrors(fleet),
        "template": pod_template(fleet, platform),
    }
    version = hashlib.sha256(json.dumps(game_server, sort_keys=True).encode()).hexdigest()[:10]
    return manifest(
        "agones.dev/v1",
        "Fleet",
        fleet.metadata.name,
        namespace=platform.namespace,
        labels=labels,
        spec={
            "scheduling": "Distributed" if apart else fleet.spec.server.strategy,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": _rolling(fleet)},
            "template": {"metadata": {"labels": {**labels, VERSION_LABEL: version}}, "spec": game_server},
        },
    )


def _mirrors(fleet: FleetSpec) -> dict[str, Any]:
    """The Counters or Lists that its game server keeps (gameserver/agones/mirror.py): it fills those that are declared."""
    server = fleet.spec.server
    if server.game is None or server.mirror == "none":
        return {}
    rooms, players = server.rooms, server.rooms * server.seats
    if server.mirror == "counters":
        return {
            "counters": {
                name: {"count": 0, "capacity": most} for name, most in (("rooms", rooms), ("players", players))
            }
        }
    return {
        "lists": {
            name: {"capacity": min(most, _LIST_CAPACITY), "values": []}
            for name, most in (("rooms", rooms), ("players", players))
        }
    }


def fleet_autoscaler(fleet: FleetSpec, platform: PlatformBody) -> Manifest:
    """The FleetAutoscaler: by the webhook's forecast, or by a fixed buffer while the webhook is silent."""
    warm, name = fleet.spec.warm, fleet.metadata.name
    buffer = {"type": "Buffer", "buffer": _buffer(fleet)}
    policy: dict[str, Any] = buffer
    if warm.buffer == "auto":
        service = platform.autoscaler
        webhook: dict[str, Any] = {
            "service": {
                "name": service.service,
                "namespace": platform.namespace,
                "path": service.path,
                "port": service.port,
            }
        }
        if service.ca_bundle is not None:
            webhook["caBundle"] = service.ca_bundle
        chain = [{"id": "demand", "type": "Webhook", "webhook": webhook}, {"id": "blind", **buffer}]
        policy = {"type": "Chain", "chain": chain}
    return manifest(
        "autoscaling.agones.dev/v1",
        "FleetAutoscaler",
        name,
        namespace=platform.namespace,
        labels={FLEET_LABEL: name},
        spec={
            "fleetName": name,
            "policy": policy,
            "sync": {"type": "FixedInterval", "fixedInterval": {"seconds": platform.autoscaler.interval_s}},
        },
    )


def _buffer(fleet: FleetSpec) -> dict[str, int]:
    """
    In Agones' rules: at least 1, at most the maximum, and a minimum other than 0 is no smaller.

    When blind, as many as fill the whole shelf anew.
    """
    warm = fleet.spec.warm
    wanted = math.ceil(warm.shelf / fleet.spec.server.rooms) if warm.buffer == "auto" else warm.buffer
    size = min(max(1, wanted), warm.max)
    return {"bufferSize": size, "minReplicas": max(warm.min, size) if warm.min else 0, "maxReplicas": warm.max}


def _rolling(fleet: FleetSpec) -> dict[str, str]:
    """By the first step that is a part; Agones takes 1 % to 99 %, and never touches Allocated servers."""
    first = next((step for step in fleet.spec.rollout.steps if step < 1), 0.25)
    share = f"{max(1, min(99, round(first * 100)))}%"
    return {"maxSurge": share, "maxUnavailable": share}


def _ports(fleet: FleetSpec) -> list[dict[str, Any]]:
    policy, inside = port_policy(fleet), inner_ports(fleet)
    rows: list[dict[str, Any]] = []
    for index, (name, protocol) in enumerate(ports(fleet)):
        row: dict[str, Any] = {"name": name, "portPolicy": policy}
        if fleet.spec.low_latency.port_range is not None:
            row["range"] = fleet.spec.low_latency.port_range
        if inside is not None:
            row["containerPort"] = inside[index]
        if policy == "Static":
            row["hostPort"] = row["containerPort"]
        rows.append({**row, "protocol": protocol})
    return rows


def _health(fleet: FleetSpec) -> dict[str, Any]:
    health = fleet.spec.server.health
    if health.disabled:
        return {"disabled": True}
    return {
        "initialDelaySeconds": math.ceil(health.initial_delay),
        "periodSeconds": math.ceil(health.period),
        "failureThreshold": health.failures,
    }
