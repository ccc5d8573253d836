"""
What is valid YAML and would still go wrong in a cluster; each finding says why and what to change.

Pure. `warmfleet render` refuses errors and shows warnings; the checks that any machine needs are the spec's own.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fleets.render.agones import eviction
from fleets.render.placement import in_host_network, pool_of
from fleets.render.pod import METRICS_PORT, inner_ports, measured, port_policy, ports, raises_priority
from fleets.spec.fleet import FleetSpec
from fleets.spec.platform import PARTS, PlatformBody
from fleets.spec.types import size_bytes

_SPOT_NOTICE_S = 25
"""The shortest notice of the large clouds is 30 s; some of it is gone before the pod hears of it."""
_LABEL_NAME = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OURS = re.compile(r"WARMFLEET_.*|AGONES_SDK_.*|POD_NAME|PORT")
_SAFE_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
}
"""What any kubelet allows. Source: Kubernetes, "Using sysctls in a Kubernetes Cluster"."""
_SYSCTL = re.compile(r"[a-z0-9]([-_a-z0-9]*[a-z0-9])?([./][a-z0-9]([-_a-z0-9]*[a-z0-9])?)+")
_POD_SYSCTLS = re.compile(r"(kernel\.(shm|msg|sem).*|fs\.mqueue\..+|net\..+)")


class Severity(StrEnum):
    """Whether a finding stops a rendering."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that would go wrong."""

    severity: Severity
    fleet: str
    """Empty for the platform."""
    path: str
    """As spec.lowLatency.network."""
    message: str

    def __str__(self) -> str:
        subject = f"fleet {self.fleet}" if self.fleet else "platform"
        return f"{self.severity}: {subject}: {self.path}: {self.message}"


def check(fleets: Sequence[FleetSpec], platform: PlatformBody) -> tuple[Finding, ...]:
    """Everything that is wrong, errors first within a fleet."""
    found = [
        Finding(
            severity=Severity.ERROR, fleet=name, path="metadata.name", message="two fleets have this name: rename one"
        )
        for name, count in Counter(fleet.metadata.name for fleet in fleets).items()
        if count > 1
    ]
    found += [
        Finding(severity=severity, fleet="", path=f"spec.{path}", message=message)
        for severity, path, message in _platform(platform)
    ]
    regions = {fleet.metadata.labels.get("region", "") for fleet in fleets}
    found += [
        Finding(
            severity=Severity.ERROR,
            fleet="",
            path=f"spec.clusters.{region}",
            message="no Fleet has this label `region`: the allocator would not start",
        )
        for region in sorted(platform.clusters.keys() - regions)
    ]
    for fleet in fleets:
        rows = [
            *((Severity.ERROR, *row) for row in _errors(fleet, platform)),
            *((Severity.WARNING, *row) for row in _warnings(fleet, platform)),
        ]
        found += [
            Finding(severity=severity, fleet=fleet.metadata.name, path=f"spec.{path}", message=message)
            for severity, path, message in rows
        ]
    return tuple(found)


def _platform(platform: PlatformBody) -> Iterator[tuple[Severity, str, str]]:
    if platform.images is not None and platform.images.tag == "latest":
        yield (
            Severity.WARNING,
            "images.tag",
            "latest is another image tomorrow: name a version, so that a rollback has one",
        )
    valkey = platform.valkey
    for part in PARTS if platform.services is not None else ():
        body = getattr(platform.services, part)
        if not body.enabled or body.autoscale is None:
            continue
        by_queue = body.autoscale.tickets_per_replica is not None
        if by_queue and part != "director":
            yield (
                Severity.ERROR,
                f"services.{part}.autoscale.ticketsPerReplica",
                "is the director's: no other part has queues",
            )
        elif by_queue and valkey.in_cluster is None and not valkey.addresses:
            yield (
                Severity.ERROR,
                "valkey.addresses",
                "is missing: KEDA reads the queues there, and takes no URL from a Secret",
            )
    if valkey.in_cluster is not None and valkey.tls:
        yield Severity.ERROR, "valkey.tls", "does not go with inCluster, which serves no TLS"


