"""
The matchmaker's words: tickets, queues, rules, matches. Pure data, independent of YAML and of the store.

What each rule means to the letter is in docs/rules.md; `matching.rules.check` is that page as code.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

from gameserver.sessions.model import FleetName, MatchId, PlayerId, SessionId

QueueName = NewType("QueueName", str)
TicketId = NewType("TicketId", str)
Attribute = float | str | tuple[str, ...] | Mapping[str, float]
"""A number, a string, a list of strings, or numbers by name (one of which a rule reads as `skill[tank]`)."""


class AttributeType(StrEnum):
    """What an attribute's value is."""

    NUMBER = "number"
    STRING = "string"
    STRING_LIST = "stringList"
    NUMBER_MAP = "numberMap"


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
    blocked: tuple[PlayerId, ...] = ()
    """Never in one match with these."""
    avoided: tuple[PlayerId, ...] = ()
    """Not in one match with these while this ticket is younger than the queue's `avoid_for_s`."""
    latency_tokens: tuple[str, ...] = ()
    """Beacons' words on its round trips, until the API has turned them into `latencies_ms`; never stored with a ticket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A party that waits: its players are never split."""

    id: TicketId
    players: tuple[TicketPlayer, ...]
    created_at_s: float
    """Unix seconds by the store's clock; kept when the ticket goes back to the queue."""
    priority: str = ""
    """One of the queue's `priorities`, which gives a head start; any other word gives none."""
    trace: str = ""
    """The traceparent of the request that made it; '' where nobody traces."""


class Age(StrEnum):
    """Whose age a rule's limit goes by."""

    OWN = "own"
    """Every ticket must accept the match by the limit at its own age: the strictest counts (as limits relax, the newest ticket's)."""
    NEWEST = "newest"
    """All tickets are held to the limit at the newest one's age."""
    OLDEST = "oldest"
    """All tickets are held to the limit at the oldest one's age: who waited long may be met by somebody new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """From this age on the limit is another."""

    after_s: float
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit that changes with a ticket's age; steps in ascending order of age."""

    value: float
    expand: tuple[Step, ...] = ()
    linear: bool = False
    """Between two steps (and from age 0 to the first) it changes evenly, instead of jumping at the step."""

    def at(self, age_s: float) -> float:
        """The limit for a ticket of this age."""
        limit, since_s = self.value, 0.0
        for step in self.expand:
            if age_s >= step.after_s:
                limit, since_s = step.limit, step.after_s
            elif self.linear:
                return limit + (step.limit - limit) * max(0.0, age_s - since_s) / (step.after_s - since_s)
            else:
                break
        return limit

    def relaxes_after_s(self, age_s: float) -> float:
        """The age at which the limit changes next; infinite when it does not."""
        if self.linear and self.expand and age_s < self.expand[-1].after_s:
            return age_s
        return min((step.after_s for step in self.expand if step.after_s > age_s), default=math.inf)

    @property
    def tightens(self) -> bool:
        """Whether it ever becomes smaller."""
        values = [self.value, *(step.limit for step in self.expand)]
        return any(later < before for before, later in itertools.pairwise(values))

    @property
    def loosest(self) -> float:
        """The largest that it ever is."""
        return max(self.value, *(step.limit for step in self.expand)) if self.expand else self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    age: Age = Age.OWN
    """Whose age counts, for the limit and for `optional_after_s`."""
    optional_after_s: float = math.inf
    """From this age on the rule is not asked any more."""
    weight: float = 0.0
    """0: no match may break the rule. Above: a soft rule; breaking it costs a match so much of its quality, relative to the other rules."""


