"""`kind: Queue`: which players make a match, and where it runs. docs/rules.md says what each rule means."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from fleets.spec.fleet import Metadata
from fleets.spec.types import Memory, Model, Name, Seconds, Word
from matchmaker.model import Age, Aggregate, AttributeType, Leavers, Operation, Reference

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Path = Annotated[
    str,
    StringConstraints(pattern=r"^[^\[\]]{1,64}(\[[^\[\]]{1,64}\])?$"),
    Field(description="An attribute's name, or `name[key]` for one number of a map."),
]


def _milliseconds(value: Any) -> float:
    if isinstance(value, str) and value.endswith("ms") and value[:-2].replace(".", "", 1).isdecimal():
        return float(value[:-2])
    raise ValueError("a round trip is wanted, as 60ms")


Milliseconds = Annotated[float, BeforeValidator(_milliseconds, json_schema_input_type=str)]


class RoleBody(Model):
    """Places of a team for players who take a role."""

    name: Word
    players: Annotated[int, Field(ge=1, le=100)]


class TeamBody(Model):
    """A team, or `count` teams alike."""

    name: Word
    players: Annotated[int, Field(ge=1, le=1000, description="When it is full.")]
    min: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None,
        description="Players with which it may start, once waitForFull has passed; without it only a full team does.",
    )
    count: Annotated[int, Field(ge=1, le=100, description="So many teams, named by number from 1.")] = 1
    roles: Annotated[list[RoleBody], Field(max_length=8)] = []

    @model_validator(mode="after")
    def _fits(self) -> "TeamBody":
        if self.min is not None and self.min > self.players:
            raise ValueError(f"min {self.min} is above players {self.players}: the team could never start")
        wanted = sum(role.players for role in self.roles)
        if wanted > (self.min or self.players):
            raise ValueError(f"roles want {wanted} players, but the team may start with {self.min or self.players}")
        if len({role.name for role in self.roles}) < len(self.roles):
            raise ValueError("roles: two have the same name")
        return self


class Expansion(Model):
    """From an age on, another limit."""

    after: Seconds
    max: Amount


class LatencyExpansion(Model):
    """From an age on, another round trip."""

    after: Seconds
    max: Milliseconds


class MinExpansion(Model):
    """From an age on, another minimum."""

    after: Seconds
    min: Annotated[int, Field(ge=0, le=64)]


class _Rule(Model):
    age: Annotated[
        Age, Field(strict=False, description="Whose age counts: each ticket's own, the newest's, the oldest's.")
    ] = Age.OWN
    optional_after: Seconds | None = Field(default=None, description="From this age on the rule is not asked any more.")
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="Makes the rule soft: breaking it only costs a match so much of its quality."
    )

    @model_validator(mode="after")
    def _ascending(self) -> Any:
        ages = [step.after for step in getattr(self, "expand", [])]
        if ages != sorted(set(ages)):
            raise ValueError("expand: each step's after must be later than the one before")
        if self.weight is not None and self.optional_after is not None:
            raise ValueError(
                "optionalAfter: a soft rule is optional from the start; drop one of weight and optionalAfter"
            )
        return self


class _Expanding(_Rule):
    expand: list[Expansion] = []
    ramp: Annotated[bool, Field(description="The limit moves evenly between the steps, instead of jumping.")] = False


class Difference(_Expanding):
    """Any two tickets, or any ticket and the match's mean, differ by so much at most."""

    type: Literal["difference"]
    attribute: Path
    max: Amount
    to: Annotated[Reference, Field(strict=False)] = Reference.PAIR
    aggregate: Annotated[Aggregate, Field(strict=False)] | None = None


class BatchDistance(_Expanding):
    """Any two players, also of one party, differ by so much at most."""

    type: Literal["batchDistance"]
    attribute: Path
    max: Amount


class Latency(_Rule):
    """A region is near enough to everyone."""

    type: Literal["latency"]
    max: Milliseconds
    expand: list[LatencyExpansion] = []
    ramp: bool = False
    minimise: Annotated[bool, Field(description="Low round trips make a match better.")] = False


class Equal(_Rule):
    """Everyone has the same value."""

    type: Literal["equal"]
    attribute: Path


class InSet(_Rule):
    """Everyone's value, or one of everyone's list, is one of these."""

    type: Literal["inSet"]
    attribute: Path
    values: Annotated[list[Word | Number], Field(min_length=1, max_length=1000)]


class Intersection(_Rule):
    """Everyone's lists share so many values."""

    type: Literal["intersection"]
    attribute: Path
    min: Annotated[int, Field(ge=1, le=64)] = 1
    expand: list[MinExpansion] = []


class TeamBalance(_Expanding):
    """The teams' means, or sums, differ by so much at most."""

    type: Literal["teamBalance"]
    attribute: Path
    max: Amount
    by: Literal["mean", "sum"] = "mean"


class TeamSize(_Expanding):
    """The teams' sizes differ by so much at most."""

    type: Literal["teamSize"]
    max: Amount


class Comparison(_Rule):
    """Everyone's value compares so with a constant; without one, `!=` wants all to be different and `=` all the same."""

    type: Literal["comparison"]
    attribute: Path
    is_: Annotated[Operation, Field(strict=False, alias="is")]
    value: Number | Word | None = None

    @model_validator(mode="after")
    def _comparable(self) -> "Comparison":
        equality = self.is_ in (Operation.EQUAL, Operation.UNEQUAL)
        if not equality and not isinstance(self.value, float | int):
            raise ValueError(f"value: {self.is_.value} compares with a number")
        return self


RuleBody = Annotated[
    Difference | BatchDistance | Latency | Equal | InSet | Intersection | TeamBalance | TeamSize | Comparison,
    Field(discriminator="type"),
]


