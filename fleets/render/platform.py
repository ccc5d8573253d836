"""`kind: Platform`: what is the same for every fleet of a cluster."""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from fleets.admission.mutation import EPHEMERAL_FROM, SidecarPorts
from fleets.spec.fleet import Metadata
from fleets.spec.types import Memory, Model, Name, Text, Word

_MAX_FILE_BYTES = 1 << 20
Port = Annotated[int, Field(ge=1, le=65535)]
DnsName = Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]


class SecretKey(Model):
    """A key of a Secret in the platform's namespace; its value never stands in YAML."""

    secret: DnsName
    key: Word


class Issuer(Model):
    """A cert-manager issuer."""

    name: DnsName
    kind: Literal["Issuer", "ClusterIssuer"] = "ClusterIssuer"


class Admission(Model):
    """The webhook that makes host networking safe (`warmfleet admission`)."""

    image: Text
    replicas: Annotated[int, Field(ge=1, le=20)] = 2
    issuer: Issuer | None = Field(default=None, description="cert-manager makes and rotates the certificate.")
    ca_bundle: Text | None = Field(
        default=None, max_length=65536, description="Or: base64 of the CA of Secret warmfleet-admission-tls."
    )
    rate_limit: Annotated[str, Field(pattern=r"^\d+(ms|s)$")] = "20ms"
    sidecar_cpu: Annotated[str, Field(pattern=r"^[1-9]\d*m?$")] = "50m"
    sidecar_memory: Memory = "64Mi"

    @model_validator(mode="after")
    def _trusted(self) -> "Admission":
        if (self.issuer is None) == (self.ca_bundle is None):
            raise ValueError("exactly one of issuer and caBundle is wanted: the API server must know whom to trust")
        return self


class GamePorts(Model):
    """Agones' gameservers.minPort and maxPort."""

    first: Port = 7000
    last: Port = 8000


class Offsets(Model):
    """From a pod's host port to its sidecar's ports."""

    grpc: Port = 10_000
    http: Port = 12_000
    health: Port = 14_000


class Taint(Model):
    """One that a pool's nodes have."""

    key: Word
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = "NoSchedule"


class NodePool(Model):
    """How to get onto a pool's nodes."""

    labels: Annotated[dict[Word, str], Field(min_length=1)]
    taints: list[Taint] = Field(default=[])
    runtime_class: DnsName | None = None
    spot: bool = Field(default=False, description="Its nodes may go within half a minute.")


class Autoscaler(Model):
    """The service that answers Agones' FleetAutoscaler webhook."""

    service: Name = "warmfleet-autoscaler"
    port: Port = 8000
    path: Annotated[str, Field(pattern=r"^/")] = "/v1/fleet-autoscale"
    ca_bundle: Text | None = Field(default=None, max_length=65536, description="Set: HTTPS. Absent: HTTP.")
    interval_s: Annotated[int, Field(ge=1, le=600)] = 2


class PlatformBody(Model):
    """A platform's `spec`."""

    namespace: Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")] = "default"
    valkey: SecretKey = SecretKey(secret="warmfleet-valkey", key="url")  # noqa: S106 (a Secret's name)
    valkey_port: Port = 6379
    seat_keys: SecretKey = SecretKey(secret="warmfleet-seat-keys", key="public")  # noqa: S106 (a Secret's name)
    allowed_origins: list[Text] = Field(default=[])
    admission: Admission | None = None
    game_ports: GamePorts = GamePorts()
    sidecar_ports: Offsets = Offsets()
    mesh: Literal["none", "istio", "istioAmbient", "linkerd"] = "none"
    network_policy: Literal["none", "kubernetes", "cilium", "calico"] = "kubernetes"
    calico_qos: bool = Field(default=False, description="Calico marks packets by annotation (lowLatency.dscp).")
    prometheus_operator: bool = False
    pre_pull: bool = True
    pause_image: Text = "registry.k8s.io/pause:3.10"
    autoscaler: Autoscaler = Autoscaler()
    node_pools: dict[Name, NodePool] = Field(default={})

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if "," in origin or not origin.startswith(("https://", "http://")):
                raise ValueError(f"{origin!r}: an origin as https://play.example is wanted")
        return origins

    @model_validator(mode="after")
    def _apart(self) -> "PlatformBody":
        if self.admission is not None:
            self.ports()
            reserved = {10250: "the kubelet", 10256: "kube-proxy", self.valkey_port: "Valkey"}
            for offset in (self.sidecar_ports.grpc, self.sidecar_ports.http, self.sidecar_ports.health):
                for port, owner in reserved.items():
                    if self.game_ports.first + offset <= port <= self.game_ports.last + offset:
                        raise ValueError(f"sidecarPorts: offset {offset} gives port {port}, which is {owner}'s")
            if self.game_ports.last >= EPHEMERAL_FROM:
                raise ValueError(f"gamePorts: {self.game_ports.last} is not below {EPHEMERAL_FROM}")
        return self

    def ports(self) -> SidecarPorts:
        """How the webhook derives ports. Raises ValueError if two pods could get the same."""
        game, offsets = self.game_ports, self.sidecar_ports
        return SidecarPorts(
            first=game.first, last=game.last, grpc=offsets.grpc, http=offsets.http, health=offsets.health
        )


class Platform(Model):
    """A document of kind Platform; without one, the defaults."""

    api_version: Literal["warmfleet.dev/v1"] = "warmfleet.dev/v1"
    kind: Literal["Platform"] = "Platform"
    metadata: Metadata = Metadata(name="platform")
    spec: PlatformBody = PlatformBody()


class PlatformError(Exception):
    """A file holds no Platform; one reason a line."""


def read_platform(path: Path) -> Platform:
    """The one Platform of a file. Raises PlatformError."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise PlatformError(f"{path}: larger than {_MAX_FILE_BYTES >> 20} MiB: no platform is")
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlatformError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise PlatformError(f"{path}: is no YAML of one document: {error}") from None
    try:
        return Platform.model_validate(value)
    except ValidationError as error:
        lines = (
            f"{path}: {'.'.join(map(str, e['loc'])) or 'document'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        raise PlatformError("\n".join(lines)) from None
