"""The bodies of the REST API."""

import math
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from gameserver.sessions.model import PlayerId
from matchmaker.api.auth import MAX_PLAYER_ID
from matchmaker.model import TicketPlayer

Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Number = Annotated[float, Field(allow_inf_nan=False)]
AttributeValue = (
    Number | Annotated[str, StringConstraints(max_length=256)] | Annotated[list[Name], Field(max_length=64)]
)
Latency = Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False, description="Round trip in ms.")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PlayerBody(_Body):
    """One player of a party."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=MAX_PLAYER_ID, pattern=r"^[^\s{}\x00-\x1f]+$")]
    attributes: Annotated[dict[Name, AttributeValue], Field(max_length=32)] = {}
    latencies: Annotated[dict[Name, Latency], Field(max_length=64)] = {}

    @field_validator("attributes", "latencies", mode="before")
    @classmethod
    def _no_booleans(cls, value: Any) -> Any:
        """JSON's true would pass for the number 1."""
        if isinstance(value, dict):
            for name, item in value.items():
                if isinstance(item, bool) or (isinstance(item, float) and not math.isfinite(item)):
                    raise ValueError(f"{name}: true, false, NaN and infinity are no values")
        return value

    def to_player(self) -> TicketPlayer:
        """The matchmaker's own form."""
        attributes = {
            key: tuple(value) if isinstance(value, list) else value if isinstance(value, str) else float(value)
            for key, value in self.attributes.items()
        }
        return TicketPlayer(id=PlayerId(self.id), attributes=attributes, latencies_ms=dict(self.latencies))


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


class SeatBody(BaseModel):
    """A place in a session."""

    index: int
    team: str


class AssignmentBody(BaseModel):
    """Where to play: dial `host` at a port of `ports` with the token, once, soon."""

    session: str
    epoch: int
    server: str
    host: str
    ports: dict[str, int]
    seat: SeatBody
    token: str
    connectToken: str | None = Field(default=None, description="netcode connect token, base64, for UDP.")  # noqa: N815
    temperature: str


class TicketBody(BaseModel):
    """A ticket as it stands."""

    id: str
    queue: str
    state: str
    createdAt: str  # noqa: N815 (the wire's spelling)
    players: list[dict[str, Any]]
    match: str | None = None
    assignment: AssignmentBody | None = None
    reason: str | None = None


class QueueBody(BaseModel):
    """A queue and how it does."""

    name: str
    depth: int
    playersPerMatch: int  # noqa: N815
    teams: dict[str, int]
    partyMax: int  # noqa: N815


class DevelopmentPlayerRequest(_Body):
    """A name to play under; without one, a guest's."""

    name: Annotated[str, StringConstraints(max_length=32)] = ""


class DevelopmentPlayerBody(BaseModel):
    """A player and its token."""

    player: str
    token: str