class MatchBody(Model):
    """A match function of the studio's own."""

    function: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", max_length=256)]
    timeout: Seconds = 2.0
    memory: Annotated[Memory, Field(description="Of its process, the pool's tickets among it.")] = "2Gi"
    rules: Annotated[
        Literal["checked", "unchecked"], Field(description="Whether its proposals must obey the queue's rules.")
    ] = "checked"


class PartyBody(Model):
    """Players who queue together."""

    max: Annotated[int, Field(ge=1, le=100)] = 1
    aggregate: Annotated[Aggregate, Field(strict=False)] = Aggregate.MEAN


class AcceptanceBody(Model):
    """Players confirm a match within a time limit."""

    timeout: Seconds = 15.0


class LeavingBody(Model):
    """What it costs to decline a match, not to answer, or to leave one that runs: the player may not queue for a while."""

    steps: Annotated[list[Seconds], Field(max_length=20)] = []
    policy: Annotated[str, Field(pattern=r"^$|^[\w.]+:\w+$")] = ""
    running: Annotated[bool, Field(description="Whether leaving a match that runs counts too.")] = True

    @model_validator(mode="after")
    def _one_of(self) -> "LeavingBody":
        if bool(self.steps) == bool(self.policy):
            raise ValueError(
                "leaving: either steps (the first offence within 24 h costs the first) or a policy, module:function, is wanted"
            )
        return self


class RatingsBody(Model):
    """Players are rated by how their matches end."""

    model: Literal[
        "plackettLuce", "bradleyTerryFull", "bradleyTerryPart", "thurstoneMostellerFull", "thurstoneMostellerPart"
    ] = "plackettLuce"
    attribute: Annotated[Word, Field(description="Tickets get the rating as this attribute.")] = "rating"
    leavers: Annotated[
        Leavers,
        Field(strict=False, description="Who leaves before the end loses, counts as staying, or is not rated."),
    ] = Leavers.LOSE
    initial: Annotated[Number, Field(description="Of a player who has not played yet.")] = 1500.0
    spread: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="Standard deviation of what a new player may be worth.")
    ] = 500.0


class BackfillBody(Model):
    """Running sessions may ask for players."""

    enabled: bool = False


class ShadowBody(Model):
    """The queue runs beside another, on its tickets, and only reports: metrics, log, status. No ticket can be sent to it."""

    of: Name


class QueueBody(Model):
    """A queue's `spec`."""

    fleets: Annotated[list[Name], Field(min_length=1)]
    teams: Annotated[list[TeamBody], Field(min_length=1, max_length=100)]
    attributes: dict[Word, Annotated[AttributeType, Field(strict=False)]] = Field(
        default={},
        description="What players may bring, by name; without it anything, and the rules say what they must.",
    )
    rules: Annotated[list[RuleBody], Field(max_length=32)] = []
    party: PartyBody = PartyBody()
    role_attribute: Word = "role"
    wait_for_full: Seconds = 0.0
    max_wait: Seconds | None = Field(
        default=None, description="From this age on a ticket is matched before all others, and no team is waited for."
    )
    priorities: Annotated[dict[Word, Seconds], Field(max_length=32)] = Field(
        default={}, description="A ticket of this priority takes its turn as if it had waited so much longer."
    )
    avoid_for: Seconds = 30.0
    match: MatchBody | None = None
    acceptance: AcceptanceBody | None = None
    leaving: LeavingBody | None = None
    backfill: BackfillBody = BackfillBody()
    latency: Literal["any", "signed"] = Field(
        default="any", description="signed: players' round trips count only as the regions' beacons measured them."
    )
    shadow: ShadowBody | None = None
    ratings: RatingsBody | None = None
    ticket_timeout: Seconds = 120.0
    max_tickets: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    options: dict[Word, str] = Field(default={}, description="Handed to the game with every match.")

    @model_validator(mode="before")
    @classmethod
    def _short_match(cls, value: Any) -> Any:
        """`match: module:function` is short for `match: {function: module:function}`."""
        if isinstance(value, dict) and isinstance(value.get("match"), str):
            return {**value, "match": {"function": value["match"]}}
        return value

    @model_validator(mode="after")
    def _fits(self) -> "QueueBody":
        names = [name for team in self.teams for name in team_names(team)]
        if len(set(names)) < len(names):
            raise ValueError("teams: two have the same name")
        if len(names) > 100:
            raise ValueError(f"teams: {len(names)} are too many, 100 may be")
        largest = max(team.players for team in self.teams)
        if self.party.max > largest:
            raise ValueError(
                f"party.max {self.party.max} is above the largest team, {largest}: such a party would never be matched"
            )
        if sum(isinstance(rule, Latency) for rule in self.rules) > 1:
            raise ValueError("rules: there is one latency rule at most")
        if len({role.name for team in self.teams for role in team.roles}) > 8:
            raise ValueError("teams: there are 8 kinds of roles at most")
        if self.ratings is not None:
            declared = self.attributes.get(self.ratings.attribute, AttributeType.NUMBER)
            if declared is not AttributeType.NUMBER:
                raise ValueError(
                    f"ratings.attribute: {self.ratings.attribute} is declared a {declared.value}, not a number"
                )
        return self


def team_names(team: TeamBody) -> list[str]:
    """The names of a team, or of the teams alike."""
    return [team.name] if team.count == 1 else [f"{team.name}-{number}" for number in range(1, team.count + 1)]


class QueueSpec(Model):
    """A document of kind Queue."""

    api_version: Literal["warmfleet.dev/v1"]
    kind: Literal["Queue"]
    metadata: Metadata
    spec: QueueBody
