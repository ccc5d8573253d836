"""Network policies: who may be reached where, in the words of Kubernetes, Cilium or Calico, as the Platform says."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from fleets.render.manifest import FLEET_LABEL, Manifest, manifest
from fleets.render.placement import in_host_network
from fleets.render.pod import METRICS_PORT, inner_ports, measured, ports
from fleets.spec.fleet import FleetSpec
from fleets.spec.platform import PlatformBody

Ports = Sequence[tuple[str, int, int]]
"""Protocol, first and last port of a range."""
_DNS: Ports = [("UDP", 53, 53), ("TCP", 53, 53)]
_API_SERVER: Ports = [("TCP", 443, 443), ("TCP", 6443, 6443)]


def fleet_policy(fleet: FleetSpec, platform: PlatformBody) -> Manifest | None:
    """
    Players reach the game's ports and nothing else, pods of the cluster its metrics. Our own game reaches DNS, Valkey, whoever takes traces and the API server
    (the sidecar's), and nothing else.

    None in the host network, which network policies do not reach. A foreign command's ways out are its own.
    """
    if in_host_network(fleet):
        return None
    out: Ports | None = None
    if fleet.spec.server.game is not None:
        out = [*store_ports(platform), *(url_ports(platform.tracing.endpoint) if platform.tracing is not None else [])]
    name, labels = fleet.metadata.name, {FLEET_LABEL: fleet.metadata.name}
    inside: Ports = [("TCP", METRICS_PORT, METRICS_PORT)] if measured(fleet, platform) else []
    return policy(platform, name, labels, reached=_reached(fleet, platform), inside=inside, out=out, api_server=True)


def store_ports(platform: PlatformBody) -> Ports:
    """Of Valkey's servers, and of its Sentinels."""
    return [("TCP", port, port) for port in platform.valkey.ports()]


def policy(
    platform: PlatformBody,
    name: str,
    labels: Mapping[str, str],
    *,
    reached: Ports,
    inside: Ports = (),
    out: Ports | None,
    api_server: bool,
) -> Manifest | None:
    """
    For the pods with `labels`: reached on some ports; reaching DNS, `out` and perhaps the API server, or whatever they like.

    Args: inside: ports that only pods of the cluster reach.
    Returns: None where the platform wants no policies.
    """
    made = {"kubernetes": _kubernetes, "cilium": _cilium, "calico": _calico}.get(platform.network_policy)
    if made is None:
        return None
    kinds = {
        "kubernetes": ("networking.k8s.io/v1", "NetworkPolicy"),
        "cilium": ("cilium.io/v2", "CiliumNetworkPolicy"),
        "calico": ("projectcalico.org/v3", "NetworkPolicy"),
    }
    spec = made(labels, reached, inside, out, api_server)
    return manifest(*kinds[platform.network_policy], name, namespace=platform.namespace, labels=labels, spec=spec)


def _reached(fleet: FleetSpec, platform: PlatformBody) -> Ports:
    protocols, inside = [protocol for _, protocol in ports(fleet)], inner_ports(fleet)
    if inside is None:  # any of those that Agones gives
        return [(p, platform.game_ports.first, platform.game_ports.last) for p in dict.fromkeys(protocols)]
    return [(protocol, port, port) for protocol, port in zip(protocols, inside, strict=True)]


def _kubernetes(
    labels: Mapping[str, str], reached: Ports, inside: Ports, out: Ports | None, api_server: bool
) -> dict[str, Any]:
    def listed(some: Ports) -> dict[str, Any]:
        rows = [{"protocol": protocol, "port": a} | ({"endPort": b} if b > a else {}) for protocol, a, b in some]
        return {"ports": rows}

    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": dict(labels)},
        "policyTypes": ["Ingress", "Egress"] if out is not None else ["Ingress"],
        "ingress": [
            *([listed(reached)] if reached else []),  # no ports at all would mean every port
            *([{"from": [{"namespaceSelector": {}}], **listed(inside)}] if inside else []),
        ],
    }
    if out is not None:  # the API server is outside the pod network, where this kind of policy knows addresses only
        beyond = list(dict.fromkeys([*out, *(_API_SERVER if api_server else [])]))
        spec["egress"] = [listed(_DNS), *([listed(beyond)] if beyond else [])]  # no ports at all would mean every port
    return spec


def _cilium(
    labels: Mapping[str, str], reached: Ports, inside: Ports, out: Ports | None, api_server: bool
) -> dict[str, Any]:
    def listed(some: Ports) -> list[dict[str, Any]]:
        rows = [{"port": str(a)} | ({"endPort": b} if b > a else {}) | {"protocol": proto} for proto, a, b in some]
        return [{"ports": rows}]

    spec: dict[str, Any] = {
        "endpointSelector": {"matchLabels": dict(labels)},
        "ingress": [
            *([{"fromEntities": ["all"], "toPorts": listed(reached)}] if reached else []),
            *([{"fromEntities": ["cluster"], "toPorts": listed(inside)}] if inside else []),
        ],
    }
    if out is not None:
        spec["egress"] = [{"toEntities": ["kube-apiserver"]}] if api_server else []
        spec["egress"].append({"toEntities": ["all"], "toPorts": listed([*_DNS, *out])})
    return spec


def _calico(
    labels: Mapping[str, str], reached: Ports, inside: Ports, out: Ports | None, api_server: bool
) -> dict[str, Any]:
    def allow(some: Ports) -> list[dict[str, Any]]:
        return [
            {"action": "Allow", "protocol": proto, "destination": {"ports": [a if a == b else f"{a}:{b}"]}}
            for proto, a, b in some
        ]

    spec: dict[str, Any] = {
        "selector": " && ".join(f"{key} == '{value}'" for key, value in labels.items()),
        "types": ["Ingress", "Egress"] if out is not None else ["Ingress"],
        "ingress": [*allow(reached), *({**rule, "source": {"namespaceSelector": "all()"}} for rule in allow(inside))],
    }
    if out is not None:
        server = {"action": "Allow", "destination": {"services": {"name": "kubernetes", "namespace": "default"}}}
        spec["egress"] = [*allow(_DNS), *allow(out), *([server] if api_server else [])]
    return spec


def url_ports(url: str) -> Ports:
    """Where a URL leads."""
    parts = urlsplit(url)
    number = parts.port or (443 if parts.scheme == "https" else 80)
    return [("TCP", number, number)]