class Reference(StrEnum):
    """What a difference is measured to."""

    PAIR = "pair"
    MEAN = "mean"


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferenceRule(_Rule):
    """Between any two tickets of a match (or between any ticket and the match's mean), the (aggregated) attribute differs by the limit at most."""

    attribute: str
    limit: Limit
    to: Reference = Reference.PAIR
    aggregate: Aggregate | None = None
    """A party's number; None: as the queue says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchDistanceRule(_Rule):
    """The numbers of any two players of a match, those of one party among them, differ by the limit at most."""

    attribute: str
    limit: Limit


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyRule(_Rule):
    """There is a region to which every player's round trip is within the limit, in ms."""

    limit: Limit
    minimise: bool = False
    """Low round trips count in a match's quality, and tickets meet those with the same nearest region first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualRule(_Rule):
    """Every player has the same value."""

    attribute: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InSetRule(_Rule):
    """Every player's value (or one of its list) is one of these."""

    attribute: str
    values: tuple[str | float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IntersectionRule(_Rule):
    """The players' sets share at least so many values."""

    attribute: str
    minimum: int = 1
    expand: tuple[Step, ...] = ()
    """Later minima."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamBalanceRule(_Rule):
    """The teams' means (or sums) of the players' attribute differ by the limit at most."""

    attribute: str
    limit: Limit
    by_sum: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamSizeRule(_Rule):
    """The teams' numbers of players differ by the limit at most."""

    limit: Limit


class Operation(StrEnum):
    """How a player's value compares."""

    LESS = "<"
    AT_MOST = "<="
    EQUAL = "="
    UNEQUAL = "!="
    AT_LEAST = ">="
    MORE = ">"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRule(_Rule):
    """Every player's value compares so with a constant; without one, `!=` wants every player's value to be another, and `=` the same."""

    attribute: str
    operation: Operation
    value: float | str | None = None


Rule = (
    DifferenceRule
    | BatchDistanceRule
    | LatencyRule
    | EqualRule
    | InSetRule
    | IntersectionRule
    | TeamBalanceRule
    | TeamSizeRule
    | ComparisonRule
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """Places of a team for players who take this role."""

    name: str
    players: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """A team of a match."""

    name: str
    players: int
    """When it is full."""
    minimum: int = 0
    """Players with which it may start once nobody is waited for (`QueueConfig.wait_for_full_s`); 0: only when it is full."""
    roles: tuple[Role, ...] = ()
    """Places that want a role; the remaining ones want none."""

    @property
    def fewest(self) -> int:
        """Players that it takes at least."""
        return self.minimum or self.players


class Leavers(StrEnum):
    """What a match does to the rating of a player who left it for good before its end."""

    LOSE = "lose"
    """As if its team had come last."""
    STAY = "stay"
    """As if it had stayed with its team."""
    UNRATED = "unrated"
    """Nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingConfig:
    """How a queue rates its players by their matches (`matchmaker.ratings`)."""

    model: str = "plackettLuce"
    """openskill's: `plackettLuce`, `bradleyTerryFull`, `bradleyTerryPart`, `thurstoneMostellerFull`, `thurstoneMostellerPart`."""
    attribute: str = "rating"
    """That tickets get it as."""
    initial: float = 1500.0
    """Of a player who has not played yet."""
    spread: float = 500.0
    """Standard deviation of what such a player may really be worth."""
    leavers: Leavers = Leavers.LOSE
    """Who left for good before the end, and was not excused."""


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
    attributes: Mapping[str, AttributeType] = field(default_factory=dict)
    """What players may bring; empty: anything, and the rules say what they must."""
    role_attribute: str = "role"
    """The players' attribute that teams' roles are about: the role, or a list of those that the player takes."""
    wait_for_full_s: float = 0.0
    """Teams above their minimum are not waited for any longer once a match's oldest ticket is so old."""
    max_wait_s: float = math.inf
    """From this age on a ticket is matched before all others, and no team is waited for."""
    priorities: Mapping[str, float] = field(default_factory=dict)
    """A ticket of this priority takes its turn as if it had waited so many seconds longer; rules go by its true age."""
    avoid_for_s: float = 30.0
    """So long a ticket does not meet players whom its own players avoid."""
    match_function: str = ""
    """`module:function` that proposes matches instead of the built-in core."""
    match_function_limit_s: float = 2.0
    """Longest that one call of it may take."""
    match_function_memory_bytes: int = 2 << 30
    """Most that the process of a match function may have, the pool's tickets and numpy among it."""
    match_function_checked: bool = True
    """Its proposals must obey the rules; otherwise only the teams' sizes."""
    acceptance_s: float = 0.0
    """How long players may take to accept a match; 0: they are not asked."""
    leave_steps_s: tuple[float, ...] = ()
    """For how long a player may not queue after its first, second, … declined or unanswered match in 24 h; empty: nothing happens."""
    signed_latency: bool = False
    """Round trips count only as beacons signed them."""
    backfill: bool = False
    """Running sessions may ask for players."""
    leave_running: bool = True
    """Leaving a match that runs is an offence too."""
    leave_policy: str = ""
    """`module:function` that says so instead."""
    ratings: RatingConfig | None = None
    """None: players are not rated."""

    @property
    def players(self) -> int:
        """Players of a match."""
        return sum(team.players for team in self.teams)

    @property
    def fewest(self) -> int:
        """Players that a match takes at least."""
        return sum(team.fewest for team in self.teams)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A match that obeys every rule."""

    teams: tuple[tuple[Ticket, ...], ...]
    """In the order of the queue's teams."""
    fleets: tuple[FleetName, ...]
    """Where it may run, best first."""
    quality: float = 1.0
    """From 0 to 1: how near its rules' measures are to the best, rather than to the loosest limit (`rules.quality`)."""
    roles: Mapping[PlayerId, str] = field(default_factory=dict)
    """The role of each player whose team has roles; a place without a role is not in it."""

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
    roles: Mapping[PlayerId, str] = field(default_factory=dict)
    """The role of each player that has one."""
    session: SessionId | None = None
    """The running session that these players join; None: it gets a session of its own."""
    traces: Mapping[PlayerId, str] = field(default_factory=dict)
    """The traceparent of each player's ticket that has one; the first is the match's own."""
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    """Region to the slowest player's round trip, where everybody measured one and there is a choice of fleets: by it the allocator ranks them."""

    @property
    def trace(self) -> str:
        """The trace that the match's placing belongs to; '' for none."""
        return next(iter(self.traces.values()), "")
