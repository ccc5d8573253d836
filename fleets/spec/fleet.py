"""`kind: Fleet`: game servers of one kind."""

from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from fleets.spec.types import DnsName, Memory, Model, Name, Seconds, Share, Text, Word

Transport = Literal["websocket", "udp"]


class Metadata(Model):
    """What every document is called."""

    name: Name
    labels: dict[Word, str] = {}


class SecretKey(Model):
    """A key of a Secret in the platform's namespace; its value never stands in YAML."""

    secret: DnsName
    key: Word


class Health(Model):
    """How Agones watches a server's pings."""

    disabled: bool = Field(default=False, description="No checks at all: a server that hangs stays.")
    initial_delay: Annotated[Seconds, Field(ge=0, le=3600, description="Before the first check.")] = 5.0
    period: Annotated[Seconds, Field(ge=1, le=3600, description="Between two checks, in whole seconds.")] = 5.0
    failures: Annotated[int, Field(ge=1, le=100, description="Checks missed in a row.")] = 5


class Tls(Model):
    """Certificates of the websocket transport: a Secret in a cluster, PEM files on a laptop; changed ones are taken up while players play."""

    secret: DnsName | None = Field(default=None, description="In a cluster: a Secret of type kubernetes.io/tls.")
    certificate: Text | None = Field(
        default=None,
        description="On a laptop: PEM file of the certificate with its chain, from the folder where `warmfleet up` runs.",
    )
    key: Text | None = Field(default=None, description="On a laptop: PEM file of its key.")
    domain: Annotated[DnsName, Field(max_length=200)] | None = Field(
        default=None,
        description="In a cluster: clients are told 203-0-113-7.<domain> in place of the address 203.0.113.7, where your DNS "
        "has these names and the certificate is for *.<domain>. Absent: the address itself.",
    )

    @model_validator(mode="after")
    def _whole(self) -> "Tls":
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: name both files, or neither")
        if self.secret is None and self.certificate is None:
            raise ValueError("secret, or certificate and key, are wanted")
        if self.domain is not None and self.secret is None:
            raise ValueError("domain: goes with secret, for servers of a cluster")
        return self


class Server(Model):
    """What runs in each server process."""

    game: Annotated[str, Field(pattern=r"^[\w.]+:\w+$", description="A Game class, as module:Class.")] | None = None
    command: (
        Annotated[list[Text], Field(min_length=1, description="Or any program that speaks the Agones SDK.")] | None
    ) = None
    image: Text | None = Field(default=None, description="What a cluster runs.")
    tick_rate: Annotated[int, Field(ge=1, le=240, description="Hz.")] = 30
    rooms: Annotated[int, Field(ge=1, le=1000, description="Matches per process.")] = 1
    seats: Annotated[int, Field(ge=1, le=10_000, description="Players per match.")] = 16
    transports: Annotated[list[Transport], Field(min_length=1, description="Of a `game`.")] = ["websocket"]
    ports: Annotated[list[Name], Field(min_length=1, description="Port names of a `command`'s server.")] | None = None
    strategy: Literal["Packed", "Distributed"] = Field(
        default="Packed", description="Which server with a free room gets the next match: the fullest, or the emptiest."
    )
    recycle: Literal["ready", "replace"] = Field(
        default="ready", description="After its match a room is used again, or its server is replaced."
    )
    fork: bool = Field(
        default=True,
        description="On a laptop, servers are forked from a process that has the game imported; not for games that start threads as they are imported.",
    )
    env: dict[Word, str] = Field(default={}, description="Variables of the server's process.")
    secret_env: dict[Word, SecretKey] = Field(
        default={}, description="Variables whose values come from Secrets of the namespace."
    )
    mirror: Literal["none", "counters", "lists"] = Field(
        default="counters",
        description="What Agones is shown of a `game`'s matches: Counters `rooms` and `players` on each GameServer, Lists of the same "
        "names with the ids of sessions and players, or nothing. About two writes at the API server for each match.",
    )
    tls: Tls | None = Field(
        default=None, description="The websocket transport speaks TLS alone, and clients are told so."
    )
    health: Health = Field(default=Health(), description="When Agones takes a server for dead.")
    checkpoint_interval: Annotated[
        Seconds, Field(description="Between two saves of a room, which a move starts from.")
    ] = 1.0

    @model_validator(mode="after")
    def _one_of(self) -> "Server":
        if (self.game is None) == (self.command is None):
            raise ValueError("exactly one of game and command is wanted")
        if self.command is not None and self.rooms > 1:
            raise ValueError("rooms: only a game of ours has several rooms; a command's server has one match")
        if self.game is not None and self.ports is not None:
            raise ValueError("ports: a game's ports follow from its transports; ports are for a command")
        if self.tls is not None and (self.game is None or "websocket" not in self.transports):
            raise ValueError("tls: is for the websocket transport of a game; udp is encrypted without it")
        return self


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone: an IANA name is wanted, as Europe/Berlin") from None
    return name


