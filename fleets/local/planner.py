"""
What a local fleet should do next: pure, level-triggered, idempotent.

Source: Agones' Fleet with a buffer FleetAutoscaler: Allocated and Reserved servers are never removed, Ready ones are kept at the buffer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from allocator.model import GameServer, ServerState
from fleets.local.states import OVER, HealthSpec
from gameserver.sessions.model import FleetName, ServerName

BACKOFF_MAX_S = 30.0
SHORT_LIFE_S = 3.0
"""A process that ends by itself sooner than this counts as failing to start."""

_TAKEN = (ServerState.ALLOCATED, ServerState.RESERVED)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFleet:
    """A fleet of processes."""

    name: FleetName
    command: tuple[str, ...]
    game: str = ""
    """The game (`module:Class`) that `command` runs, when it is one of ours: its servers are forked from a zygote."""
    env: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[str, ...] = ("default",)
    """Names of the ports that each server is given."""
    metrics: bool = False
    """Whether its servers serve `/metrics`, on a port of their own that no player is told of."""
    min: int = 0
    """Servers kept at least."""
    max: int = 10
    """Servers at most."""
    buffer: int = 1
    """Ready servers kept beyond the Allocated and Reserved ones."""
    version: str = "1"
    health: HealthSpec = field(default_factory=HealthSpec)
    counters: Mapping[str, int] = field(default_factory=dict)
    """Name to capacity."""
    lists: Mapping[str, int] = field(default_factory=dict)
    drain_timeout_s: float = 30.0
    cwd: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Start so many servers."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """Remove a server, gracefully."""

    server: ServerName


Action = Start | Remove


def plan(fleet: LocalFleet, observed: Sequence[GameServer], *, may_start: bool) -> tuple[Action, ...]:
    """
    Decide the next step towards `fleet`; does no I/O.

    Args:
        observed: every server of the fleet that has not been told to go, any order, oldest first among equals.
        may_start: False while the fleet backs off from failing starts.
    Returns: removals of broken and surplus servers, then at most one Start; empty once converged. Never removes Allocated or Reserved.
    """
    broken = [server for server in observed if server.state in OVER]
    live = [server for server in observed if server.state not in OVER]
    taken = sum(server.state in _TAKEN for server in live)
    wanted = min(max(fleet.min, taken + fleet.buffer), max(fleet.max, taken))
    removals = [Remove(server=server.name) for server in broken]
    if len(live) < wanted:
        return (*removals, Start(count=wanted - len(live))) if may_start else tuple(removals)
    # Those that are not Ready yet go first: nobody can have been promised them.
    idle = sorted((s for s in live if s.state not in _TAKEN), key=lambda s: s.state is ServerState.READY)
    return (*removals, *(Remove(server=server.name) for server in idle[: len(live) - wanted]))


def backoff_s(failures: int) -> float:
    """How long to wait before the next start after so many failed ones in a row: 0, 0.5, 1, 2 … 30 s."""
    return 0.0 if failures <= 1 else min(0.5 * 2.0 ** (failures - 2), BACKOFF_MAX_S)
