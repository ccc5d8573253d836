"""A cluster, from its API server: Agones and how it is set, what the Platform counts on, nodes for every fleet."""

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fleets.cluster.ports import Cluster, ClusterError, ClusterUnavailable, Refused
from fleets.doctor.model import Check, fail, ok, unknown, warn
from fleets.render.placement import nodes as placement
from fleets.spec.fleet import FleetSpec, SecretKey
from fleets.spec.platform import PlatformBody, Services

_OLDEST = (1, 30)
"""Sidecar containers and a preStop sleep are on by default from then on."""
_BATCH_MS = 50
"""A lone allocation waits this long at most; Agones' own 500 ms is what a player would feel."""
_AGONES = "agones-system"


def examine(cluster: Cluster, platform: PlatformBody, fleets: Sequence[FleetSpec]) -> tuple[Check, ...]:
    """Every check; a question that the account may not ask is UNKNOWN. Raises ClusterUnavailable."""
    found = list(_version(cluster))
    looks: tuple[tuple[str, Callable[[], Iterator[Check]]], ...] = (
        ("agones", lambda: _agones(cluster, platform)),
        ("namespace", lambda: _namespace(cluster, platform)),
        ("kinds", lambda: _kinds(cluster, platform)),
        ("secrets", lambda: _secrets(cluster, platform, fleets)),
        ("valkey", lambda: _valkey(cluster, platform)),
        ("admission", lambda: _admission(cluster, platform)),
        ("nodes", lambda: _nodes(cluster, platform, fleets)),
        ("cni", lambda: _cni(cluster)),
    )
    for name, look in looks:
        try:
            found += list(look())
        except ClusterUnavailable:
            raise
        except ClusterError as error:
            found.append(unknown(name, str(error)))
    return tuple(found)


def _version(cluster: Cluster) -> Iterator[Check]:
    body = cluster.get("/version") or {}
    numbers = re.match(r"v?(\d+)\.(\d+)", str(body.get("gitVersion", "")))
    if numbers is None:
        yield unknown("kubernetes", f"says no version: {body}")
    elif (int(numbers[1]), int(numbers[2])) < _OLDEST:
        yield fail("kubernetes", f"{numbers[0]} is too old", f"use {_OLDEST[0]}.{_OLDEST[1]} or newer")
    else:
        yield ok("kubernetes", str(body["gitVersion"]))


def _agones(cluster: Cluster, platform: PlatformBody) -> Iterator[Check]:
    if cluster.get("/apis/agones.dev/v1") is None:
        yield fail(
            "agones", "is not installed", "helm install agones agones/agones -n agones-system --create-namespace"
        )
        return
    body = cluster.get(f"/apis/apps/v1/namespaces/{_AGONES}/deployments") or {"items": []}
    made = {item["metadata"]["name"]: item for item in body["items"]}
    if not made:
        yield unknown("agones", f"its CRDs are there, its deployments are not in {_AGONES}")
        return
    for name, item in made.items():
        status = item.get("status") or {}
        if not status.get("availableReplicas"):
            yield fail(
                "agones", f"{name} has no pod that is available", f"kubectl -n {_AGONES} describe deployment {name}"
            )
    if all((item.get("status") or {}).get("availableReplicas") for item in made.values()):
        yield ok("agones", f"{', '.join(sorted(made))} are available")
    yield from _batching(made)
    yield from _ports(made, platform)


def _env(item: Mapping[str, Any]) -> dict[str, str]:
    containers = item.get("spec", {}).get("template", {}).get("spec", {}).get("containers") or []
    return {e["name"]: str(e.get("value", "")) for c in containers for e in c.get("env") or []}


