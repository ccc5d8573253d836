"""
The pod of a game server: every lever of `lowLatency` in one place, but for the nodes, which are in `placement`.

Owns the pod template; the Agones Fleet around it is in `agones`.
"""

import json
import math
from typing import Any, Literal

from fleets.admission.mutation import GUARANTEED_ANNOTATION, METRICS, METRICS_VARIABLE, PORT_ANNOTATION
from fleets.render.manifest import FLEET_LABEL
from fleets.render.placement import NETWORK_LABEL, in_host_network, neighbours, nodes, pool_of
from fleets.render.tracing import variables
from fleets.spec.fleet import FleetSpec, LowLatency, SecretKey
from fleets.spec.platform import PlatformBody, ProxySize

CONTAINER = "game"
ADMISSION_LABEL = "warmfleet.dev/admission"
"""`required`: no pod without the webhook (fail closed). `optional`: it only tunes the sidecar (fail open)."""
FIRST_CONTAINER_PORT = 7001
"""Of Dynamic ports, which need a fixed one inside; the one on the node is Agones' choice."""
METRICS_PORT = 9464
"""Of our own game's metrics; the webhook gives pods that share a node's network one each."""
VALKEY_CA = "/var/run/warmfleet/valkey"
"""Where the CA of Valkey's certificate is mounted, as ca.crt."""
TLS_FILES = "/var/run/warmfleet/tls"
"""Where the Secret of a fleet's certificate is mounted: tls.crt, tls.key."""
_AFTER_DRAIN_S = 15
"""From the end of the drain to SIGKILL: closing connections, the last checkpoint, the sidecar's own end."""
_DSCP = {"EF": 46, "AF41": 34, "CS5": 40}
_TCP_NAMES = {"tcp", "websocket", "ws", "wss", "http", "https"}
_HUGE_PAGES = {"2Mi": "/dev/hugepages", "1Gi": "/dev/hugepages-1Gi"}


def termination_s(fleet: FleetSpec) -> int:
    """The pod's grace: never shorter than the drain."""
    return math.ceil(fleet.spec.disruption.drain_timeout) + _AFTER_DRAIN_S


def ports(fleet: FleetSpec) -> list[tuple[str, str]]:
    """Name and protocol of each port. A command's port is TCP when its name begins with tcp, ws, wss, websocket, http or https."""
    server = fleet.spec.server
    names: list[str] = list(server.transports) if server.game is not None else server.ports or ["default"]
    return [(name, "TCP" if name.split("-")[0] in _TCP_NAMES else "UDP") for name in names]


def port_policy(fleet: FleetSpec) -> Literal["Dynamic", "Static", "Passthrough"]:
    """Of Agones: in the host network a port inside must be the one on the node."""
    return fleet.spec.low_latency.port_policy or ("Passthrough" if in_host_network(fleet) else "Dynamic")


def inner_ports(fleet: FleetSpec) -> list[int] | None:
    """What the server listens on, in the order of `ports`; None where only Agones knows it (Passthrough)."""
    policy, count = port_policy(fleet), len(ports(fleet))
    if policy == "Passthrough":
        return None
    first = FIRST_CONTAINER_PORT if policy == "Dynamic" else fleet.spec.low_latency.host_port
    assert first is not None  # the model wants it with Static
    return [first + i for i in range(count)]


def measured(fleet: FleetSpec, platform: PlatformBody) -> bool:
    """Whether Prometheus is to read its servers' metrics; a foreign program's are its own affair."""
    return platform.prometheus_operator and fleet.spec.server.game is not None


def wants_webhook(fleet: FleetSpec) -> bool:
    """Whether a pod of it must not exist without the webhook's cure."""
    return in_host_network(fleet) or fleet.spec.low_latency.cpu_pinning


def pod_template(fleet: FleetSpec, platform: PlatformBody) -> dict[str, Any]:
    """The GameServer's `spec.template`."""
    levers, pool = fleet.spec.low_latency, pool_of(fleet, platform)
    spec: dict[str, Any] = {}
    if in_host_network(fleet):
        spec |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    spec["enableServiceLinks"] = (
        False  # a Service's variables would look like settings of ours, and there may be thousands
    )
    spec["terminationGracePeriodSeconds"] = termination_s(fleet)
    if levers.priority is not None:
        spec["priorityClassName"] = priority_class(levers.priority, levers.preemption)
    if runtime := levers.runtime_class or (pool.runtime_class if pool is not None else None):
        spec["runtimeClassName"] = runtime
    if platform.images is not None and platform.images.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in platform.images.pull_secrets]
    if levers.sysctls:
        spec["securityContext"] = {"sysctls": [{"name": k, "value": v} for k, v in sorted(levers.sysctls.items())]}
    which, apart = nodes(fleet, platform), neighbours(fleet, platform)
    affinity = which.pop("affinity", {}) | apart.pop("affinity", {})
    spec |= which | ({"affinity": affinity} if affinity else {}) | apart
    spec["containers"] = [_container(fleet, platform)]
    if volumes := _volumes(fleet, platform):
        spec["volumes"] = volumes
    metadata: dict[str, Any] = {"labels": _labels(fleet, platform)}
    if annotations := _annotations(fleet, platform):
        metadata["annotations"] = annotations
    return {"metadata": metadata, "spec": spec}


