"""
The allocator's words: what a backend says of servers, what a match asks for, what it gets.

Pure data. Agones' own state names are used for servers; `Temperature` is ours (docs/architecture.md, "Warm").
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from gameserver.sessions.model import FleetName, MatchId, PlayerId, Seat, ServerName, Session


class ServerState(StrEnum):
    """Agones' states of a GameServer, unchanged. Source: pkg/apis/agones/v1/gameserver.go of Agones."""

    PORT_ALLOCATION = "PortAllocation"
    CREATING = "Creating"
    STARTING = "Starting"
    SCHEDULED = "Scheduled"
    REQUEST_READY = "RequestReady"
    READY = "Ready"
    ALLOCATED = "Allocated"
    RESERVED = "Reserved"
    SHUTDOWN = "Shutdown"
    ERROR = "Error"
    UNHEALTHY = "Unhealthy"


class Temperature(StrEnum):
    """How warm the server was that a match got."""

    SHELF = "shelf"
    """Already Allocated and registered: one store round trip."""
    BUFFER = "buffer"
    """Was Ready: a backend allocation was waited for."""
    COLD = "cold"
    """No Ready server either: a new process or pod was waited for."""


class Strategy(StrEnum):
    """Which of a fleet's servers with a free room gets a match. Agones' words (`spec.scheduling` of a Fleet)."""

    PACKED = "Packed"
    """The fullest: whole servers stay empty and can be handed back."""
    DISTRIBUTED = "Distributed"
    """The emptiest: the least work on each, and the fewest matches lost with one."""


class Cause(StrEnum):
    """Why a request got no server."""

    UNKNOWN_FLEET = "unknown-fleet"
    NO_CAPACITY = "no-capacity"
    """None of the fleets may have a server at all."""
    NO_SERVER = "no-server"
    """None within the deadline."""
    NO_SEATS = "no-seats"
    """No running session has seats enough for the whole party."""
    ENDED = "ended"
    """The match has been played."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GameServer:
    """A server as its backend sees it."""

    name: ServerName
    fleet: FleetName
    state: ServerState
    host: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)
    """Port name (`websocket`, `udp`) to the port that clients dial."""
    version: str = ""
    """Changes when the fleet's spec changes (Agones: the GameServerSet's name)."""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPolicy:
    """What the allocator must know of a fleet's spec. Raises ValueError when its figures contradict each other."""

    name: FleetName
    rooms: int = 1
    """Matches per server process."""
    shelf: int = 1
    """Rooms to keep claimable at all times."""
    recycle: bool = True
    """True: a room is used again after its match; False: the server is replaced once its rooms have ended."""
    seats: int = 16
    """Players per match at most."""
    region: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    """The fleet's own, by which clients of Agones select it."""
    min: int = 0
    """Servers to have at least, in whatever state."""
    max: int = 10_000
    """Servers to have at most, in whatever state; 0: none, and every request is told so at once."""
    strategy: Strategy = Strategy.PACKED
    migrate: bool = False
    """True: matches on a server that drains are handed over live. False: they are played to their end there."""
    weight: float = 1.0
    """Share of the matches among fleets that are as near; 0: only when no other can."""
    managed: bool = True
    """True: our game server runtime, which opens, ends and checkpoints sessions. False: any other Agones server (`server.command`):
    its session ends when the server leaves Allocated (it calls Shutdown or Ready)."""

    def __post_init__(self) -> None:
        if self.rooms < 1 or self.seats < 1:
            raise ValueError(f"fleet {self.name}: rooms {self.rooms} and seats {self.seats} must be 1 at least")
        if not 0 <= self.min <= self.max:
            raise ValueError(f"fleet {self.name}: min {self.min} must lie between 0 and max {self.max}")
        if self.shelf < 0:
            raise ValueError(f"fleet {self.name}: shelf {self.shelf} must be 0 at least")


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationRequest:
    """A match that wants a server."""

    match: MatchId
    """The request's identity: asking again with the same id gives the same session, never a second one."""
    fleets: tuple[FleetName, ...]
    """In order of preference; with `latency_ms` that decides only between those that are as near."""
    seats: tuple[Seat, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    free_seats: int = 0
    """How many more players may be seated once it runs."""
    strategy: Strategy | None = None
    """None: the fleet's own."""
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    """Of the players to each region, as measured (their worst, say); empty: the fleets' order holds."""
    retried: bool = False
    """An earlier run may have asked and died: look in every fleet for its session before claiming anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatRequest:
    """A party that wants seats in a session that runs already."""

    id: str
    """The party's identity: asked again, it is in the same session, never in a second one."""
    fleets: tuple[FleetName, ...]
    """In order of preference."""
    party: tuple[tuple[PlayerId, str], ...]
    """(player, team), each player once: all of them get a seat in one session, or none does."""
    queue: str = ""
    """Only matches with this option `queue` take it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """A session and where it is."""

    session: Session
    host: str
    ports: Mapping[str, int]
    temperature: Temperature
    waited_s: float
    """From the request's arrival to the claim."""

    reason: str = ""
    """Why it is as warm as it is, for people."""


def explain(temperature: Temperature, *, waited: bool) -> str:
    """Why a match got what it got."""
    match temperature:
        case Temperature.SHELF:
            return "the shelf was empty; a room of a running server came free" if waited else "a room was on the shelf"
        case Temperature.BUFFER:
            return "the shelf was empty; a Ready server was allocated"
        case Temperature.COLD:
            return "the shelf was empty and no server was Ready for it; a new one was started"
        case _:
            assert_never(temperature)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """No server: an expected outcome. The request holds nothing any more."""

    reason: str
    cause: Cause = Cause.NO_SERVER