class ScheduleBody(Model):
    """Ready servers for a while: once, or on days at a time of the day."""

    name: Name
    ready: Annotated[int, Field(ge=0, description="Servers kept Ready at least.")]
    for_: Annotated[Seconds, Field(alias="for", gt=0, description="How long.")]
    lead: Seconds = 600.0
    at: AwareDatetime | None = Field(default=None, strict=False, description="The one time, as 2026-12-01T18:00:00Z.")
    daily: (
        Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="Or a time of the day, as 18:00.")]
        | None
    ) = None
    days: Annotated[list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]], Field(min_length=1)] | None = None
    timezone: Annotated[str, AfterValidator(_zone), Field(description="IANA name, as Europe/Berlin.")] = "UTC"

    @model_validator(mode="after")
    def _one_of(self) -> "ScheduleBody":
        if (self.at is None) == (self.daily is None):
            raise ValueError("exactly one of at and daily is wanted")
        if self.at is not None and self.days is not None:
            raise ValueError("days: they go with daily, not with at")
        return self


class Warm(Model):
    """How much is kept warm."""

    shelf: Annotated[int, Field(ge=0, description="Rooms kept claimable.")] = 2
    buffer: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(default="auto", description="Ready servers kept.")
    min: Annotated[int, Field(ge=0, description="Servers kept, whatever is forecast.")] = 0
    max: Annotated[int, Field(ge=1, description="Servers at most.")] = 10
    cold_start_chance: Annotated[
        float, Field(gt=0, lt=1, description="How often a match may wait for a new server.")
    ] = 0.001
    idle_to_zero: Annotated[Seconds, Field(gt=0)] | None = Field(
        default=None, description="After so long without a match nothing beyond min is kept, not even the shelf."
    )
    schedules: list[ScheduleBody] = []

    @model_validator(mode="after")
    def _ordered(self) -> "Warm":
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        for schedule in self.schedules:
            if schedule.ready > self.max:
                raise ValueError(
                    f"schedules: {schedule.name} wants {schedule.ready} servers Ready, but max is {self.max}"
                )
        return self


class Toleration(Model):
    """A taint that the pods bear."""

    key: Annotated[Word | None, Field(description="Absent: every taint.")] = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: Annotated[str, Field(max_length=63)] = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Absent: every effect."
    )
    seconds: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="How long a NoExecute taint is borne."
    )

    @model_validator(mode="after")
    def _sensible(self) -> "Toleration":
        if self.key is None and self.operator == "Equal":
            raise ValueError("without a key, operator must be Exists")
        if self.operator == "Exists" and self.value:
            raise ValueError("operator Exists takes no value")
        if self.seconds is not None and self.effect != "NoExecute":
            raise ValueError("seconds goes with effect NoExecute alone")
        return self


