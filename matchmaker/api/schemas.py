"""The bodies of the REST API."""

import math
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)

from gameserver.sessions.model import PlayerId
from matchmaker.api.auth import MAX_PLAYER_ID
from matchmaker.model import Attribute, TicketPlayer

Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Number = Annotated[float, Field(allow_inf_nan=False)]


def _one_word_for_all(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    """What an attribute may be is one answer, not one for each kind of value that it is not; JSON's true would pass for the number 1."""
    if not isinstance(value, bool):
        try:
            return read(value)
        except ValidationError:
            pass
    raise ValueError(
        "a number, a string of 256 characters at most, a list of 64 strings at most or a map of strings to 64 numbers at most is wanted; "
        "true, false, NaN and infinity are no values"
    )


AttributeValue = Annotated[
    Number
    | Annotated[str, StringConstraints(max_length=256)]
    | Annotated[list[Name], Field(max_length=64)]
    | Annotated[dict[Name, Number], Field(max_length=64)],
    WrapValidator(_one_word_for_all),
]
PlayerName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_PLAYER_ID, pattern=r"^[^\s{}\x00-\x1f]+$")]
Players = Annotated[list[PlayerName], Field(max_length=100)]
Latency = Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False, description="Round trip in ms.")]


def _example(*examples: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [*examples]})


_ASSIGNMENT: dict[str, Any] = {
    "session": "arena-eu.5f0e9a1c2b7d4e60",
    "epoch": 1,
    "server": "arena-eu-xk2p9",
    "host": "203.0.113.7",
    "ports": {"websocket": 7042, "udp": 7043},
    "seat": {"index": 0, "team": "red"},
    "token": "AXh0…",
    "temperature": "shelf",
}
_TICKET: dict[str, Any] = {
    "id": "duel.Vq4JH0fCkGkT8mbS",
    "queue": "duel",
    "state": "searching",
    "createdAt": "2026-01-05T18:30:00.123Z",
    "players": [{"id": "ann", "attributes": {"rating": 1500}, "latencies": {"eu-west": 20}}],
    "estimatedWait": {"seconds": 1.8, "within": 9.5},
}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Brings(_Body):
    """What a player brings: attributes and round trips."""

    attributes: Annotated[dict[Name, AttributeValue], Field(max_length=32, default_factory=dict)]
    latencies: Annotated[dict[Name, Latency], Field(max_length=64, default_factory=dict)]
    latencyTokens: Annotated[  # noqa: N815 (JSON's name)
        list[Annotated[str, StringConstraints(max_length=512)]],
        Field(max_length=64, description="As the beacons of `GET /v1/regions` signed them."),
    ] = []

    @field_validator("latencies", mode="before")
    @classmethod
    def _no_booleans(cls, value: Any) -> Any:
        """JSON's true would pass for the number 1."""
        if isinstance(value, dict):
            for name, item in value.items():
                if isinstance(item, bool) or (isinstance(item, float) and not math.isfinite(item)):
                    raise ValueError(f"{name}: true, false, NaN and infinity are no values")
        return value


class PlayerBody(Brings):
    """One player of a party."""

    id: PlayerName
    blocked: Annotated[Players, Field(description="Never to be met.", default_factory=list)]
    avoided: Annotated[Players, Field(description="Not to be met while the ticket is young.", default_factory=list)]

    def to_player(self) -> TicketPlayer:
        """The matchmaker's own form."""
        return TicketPlayer(
            id=PlayerId(self.id),
            attributes={key: to_attribute(value) for key, value in self.attributes.items()},
            latencies_ms=self.latencies,
            latency_tokens=tuple(self.latencyTokens),
            blocked=tuple(map(PlayerId, self.blocked)),
            avoided=tuple(map(PlayerId, self.avoided)),
        )


def to_attribute(value: AttributeValue) -> Attribute:
    """The matchmaker's own form."""
    match value:
        case list():
            return tuple(value)
        case str() | dict():
            return value
        case _:
            return float(value)


class TicketRequest(_Body):
    """A party that wants a match."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "queue": "duel",
                    "players": [{"id": "ann", "attributes": {"rating": 1500}, "latencies": {"eu-west": 20}}],
                }
            ]
        },
    )

    queue: Name
    players: Annotated[list[PlayerBody], Field(min_length=1, max_length=100)]
    priority: Annotated[str, StringConstraints(max_length=64)] = ""
    """One of the queue's priorities; only an API key may give one, or the player's token."""


class AcceptanceRequest(_Body):
    """A player's word on its proposed match."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"accept": True}]})

    accept: Annotated[bool, Field(strict=True)]
    player: Annotated[str, StringConstraints(max_length=MAX_PLAYER_ID)] = ""
    """For whom an API key speaks; a player speaks for itself."""


