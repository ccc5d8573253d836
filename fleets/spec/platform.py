"""`kind: Platform`: what is the same for every fleet of a cluster, and the services that run them."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from fleets.admission.mutation import EPHEMERAL_FROM, SidecarPorts
from fleets.spec.fleet import Metadata, SecretKey
from fleets.spec.types import DnsName, Memory, Model, Name, Port, Text, Word
from matchmaker.beacons.regions import Region, verifier

Namespace = Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
Label = Annotated[str, Field(pattern=r"^[^\s,=]{1,253}$")]
Cpu = Annotated[str, Field(pattern=r"^[1-9]\d*m?$", description="As 250m or 2.")]
PARTS = ("matchmaker", "director", "allocator", "autoscaler", "events", "console", "beacon")
"""What `warmfleet serve` runs in a container each; the admission webhook stands beside them."""

SERVICE_PORT = 8080
"""Where each of our services answers: its own requests, probes and metrics."""
SENTINEL_PORT = 26379
"""Where Sentinels listen, unless `addresses` says otherwise."""
AUTOSCALER_PATH = "/v1/fleet-autoscale"
"""Where our autoscaler answers."""


class Images(Model):
    """Where the images of our parts are: `<repository>/<part>:<tag>`."""

    repository: Text = Field(description="As registry.example/warmfleet.")
    tag: Annotated[str, Field(pattern=r"^[\w][\w.-]{0,127}$")]
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    pull_secrets: list[DnsName] = Field(default=[], description="Also used by the game servers' pods.")


class Issuer(Model):
    """A cert-manager issuer."""

    name: DnsName
    kind: Literal["Issuer", "ClusterIssuer"] = "ClusterIssuer"


class Admission(Model):
    """The webhook that makes host networking safe (`warmfleet admission`)."""

    image: Text | None = Field(default=None, description="Absent: that of `images`.")
    replicas: Annotated[int, Field(ge=1, le=20)] = 2
    issuer: Issuer | None = Field(default=None, description="cert-manager makes and rotates the certificate.")
    ca_bundle: Text | None = Field(
        default=None, max_length=65536, description="Or: base64 of the CA of Secret warmfleet-admission-tls."
    )
    rate_limit: Annotated[
        str, Field(pattern=r"^\d+(ms|s)$", description="The sidecar's pause between two writes; Agones' own is 500ms.")
    ] = "20ms"
    sidecar_cpu: Cpu = "50m"
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
    """From a pod's host port to its sidecar's ports, and to that of its game's metrics."""

    grpc: Port = 10_000
    http: Port = 12_000
    health: Port = 14_000
    metrics: Port = 16_000


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
    path: Annotated[str, Field(pattern=r"^/", description="Other than ours: of a service of your own.")] = (
        AUTOSCALER_PATH
    )
    ca_bundle: Text | None = Field(default=None, max_length=65536, description="Set: HTTPS. Absent: HTTP.")
    tls_secret: DnsName | None = Field(
        default=None,
        description="With caBundle: Secret of type kubernetes.io/tls, whose certificate our service shows.",
    )
    interval_s: Annotated[int, Field(ge=1, le=600)] = 2

    @model_validator(mode="after")
    def _trusted(self) -> "Autoscaler":
        if self.tls_secret is not None and self.ca_bundle is None:
            raise ValueError("caBundle: is wanted with tlsSecret: Agones must know whom to trust")
        return self


class Storage(Model):
    """A small Valkey in the cluster: one pod, its data on a persistent volume."""

    image: Text = "docker.io/valkey/valkey:9.1"
    size: Memory = "8Gi"
    storage_class: DnsName | None = Field(default=None, description="Absent: the cluster's default.")
    cpu: Cpu = "1"
    memory: Memory = "1Gi"
    password: SecretKey = SecretKey(secret="warmfleet-valkey", key="password")  # noqa: S106 (a Secret's name)