def _errors(fleet: FleetSpec, platform: PlatformBody) -> Iterator[tuple[str, str]]:
    server, levers = fleet.spec.server, fleet.spec.low_latency
    if server.image is None:
        yield "server.image", "is missing: a cluster runs images"
    if server.tls is not None and server.tls.secret is None:
        yield (
            "server.tls.secret",
            "is missing: a cluster takes certificates from a Secret, not from this machine's files",
        )
    if in_host_network(fleet) and platform.admission is None and server.rooms == 1:
        yield (
            "lowLatency.network",
            (
                "would be cross-wired: in the host network all pods of a node share one set of sidecar ports, and a game's Ready() would "
                "reach another's sidecar. Give the Platform an admission webhook (spec.admission), or this fleet rooms above 1 (one pod a node)"
            ),
        )
    if levers.cpu_pinning and levers.cpu != int(levers.cpu):
        yield "lowLatency.cpu", f"{levers.cpu:g} cannot be pinned: the static CPU manager gives whole CPUs; set 1, 2, …"
    if levers.cpu_pinning and platform.admission is None:
        yield (
            "lowLatency.cpuPinning",
            (
                "needs the Platform's admission webhook: Agones' sidecar has no limits, so the pod is Burstable and its CPUs are shared. "
                "The webhook gives the sidecar requests equal to limits"
            ),
        )
    if levers.hugepages_2_mi is not None and size_bytes(levers.hugepages_2_mi) % (2 << 20):
        yield "lowLatency.hugepages2Mi", f"{levers.hugepages_2_mi} is no multiple of 2Mi"
    if levers.hugepages_1_gi is not None and size_bytes(levers.hugepages_1_gi) % (1 << 30):
        yield "lowLatency.hugepages1Gi", f"{levers.hugepages_1_gi} is no multiple of 1Gi"
    if levers.fifo is not None and not levers.cpu_pinning:
        yield (
            "lowLatency.fifo",
            (
                "needs cpuPinning: on shared CPUs a SCHED_FIFO thread that does not sleep starves everything else there, the kubelet too"
            ),
        )
    if levers.mesh == "minimal" and in_host_network(fleet):
        yield "lowLatency.mesh", "minimal does not work in the host network: no mesh puts a proxy into such a pod"
    yield from _port_errors(fleet, platform)
    yield from _sysctl_errors(fleet)
    for name in sorted({*server.env} & {*server.secret_env}):
        yield f"server.secretEnv.{name}", "is in server.env too: one of them is wanted"
    for name in [*server.env, *server.secret_env]:
        where = "env" if name in server.env else "secretEnv"
        if _OURS.fullmatch(name):
            yield f"server.{where}.{name}", "is set by Warmfleet or Agones: choose another name"
        elif not _VARIABLE.fullmatch(name):
            yield f"server.{where}.{name}", "is no variable's name: letters, digits and '_' are wanted"
    for key, value in fleet.metadata.labels.items():
        if not _LABEL_NAME.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            yield f"metadata.labels.{key}", f"{key}={value!r} is no Kubernetes label"
        elif key.startswith(("agones.dev/", "warmfleet.dev/", "app.kubernetes.io/")):
            yield f"metadata.labels.{key}", "is Agones', Kubernetes' or ours: choose another prefix"
    names = [name for name, _ in ports(fleet)]
    if len(set(names)) < len(names):
        yield "server.ports", f"two have the same name: {', '.join(names)}"


def _port_errors(fleet: FleetSpec, platform: PlatformBody) -> Iterator[tuple[str, str]]:
    inside = inner_ports(fleet)
    if port_policy(fleet) != "Static" or inside is None:
        return
    if inside[-1] > 65535:
        yield "lowLatency.hostPort", f"{inside[0]} leaves no room for {len(inside)} ports up to 65535"
    if measured(fleet, platform) and METRICS_PORT in inside:
        yield "lowLatency.hostPort", f"{METRICS_PORT} is the port of the servers' metrics: choose others"
    game = platform.game_ports
    if (
        in_host_network(fleet)
        and platform.admission is not None
        and not game.first <= inside[0] <= inside[-1] <= game.last
    ):
        yield (
            "lowLatency.hostPort",
            (
                f"{inside[0]} to {inside[-1]} is outside the Platform's gamePorts {game.first} to {game.last}, from which the "
                "webhook derives the sidecar's ports: it would refuse these pods"
            ),
        )


