"""
The matchmaker's words: tickets, queues, rules, matches. Pure data, independent of YAML and of the store.

A rule's limit may relax with age (`expand`). Every ticket of a match must accept it at its own age, so the newest ticket's limit counts.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

from gameserver.sessions.model import FleetName, MatchId, PlayerId

QueueName = NewType("QueueName", str)
TicketId = NewType("TicketId", str)
Attribute = float | str | tuple[str, ...]


class TicketState(StrEnum):
    """Where a ticket stands. The last four are final."""

    QUEUED = "queued"
    SEARCHING = "searching"
    """Looked at, and not matched yet."""
    PROPOSED = "proposed"
    """In a match that waits for its players' acceptance."""
    PLACING = "placing"
    """In a match that gets its server."""
    ASSIGNED = "assigned"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    FAILED = "failed"


FINAL = frozenset({TicketState.ASSIGNED, TicketState.CANCELLED, TicketState.TIMED_OUT, TicketState.FAILED})


class Aggregate(StrEnum):
    """How a party's numbers become one."""

    MIN = "min"
    MEAN = "mean"
    MAX = "max"


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketPlayer:
    """One player of a ticket."""

    id: PlayerId
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    latencies_ms: Mapping[str, float] = field(default_factory=dict)
    """Region to round trip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A party that waits: its players are never split."""

    id: TicketId
    players: tuple[TicketPlayer, ...]
    created_at_s: float
    """Unix seconds by the store's clock; kept when the ticket goes back to the queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """From this age on the limit is another."""

    after_s: float
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit that relaxes with a ticket's age; steps in ascending order of age."""

    value: float
    expand: tuple[Step, ...] = ()

    def at(self, age_s: float) -> float:
        """The limit for a ticket of this age."""
        limit = self.value
        for step in self.expand:
            if age_s >= step.after_s:
                limit = step.limit
        return limit

    def relaxes_after_s(self, age_s: float) -> float:
        """The age at which the limit changes next; infinite when it does not."""
        return min((step.after_s for step in self.expand if step.after_s > age_s), default=math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferenceRule:
    """Between any two tickets of a match, the (aggregated) attribute differs by the limit at most."""

    attribute: str
    limit: Limit


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyRule:
    """There is a region to which every player's round trip is within the limit, in ms."""

    limit: Limit


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualRule:
    """Every player has the same value."""

    attribute: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IntersectionRule:
    """The players' sets share at least so many values."""

    attribute: str
    minimum: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamBalanceRule:
    """The teams' means of the attribute differ by the limit at most."""

    attribute: str
    limit: Limit


Rule = DifferenceRule | LatencyRule | EqualRule | IntersectionRule | TeamBalanceRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """A team of a match, always full."""

    name: str
    players: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueConfig:
    """What a queue is."""

    name: QueueName
    fleets: tuple[FleetName, ...]
    """Where its matches may run, in order of preference."""
    teams: tuple[Team, ...]
    rules: tuple[Rule, ...] = ()
    regions: Mapping[FleetName, str] = field(default_factory=dict)
    """Fleet to region; a latency rule considers these."""
    party_max: int = 1
    aggregate: Aggregate = Aggregate.MEAN
    ticket_timeout_s: float = 120.0
    max_tickets: int = 100_000
    """More are refused: the queue is full."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Handed to the game with every match."""

    @property
    def players(self) -> int:
        """Players of a match."""
        return sum(team.players for team in self.teams)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A match that obeys every rule."""

    teams: tuple[tuple[Ticket, ...], ...]
    """In the order of the queue's teams."""
    fleets: tuple[FleetName, ...]
    """Where it may run, best first."""

    @property
    def tickets(self) -> tuple[Ticket, ...]:
        """All tickets of the match."""
        return tuple(ticket for team in self.teams for ticket in team)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A match on its way to a server, as the store keeps it: everything that repeating its placing needs."""

    id: MatchId
    tickets: tuple[TicketId, ...]
    seats: tuple[tuple[PlayerId, str], ...]
    """(player, team) in the order of seats."""
    fleets: tuple[FleetName, ...]
