"""`kind: Fleet`: game servers of one kind."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fleets.spec.types import Memory, Model, Name, Seconds, Share, Text, Word

Transport = Literal["websocket", "udp"]


class Metadata(Model):
    """What every document is called."""

    name: Name
    labels: dict[Word, str] = {}


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
    transports: Annotated[list[Transport], Field(min_length=1)] = ["websocket"]
    ports: Annotated[list[Name], Field(min_length=1, description="Port names of a `command`'s server.")] | None = None
    recycle: Literal["ready", "replace"] = Field(
        default="ready", description="After its match a room is used again, or its server is replaced."
    )
    env: dict[Word, str] = {}
    checkpoint_interval: Seconds = 1.0

    @model_validator(mode="after")
    def _one_of(self) -> "Server":
        if (self.game is None) == (self.command is None):
            raise ValueError("exactly one of game and command is wanted")
        if self.command is not None and self.rooms > 1:
            raise ValueError("rooms: only a game of ours has several rooms; a command's server has one match")
        if self.game is not None and self.ports is not None:
            raise ValueError("ports: a game's ports follow from its transports; ports are for a command")
        return self


class Warm(Model):
    """How much is kept warm."""

    shelf: Annotated[int, Field(ge=0, description="Rooms kept claimable.")] = 2
    buffer: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(default="auto", description="Ready servers kept.")
    min: Annotated[int, Field(ge=0)] = 0
    max: Annotated[int, Field(ge=1)] = 10
    cold_start_chance: Annotated[float, Field(gt=0, lt=1)] = 0.001

    @model_validator(mode="after")
    def _ordered(self) -> "Warm":
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class LowLatency(Model):
    """The levers of a real-time cluster; each is one key."""

    network: Literal["host", "hostPort"] = "hostPort"
    cpu: Annotated[float, Field(gt=0, le=256)] = 1
    cpu_pinning: bool = False
    memory: Memory = "256Mi"
    hugepages_2_mi: Memory | None = Field(default=None, alias="hugepages2Mi")
    kernel: Literal["default", "realtime"] = "default"
    node_pool: Name | None = None
    priority: Annotated[int, Field(ge=0, le=1_000_000_000)] | None = None
    dscp: Literal["EF", "AF41", "CS5"] | None = None


class Disruption(Model):
    """What happens when a server must go."""

    drain_timeout: Seconds = 30.0
    on_drain: Literal["migrate", "finish"] = "finish"


class AbortOn(Model):
    """What stops a rollout."""

    unhealthy_rate: Share = 0.02


class Rollout(Model):
    """How a new version comes in."""

    strategy: Literal["canary", "rolling"] = "rolling"
    steps: list[Share] = []
    abort_on: AbortOn = AbortOn()


class FleetBody(Model):
    """A fleet's `spec`."""

    server: Server
    warm: Warm = Warm()
    low_latency: LowLatency = LowLatency()
    disruption: Disruption = Disruption()
    rollout: Rollout = Rollout()

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