class BackfillRequest(_Body):
    """Players that a running session wants."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"teams": {"red": 1}, "version": 0, "players": [{"id": "ann"}]}]},
    )

    teams: Annotated[dict[Name, Annotated[int, Field(ge=1, le=1000, strict=True)]], Field(min_length=1, max_length=100)]
    """Open places by team."""
    version: Annotated[int, Field(ge=0, le=2**31, strict=True)] = 0
    """The version that the caller knows; 0: none."""
    players: Annotated[list[PlayerBody], Field(max_length=1000, default_factory=list)]
    """Who plays, with their attributes: the queue's rules hold for them and the newcomers together."""


class BackfillBody(BaseModel):
    """What a running session wants."""

    model_config = _example({"session": "arena-eu.5f0e9a1c2b7d4e60", "version": 1, "teams": {"red": 1}})

    session: str
    version: int
    teams: dict[str, int]


class CloseRequest(_Body):
    """How a queue should be closed."""

    model_config = ConfigDict(extra="forbid", **_example({"closed": "draining"}))

    closed: Literal["", "paused", "draining"]
    """`paused`: no tickets in, no matches made; `draining`: no tickets in; empty: open."""


class RequeueBody(BaseModel):
    """Whether a match was taken apart."""

    model_config = _example({"requeued": True})

    requeued: bool


class SeatBody(BaseModel):
    """A place in a session."""

    index: int
    team: str
    role: str | None = None


class AssignmentBody(BaseModel):
    """Where to play: dial `host` at a port of `ports` with the token, once, soon."""

    model_config = _example(_ASSIGNMENT)

    session: str
    epoch: int
    server: str
    host: str
    ports: dict[str, int]
    secure: bool | None = Field(default=None, description="true: the port `websocket` speaks TLS, dial it as wss.")
    seat: SeatBody
    token: str
    connectToken: str | None = Field(default=None, description="netcode connect token, base64, for UDP.")  # noqa: N815
    temperature: str


class AcceptanceBody(BaseModel):
    """How a proposed match stands."""

    accepted: int
    players: int
    deadline: str


class WaitBody(BaseModel):
    """How much longer a ticket waits, in s, as those like it have waited lately."""

    seconds: float = Field(description="Half of them waited no longer.")
    within: float = Field(description="Nine of ten waited no longer.")


class QueueWaitBody(WaitBody):
    """How long tickets of a queue waited lately, in s."""

    error: float | None = Field(default=None, description="Half of the estimates were off by no more.")


class TicketBody(BaseModel):
    """A ticket as it stands."""

    model_config = _example(
        _TICKET, {**_TICKET, "state": "assigned", "match": "5f0e9a1c2b7d4e60", "assignment": _ASSIGNMENT}
    )

    id: str
    queue: str
    state: str
    createdAt: str  # noqa: N815 (the wire's spelling)
    players: list[dict[str, Any]]
    match: str | None = None
    acceptance: AcceptanceBody | None = Field(default=None, description="While the state is `proposed`.")
    assignment: AssignmentBody | None = None
    assignments: dict[str, AssignmentBody] | None = Field(default=None, description="By player, for an API key.")
    reason: str | None = None
    estimatedWait: WaitBody | None = Field(  # noqa: N815
        default=None, description="While it waits, once the matchmaker has seen some of its like matched."
    )


class QueueBody(BaseModel):
    """A queue and how it does."""

    model_config = _example(
        {
            "name": "duel",
            "depth": 12,
            "playersPerMatch": 2,
            "teams": {"red": 1, "blue": 1},
            "partyMax": 1,
            "estimatedWait": {"seconds": 1.8, "within": 9.5, "error": 1.1},
        }
    )

    name: str
    depth: int
    playersPerMatch: int  # noqa: N815
    teams: dict[str, int]
    partyMax: int  # noqa: N815
    closed: str | None = Field(default=None, description="`paused` or `draining`, when an operator has closed it.")
    estimatedWait: QueueWaitBody | None = None  # noqa: N815


class RatingBody(BaseModel):
    """What a player is worth in a queue."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"player": "ann", "rating": 1658.1, "spread": 484.0, "matches": 1}]}
    )

    player: str
    rating: float
    spread: float = Field(description="Standard deviation of what it may really be worth; falls with every match.")
    matches: int = Field(description="That it was rated by.")


class DevelopmentPlayerRequest(_Body):
    """A name to play under; without one, a guest's."""

    model_config = ConfigDict(extra="forbid", **_example({"name": "Ann"}))

    name: Annotated[str, StringConstraints(max_length=32)] = ""


class DevelopmentPlayerBody(BaseModel):
    """A player and its token."""

    model_config = _example({"player": "Ann-4f2a1b", "token": "eyJhbGciOiJIUzI1NiJ9…"})

    player: str
    token: str