class LowLatency(Model):
    """The levers of a real-time cluster; each is one key."""

    network: Literal["host", "hostPort"] = Field(
        default="hostPort",
        description="host: the pods share their node's network, made safe by the admission webhook or by one pod a node. "
        "hostPort: a network of their own, with ports forwarded from the node.",
    )
    port_policy: Literal["Dynamic", "Static", "Passthrough"] | None = Field(
        default=None, description="Agones' port policy. Absent: Passthrough in the host network, else Dynamic."
    )
    host_port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        default=None, description="First port of portPolicy Static; the next port of a server is one higher."
    )
    port_range: Name | None = Field(default=None, description="A port range of Agones other than default.")
    cpu: Annotated[float, Field(gt=0, le=256, description="CPUs, requested and limited alike.")] = 1
    cpu_pinning: bool = Field(
        default=False,
        description="CPUs of its own, by the static CPU manager: cpu must be whole, the pod is Guaranteed.",
    )
    numa: Literal["any", "single"] = Field(
        default="any",
        description="single: CPUs, memory and huge pages of one NUMA node, on nodes labelled warmfleet.dev/numa=single, whose "
        "kubelet has topologyManagerPolicy single-numa-node.",
    )
    memory: Annotated[Memory, Field(description="Requested and limited alike.")] = "256Mi"
    hugepages_2_mi: Memory | None = Field(
        default=None, alias="hugepages2Mi", description="Huge pages of 2 MiB, mounted at /dev/hugepages."
    )
    hugepages_1_gi: Memory | None = Field(
        default=None, alias="hugepages1Gi", description="Huge pages of 1 GiB, mounted at /dev/hugepages-1Gi."
    )
    kernel: Literal["default", "realtime"] = Field(
        default="default", description="realtime: nodes labelled (and tainted) warmfleet.dev/kernel=realtime."
    )
    fifo: Annotated[int, Field(ge=1, le=99)] | None = Field(
        default=None,
        description="SCHED_FIFO at this priority, by chrt: runs as root with SYS_NICE as its only capability.",
    )
    nice: Annotated[int, Field(ge=-20, le=19)] | None = Field(
        default=None, description="Niceness, by nice; below 0 it runs as root with SYS_NICE as its only capability."
    )
    node_pool: Name | None = Field(default=None, description="A pool of the Platform, or label warmfleet.dev/pool.")
    node_labels: dict[Word, str] = Field(default={}, description="Labels that a node must have.")
    prefer_node_labels: dict[Word, str] = Field(default={}, description="Labels that a node had better have.")
    architecture: Literal["amd64", "arm64"] | None = Field(default=None, description="Of the node's CPUs.")
    tolerations: list[Toleration] = Field(
        default=[], description="Taints that the pods bear, besides those of their pool."
    )
    zone_spread: Literal["none", "prefer", "require"] = Field(
        default="prefer", description="Pods evenly over the zones: not at all, where possible, or only so."
    )
    anti_affinity: Literal["none", "prefer", "require"] = Field(
        default="none", description="Pods of the fleet on different nodes: not at all, where possible, or only so."
    )
    runtime_class: DnsName | None = Field(
        default=None, description="RuntimeClass of the pods; it goes before the pool's."
    )
    priority: Annotated[int, Field(ge=0, le=1_000_000_000)] | None = Field(
        default=None, description="Of a PriorityClass made for it."
    )
    preemption: Literal["lower", "never"] = Field(
        default="lower", description="lower: pushes out pods of lower priority. never: only waits ahead of them."
    )
    sysctls: dict[Word, str] = Field(default={}, description="Kernel settings of the pod's own network and IPC.")
    dscp: Literal["EF", "AF41", "CS5"] | None = Field(default=None, description="Mark of the packets that it sends.")
    mesh: Literal["out", "minimal"] = Field(
        default="out", description="out: no proxy of the Platform's mesh. minimal: one that the game's ports bypass."
    )
    spot: Literal["never", "tolerate", "prefer"] | None = Field(
        default=None, description="Nodes that may go at short notice, by the labels and taints of the large clouds."
    )
    pre_pull: bool | None = Field(
        default=None, description="Image on every node ahead of need. Absent: as the Platform says."
    )

    @model_validator(mode="after")
    def _fits(self) -> "LowLatency":
        if self.network == "host" and self.port_policy == "Dynamic":
            raise ValueError(
                "portPolicy: Dynamic does not work in the host network (hostPort must be containerPort); use Passthrough"
            )
        if (self.port_policy == "Static") != (self.host_port is not None):
            raise ValueError("hostPort: wanted with portPolicy Static, and with it alone")
        if self.port_policy == "Static" and self.port_range is not None:
            raise ValueError("portRange: portPolicy Static takes its ports from hostPort")
        if self.numa == "single" and not self.cpu_pinning:
            raise ValueError("numa: single needs cpuPinning: the topology manager aligns exclusive CPUs alone")
        if self.fifo is not None and self.nice is not None:
            raise ValueError("nice: has no effect under SCHED_FIFO; set one of fifo and nice")
        if self.preemption == "never" and self.priority is None:
            raise ValueError("preemption: goes with a priority")
        return self