class Valkey(Model):
    """The store of sessions and tickets, by reference."""

    secret: DnsName = Field(default="warmfleet-valkey", description="Secret with the URL.")
    key: Word = Field(
        default="url",
        description="Its key: redis:// (rediss:// for TLS, redis+sentinel:// for Sentinels, redis+cluster:// for a Cluster), with the password in it.",
    )
    port: Port = Field(default=6379, description="For network policies.")
    mode: Literal["standalone", "sentinel", "cluster"] = Field(default="standalone", description="As the URL says.")
    addresses: list[Text] = Field(
        default=[],
        description="host:port of the servers (sentinels in mode sentinel), for KEDA, which reads no URL, and for network policies.",
    )
    sentinel_master: Word | None = None
    password: SecretKey | None = Field(default=None, description="For KEDA.")
    tls: bool = Field(default=False, description="For KEDA: whether the URL is rediss://.")
    ca: SecretKey | None = Field(
        default=None, description="CA that signed the server's certificate, mounted as a file."
    )
    replicas: Annotated[int, Field(ge=0, le=9)] = Field(
        default=0,
        description="How many replicas must have a claim, a new ticket or a session's move before it counts; 0 may lose the last of them in a failover.",
    )
    in_cluster: Storage | None = Field(default=None, description="Set: rendered as a StatefulSet with a volume.")

    @model_validator(mode="after")
    def _whole(self) -> "Valkey":
        if (self.mode == "sentinel") != (self.sentinel_master is not None):
            raise ValueError("sentinelMaster: wanted in mode sentinel, and there alone")
        if self.in_cluster is not None and (self.mode != "standalone" or self.addresses or self.replicas):
            raise ValueError("inCluster: is one server in mode standalone, without replicas, whose address is known")
        for address in self.addresses:
            host, _, port = address.rpartition(":")
            if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
                raise ValueError(f"addresses: {address!r}: host:port is wanted, as valkey-0.example:6379")
        return self

    def ports(self) -> list[int]:
        """What its clients connect to: the servers' port (a Cluster's nodes'), and those of the Sentinels that know which server leads."""
        found = {self.port, *(int(address.rpartition(":")[2]) for address in self.addresses)}
        if self.mode == "sentinel" and not self.addresses:
            found.add(SENTINEL_PORT)
        return sorted(found)


class Metric(Model):
    """A metric of the pods, as an adapter serves it to the HorizontalPodAutoscaler."""

    name: Word
    per_replica: Annotated[str, Field(pattern=r"^\d+m?$", description="Average of a replica, as 500m or 40.")]


class Autoscale(Model):
    """How the replicas of a service follow its load: HPA, or KEDA where `ticketsPerReplica` is set."""

    min: Annotated[int, Field(ge=1, le=1000)] = 2
    max: Annotated[int, Field(ge=1, le=1000)] = 10
    cpu: Annotated[int, Field(ge=1, le=100, description="Per cent of the requested CPU.")] | None = 60
    metrics: list[Metric] = []
    tickets_per_replica: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="KEDA: waiting tickets of a queue in Valkey, per replica."
    )

    @model_validator(mode="after")
    def _ordered(self) -> "Autoscale":
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        if self.cpu is None and not self.metrics and self.tickets_per_replica is None:
            raise ValueError("nothing to scale by: one of cpu, metrics and ticketsPerReplica is wanted")
        return self


class ServiceBody(Model):
    """One of our services."""

    enabled: bool = True
    image: Text | None = Field(default=None, description="Absent: that of `images`.")
    replicas: Annotated[int, Field(ge=1, le=100, description="Where nothing scales it.")] = 2
    cpu: Cpu = "500m"
    memory: Memory = "512Mi"
    autoscale: Autoscale | None = None
    env: dict[Word, str] = {}
    secret_env: dict[Word, SecretKey] = {}


