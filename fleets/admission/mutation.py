"""
What must change in a game server's pod before it is created; pure.

Agones gives every pod of a fleet the same sidecar ports. Two pods in one host network then share them: the second sidecar cannot listen,
and the second game talks to the first game's sidecar. The cure: each pod gets three sidecar ports of its own, derived by offsets from its
host port, which is in the pod already and unique on its node; so does the port of our own game's metrics. The same port always gives the
same ones, so a second run changes nothing.

Beside it, for every game server's pod: the rate-limit variable under the name the sidecar reads (Agones' controller sets REQUESTS_RATE_LIMIT,
its sidecar reads REQUEST_RATE_LIMIT), and, where asked for by annotation, the sidecar's own Guaranteed resources and a PORT variable.

Owns the decision only: reviews are in `review`, HTTPS is in `app`. Source of the pod's shape: pkg/gameservers/controller.go of Agones.
"""

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

SIDECAR = "agones-gameserver-sidecar"
ROLE_LABEL = "agones.dev/role"
CONTAINER_ANNOTATION = "agones.dev/container"
GUARANTEED_ANNOTATION = "warmfleet.dev/guaranteed-sidecar"
"""`"true"`: give the sidecar requests equal to limits, without which the pod is Burstable and no CPU is exclusive."""
PORT_ANNOTATION = "warmfleet.dev/port-variable"
"""Name of the variable that tells the game its first host port."""
METRICS = "metrics"
"""Name of the game container's port that is for Prometheus, not for players."""
METRICS_VARIABLE = "WARMFLEET_METRICS_PORT"
EPHEMERAL_FROM = 32768
"""Linux' default net.ipv4.ip_local_port_range starts here: a listener above may meet an outgoing connection."""


class Refused(Exception):
    """This pod cannot be made safe; the message says why and what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarPorts:
    """How a pod's sidecar ports follow from its host port."""

    first: int = 7000
    """Agones' `gameservers.minPort`."""
    last: int = 8000
    """Agones' `gameservers.maxPort`."""
    grpc: int = 10_000
    http: int = 12_000
    health: int = 14_000
    metrics: int = 16_000
    """Offsets. By default: 17000 to 24000, clear of Kubernetes' NodePorts (from 30000), the kubelet (10250) and etcd (2379)."""

    def __post_init__(self) -> None:
        if not 1 <= self.first <= self.last < EPHEMERAL_FROM:
            raise ValueError(
                f"game ports {self.first} to {self.last}: an ascending range below {EPHEMERAL_FROM} is wanted"
            )
        starts = sorted((0, self.grpc, self.http, self.health, self.metrics))
        if min(b - a for a, b in itertools.pairwise(starts)) <= self.last - self.first:
            raise ValueError(
                f"sidecar port offsets {', '.join(map(str, starts[1:]))} are closer together than the "
                f"{self.last - self.first + 1} game ports: two pods of a node could get the same port"
            )
        if self.last + starts[-1] >= EPHEMERAL_FROM:
            raise ValueError(
                f"port {self.last} + offset {starts[-1]} is not below {EPHEMERAL_FROM}, where outgoing connections begin"
            )

    def of(self, host_port: int) -> tuple[int, int, int, int]:
        """The gRPC, HTTP, health and metrics port. Raises Refused outside the range."""
        if not self.first <= host_port <= self.last:
            raise Refused(
                f"host port {host_port} is outside the game ports {self.first} to {self.last}: "
                "set the Platform's gamePorts to Agones' gameservers.minPort and maxPort"
            )
        return host_port + self.grpc, host_port + self.http, host_port + self.health, host_port + self.metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """What the webhook is set to do."""

    ports: SidecarPorts = field(default_factory=SidecarPorts)
    rate_limit: str = "20ms"
    """The sidecar's pause between two writes to the API server. Agones' 500ms delays every Ready, label and annotation by as much."""
    sidecar_cpu: str = "50m"
    sidecar_memory: str = "64Mi"
    """Only for pods that ask for a guaranteed sidecar."""


def mutate(pod: Mapping[str, Any], mutation: Mutation) -> list[dict[str, Any]]:
    """
    The JSON patch that makes a pod safe; empty when nothing is to change, also for pods that are no game servers.

    Args:
        pod: as in an AdmissionReview's request.object; not changed.
    Returns: `add` operations (RFC 6902; on a member that exists they replace it), in a fixed order. Applying them and asking again gives none.
    Raises: Refused, also for a pod of no known shape.
    """
    labels = _mapping(pod, "metadata", "labels")
    if labels.get(ROLE_LABEL) != "gameserver":
        return []
    wanted = copy.deepcopy(dict(pod))
    spec = _mapping(wanted, "spec")
    sidecar = _sidecar(spec)
    annotations = _mapping(wanted, "metadata", "annotations")
    game = _game(spec, annotations)
    if spec.get("hostNetwork") is True:
        _separate(spec, sidecar, game, mutation.ports)
    _set_env(sidecar, "REQUEST_RATE_LIMIT", mutation.rate_limit)
    if annotations.get(GUARANTEED_ANNOTATION) == "true":
        amounts = {"cpu": mutation.sidecar_cpu, "memory": mutation.sidecar_memory}
        sidecar["resources"] = {"requests": amounts, "limits": dict(amounts)}
    if (variable := annotations.get(PORT_ANNOTATION)) and (ports := _host_ports(game)):
        _set_env(game, str(variable), str(ports[0]))
    return list(_difference(_mapping(pod, "spec"), spec))