def _batching(made: Mapping[str, Mapping[str, Any]]) -> Iterator[Check]:
    for name, setting in (("agones-extensions", "agones.extensions"), ("agones-allocator", "agones.allocator")):
        if name not in made:
            continue
        text = _env(made[name]).get("ALLOCATION_BATCH_WAIT_TIME", "500ms")
        wait = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s)", text)
        wait_ms = float(wait[1]) * (1 if wait[2] == "ms" else 1000) if wait else 500.0
        if wait_ms > _BATCH_MS:
            yield warn(
                "allocation-batching",
                f"{name} waits {text} before each batch of allocations, which a lone allocation waits out in full",
                f"set {setting}.allocationBatchWaitTime to 10ms in Agones' Helm values",
            )
        else:
            yield ok("allocation-batching", f"{name} waits {text}")


def _ports(made: Mapping[str, Mapping[str, Any]], platform: PlatformBody) -> Iterator[Check]:
    env = _env(made.get("agones-controller", {}))
    if "MIN_PORT" not in env:
        return
    theirs, ours = (env["MIN_PORT"], env.get("MAX_PORT", "")), platform.game_ports
    if theirs == (str(ours.first), str(ours.last)):
        yield ok("game-ports", f"{ours.first} to {ours.last}, as Agones gives them")
    else:
        yield fail(
            "game-ports",
            f"the Platform says {ours.first} to {ours.last}, Agones gives {theirs[0]} to {theirs[1]}",
            f"set spec.gamePorts of the Platform to {{first: {theirs[0]}, last: {theirs[1]}}}",
        )


def _namespace(cluster: Cluster, platform: PlatformBody) -> Iterator[Check]:
    space = platform.namespace
    if cluster.get(f"/api/v1/namespaces/{space}") is None:
        yield fail(
            "namespace", f"{space} is not there", f"kubectl create namespace {space}, or apply with --create-namespace"
        )
    elif cluster.get(f"/api/v1/namespaces/{space}/serviceaccounts/agones-sdk") is None:
        yield fail(
            "namespace",
            f"{space} has no ServiceAccount agones-sdk, so no game server's pod can be made there",
            f"add {space} to gameservers.namespaces in Agones' Helm values",
        )
    else:
        yield ok("namespace", f"{space}, where Agones runs game servers")


def _kinds(cluster: Cluster, platform: PlatformBody) -> Iterator[Check]:
    wanted = {"/apis/metrics.k8s.io/v1beta1": ("metrics-server", _scales(platform))}
    wanted["/apis/keda.sh/v1alpha1"] = ("KEDA", _scales_by_queue(platform))
    wanted["/apis/cert-manager.io/v1"] = (
        "cert-manager",
        platform.admission is not None and platform.admission.issuer is not None,
    )
    wanted["/apis/monitoring.coreos.com/v1"] = ("Prometheus' operator", platform.prometheus_operator)
    wanted["/apis/autoscaling.k8s.io/v1"] = ("VerticalPodAutoscaler", platform.vertical_recommendations)
    wanted["/apis/gateway.networking.k8s.io/v1"] = (
        "the Gateway API",
        platform.entry is not None and platform.entry.kind == "gateway",
    )
    wanted["/apis/cilium.io/v2"] = ("Cilium", platform.network_policy == "cilium")
    wanted["/apis/projectcalico.org/v3"] = ("Calico's API server", platform.network_policy == "calico")
    for path, (name, needed) in wanted.items():
        if needed and cluster.get(path) is None:
            yield fail(
                "kinds",
                f"{name} is not installed, and the Platform counts on it",
                f"install it: the API server has no {path}",
            )
        elif needed:
            yield ok("kinds", f"{name} is there")


def _scales(platform: PlatformBody) -> bool:
    return any(body.autoscale is not None for body in _bodies(platform))


def _scales_by_queue(platform: PlatformBody) -> bool:
    return any(body.autoscale is not None and body.autoscale.tickets_per_replica for body in _bodies(platform))


def _bodies(platform: PlatformBody) -> list[Any]:
    services = platform.services
    return [] if services is None else [getattr(services, name) for name in type(services).model_fields]