def priority_class(value: int, preemption: Literal["lower", "never"] = "lower") -> str:
    """Fleets of one priority share a class."""
    return f"warmfleet-{value}" if preemption == "lower" else f"warmfleet-{value}-waits"


def secret_env(name: str, source: SecretKey, *, optional: bool = False) -> dict[str, Any]:
    """A variable by reference; an optional one may have no Secret."""
    reference: dict[str, Any] = {"name": source.secret, "key": source.key}
    return {"name": name, "valueFrom": {"secretKeyRef": reference | ({"optional": True} if optional else {})}}


def _labels(fleet: FleetSpec, platform: PlatformBody) -> dict[str, str]:
    labels = {FLEET_LABEL: fleet.metadata.name, NETWORK_LABEL: "host" if in_host_network(fleet) else "pod"}
    if platform.admission is not None:
        labels[ADMISSION_LABEL] = "required" if wants_webhook(fleet) else "optional"
    minimal = fleet.spec.low_latency.mesh == "minimal"
    if platform.mesh == "istio":
        labels["sidecar.istio.io/inject"] = "true" if minimal else "false"
    elif platform.mesh == "istioAmbient":
        labels["istio.io/dataplane-mode"] = "ambient" if minimal else "none"
    return labels


def _annotations(fleet: FleetSpec, platform: PlatformBody) -> dict[str, str]:
    levers = fleet.spec.low_latency
    annotations = {}
    if platform.admission is not None:
        annotations[GUARANTEED_ANNOTATION] = "true"
        if port_policy(fleet) == "Passthrough" and fleet.spec.server.command is not None:
            annotations[PORT_ANNOTATION] = "PORT"
    if levers.mesh == "minimal":
        annotations |= _minimal_proxy(platform)
    elif platform.mesh == "linkerd":
        annotations["linkerd.io/inject"] = "disabled"
    if platform.calico_qos and levers.dscp is not None:
        annotations["qos.projectcalico.org/dscp"] = levers.dscp
    return annotations


def _minimal_proxy(platform: PlatformBody) -> dict[str, str]:
    """A small proxy, Guaranteed like the pod, that no player's packet and no store command passes through."""
    size: ProxySize = platform.mesh_proxy
    valkey, game = (
        ",".join(map(str, platform.valkey.ports())),
        f"{platform.game_ports.first}-{platform.game_ports.last}",
    )
    if platform.mesh == "istio":
        return {
            "sidecar.istio.io/proxyCPU": size.cpu,
            "sidecar.istio.io/proxyCPULimit": size.cpu,
            "sidecar.istio.io/proxyMemory": size.memory,
            "sidecar.istio.io/proxyMemoryLimit": size.memory,
            "proxy.istio.io/config": json.dumps({"concurrency": 1, "holdApplicationUntilProxyStarts": True}),
            "traffic.sidecar.istio.io/includeInboundPorts": "",
            "traffic.sidecar.istio.io/excludeOutboundPorts": valkey,
        }
    if platform.mesh == "istioAmbient":
        return {"ambient.istio.io/bypass-inbound-capture": "true"}
    if platform.mesh == "linkerd":
        return {
            "linkerd.io/inject": "enabled",
            "config.linkerd.io/proxy-cpu-request": size.cpu,
            "config.linkerd.io/proxy-cpu-limit": size.cpu,
            "config.linkerd.io/proxy-memory-request": size.memory,
            "config.linkerd.io/proxy-memory-limit": size.memory,
            "config.linkerd.io/skip-inbound-ports": game,
            "config.linkerd.io/skip-outbound-ports": valkey,
        }
    return {}


def _container(fleet: FleetSpec, platform: PlatformBody) -> dict[str, Any]:
    server, levers = fleet.spec.server, fleet.spec.low_latency
    amounts = {"cpu": f"{levers.cpu:g}" if levers.cpu == int(levers.cpu) else f"{math.ceil(levers.cpu * 1000)}m"}
    amounts["memory"] = levers.memory
    amounts |= {f"hugepages-{size}": amount for size, amount in huge_pages(levers).items()}
    program = server.command or ["python", "-m", "gameserver"]
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": server.image,
        "command": [*_scheduled(levers), *program],
        "env": _environment(fleet, platform),
        "resources": {"requests": amounts, "limits": amounts},
        "securityContext": _security(fleet),
    }
    if measured(fleet, platform):
        container["ports"] = [{"name": METRICS, "containerPort": METRICS_PORT, "protocol": "TCP"}]
    mounts: list[dict[str, Any]]
    mounts = [{"name": f"hugepages-{size.lower()}", "mountPath": _HUGE_PAGES[size]} for size in huge_pages(levers)]
    if _reads_ca(fleet, platform):
        mounts.append({"name": "valkey-ca", "mountPath": VALKEY_CA, "readOnly": True})
    if server.tls is not None:
        mounts.append({"name": "tls", "mountPath": TLS_FILES, "readOnly": True})
    if mounts:
        container["volumeMounts"] = mounts
    return container