class Webhook(Model):
    """Where events are posted."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s/]+(/\S*)?$", description="As https://example.com/events.")]
    secret: SecretKey = Field(description="What they are signed with: 16 bytes or more.")


class KafkaSink(Model):
    """Where events are produced."""

    brokers: Annotated[list[Annotated[str, Field(pattern=r"^[^\s,:]+:\d{1,5}$")]], Field(min_length=1)]
    topic: Word = "warmfleet-events"
    config: SecretKey | None = Field(
        default=None, description="More of librdkafka's properties, as JSON: security.protocol, sasl.…"
    )


class EventsBody(ServiceBody):
    """Keeps lifecycle events, and sends them on."""

    keep_s: Annotated[int, Field(ge=60, le=30 * 86_400, description="For how long they stay in their streams.")] = (
        86_400
    )
    webhook: Webhook | None = None
    kafka: KafkaSink | None = None


class SignIn(Model):
    """Operators' own tokens, of the studio's identity provider; their claim `warmfleet_role` is viewer or operator."""

    jwks: Annotated[str, Field(pattern=r"^https?://\S+$", description="URL of the keys that sign them.")]
    audience: Text = Field(description="What `aud` must be.")
    issuer: Text | None = Field(default=None, description="What `iss` must be.")


class ConsoleBody(ServiceBody):
    """The operators' page. Nothing leads to it from outside: `kubectl port-forward`, or an Ingress of your own that signs people in."""

    replicas: Annotated[int, Field(ge=1, le=100, description="Each remembers what it has seen itself.")] = 1
    cpu: Cpu = "250m"
    memory: Memory = "256Mi"
    viewer_token: SecretKey | None = Field(default=None, description="Lets one look, and not act.")
    sign_in: SignIn | None = None


class BeaconBody(ServiceBody):
    """Measures and signs players' round trips to this cluster's region."""

    cpu: Cpu = "250m"
    memory: Memory = "128Mi"
    region: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        default="", validate_default=False, description="Its name, as fleets' label `region` has it."
    )
    key: SecretKey = SecretKey(secret="warmfleet-beacon", key="key")  # noqa: S106 (a Secret's name)
    service: Literal["LoadBalancer", "NodePort", "ClusterIP"] = Field(
        default="LoadBalancer", description="How players reach it: UDP 7770, and HTTP."
    )
    annotations: dict[Word, str] = Field(default={}, description="Of that Service, for the provider's load balancer.")
    tls_secret: DnsName | None = Field(
        default=None,
        description="Secret of type kubernetes.io/tls: pages that came by HTTPS can measure only with it. Absent: plain HTTP.",
    )


class Services(Model):
    """The parts that `warmfleet serve` runs, a Deployment each; the last three only where they are asked for."""

    matchmaker: ServiceBody = ServiceBody()
    director: ServiceBody = ServiceBody()
    allocator: ServiceBody = ServiceBody()
    autoscaler: ServiceBody = ServiceBody(cpu="250m", memory="256Mi")
    events: EventsBody = EventsBody(enabled=False)
    console: ConsoleBody = ConsoleBody(enabled=False)
    beacon: BeaconBody = BeaconBody(enabled=False)

    @model_validator(mode="after")
    def _told(self) -> "Services":
        if self.beacon.enabled and not self.beacon.region:
            raise ValueError("beacon.region: is wanted: the region whose round trips are measured")
        if self.beacon.autoscale is not None or self.console.autoscale is not None:
            raise ValueError("autoscale: goes with neither beacon nor console, whose clients stay with one pod")
        asked = "WARMFLEET_MATCHMAKER_URL" in self.console.env
        if self.console.enabled and not self.matchmaker.enabled and not asked:
            raise ValueError(
                "console.env.WARMFLEET_MATCHMAKER_URL: is wanted where services.matchmaker is not rendered"
            )
        return self


class Allocation(Model):
    """The allocator's own interfaces, for other services of the studio and for Agones' clients: REST and gRPC, over TLS."""

    tls_secret: DnsName = Field(description="Secret of type kubernetes.io/tls with its certificate.")
    mutual_tls: bool = Field(
        default=False, description="Clients show a certificate of the authority in the Secret's ca.crt."
    )
    tokens: SecretKey | None = Field(default=None, description="Or a token of these lines, `name:token`.")
    grpc_port: Port = 8443
    rest_port: Port = 8444

    @model_validator(mode="after")
    def _guarded(self) -> "Allocation":
        if not self.mutual_tls and self.tokens is None:
            raise ValueError("mutualTls or tokens: one is wanted, else whoever can connect may take servers")
        if len({self.grpc_port, self.rest_port, SERVICE_PORT}) < 3:
            raise ValueError(
                f"grpcPort and restPort: are two ports, neither of them {SERVICE_PORT}, which has the probes"
            )
        return self


