"""
The pod of a game server: every lever of `lowLatency` in one place.

Owns the pod template; the Agones Fleet around it is in `agones`.
"""

import math
from typing import Any

from fleets.admission.mutation import GUARANTEED_ANNOTATION, PORT_ANNOTATION
from fleets.render.manifest import FLEET_LABEL
from fleets.render.platform import NodePool, PlatformBody
from fleets.spec.fleet import FleetSpec, Server

CONTAINER = "game"
NETWORK_LABEL = "warmfleet.dev/network"
ADMISSION_LABEL = "warmfleet.dev/admission"
"""`required`: no pod without the webhook (fail closed). `optional`: it only tunes the sidecar (fail open)."""
KERNEL_LABEL = "warmfleet.dev/kernel"
POOL_LABEL = "warmfleet.dev/pool"
FIRST_CONTAINER_PORT = 7001
"""Of Dynamic ports, which need a fixed one inside; the one on the node is Agones' choice."""
_AFTER_DRAIN_S = 15
"""From the end of the drain to SIGKILL: closing connections, the last checkpoint, the sidecar's own end."""
_DSCP = {"EF": 46, "AF41": 34, "CS5": 40}
_TCP_NAMES = {"tcp", "websocket", "ws", "wss", "http", "https"}


def termination_s(fleet: FleetSpec) -> int:
    """The pod's grace: never shorter than the drain."""
    return math.ceil(fleet.spec.disruption.drain_timeout) + _AFTER_DRAIN_S


def ports(fleet: FleetSpec) -> list[tuple[str, str]]:
    """Name and protocol of each port. A command's port is TCP when its name begins with tcp, ws, wss, websocket, http or https."""
    server = fleet.spec.server
    names: list[str] = list(server.transports) if server.game is not None else server.ports or ["default"]
    return [(name, "TCP" if name.split("-")[0] in _TCP_NAMES else "UDP") for name in names]


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


def pod_template(fleet: FleetSpec, platform: PlatformBody) -> dict[str, Any]:
    """The GameServer's `spec.template`."""
    levers = fleet.spec.low_latency
    spec: dict[str, Any] = {}
    if in_host_network(fleet):
        spec |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    spec["terminationGracePeriodSeconds"] = termination_s(fleet)
    if levers.priority is not None:
        spec["priorityClassName"] = priority_class(levers.priority)
    spec |= placement(fleet, platform)
    if one_per_node(fleet, platform):
        apart = {
            "topologyKey": "kubernetes.io/hostname",
            "namespaceSelector": {},
            "labelSelector": {"matchLabels": {NETWORK_LABEL: "host"}},
        }
        spec["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}}
    spec["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {FLEET_LABEL: fleet.metadata.name}},
        }
    ]
    spec["containers"] = [_container(fleet, platform)]
    if levers.hugepages_2_mi is not None:
        spec["volumes"] = [{"name": "hugepages", "emptyDir": {"medium": "HugePages-2Mi"}}]
    metadata: dict[str, Any] = {"labels": _labels(fleet, platform)}
    if annotations := _annotations(fleet, platform):
        metadata["annotations"] = annotations
    return {"metadata": metadata, "spec": spec}


def placement(fleet: FleetSpec, platform: PlatformBody) -> dict[str, Any]:
    """Which nodes: also for the pods that pull its image ahead."""
    selector: dict[str, str] = {}
    tolerations = []
    spec: dict[str, Any] = {}
    pool = pool_of(fleet, platform)
    if pool is not None:
        selector |= pool.labels
        tolerations += [
            {"key": taint.key, "operator": "Equal", "value": taint.value, "effect": taint.effect}
            for taint in pool.taints
        ]
        if pool.runtime_class is not None:
            spec["runtimeClassName"] = pool.runtime_class
    if fleet.spec.low_latency.kernel == "realtime":
        selector[KERNEL_LABEL] = "realtime"
        tolerations.append({"key": KERNEL_LABEL, "operator": "Equal", "value": "realtime", "effect": "NoSchedule"})
    if selector:
        spec["nodeSelector"] = selector
    if tolerations:
        spec["tolerations"] = tolerations
    return spec


def priority_class(value: int) -> str:
    """Fleets of one priority share a class."""
    return f"warmfleet-{value}"