def huge_pages(levers: LowLatency) -> dict[str, str]:
    """Amount by page size, of the sizes that are wanted."""
    wanted = {"2Mi": levers.hugepages_2_mi, "1Gi": levers.hugepages_1_gi}
    return {size: amount for size, amount in wanted.items() if amount is not None}


def _volumes(fleet: FleetSpec, platform: PlatformBody) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {"name": f"hugepages-{size.lower()}", "emptyDir": {"medium": f"HugePages-{size}"}}
        for size in huge_pages(fleet.spec.low_latency)
    ]
    if _reads_ca(fleet, platform):
        volumes.append(ca_volume(platform))
    if (tls := fleet.spec.server.tls) is not None:
        volumes.append({"name": "tls", "secret": {"secretName": tls.secret}})
    return volumes


def ca_volume(platform: PlatformBody) -> dict[str, Any]:
    """The CA of Valkey's certificate, as a volume."""
    ca = platform.valkey.ca
    assert ca is not None
    return {"name": "valkey-ca", "secret": {"secretName": ca.secret, "items": [{"key": ca.key, "path": "ca.crt"}]}}


def _reads_ca(fleet: FleetSpec, platform: PlatformBody) -> bool:
    return platform.valkey.ca is not None and fleet.spec.server.game is not None


def _scheduled(levers: LowLatency) -> list[str]:
    """What the program is started through: util-linux' chrt and coreutils' nice are in every Debian image."""
    if levers.fifo is not None:
        return ["chrt", "--fifo", str(levers.fifo)]
    return ["nice", "-n", str(levers.nice)] if levers.nice is not None else []


def raises_priority(levers: LowLatency) -> bool:
    """Whether it needs SYS_NICE."""
    return levers.fifo is not None or (levers.nice is not None and levers.nice < 0)


def _security(fleet: FleetSpec) -> dict[str, Any]:
    closed: dict[str, Any] = {"allowPrivilegeEscalation": False, "seccompProfile": {"type": "RuntimeDefault"}}
    ours = fleet.spec.server.game is not None
    if ours:  # a foreign program may need a writable image or its own user
        closed |= {"runAsNonRoot": True, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    if raises_priority(fleet.spec.low_latency):
        # Kubernetes has no ambient capabilities: only root gets what is added, so root it is, with nothing else.
        closed.pop("runAsNonRoot", None)
        closed |= {"runAsUser": 0, "capabilities": {"drop": ["ALL"], "add": ["SYS_NICE"]}}
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
            "WARMFLEET_BIND_HOST": "::",  # clients come from outside the pod, over IPv4 and IPv6
            "WARMFLEET_DRAIN_TIMEOUT_S": f"{fleet.spec.disruption.drain_timeout:g}",
            "WARMFLEET_ON_DRAIN": fleet.spec.disruption.on_drain,
            "WARMFLEET_CHECKPOINT_INTERVAL_S": f"{server.checkpoint_interval:g}",
        }
        if server.tls is not None:
            values |= {"WARMFLEET_TLS_CERT": f"{TLS_FILES}/tls.crt", "WARMFLEET_TLS_KEY": f"{TLS_FILES}/tls.key"}
        if platform.allowed_origins:
            values["WARMFLEET_ALLOWED_ORIGINS"] = ",".join(platform.allowed_origins)
        entries.append(secret_env("WARMFLEET_VALKEY_URL", valkey_url(platform)))
        if platform.valkey.replicas:
            values["WARMFLEET_VALKEY_REPLICAS"] = str(platform.valkey.replicas)
        entries.append(secret_env("WARMFLEET_SEAT_KEYS", platform.seat_keys))
        if "udp" in server.transports:
            entries.append(secret_env("WARMFLEET_NETCODE_KEY", platform.netcode_key))
            entries.append(_pod_ip("WARMFLEET_POD_IP"))
    inside = inner_ports(fleet)
    if inside is not None and server.game is None:
        values["PORT"] = str(inside[0])
    elif inside is not None:
        for (name, _), port in zip(ports(fleet), inside, strict=True):
            values[f"WARMFLEET_{name.upper()}_PORT"] = str(port)
    if measured(fleet, platform):
        # The pod's own address: in the host network that is the node's inner one, not every address it has.
        entries.append(_pod_ip("WARMFLEET_METRICS_HOST"))
        values[METRICS_VARIABLE] = str(METRICS_PORT)
    if levers.dscp is not None:
        values["WARMFLEET_DSCP"] = str(_DSCP[levers.dscp])
    if server.game is not None:
        values |= variables(platform)
    values |= server.env
    entries += [secret_env(name, source) for name, source in server.secret_env.items()]
    return entries + [{"name": name, "value": value} for name, value in values.items()]


def _pod_ip(name: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


def valkey_url(platform: PlatformBody) -> SecretKey:
    """Where the store's URL is."""
    return SecretKey(secret=platform.valkey.secret, key=platform.valkey.key)
