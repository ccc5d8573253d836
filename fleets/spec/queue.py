"""`kind: Queue`: which players make a match, and where it runs."""

from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, model_validator

from fleets.spec.fleet import Metadata
from fleets.spec.types import Model, Name, Seconds, Word
from matchmaker.model import Aggregate

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _milliseconds(value: Any) -> float:
    if isinstance(value, str) and value.endswith("ms") and value[:-2].replace(".", "", 1).isdecimal():
        return float(value[:-2])
    raise ValueError("a round trip is wanted, as 60ms")


Milliseconds = Annotated[float, BeforeValidator(_milliseconds, json_schema_input_type=str)]


class TeamBody(Model):
    """A team, always full."""

    name: Word
    players: Annotated[int, Field(ge=1, le=1000)]


class Expansion(Model):
    """From an age on, another limit."""

    after: Seconds
    max: Amount


class LatencyExpansion(Model):
    """From an age on, another round trip."""

    after: Seconds
    max: Milliseconds


class _Expanding(Model):
    @model_validator(mode="after")
    def _ascending(self) -> Any:
        ages = [step.after for step in cast("Any", self).expand]
        if ages != sorted(set(ages)):
            raise ValueError("expand: each step's after must be later than the one before")
        return self


class Difference(_Expanding):
    """Any two tickets differ by so much at most."""

    type: Literal["difference"]
    attribute: Word
    max: Amount
    expand: list[Expansion] = []


class Latency(_Expanding):
    """A region is near enough to everyone."""

    type: Literal["latency"]
    max: Milliseconds
    expand: list[LatencyExpansion] = []


class Equal(Model):
    """Everyone has the same value."""

    type: Literal["equal"]
    attribute: Word


class Intersection(Model):
    """Everyone's lists share so many values."""

    type: Literal["intersection"]
    attribute: Word
    min: Annotated[int, Field(ge=1, le=64)] = 1


class TeamBalance(_Expanding):
    """The teams' means differ by so much at most."""

    type: Literal["teamBalance"]
    attribute: Word
    max: Amount
    expand: list[Expansion] = []


RuleBody = Annotated[Difference | Latency | Equal | Intersection | TeamBalance, Field(discriminator="type")]


class PartyBody(Model):
    """Players who queue together."""

    max: Annotated[int, Field(ge=1, le=100)] = 1
    aggregate: Annotated[Aggregate, Field(strict=False)] = Aggregate.MEAN


class AcceptanceBody(Model):
    """Players confirm a match within a time limit."""

    timeout: Seconds = 15.0


class LeavingBody(Model):
    """What it costs to decline a match, or not to answer: the player may not queue for a while."""

    steps: Annotated[list[Seconds], Field(max_length=20)] = []
    policy: Annotated[str, Field(pattern=r"^$|^[\w.]+:\w+$")] = ""

    @model_validator(mode="after")
    def _one_of(self) -> "LeavingBody":
        if bool(self.steps) == bool(self.policy):
            raise ValueError(
                "leaving: either steps (the first offence within 24 h costs the first) or a policy, module:function, is wanted"
            )
        return self


class BackfillBody(Model):
    """Running sessions may ask for players."""

    enabled: bool = False


class QueueBody(Model):
    """A queue's `spec`."""

    fleets: Annotated[list[Name], Field(min_length=1)]
    teams: Annotated[list[TeamBody], Field(min_length=1, max_length=100)]
    rules: list[RuleBody] = []
    party: PartyBody = PartyBody()
    acceptance: AcceptanceBody | None = None
    leaving: LeavingBody | None = None
    backfill: BackfillBody = BackfillBody()
    ticket_timeout: Seconds = 120.0
    max_tickets: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    options: dict[Word, str] = Field(default={}, description="Handed to the game with every match.")

    @model_validator(mode="after")
    def _fits(self) -> "QueueBody":
        names = [team.name for team in self.teams]
        if len(set(names)) < len(names):
            raise ValueError("teams: two have the same name")
        largest = max(team.players for team in self.teams)
        if self.party.max > largest:
            raise ValueError(
                f"party.max {self.party.max} is above the largest team, {largest}: such a party would never be matched"
            )
        if sum(isinstance(rule, Latency) for rule in self.rules) > 1:
            raise ValueError("rules: there is one latency rule at most")
        return self


class QueueSpec(Model):
    """A document of kind Queue."""

    api_version: Literal["warmfleet.dev/v1"]
    kind: Literal["Queue"]
    metadata: Metadata
    spec: QueueBody