def _separate(spec: dict[str, Any], sidecar: dict[str, Any], game: dict[str, Any], ports: SidecarPorts) -> None:
    host_ports = _host_ports(game)
    if not host_ports:
        raise Refused(
            "a pod in the host network has no host port to derive its sidecar's ports from: "
            "give the GameServer a port with portPolicy Passthrough"
        )
    grpc, http, health, metrics = ports.of(min(host_ports))
    _set_arguments(sidecar, {"--grpc-port": grpc, "--http-port": http, "--health-port": health})
    # Declared as host ports, they let the scheduler keep apart what a port range that was set wrongly would bring together.
    declared = {"sdk-grpc": grpc, "sdk-http": http, "sdk-health": health}
    others = [port for port in _list(sidecar, "ports") if port.get("name") not in declared]
    sidecar["ports"] = others + [
        {"name": name, "containerPort": port, "hostPort": port, "protocol": "TCP"} for name, port in declared.items()
    ]
    _set_probe(sidecar, "/healthz", health)
    if any(port.get("name") == METRICS for port in _list(game, "ports")):
        own = {"containerPort": metrics, "hostPort": metrics}
        game["ports"] = [port | own if port.get("name") == METRICS else port for port in _list(game, "ports")]
        _set_env(game, METRICS_VARIABLE, str(metrics))
    for container in _containers(spec):
        if container is sidecar:
            continue
        _set_probe(container, "/gshealthz", health)
        named = {entry.get("name") for entry in _list(container, "env")}
        for variable, port in (("AGONES_SDK_GRPC_PORT", grpc), ("AGONES_SDK_HTTP_PORT", http)):
            if container is game or variable in named:
                _set_env(container, variable, str(port))
    if spec.get("dnsPolicy", "ClusterFirst") == "ClusterFirst":
        spec["dnsPolicy"] = "ClusterFirstWithHostNet"


def _host_ports(container: Mapping[str, Any]) -> list[int]:
    """For players, of a container, in order. Raises Refused where a host port is not the container's port."""
    found = []
    for port in _list(container, "ports"):
        host_port = port.get("hostPort")
        if host_port is None or port.get("name") == METRICS:
            continue
        if type(host_port) is not int or port.get("containerPort") != host_port:
            raise Refused(
                f"hostPort {host_port!r} is not containerPort {port.get('containerPort')!r}, as a game server's port must be here: "
                "portPolicy Dynamic does not work in the host network; use Passthrough"
            )
        found.append(host_port)
    return found


def _sidecar(spec: Mapping[str, Any]) -> dict[str, Any]:
    for container in _containers(spec):
        if container.get("name") == SIDECAR:
            return container
    raise Refused(f"the pod says it is a game server's, but has no container {SIDECAR}")


def _game(spec: Mapping[str, Any], annotations: Mapping[str, Any]) -> dict[str, Any]:
    others = [container for container in _list(spec, "containers") if container.get("name") != SIDECAR]
    name = annotations.get(CONTAINER_ANNOTATION)
    named = [container for container in others if container.get("name") == name]
    if named or len(others) == 1:
        return (named or others)[0]
    raise Refused(f"which container is the game's? annotation {CONTAINER_ANNOTATION} is {name!r}")


def _containers(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    return _list(spec, "initContainers") + _list(spec, "containers")


def _set_env(container: dict[str, Any], name: str, value: str) -> None:
    """Set a variable where it stands first, or at the end; once only."""
    entries = _list(container, "env")
    wanted = {"name": name, "value": value}
    at = next((i for i, entry in enumerate(entries) if entry.get("name") == name), len(entries))
    container["env"] = entries[:at] + [wanted] + [entry for entry in entries[at:] if entry.get("name") != name]


def _set_arguments(container: dict[str, Any], wanted: Mapping[str, int]) -> None:
    """Set flags, whether they stood as `--flag=1` or as `--flag 1`; the others keep their order."""
    given = container.get("args") or []
    if not isinstance(given, list) or not all(isinstance(argument, str) for argument in given):
        raise Refused("args is no list of text")
    kept = []
    arguments = iter(given)
    for argument in arguments:
        if argument in wanted:
            next(arguments, None)
        elif argument.partition("=")[0] not in wanted:
            kept.append(argument)
    container["args"] = kept + [f"{flag}={value}" for flag, value in wanted.items()]


def _set_probe(container: dict[str, Any], path: str, port: int) -> None:
    for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
        get = _mapping(container, kind, "httpGet")
        if get.get("path") == path:
            get["port"] = port


_TOUCHED = ("args", "env", "ports", "resources", "livenessProbe", "readinessProbe", "startupProbe")


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for kind in ("initContainers", "containers"):
        pairs = zip(_list(before, kind), _list(after, kind), strict=True)
        for index, (old, new) in enumerate(pairs):
            for member in _TOUCHED:
                if member in new and old.get(member) != new[member]:
                    yield {"op": "add", "path": f"/spec/{kind}/{index}/{member}", "value": new[member]}
    if before.get("dnsPolicy") != after.get("dnsPolicy"):
        yield {"op": "add", "path": "/spec/dnsPolicy", "value": after["dnsPolicy"]}


def _mapping(value: Mapping[str, Any], *path: str) -> dict[str, Any]:
    """A mapping inside; an absent one is empty. Raises Refused when it is something else."""
    found: Any = value
    for part in path:
        found = found.get(part)
        if found is None:
            return {}
        if not isinstance(found, dict):
            raise Refused(f"{'.'.join(path)}: {part} is no mapping")
    return cast("dict[str, Any]", found)


def _list(value: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """A list of mappings inside; an absent one is empty. Raises Refused when it is something else."""
    found = value.get(key)
    if found is None:
        return []
    if not isinstance(found, Sequence) or isinstance(found, str) or not all(isinstance(item, dict) for item in found):
        raise Refused(f"{key} is no list of mappings")
    return list(found)
