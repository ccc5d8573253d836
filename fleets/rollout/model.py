"""The words of a rollout, and its state machine as a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """Where a rollout is."""

    STEPPING = "stepping"
    """A share of the servers is of the new version, in a fleet of its own; they are preferred by allocations until they are used up."""
    PROMOTING = "promoting"
    """The old fleet takes the new version, while the canary still serves."""
    RETIRING = "retiring"
    """The canary gets no new servers, and goes once nobody plays on it."""
    DONE = "done"
    ABORTING = "aborting"
    """The old fleet gets its old version back if it had lost it; then the canary goes."""
    ABORTED = "aborted"


class Event(StrEnum):
    """What moves a rollout on."""

    HELD = "held"
    """A step was watched for its time."""
    HELD_LAST = "heldLast"
    SETTLED = "settled"
    """Every Ready server of the old fleet is of the version that it should be."""
    GONE = "gone"
    """The canary fleet is there no more."""
    UNHEALTHY = "unhealthy"
    LATE = "late"
    """A step's servers did not become Ready in time."""
    ABORT = "abort"
    """A person said so."""


TABLE: Mapping[tuple[Phase, Event], Phase] = {
    (Phase.STEPPING, Event.HELD): Phase.STEPPING,
    (Phase.STEPPING, Event.HELD_LAST): Phase.PROMOTING,
    (Phase.STEPPING, Event.UNHEALTHY): Phase.ABORTING,
    (Phase.STEPPING, Event.LATE): Phase.ABORTING,
    (Phase.STEPPING, Event.ABORT): Phase.ABORTING,
    (Phase.PROMOTING, Event.SETTLED): Phase.RETIRING,
    (Phase.PROMOTING, Event.ABORT): Phase.ABORTING,
    (Phase.RETIRING, Event.GONE): Phase.DONE,
    (Phase.RETIRING, Event.ABORT): Phase.ABORTING,
    (Phase.ABORTING, Event.GONE): Phase.ABORTED,
}
OVER = frozenset({Phase.DONE, Phase.ABORTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the studio allows a new version."""

    steps: tuple[float, ...]
    """Shares of the old fleet's servers, ascending; 1.0 where none is given."""
    pause_s: float
    ready_within_s: float
    unhealthy_rate: float
    tick_jitter_s: float | None = None
    match_completion: float | None = None
    min_servers: int = 3
    max_servers: int = 1_000_000
    prometheus: str = ""
    """URL of the one that knows of ticks and matches; remembered, so that whoever goes on asks the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is remembered of a rollout; everything else is looked at anew."""

    phase: Phase
    old: str
    """Version that the stable fleet had."""
    new: str
    step: int = 0
    since_s: float = 0.0
    """When the step (or phase) began, Unix time."""
    ready_at_s: float | None = None
    """When all servers of the step were Ready first."""
    reason: str = ""
    """Why it was aborted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One of the two fleets, as seen."""

    version: str
    """Of its template."""
    wanted: int
    """Its `replicas`, Allocated ones included."""
    ready: int = 0
    busy: int = 0
    """Allocated or Reserved."""
    ready_by_version: Mapping[str, int] | None = None
    """Ready servers by version; None: all are of its template's."""

    @property
    def alive(self) -> int:
        """Servers that play or could."""
        return self.ready + self.busy

    @property
    def settled(self) -> bool:
        """Whether no Ready server is of another version."""
        others = sum(n for version, n in (self.ready_by_version or {}).items() if version != self.version)
        return others == 0 and self.alive >= self.wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How the new version does."""

    started: int = 0
    failed: int = 0
    """Of them, those that became Unhealthy or Error."""
    tick_jitter_s: float | None = None
    """p99; None where nothing is known."""
    match_completion: float | None = None
    unknown: str = ""
    """Why nothing is known of ticks and matches; empty when that is no fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Both fleets and the new version's health."""

    stable: Track
    canary: Track | None
    health: Health = Health()


@dataclass(frozen=True, slots=True, kw_only=True)
class SetCanary:
    """Make the canary fleet of the new version have so many servers; with 0, those with sessions get no new ones."""

    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Promote:
    """Give the stable fleet the new version; Agones replaces its Ready servers and leaves Allocated ones alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """Give the stable fleet its old version back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveCanary:
    """Delete the canary fleet, on which nobody plays."""


Action = SetCanary | Promote | Restore | RemoveCanary


class WrongPhase(Exception):
    """An event that a rollout in this phase does not know; the message says what there is to do."""