def _labels(fleet: FleetSpec, platform: PlatformBody) -> dict[str, str]:
    labels = {FLEET_LABEL: fleet.metadata.name, NETWORK_LABEL: "host" if in_host_network(fleet) else "pod"}
    if platform.admission is not None:
        required = in_host_network(fleet) or fleet.spec.low_latency.cpu_pinning
        labels[ADMISSION_LABEL] = "required" if required else "optional"
    if platform.mesh == "istio":
        labels["sidecar.istio.io/inject"] = "false"
    elif platform.mesh == "istioAmbient":
        labels["istio.io/dataplane-mode"] = "none"
    return labels


def _annotations(fleet: FleetSpec, platform: PlatformBody) -> dict[str, str]:
    annotations = {}
    if platform.admission is not None:
        annotations[GUARANTEED_ANNOTATION] = "true"
        if in_host_network(fleet) and fleet.spec.server.command is not None:
            annotations[PORT_ANNOTATION] = "PORT"
    if platform.mesh == "linkerd":
        annotations["linkerd.io/inject"] = "disabled"
    if platform.calico_qos and fleet.spec.low_latency.dscp is not None:
        annotations["qos.projectcalico.org/dscp"] = fleet.spec.low_latency.dscp
    return annotations


def _container(fleet: FleetSpec, platform: PlatformBody) -> dict[str, Any]:
    server, levers = fleet.spec.server, fleet.spec.low_latency
    amounts = {"cpu": f"{levers.cpu:g}" if levers.cpu == int(levers.cpu) else f"{math.ceil(levers.cpu * 1000)}m"}
    amounts["memory"] = levers.memory
    if levers.hugepages_2_mi is not None:
        amounts["hugepages-2Mi"] = levers.hugepages_2_mi
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": server.image,
        "command": server.command or ["python", "-m", "gameserver"],
        "env": _environment(fleet, platform),
        "resources": {"requests": amounts, "limits": amounts},
        "securityContext": _security(server),
    }
    if levers.hugepages_2_mi is not None:
        container["volumeMounts"] = [{"name": "hugepages", "mountPath": "/dev/hugepages"}]
    return container


def _security(server: Server) -> dict[str, Any]:
    closed: dict[str, Any] = {"allowPrivilegeEscalation": False, "seccompProfile": {"type": "RuntimeDefault"}}
    if server.game is not None:  # a foreign program may need a writable image or its own user
        closed |= {"runAsNonRoot": True, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    return closed


def _environment(fleet: FleetSpec, platform: PlatformBody) -> list[dict[str, Any]]:
    server, levers = fleet.spec.server, fleet.spec.low_latency
    values: dict[str, str] = {}
    entries: list[dict[str, Any]] = [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]
    if server.game is not None:
        values |= {
            "WARMFLEET_GAME": server.game,
            "WARMFLEET_FLEET": fleet.metadata.name,
            "WARMFLEET_TICK_RATE": str(server.tick_rate),
            "WARMFLEET_ROOMS": str(server.rooms),
            "WARMFLEET_SEATS": str(server.seats),
            "WARMFLEET_TRANSPORTS": ",".join(server.transports),
            "WARMFLEET_BIND_HOST": "0.0.0.0",  # noqa: S104 (clients come from outside the pod)
            "WARMFLEET_DRAIN_TIMEOUT_S": f"{fleet.spec.disruption.drain_timeout:g}",
            "WARMFLEET_CHECKPOINT_INTERVAL_S": f"{server.checkpoint_interval:g}",
        }
        if platform.allowed_origins:
            values["WARMFLEET_ALLOWED_ORIGINS"] = ",".join(platform.allowed_origins)
        for name, source in (("WARMFLEET_VALKEY_URL", platform.valkey), ("WARMFLEET_SEAT_KEYS", platform.seat_keys)):
            entries.append({"name": name, "valueFrom": {"secretKeyRef": {"name": source.secret, "key": source.key}}})
    if not in_host_network(fleet):
        if server.game is None:
            values["PORT"] = str(FIRST_CONTAINER_PORT)
        else:
            values |= {
                f"WARMFLEET_{name.upper()}_PORT": str(FIRST_CONTAINER_PORT + i)
                for i, (name, _) in enumerate(ports(fleet))
            }
    if levers.dscp is not None:
        values["WARMFLEET_DSCP"] = str(_DSCP[levers.dscp])
    values |= server.env
    return entries + [{"name": name, "value": value} for name, value in values.items()]