def _secrets(cluster: Cluster, platform: PlatformBody, fleets: Sequence[FleetSpec]) -> Iterator[Check]:
    wanted = [SecretKey(secret=platform.valkey.secret, key=platform.valkey.key), platform.seat_keys]
    if any("udp" in fleet.spec.server.transports for fleet in fleets):
        wanted.append(platform.netcode_key)
    if platform.services is not None:
        wanted += [platform.seat_signing_key, *_asked(platform, platform.services)]
    for fleet in fleets:
        wanted += fleet.spec.server.secret_env.values()
    missing = []
    for source in dict.fromkeys((s.secret, s.key) for s in wanted):
        found = cluster.get(f"/api/v1/namespaces/{platform.namespace}/secrets/{source[0]}")
        if found is None or source[1] not in (found.get("data") or {}):
            missing.append(f"{source[0]} (key {source[1]})")
    if missing:
        yield fail(
            "secrets",
            f"missing: {', '.join(missing)}",
            f"kubectl -n {platform.namespace} create secret generic NAME --from-literal=KEY=…; docs/operating.md says what is in each",
        )
    else:
        yield ok("secrets", "all that are referred to are there")


def _asked(platform: PlatformBody, services: Services) -> Iterator[SecretKey]:
    """Of the parts that are there only where they are asked for."""
    console, events, beacon = services.console, services.events, services.beacon
    if console.enabled:
        yield platform.operator_token
        if console.viewer_token is not None:
            yield console.viewer_token
    if events.enabled and events.webhook is not None:
        yield events.webhook.secret
    if events.enabled and events.kafka is not None and events.kafka.config is not None:
        yield events.kafka.config
    if beacon.enabled:
        yield beacon.key


def _valkey(cluster: Cluster, platform: PlatformBody) -> Iterator[Check]:
    """What the URL says against what the Platform says of it: policies, KEDA and meshes go by the latter. The URL holds a password, and is never shown."""
    valkey = platform.valkey
    found = cluster.get(f"/api/v1/namespaces/{platform.namespace}/secrets/{valkey.secret}") or {}
    try:
        url = base64.b64decode((found.get("data") or {})[valkey.key]).decode().strip()
    except (KeyError, ValueError):
        return  # `secrets` says so
    scheme = url.partition("://")[0]
    known = re.fullmatch(r"(redis|rediss)(?:\+(sentinel|cluster))?", scheme)
    if known is None:
        yield fail(
            "valkey",
            f"the URL in Secret {valkey.secret} begins with none of redis, rediss, redis+sentinel, redis+cluster",
            "see docs/serve.md, WARMFLEET_VALKEY_URL",
        )
        return
    mode, tls = known[2] or "standalone", known[1] == "rediss"
    if mode != valkey.mode:
        yield fail(
            "valkey",
            f"the URL in Secret {valkey.secret} is one of mode {mode} ({scheme}://), the Platform says {valkey.mode}",
            f"set spec.valkey.mode to {mode}, or give the Secret another URL",
        )
    elif tls != valkey.tls and platform.services is not None and _scales_by_queue(platform):
        yield fail(
            "valkey",
            f"the URL in Secret {valkey.secret} is {'with' if tls else 'without'} TLS, and KEDA is told otherwise",
            f"set spec.valkey.tls to {str(tls).lower()}",
        )
    else:
        yield ok("valkey", f"{scheme}://, as the Platform says")


def _admission(cluster: Cluster, platform: PlatformBody) -> Iterator[Check]:
    if platform.admission is None:
        return
    path = (
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/warmfleet-admission-" + platform.namespace
    )
    found = cluster.get(path)
    if found is None:
        yield fail("admission", "the webhook is not configured", "warmfleet apply")
        return
    if not all(hook.get("clientConfig", {}).get("caBundle") for hook in found.get("webhooks") or []):
        yield fail(
            "admission",
            "the API server was given no CA to trust the webhook by: pods that need it are refused",
            "see that cert-manager's cainjector runs, or set admission.caBundle",
        )
        return
    deployment = cluster.get(f"/apis/apps/v1/namespaces/{platform.namespace}/deployments/warmfleet-admission") or {}
    available = (deployment.get("status") or {}).get("availableReplicas") or 0
    if available < 2:
        yield (warn if available else fail)(
            "admission",
            f"{available} of its pods answer: without one no game server that needs it starts",
            f"kubectl -n {platform.namespace} describe deployment warmfleet-admission",
        )
    else:
        yield ok("admission", f"{available} pods answer")


