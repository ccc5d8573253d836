"""
The allocator's words: what a backend says of servers, what a match asks for, what it gets.

Pure data. Agones' own state names are used for servers; `Temperature` is ours (docs/architecture.md, "Warm").
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gameserver.sessions.model import FleetName, MatchId, Seat, ServerName, Session


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
    """What the allocator must know of a fleet's spec."""

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
    managed: bool = True
    """True: our game server runtime, which opens, ends and checkpoints sessions. False: any other Agones server (`server.command`):
    its session ends when the server leaves Allocated (it calls Shutdown or Ready)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationRequest:
    """A match that wants a server."""

    match: MatchId
    """The request's identity: asking again with the same id gives the same session, never a second one."""
    fleets: tuple[FleetName, ...]
    """In order of preference."""
    seats: tuple[Seat, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    retried: bool = False
    """An earlier run may have asked and died: look in every fleet for its session before claiming anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """A session and where it is."""

    session: Session
    host: str
    ports: Mapping[str, int]
    temperature: Temperature
    waited_s: float
    """From the request's arrival to the claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """No server within the deadline: an expected outcome. The request holds nothing any more."""

    reason: str