class Entry(Model):
    """How players reach the matchmaker from outside: HTTPS, always."""

    host: DnsName
    tls_secret: DnsName | None = Field(
        default=None, description="Secret with the certificate; a `gateway` has its own."
    )
    kind: Literal["ingress", "gateway"] = "ingress"
    class_name: DnsName | None = Field(default=None, description="ingressClassName or gatewayClassName.")
    gateway: DnsName | None = Field(default=None, description="A Gateway that is there already, in the namespace.")
    annotations: dict[Word, str] = {}

    @model_validator(mode="after")
    def _whole(self) -> "Entry":
        if (self.tls_secret is None) != (self.gateway is not None):
            raise ValueError("tlsSecret: is wanted, but for a gateway that is there already")
        if self.kind == "ingress" and self.gateway is not None:
            raise ValueError("gateway: goes with kind gateway")
        if self.kind == "gateway" and (self.gateway is None) == (self.class_name is None):
            raise ValueError(
                "kind gateway: exactly one of gateway (there already) and className (one is made) is wanted"
            )
        return self


class Tracing(Model):
    """Where our services and our own games' servers send their traces."""

    endpoint: Annotated[
        str, Field(pattern=r"^https?://[^\s/]+(/\S*)?$", description="OTLP over HTTP, as http://collector:4318.")
    ]
    ratio: Annotated[float, Field(ge=0, le=1, description="Of the tickets whose client does not say itself.")] = 0.01


class ProxySize(Model):
    """A mesh's proxy beside a game server of `lowLatency.mesh: minimal`."""

    cpu: Cpu = "50m"
    memory: Memory = "64Mi"


