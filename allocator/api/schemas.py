"""The bodies of the allocator's REST API."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from allocator.model import Allocation, AllocationRequest, SeatRequest
from gameserver.sessions.model import FleetName, MatchId, PlayerId, Seat, SessionState

MAX_PLAYERS = 1000
_FLEET = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Fleet = Annotated[str, StringConstraints(pattern=_FLEET)]
Player = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\s{}\x00-\x1f]+$")]
Word = Annotated[str, StringConstraints(max_length=64, pattern=r"^[^\x00]*$")]
Text = Annotated[str, StringConstraints(max_length=1024, pattern=r"^[^\x00]*$")]
Milliseconds = Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MemberBody(_Body):
    """A player and its team."""

    id: Player
    team: Word = ""


class _Members(_Body):
    players: Annotated[list[MemberBody], Field(min_length=1, max_length=MAX_PLAYERS)]

    def party(self) -> tuple[tuple[PlayerId, str], ...]:
        return tuple((PlayerId(member.id), member.team) for member in self.players)


class AllocationBody(_Body):
    """A match that wants a server."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"id": "match-1", "fleets": ["arena"], "players": [{"id": "ann"}, {"id": "bob", "team": "red"}]}
            ]
        },
    )

    id: Id = Field(description="The request's identity: asked again with it, the answer is the same allocation.")
    fleets: Annotated[list[Fleet], Field(min_length=1, max_length=32)] = Field(description="In order of preference.")
    players: Annotated[list[MemberBody], Field(max_length=MAX_PLAYERS)] = []
    options: Annotated[dict[Word, Text], Field(max_length=64)] = Field(default={}, description="Handed to the game.")
    free_seats: Annotated[int, Field(alias="freeSeats", ge=0, le=MAX_PLAYERS, strict=True)] = Field(
        default=0, description="How many more players may be seated while the match runs."
    )
    latency_ms: Annotated[dict[Word, Milliseconds], Field(alias="latencyMs", max_length=64)] = Field(
        default={}, description="Measured from the players to regions; then nearer fleets come first."
    )
    timeout_s: Annotated[float, Field(alias="timeoutS", ge=0, le=60, allow_inf_nan=False)] = Field(
        default=5.0, description="How long to wait for a server; a warm one comes at once."
    )

    def to_request(self) -> AllocationRequest:
        """The allocator's own form."""
        return AllocationRequest(
            match=MatchId(self.id),
            fleets=tuple(map(FleetName, self.fleets)),
            seats=tuple(Seat(index=i, player=PlayerId(p.id), team=p.team) for i, p in enumerate(self.players)),
            options=self.options,
            free_seats=self.free_seats,
            latency_ms=self.latency_ms,
            retried=len(self.fleets) > 1,  # nobody says whether this is the first time, so look everywhere
        )


class PartyBody(_Members):
    """A party for a match that runs already, in whichever fleet has room for all of it."""

    id: Id = Field(description="The party's identity: asked again with it, it is in the same match.")
    fleets: Annotated[list[Fleet], Field(min_length=1, max_length=32)]
    queue: Word = Field(default="", description="Only matches with this option `queue` take it.")

    def to_request(self) -> SeatRequest:
        """The allocator's own form."""
        return SeatRequest(id=self.id, fleets=tuple(map(FleetName, self.fleets)), party=self.party(), queue=self.queue)


class SeatsBody(_Members):
    """A party for this match."""


class TargetBody(_Body):
    """How many rooms to keep claimable."""

    rooms: Annotated[int, Field(ge=0, le=100_000, strict=True)] | None = Field(
        description="null: what the fleet itself says."
    )
    ttl_s: Annotated[float, Field(alias="ttlS", gt=0, le=86_400, allow_inf_nan=False)] = Field(
        default=60.0, description="Holds for so long unless it is said again."
    )


class SeatBody(BaseModel):
    """One player's place."""

    index: int
    player: str
    team: str


class AllocatedBody(BaseModel):
    """A match's server."""

    id: str = Field(description="Of the session; ask for it, release it by it.")
    fleet: str
    server: str
    room: int
    epoch: int = Field(description="Grows by one whenever the match moves to another server.")
    state: SessionState
    host: str
    ports: dict[str, int]
    temperature: str
    reason: str = Field(description="Why it is as warm as it is.")
    waitedS: float  # noqa: N815 (as it is called in JSON)
    seats: list[SeatBody]
    freeSeats: int  # noqa: N815
    options: dict[str, str]


class ListBody(BaseModel):
    """A page of allocations."""

    items: list[AllocatedBody]
    next: str | None = Field(description="What to give as `after` for the next page; null: this is the last.")


class FleetBody(BaseModel):
    """How a fleet stands."""

    name: str
    region: str
    kept: bool = Field(description="Whether a keeper looks after it now.")
    claimable: int = Field(description="Rooms that a match would get at once, counted up to 1000.")
    rooms: int
    shelf: int
    min: int
    max: int


def allocated(found: Allocation) -> AllocatedBody:
    """An allocation as JSON."""
    session = found.session
    return AllocatedBody(
        id=session.id,
        fleet=session.fleet,
        server=session.server,
        room=session.room,
        epoch=session.epoch,
        state=session.state,
        host=found.host,
        ports=dict(found.ports),
        temperature=found.temperature.value,
        reason=found.reason,
        waitedS=round(found.waited_s, 6),
        seats=[SeatBody(index=seat.index, player=seat.player, team=seat.team) for seat in session.seats],
        freeSeats=session.free_seats,
        options=dict(session.options),
    )
