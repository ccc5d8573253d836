"""
What events say: CloudEvents 1.0, with one data model for each type. `warmfleet schema events` publishes it.

A type's version is its last part. Within a version fields are only added; what changes the meaning of one is a new version, told beside the old one for a
release.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

PREFIX = "dev.warmfleet."


class _Data(BaseModel):
    model_config = ConfigDict(extra="allow")


class TicketData(_Data):
    """What has become of one ticket, or of several at once: a match's."""

    state: Literal["queued", "searching", "proposed", "placing", "assigned", "cancelled", "timed_out", "failed"]
    tickets: Annotated[dict[str, int], Field(description="Ticket to the number of its change, from 1.", min_length=1)]
    match: str | None = None
    players: list[str] | None = Field(default=None, description="Of a new ticket.")
    reason: str | None = None
    assignment: dict[str, Any] | None = None


class SessionData(_Data):
    """What has become of a session."""

    session: str
    epoch: Annotated[int, Field(description="Grows by one whenever it moves.")]
    server: str | None = None
    temperature: str | None = Field(default=None, description="claimed: shelf, buffer or cold.")
    waitedMs: float | None = Field(default=None, description="claimed: for a room.")  # noqa: N815 (JSON's name)
    seats: list[Any] | None = Field(default=None, description="claimed: as the record has them.")
    from_: str | None = Field(default=None, alias="from", description="moved: the server that it left.")
    live: bool | None = Field(default=None, description="moved: handed over, rather than restored.")
    results: Any = Field(default=None, description="ended: what the game said.")


class ServerData(_Data):
    """What has become of a server on the shelf."""

    server: str
    version: str | None = None
    rooms: int | None = None
    sessions: int | None = Field(default=None, description="lost: sessions that were on it.")


TYPES: Mapping[str, type[_Data]] = {
    **{
        f"{PREFIX}ticket.{state}.v1": TicketData
        for state in ("created", "searching", "proposed", "placing", "assigned", "cancelled", "timed_out", "failed")
    },
    **{f"{PREFIX}session.{what}.v1": SessionData for what in ("claimed", "live", "moved", "ended")},
    **{f"{PREFIX}server.{what}.v1": ServerData for what in ("registered", "released", "lost")},
}


class CloudEvent(BaseModel):
    """The envelope (CloudEvents 1.0)."""

    model_config = ConfigDict(extra="allow")

    specversion: Literal["1.0"]
    id: Annotated[str, Field(description="Unique for its source; the same when an event is told again.", min_length=1)]
    source: Annotated[str, Field(pattern=r"^/(queues|fleets)/.+$")]
    type: str
    subject: Annotated[str, Field(description="A match or ticket; a session; a server. Told in order.", min_length=1)]
    time: str
    datacontenttype: Literal["application/json"]
    data: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event, as its stream has it."""

    entry: str
    """Its place in the stream."""
    raw: bytes
    """The CloudEvent as JSON."""

    @property
    def value(self) -> dict[str, Any]:
        """The CloudEvent."""
        value: dict[str, Any] = json.loads(self.raw)
        return value

    @property
    def subject(self) -> str:
        """Whose events keep their order."""
        return str(self.value["subject"])


def check(raw: bytes) -> CloudEvent:
    """An event, held to its schema. Raises pydantic's ValidationError; KeyError for a type that is none."""
    event = CloudEvent.model_validate_json(raw)
    TYPES[event.type].model_validate(event.data)
    return event


def schema() -> dict[str, Any]:
    """The JSON Schema of all events."""
    envelope = CloudEvent.model_json_schema()
    data = {model.__name__: model.model_json_schema(by_alias=True) for model in dict.fromkeys(TYPES.values())}
    variants = [
        {
            "properties": {"type": {"const": name}, "data": {"$ref": f"#/$defs/{model.__name__}"}},
            "required": ["type", "data"],
        }
        for name, model in TYPES.items()
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **envelope,
        "title": "Warmfleet events",
        "oneOf": variants,
        "$defs": data,
    }