class PlatformBody(Model):
    """A platform's `spec`."""

    namespace: Namespace = Field(default="default", description="Of everything that is rendered.")
    images: Images | None = Field(default=None, description="Of our own parts.")
    services: Services | None = Field(default=None, description="Set: they are rendered too, `{}` with the defaults.")
    entry: Entry | None = None
    valkey: Valkey = Valkey()
    seat_keys: SecretKey = SecretKey(secret="warmfleet-seat-keys", key="public")  # noqa: S106 (a Secret's name)
    seat_signing_key: SecretKey = SecretKey(secret="warmfleet-seat-keys", key="private")  # noqa: S106
    netcode_key: SecretKey = SecretKey(secret="warmfleet-netcode", key="key")  # noqa: S106
    player_keys: SecretKey = Field(
        default=SecretKey(secret="warmfleet-players", key="secret"),  # noqa: S106
        description="What players' JWTs are signed with.",
    )
    operator_token: SecretKey = SecretKey(secret="warmfleet-operator", key="token")  # noqa: S106
    allocation: Allocation | None = None
    regions: list[Region] = Field(
        default=[], description="Beacons of all regions, whose signatures the matchmaker believes."
    )
    kubeconfig: SecretKey | None = Field(
        default=None, description="Of the clusters that the game servers are in, where they are not all in this one."
    )
    clusters: dict[Label, Label] = Field(
        default={},
        description="A fleet's label `region` to its cluster's context in `kubeconfig`; other fleets are in the current one.",
    )
    allowed_origins: list[Text] = Field(default=[], description="Pages whose scripts may connect to game servers.")
    admission: Admission | None = None
    game_ports: GamePorts = GamePorts()
    sidecar_ports: Offsets = Offsets()
    mesh: Literal["none", "istio", "istioAmbient", "linkerd"] = Field(
        default="none", description="What game servers are to be kept out of."
    )
    mesh_proxy: ProxySize = ProxySize()
    network_policy: Literal["none", "kubernetes", "cilium", "calico"] = Field(
        default="kubernetes", description="In whose words."
    )
    calico_qos: bool = Field(default=False, description="Calico marks packets by annotation (lowLatency.dscp).")
    prometheus_operator: bool = Field(
        default=False,
        description="ServiceMonitors, PodMonitors, and the alerts of docs/alerts.md as a PrometheusRule.",
    )
    dashboards: bool = Field(
        default=False,
        description="Grafana's dashboards, as ConfigMaps with the label grafana_dashboard, for its sidecar.",
    )
    tracing: Tracing | None = Field(default=None, description="Absent: nobody traces.")
    prometheus: Text | None = Field(default=None, description="URL of Prometheus, for a rollout's automatic abort.")
    vertical_recommendations: bool = Field(
        default=False, description="VerticalPodAutoscaler objects that only recommend."
    )
    pre_pull: bool = Field(default=True, description="Game servers' images on every node that may need them.")
    pause_image: Text = "registry.k8s.io/pause:3.10"
    autoscaler: Autoscaler = Autoscaler()
    node_pools: dict[Name, NodePool] = Field(default={}, description="What fleets' `nodePool` means.")

    @field_validator("regions")
    @classmethod
    def _believed(cls, regions: list[Region]) -> list[Region]:
        verifier(regions)
        return regions

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if "," in origin or not origin.startswith(("https://", "http://")):
                raise ValueError(f"{origin!r}: an origin as https://play.example is wanted")
        return origins

    @model_validator(mode="after")
    def _reached(self) -> "PlatformBody":
        if self.clusters and self.kubeconfig is None:
            raise ValueError("kubeconfig: is wanted with clusters: their contexts are in it")
        return self

    @model_validator(mode="after")
    def _imaged(self) -> "PlatformBody":
        if self.images is None:
            without = [] if self.admission is None or self.admission.image is not None else ["admission"]
            if self.services is not None:
                bodies = {part: getattr(self.services, part) for part in PARTS}
                without += [f"services.{part}" for part, body in bodies.items() if body.enabled and body.image is None]
            if without:
                raise ValueError(f"images: is missing, and {', '.join(without)} has no image of its own")
        if self.services is not None and self.services.autoscaler.enabled:
            if self.autoscaler.path != AUTOSCALER_PATH:
                raise ValueError(f"autoscaler.path: services.autoscaler answers {AUTOSCALER_PATH}; leave it out")
            if (self.autoscaler.ca_bundle is None) != (self.autoscaler.tls_secret is None):
                raise ValueError("autoscaler.caBundle: our service wants its tlsSecret beside it")
        if self.entry is not None and (self.services is None or not self.services.matchmaker.enabled):
            raise ValueError("entry: leads to services.matchmaker, which is not rendered")
        return self

    @model_validator(mode="after")
    def _apart(self) -> "PlatformBody":
        if self.admission is not None:
            self.ports()
            reserved = {10250: "the kubelet", 10256: "kube-proxy", self.valkey.port: "Valkey"}
            for offset in self.sidecar_ports.model_dump().values():
                for port, owner in reserved.items():
                    if self.game_ports.first + offset <= port <= self.game_ports.last + offset:
                        raise ValueError(f"sidecarPorts: offset {offset} gives port {port}, which is {owner}'s")
            if self.game_ports.last >= EPHEMERAL_FROM:
                raise ValueError(f"gamePorts: {self.game_ports.last} is not below {EPHEMERAL_FROM}")
        return self

    def ports(self) -> SidecarPorts:
        """How the webhook derives ports. Raises ValueError if two pods could get the same."""
        return SidecarPorts(first=self.game_ports.first, last=self.game_ports.last, **self.sidecar_ports.model_dump())

    def image_of(self, part: str, own: str | None) -> str:
        """The image of one of our parts."""
        if own is not None:
            return own
        assert self.images is not None  # checked above
        return f"{self.images.repository}/{part}:{self.images.tag}"


class PlatformSpec(Model):
    """A document of kind Platform; without one, the defaults."""

    api_version: Literal["warmfleet.dev/v1"] = "warmfleet.dev/v1"
    kind: Literal["Platform"] = "Platform"
    metadata: Metadata = Metadata(name="platform")
    spec: PlatformBody = PlatformBody()