class Disruption(Model):
    """What happens when a server must go."""

    drain_timeout: Annotated[
        Seconds, Field(description="For matches to end or move once a server must go; the pod's grace follows from it.")
    ] = 30.0
    on_drain: Literal["migrate", "finish"] = Field(
        default="finish", description="Matches are moved to another server, or played to their end."
    )


class AbortOn(Model):
    """What stops a rollout."""

    unhealthy_rate: Annotated[
        Share, Field(description="Servers of the new version that crashed or failed, of all started.")
    ] = 0.02
    tick_jitter: Annotated[Seconds, Field(description="p99 of how late a tick of the new version is.")] | None = None
    match_completion: (
        Annotated[Share, Field(description="Matches of the new version that ended as they should.")] | None
    ) = None
    min_servers: Annotated[int, Field(ge=1, description="Servers started before a rate says anything.")] = 3


class Rollout(Model):
    """How a new version comes in."""

    strategy: Literal["canary", "rolling"] = Field(
        default="rolling", description="canary: a second fleet, by steps. rolling: Agones' own update."
    )
    steps: Annotated[list[Share], Field(max_length=20, description="Shares of the servers, ascending.")] = []
    pause: Annotated[Seconds, Field(description="How long each step is watched.")] = 300.0
    ready_within: Annotated[Seconds, Field(description="Servers of a step are Ready by then, or it is aborted.")] = (
        600.0
    )
    abort_on: AbortOn = AbortOn()

    @model_validator(mode="after")
    def _ascending(self) -> "Rollout":
        if self.steps != sorted(set(self.steps)) or (self.steps and self.steps[0] <= 0):
            raise ValueError("steps: each share must be above the one before, and above 0%")
        return self


class FleetBody(Model):
    """A fleet's `spec`."""

    server: Server
    warm: Warm = Warm()
    low_latency: LowLatency = LowLatency()
    disruption: Disruption = Disruption()
    rollout: Rollout = Rollout()
    weight: Annotated[
        float,
        Field(ge=0, le=1e6, description="Share of matches among fleets that are as near; 0: only when no other can."),
    ] = 1.0

    @model_validator(mode="after")
    def _fits(self) -> "FleetBody":
        if self.warm.shelf > self.warm.max * self.server.rooms:
            raise ValueError(
                f"warm.shelf {self.warm.shelf} rooms are more than warm.max {self.warm.max} servers of "
                f"{self.server.rooms} rooms have"
            )
        return self


class FleetSpec(Model):
    """A document of kind Fleet."""

    api_version: Literal["warmfleet.dev/v1"]
    kind: Literal["Fleet"]
    metadata: Metadata
    spec: FleetBody


def canary_of(name: str) -> str:
    """The Agones Fleet that runs a new version beside the old one."""
    return f"{name}-canary"
