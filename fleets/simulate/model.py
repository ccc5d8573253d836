"""What a simulated fleet runs on, and what came of it."""

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What servers and nodes take."""

    boot_s: float = 20.0
    """Median from a server's order, on a node with room, to Ready."""
    boot_deviation: float = 0.3
    """Relative."""
    servers_per_node: int = 20
    node_boot_s: float = 120.0
    """Until a new node runs its first pod."""
    node_idle_s: float = 600.0
    """An empty node goes after so long: the Cluster Autoscaler's default."""
    nodes_max: int = 1_000_000
    crash_per_server_h: float = 0.0
    """Failures of a server, an hour; its sessions move, and count as recoveries."""
    interval_s: float = 10.0
    """Between two decisions."""
    warm_up_s: float = 3600.0
    """What happens in the trace's first stretch is not counted: the fleet begins empty, and real ones don't."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What the players and the bill saw."""

    matches: int = 0
    shelf: int = 0
    buffer: int = 0
    """Found a Ready server, which the shelf had not taken yet."""
    cold: int = 0
    """Waited for a server to boot, or for a room to come free."""
    recovered: int = 0
    """Sessions that moved off a failed server."""
    waits_s: list[float] = field(default_factory=list)
    """Of the cold ones."""
    node_hours: float = 0.0
    server_hours: float = 0.0
    ordered_peak: int = 0
    """Servers ordered in the minute that had most."""
    allocated_peak: int = 0
    """Servers that went from Ready to Allocated in the minute that had most."""
    servers_peak: int = 0
    nodes_peak: int = 0
    live_peak: int = 0
    ready_hours: float = 0.0
    """Of servers that stood Ready, unused."""
    hours: float = 0.0
    """That were counted."""
    events: int = 0
    """The warm-up's among them: what the simulation's time goes into."""
    unserved: int = 0
    """Still waiting at the end."""

    @property
    def cold_share(self) -> float:
        """Of all matches."""
        return self.cold / self.matches if self.matches else 0.0

    @property
    def ready_mean(self) -> float:
        """Servers that stood Ready, on average."""
        return self.ready_hours / self.hours if self.hours else 0.0

    def wait_s(self, quantile: float) -> float:
        """A quantile of the wait of all matches; those that found a warm room waited 0."""
        rank = math.ceil(quantile * self.matches) - (self.matches - len(self.waits_s))
        return sorted(self.waits_s)[rank - 1] if rank > 0 else 0.0
