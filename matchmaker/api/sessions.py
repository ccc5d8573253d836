"""Sessions over HTTP: where a player's seat is, how a session stands and what it ended with, and who may watch it."""

import json
from http import HTTPStatus
from typing import Annotated, Any, Self

import orjson
from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from allocator.api.problems import Problem
from allocator.model import Allocation
from gameserver.sessions.control import SessionControl
from gameserver.sessions.model import PlayerId, SessionState
from matchmaker.api.auth import Role
from matchmaker.api.schemas import AssignmentBody, PlayerName
from matchmaker.api.services import SIGNED, Authorization, Services
from matchmaker.model import QueueName

SessionPath = Annotated[str, Path(examples=["arena-eu.5f0e9a1c2b7d4e60"])]


class SeatedBody(BaseModel):
    """Who sits where."""

    index: int
    player: str
    team: str


class SessionBody(BaseModel):
    """A session as it stands."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "arena-eu.5f0e9a1c2b7d4e60",
                    "state": "ended",
                    "fleet": "arena-eu",
                    "queue": "duel",
                    "epoch": 1,
                    "seats": [
                        {"index": 0, "player": "ann", "team": "red"},
                        {"index": 1, "player": "bob", "team": "blue"},
                    ],
                    "freeSeats": 0,
                    "checkpointTick": 5400,
                    "results": {"winners": ["ann"], "scores": {"ann": 10, "bob": 7}},
                }
            ]
        }
    )

    id: str
    state: SessionState
    fleet: str
    queue: str | None = Field(default=None, description="Whose match it is.")
    server: str | None = Field(default=None, description="Where it is; for API keys, while it is not over.")
    epoch: int = Field(description="How often it has moved, plus one.")
    seats: list[SeatedBody]
    freeSeats: int = Field(description="How many more players may be seated.")  # noqa: N815
    checkpointTick: int = Field(description="Of its newest checkpoint; 0: none.")  # noqa: N815
    results: Any = Field(default=None, description="What the game ended it with; kept for an hour.")


class ResultsRequest(BaseModel):
    """How a match ended."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"results": {"winners": ["ann"], "scores": {"ann": 10, "bob": 7}}}]},
    )

    results: dict[str, Any]
    """Ratings read `ranks`, `winners`, `winner`, `scores`."""

    def packed(self) -> bytes:
        """The results as they are kept: the same for the same results."""
        return orjson.dumps(self.results, option=orjson.OPT_SORT_KEYS)

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        try:
            self.packed()
        except TypeError as error:  # a whole number beyond 64 bits, or lists in lists without end
            raise ValueError(f"results: {error}") from None
        return self


class KickRequest(BaseModel):
    """Why a player is to go."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"reason": "cheating"}]})

    reason: Annotated[str, StringConstraints(min_length=1, max_length=200)] = "removed from the match"
    """Told to the player."""


class SpectatorRequest(BaseModel):
    """Who is to watch."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"player": "caster-1"}]})

    player: PlayerName


def session_body(found: Allocation, reported: str, *, whole: bool) -> dict[str, Any]:
    """A session as JSON values; `reported`: results that come before its own; `whole`: with its server."""
    session = found.session
    body: dict[str, Any] = {
        "id": session.id,
        "state": session.state,
        "fleet": session.fleet,
        "queue": session.options.get("queue"),
        "epoch": session.epoch,
        "seats": [{"index": seat.index, "player": seat.player, "team": seat.team} for seat in session.seats],
        "freeSeats": session.free_seats,
        "checkpointTick": session.checkpoint_tick,
    }
    if reported or session.state is SessionState.ENDED:
        body["results"] = _results(reported or session.results)
    if whole and session.state is not SessionState.ENDED:
        body["server"] = session.server
    return body


def router(services: Services) -> APIRouter:
    """The endpoints."""
    api = APIRouter(prefix="/v1/sessions", tags=["sessions"], dependencies=SIGNED)
    callers, assignments, control = services.callers, services.assignments, SessionControl(services.client)

    @api.get("/{session}", response_model=SessionBody, response_model_exclude_none=True)
    async def get_session(session: SessionPath, authorization: Authorization = "") -> dict[str, Any]:
        """How a session stands, and what it ended with: for its players and API keys. Kept for an hour after its end."""
        caller = await callers.caller(authorization)
        found = await assignments.seen(session, caller.player)
        reported = await services.ratings.reported(_queue(found), found.session.id)
        return session_body(found, reported, whole=caller.player is None)

    @api.put("/{session}/results", status_code=204)
    async def report_results(session: SessionPath, body: ResultsRequest, authorization: Authorization = "") -> None:
        """
        Say how a match ended, once: for game servers that are not Warmfleet's own, whose studio reports for them. For API keys.

        They take the place of the game's own results, also for ratings; kept for a day. 409 when others were reported before; the same may be repeated.
        """
        await callers.caller(authorization, role=Role.BACKEND)
        found = await assignments.session(session)
        queue = _queue(found)
        if not await services.ratings.report(queue, found.session.id, body.packed()):
            raise Problem(HTTPStatus.CONFLICT, "other results were reported before", kind="reported")

    @api.get("/{session}/seat", response_model=AssignmentBody, response_model_exclude_none=True)
    async def get_seat(session: SessionPath, authorization: Authorization = "", player: str = "") -> dict[str, Any]:
        """Where the player's match is now, with a fresh seat token: for whoever lost its server. An API key names the `player`."""
        caller = await callers.caller(authorization)
        return await assignments.seat(session, caller.player or PlayerId(player))

    @api.post("/{session}/spectators", status_code=201, response_model=AssignmentBody, response_model_exclude_none=True)
    async def add_spectator(
        session: SessionPath, body: SpectatorRequest, authorization: Authorization = ""
    ) -> dict[str, Any]:
        """A token with which somebody watches a running session, and where that is. For API keys."""
        await callers.caller(authorization, role=Role.BACKEND)
        return await assignments.spectator(session, PlayerId(body.player))

    @api.post("/{session}/players/{player}/kick", status_code=204)
    async def kick_player(
        session: SessionPath, player: PlayerName, body: KickRequest, authorization: Authorization = ""
    ) -> None:
        """Put a player (or a spectator) out of a running session, for good; its connection is closed within a second. May be repeated. For API keys."""
        await callers.caller(authorization, role=Role.BACKEND)
        found = await assignments.session(session)
        if not await control.kick(found.session.id, PlayerId(player), body.reason):
            raise Problem(HTTPStatus.GONE, "the match is over", kind="over")

    return api


def _queue(found: Allocation) -> QueueName:
    """Under whose name results are kept; sessions that no queue made have one of their own."""
    return QueueName(found.session.options.get("queue") or "-")


def _results(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None  # a foreign server's, that are no JSON
