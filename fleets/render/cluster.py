"""What stands around a fleet in the cluster: priority, disruption budget, network policy, image pre-pull, the allocator's rights."""

from typing import Any, Literal

from fleets.render.agones import eviction
from fleets.render.manifest import FLEET_LABEL, Manifest, manifest
from fleets.render.placement import in_host_network, nodes
from fleets.render.pod import inner_ports, ports, priority_class
from fleets.spec.fleet import FleetSpec
from fleets.spec.platform import PlatformBody

ALLOCATOR = "warmfleet-allocator"
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


def network_policy(fleet: FleetSpec, platform: PlatformBody) -> Manifest | None:
    """
    Players reach the game's ports and nothing else; our own game reaches DNS, Valkey and the API server (the sidecar's) and nothing else.

    None in the host network, which network policies do not reach. A foreign command's ways out are its own.
    """
    if platform.network_policy == "none" or in_host_network(fleet):
        return None
    inside, name, ours = _reached(fleet, platform), fleet.metadata.name, fleet.spec.server.game is not None
    if platform.network_policy == "cilium":
        kind, spec = ("cilium.io/v2", "CiliumNetworkPolicy"), _cilium(name, inside, platform if ours else None)
    elif platform.network_policy == "calico":
        kind, spec = ("projectcalico.org/v3", "NetworkPolicy"), _calico(name, inside, platform if ours else None)
    else:
        kind, spec = ("networking.k8s.io/v1", "NetworkPolicy"), _kubernetes(name, inside, platform if ours else None)
    return manifest(*kind, name, namespace=platform.namespace, labels={FLEET_LABEL: name}, spec=spec)


_Ports = list[tuple[str, int, int]]
"""Protocol, first and last port of a range."""
_DNS: _Ports = [("UDP", 53, 53), ("TCP", 53, 53)]


def _reached(fleet: FleetSpec, platform: PlatformBody) -> _Ports:
    protocols, inside = [protocol for _, protocol in ports(fleet)], inner_ports(fleet)
    if inside is None:  # any of those that Agones gives
        return [(p, platform.game_ports.first, platform.game_ports.last) for p in dict.fromkeys(protocols)]
    return [(protocol, port, port) for protocol, port in zip(protocols, inside, strict=True)]


def _kubernetes(name: str, inside: _Ports, out: PlatformBody | None) -> dict[str, Any]:
    def listed(some: _Ports) -> dict[str, Any]:
        rows = [{"protocol": protocol, "port": a} | ({"endPort": b} if b > a else {}) for protocol, a, b in some]
        return {"ports": rows}

    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": {FLEET_LABEL: name}},
        "policyTypes": ["Ingress", "Egress"] if out else ["Ingress"],
        "ingress": [listed(inside)],
    }
    if out:  # the API server is outside the pod network, where this kind of policy knows addresses only
        beyond = [("TCP", port, port) for port in dict.fromkeys((out.valkey.port, 443, 6443))]
        spec["egress"] = [listed(_DNS), listed(beyond)]
    return spec


def _cilium(name: str, inside: _Ports, out: PlatformBody | None) -> dict[str, Any]:
    def listed(some: _Ports) -> list[dict[str, Any]]:
        rows = [{"port": str(a)} | ({"endPort": b} if b > a else {}) | {"protocol": proto} for proto, a, b in some]
        return [{"ports": rows}]

    spec: dict[str, Any] = {
        "endpointSelector": {"matchLabels": {FLEET_LABEL: name}},
        "ingress": [{"fromEntities": ["all"], "toPorts": listed(inside)}],
    }
    if out:
        spec["egress"] = [
            {"toEntities": ["kube-apiserver"]},
            {"toEntities": ["all"], "toPorts": listed([*_DNS, ("TCP", out.valkey.port, out.valkey.port)])},
        ]
    return spec


def _calico(name: str, inside: _Ports, out: PlatformBody | None) -> dict[str, Any]:
    def allow(some: _Ports) -> list[dict[str, Any]]:
        return [
            {"action": "Allow", "protocol": proto, "destination": {"ports": [a if a == b else f"{a}:{b}"]}}
            for proto, a, b in some
        ]

    spec: dict[str, Any] = {
        "selector": f"{FLEET_LABEL} == '{name}'",
        "types": ["Ingress", "Egress"] if out else ["Ingress"],
        "ingress": allow(inside),
    }
    if out:
        api_server = {"action": "Allow", "destination": {"services": {"name": "kubernetes", "namespace": "default"}}}
        spec["egress"] = [*allow(_DNS), *allow([("TCP", out.valkey.port, out.valkey.port)]), api_server]
    return spec


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


def allocator_rights(platform: PlatformBody) -> tuple[Manifest, ...]:
    """The allocator's account: it allocates, watches, labels and deletes game servers of one namespace, and nothing else."""
    rules = [
        {"apiGroups": ["allocation.agones.dev"], "resources": ["gameserverallocations"], "verbs": ["create"]},
        {
            "apiGroups": ["agones.dev"],
            "resources": ["gameservers"],
            "verbs": ["get", "list", "watch", "patch", "delete"],
        },
    ]
    namespace = platform.namespace
    return (
        manifest("v1", "ServiceAccount", ALLOCATOR, namespace=namespace),
        manifest("rbac.authorization.k8s.io/v1", "Role", ALLOCATOR, namespace=namespace, rules=rules),
        manifest(
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            ALLOCATOR,
            namespace=namespace,
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ALLOCATOR},
            subjects=[{"kind": "ServiceAccount", "name": ALLOCATOR, "namespace": namespace}],
        ),
    )