def _nodes(cluster: Cluster, platform: PlatformBody, fleets: Sequence[FleetSpec]) -> Iterator[Check]:
    every = cluster.listed("v1", "Node", "", {})
    ready = [node for node in every if _is_ready(node)]
    if not ready:
        yield fail("nodes", f"none of {len(every)} is Ready", "kubectl get nodes")
        return
    yield ok("nodes", f"{len(ready)} of {len(every)} are Ready")
    for fleet in fleets:
        selector = placement(fleet, platform).get("nodeSelector") or {}
        fitting = [node for node in ready if selector.items() <= (node["metadata"].get("labels") or {}).items()]
        name = fleet.metadata.name
        if not fitting:
            wanted = ", ".join(f"{key}={value}" for key, value in selector.items())
            yield fail(
                "nodes", f"fleet {name}: no node has {wanted}", f"kubectl label node NODE {wanted.replace(', ', ' ')}"
            )
            continue
        yield from _pages(fleet, fitting)
        if fleet.spec.low_latency.cpu_pinning:
            yield from _pinned(cluster, name, fitting)


def _is_ready(node: Mapping[str, Any]) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _pages(fleet: FleetSpec, nodes: Sequence[Mapping[str, Any]]) -> Iterator[Check]:
    levers = fleet.spec.low_latency
    for size, wanted in (("2Mi", levers.hugepages_2_mi), ("1Gi", levers.hugepages_1_gi)):
        have = [(node.get("status") or {}).get("allocatable", {}).get(f"hugepages-{size}", "0") for node in nodes]
        if wanted is not None and all(amount in ("0", 0) for amount in have):
            yield fail(
                "nodes",
                f"fleet {fleet.metadata.name}: none of its nodes has huge pages of {size}",
                "set them aside at boot and restart the kubelet: `warmfleet doctor node` on the node says more",
            )


def _pinned(cluster: Cluster, fleet: str, nodes: Sequence[Mapping[str, Any]]) -> Iterator[Check]:
    """By the kubelet's own word, through the API server."""
    wrong, asked = [], 0
    for node in nodes[:20]:
        name = node["metadata"]["name"]
        try:
            body = cluster.get(f"/api/v1/nodes/{name}/proxy/configz")
        except Refused:
            continue
        asked += 1
        policy = ((body or {}).get("kubeletconfig") or {}).get("cpuManagerPolicy", "none")
        if policy != "static":
            wrong.append(f"{name} ({policy})")
    if wrong:
        yield fail(
            "cpu-manager",
            f"fleet {fleet} wants CPUs of its own, and the CPU manager is not static on {', '.join(wrong)}",
            "`warmfleet doctor node` on the node says how to change it",
        )
    elif asked:
        yield ok("cpu-manager", f"static on {asked} nodes of fleet {fleet}")
    else:
        yield unknown(
            "cpu-manager", "the account may not ask the kubelets (nodes/proxy): run `warmfleet doctor node` on them"
        )


def _cni(cluster: Cluster) -> Iterator[Check]:
    body = cluster.get("/apis/apps/v1/namespaces/kube-system/daemonsets") or {"items": []}
    names = {item["metadata"]["name"] for item in body["items"]}
    plugin = next((name for name in ("cilium", "calico-node", "kube-flannel-ds") if name in names), None)
    if plugin == "cilium" and "kube-proxy" not in names:
        yield ok("cni", "Cilium without kube-proxy")
    elif "kube-proxy" in names:
        yield warn(
            "cni",
            f"{plugin or 'the network plugin'} with kube-proxy: its rules are walked for every new flow",
            "Cilium with kubeProxyReplacement, or Calico's eBPF data plane",
        )
    else:
        yield unknown("cni", f"daemon sets of kube-system: {', '.join(sorted(names)) or 'none'}")
