"""What stands around a fleet in the cluster: priority, disruption budget, image pre-pull, monitor."""

import re
from typing import Any, Literal

from fleets.admission.mutation import METRICS
from fleets.render.agones import eviction
from fleets.render.manifest import FLEET_LABEL, Manifest, manifest
from fleets.render.placement import nodes
from fleets.render.pod import measured, priority_class
from fleets.spec.fleet import FleetSpec
from fleets.spec.platform import PlatformBody

_DISRUPTED_AT_ONCE = "10%"
"""Kubernetes rounds it up: one pod may always go, so that a drain never hangs."""


def priority(value: int, preemption: Literal["lower", "never"] = "lower") -> Manifest:
    """Game servers push out what is less urgent, rather than wait for a node; or only wait ahead of it."""
    return manifest(
        "scheduling.k8s.io/v1",
        "PriorityClass",
        priority_class(value, preemption),
        value=value,
        globalDefault=False,
        preemptionPolicy="PreemptLowerPriority" if preemption == "lower" else "Never",
        description="Game servers of Warmfleet.",
    )


def disruption_budget(fleet: FleetSpec, platform: PlatformBody) -> Manifest | None:
    """
    How many of a fleet's pods a drain may take at a time.

    None where eviction is Never: Agones' own budget (maxUnavailable 0%) covers those pods, and a pod under two budgets cannot be evicted at all.
    """
    if eviction(fleet) == "Never":
        return None
    name = fleet.metadata.name
    return manifest(
        "policy/v1",
        "PodDisruptionBudget",
        name,
        namespace=platform.namespace,
        labels={FLEET_LABEL: name},
        spec={"maxUnavailable": _DISRUPTED_AT_ONCE, "selector": {"matchLabels": {FLEET_LABEL: name}}},
    )


def monitor(fleet: FleetSpec, platform: PlatformBody) -> Manifest | None:
    """What has Prometheus read the metrics of its game servers, canaries among them; their `pod` is the GameServer's name."""
    if not measured(fleet, platform):
        return None
    name = fleet.metadata.name
    return manifest(
        "monitoring.coreos.com/v1",
        "PodMonitor",
        name,
        namespace=platform.namespace,
        labels={FLEET_LABEL: name},
        spec={
            "selector": {"matchLabels": {FLEET_LABEL: name}},
            "podMetricsEndpoints": [
                {"port": METRICS, "path": "/metrics", "interval": "15s", "relabelings": _labelled("fleet", FLEET_LABEL)}
            ],
        },
    )


def _labelled(name: str, pod_label: str) -> list[dict[str, Any]]:
    """A pod's label under the name by which our alerts and dashboards know it."""
    source = f"__meta_kubernetes_pod_label_{re.sub(r'[^a-zA-Z0-9_]', '_', pod_label)}"
    return [{"sourceLabels": [source], "targetLabel": name}]


def pre_pull(fleet: FleetSpec, platform: PlatformBody) -> Manifest | None:
    """
    A pod on every node that may run the fleet, which has its image pulled before a game server needs it.

    The image's own program is not started: its container runs a command that ends at once. Where the image has none of that name the pull
    has happened all the same.
    """
    own = fleet.spec.low_latency.pre_pull
    if not (platform.pre_pull if own is None else own):
        return None
    name = fleet.metadata.name
    labels = {"warmfleet.dev/pre-pull": name}
    server = fleet.spec.server
    small = {"cpu": "1m", "memory": "16Mi"}
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    resources = {"requests": small, "limits": {"cpu": "100m", "memory": "64Mi"}}
    pull = {
        "name": "pull",
        "image": server.image,
        "command": ["python", "-c", ""] if server.game is not None else ["/bin/true"],
        "resources": resources,
        "securityContext": security,
    }
    stay = {"name": "stay", "image": platform.pause_image, "resources": resources, "securityContext": security}
    spec = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        **nodes(fleet, platform),
        "initContainers": [pull],
        "containers": [stay],
    }
    if platform.images is not None and platform.images.pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in platform.images.pull_secrets]
    return manifest(
        "apps/v1",
        "DaemonSet",
        f"{name}-pre-pull",
        namespace=platform.namespace,
        labels=labels,
        spec={
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    )
