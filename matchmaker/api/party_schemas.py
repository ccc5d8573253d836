"""The bodies of the parties' part of the REST API."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from gameserver.sessions.model import PlayerId
from matchmaker.api.schemas import AttributeValue, Brings, Latency, Name, to_attribute
from matchmaker.parties.model import Member, Party

_BRINGS: dict[str, Any] = {"attributes": {"rating": 1500}, "latencies": {"eu-west": 20}}


class MemberRequest(Brings):
    """What a player brings to a party."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_BRINGS]})

    def to_member(self, player: PlayerId, *, ready: bool = False) -> Member:
        """The party's own form."""
        attributes = {name: to_attribute(value) for name, value in self.attributes.items()}
        return Member(
            id=player,
            ready=ready,
            attributes=attributes,
            latencies_ms=self.latencies,
            latency_tokens=tuple(self.latencyTokens),
        )


class JoinRequest(MemberRequest):
    """A player with a party's code."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"code": "K7PX2MQA", **_BRINGS}]})

    code: Annotated[str, StringConstraints(min_length=1, max_length=32, pattern=r"^[\x20-\x7e]+$")]
    """Case does not matter."""


class ReadyRequest(BaseModel):
    """Whether a member is ready; with `attributes` and `latencies` also what it brings now (both are replaced)."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"ready": True}]})

    ready: Annotated[bool, Field(strict=True)]
    brings: MemberRequest | None = None


class PartyTicketRequest(BaseModel):
    """In which queue a party wants a match."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"queue": "ranked-2v2"}]})

    queue: Name


class MemberBody(BaseModel):
    """One member."""

    id: str
    ready: bool
    attributes: dict[str, AttributeValue]
    latencies: dict[str, Latency]


class PartyBody(BaseModel):
    """A party as it stands."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "5f0e9a1c2b7d4e60",
                    "code": "K7PX2MQA",
                    "leader": "ann",
                    "size": 4,
                    "version": 3,
                    "members": [
                        {"id": "ann", "ready": False, **_BRINGS},
                        {"id": "bob", "ready": True, "attributes": {}, "latencies": {}},
                    ],
                }
            ]
        }
    )

    id: str
    code: str = Field(description="Lets players in.")
    leader: str = Field(description="Queues the party, and may remove members.")
    size: int = Field(description="Members at most.")
    version: int = Field(description="Grows with every change.")
    members: list[MemberBody] = Field(description="In the order in which they came.")
    ticket: str | None = Field(default=None, description="Under which the party waits for its match.")
    queue: str | None = Field(default=None, description="Where it waits.")
    lastTicket: str | None = Field(default=None, description="The ticket before, which is over.")  # noqa: N815


def party_body(party: Party) -> dict[str, Any]:
    """A `Party` as JSON values."""
    body = {
        "id": party.id,
        "code": party.code,
        "leader": party.leader,
        "size": party.size,
        "version": party.event,
        "members": [
            {"id": m.id, "ready": m.ready, "attributes": dict(m.attributes), "latencies": dict(m.latencies_ms)}
            for m in party.members
        ],
    }
    told = {"ticket": party.ticket, "queue": party.queue, "lastTicket": party.last_ticket}
    return {**body, **{name: value for name, value in told.items() if value is not None}}