def _sysctl_errors(fleet: FleetSpec) -> Iterator[tuple[str, str]]:
    for name in fleet.spec.low_latency.sysctls:
        plain = name.replace("/", ".")
        if not _SYSCTL.fullmatch(name):
            yield f"lowLatency.sysctls.{name}", "is no kernel setting's name, as net.core.somaxconn"
        elif not _POD_SYSCTLS.fullmatch(plain):
            yield (
                f"lowLatency.sysctls.{name}",
                "is the whole node's: a pod may set kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.* and net.* alone; set it on the nodes",
            )
        elif plain.startswith("net.") and in_host_network(fleet):
            yield (
                f"lowLatency.sysctls.{name}",
                "cannot be set in the host network, which is the node's: the kubelet refuses the pod; set it on the nodes",
            )


def _warnings(fleet: FleetSpec, platform: PlatformBody) -> Iterator[tuple[str, str]]:
    warm, levers, drain = fleet.spec.warm, fleet.spec.low_latency, fleet.spec.disruption
    safe = eviction(fleet)
    if safe == "Never":
        yield (
            "disruption.drainTimeout",
            (
                f"{drain.drain_timeout:g} s blocks node drains: nothing waits longer than an hour for a pod, so Agones' budget "
                "forbids evictions altogether and a node upgrade hangs until its matches are over"
            ),
        )
    elif safe == "OnUpgrade" and drain.on_drain == "migrate":
        yield (
            "disruption.drainTimeout",
            f"{drain.drain_timeout:g} s: Cluster Autoscaler kills a pod after 600 s, so it may not take these nodes away",
        )
    pool = pool_of(fleet, platform)
    spot = (pool is not None and pool.spot) or levers.spot in ("tolerate", "prefer")
    if spot and (drain.on_drain == "finish" or drain.drain_timeout > _SPOT_NOTICE_S):
        yield (
            "disruption",
            f"the drain is cut short on spot nodes, which go within 30 s: set onDrain: migrate and at most {_SPOT_NOTICE_S}s",
        )
    if levers.node_pool is None and levers.kernel == "realtime":
        yield (
            "lowLatency.kernel",
            "realtime nodes are chosen by label warmfleet.dev/kernel=realtime alone; name their nodePool too",
        )
    if levers.kernel == "realtime" and not levers.cpu_pinning:
        yield "lowLatency.kernel", "realtime without cpuPinning: a neighbour's load still takes the CPU away"
    if levers.fifo is not None and levers.kernel != "realtime":
        yield "lowLatency.fifo", "without kernel: realtime the kernel's own work still delays a SCHED_FIFO thread"
    if raises_priority(levers):
        yield (
            "lowLatency.fifo" if levers.fifo is not None else "lowLatency.nice",
            "runs the server as root with capability SYS_NICE: the namespace must allow it (Pod Security level privileged)",
        )
    unsafe = sorted(name for name in levers.sysctls if name.replace("/", ".") not in _SAFE_SYSCTLS)
    if unsafe:
        yield (
            "lowLatency.sysctls",
            f"{', '.join(unsafe)}: refused unless the nodes' kubelet lists it in allowedUnsafeSysctls",
        )
    if levers.mesh == "minimal" and platform.mesh == "none":
        yield "lowLatency.mesh", "minimal has no effect: the Platform has no mesh"
    if levers.anti_affinity == "require" and warm.max > 1 and levers.node_pool is None:
        yield "lowLatency.antiAffinity", f"require wants a node for each of up to {warm.max} servers"
    if port_policy(fleet) == "Static" and warm.max > 1:
        yield "lowLatency.portPolicy", f"Static has one server a node: up to {warm.max} servers want as many nodes"
    ours = (
        fleet.spec.server.game is not None and "udp" in fleet.spec.server.transports
    )  # our UDP transport marks its own
    if levers.dscp is not None and not ours and not (platform.calico_qos and not in_host_network(fleet)):
        yield (
            "lowLatency.dscp",
            "nothing in the cluster marks these packets: the server itself must, as WARMFLEET_DSCP says",
        )
    if in_host_network(fleet) and platform.network_policy != "none":
        yield (
            "lowLatency.network",
            "network policies do not reach the host network: let the nodes' firewall admit the game ports alone from outside",
        )
    if warm.buffer == 0:
        yield "warm.buffer", "Agones keeps at least 1 Ready server: 1 is rendered"
    elif warm.buffer != "auto":
        shelved = -(-warm.shelf // fleet.spec.server.rooms)
        if shelved + warm.buffer > warm.max:
            yield (
                "warm.max",
                f"{warm.max} servers are fewer than the shelf's {shelved} and the buffer's {warm.buffer} together",
            )
