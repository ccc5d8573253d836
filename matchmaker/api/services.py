"""What the endpoints work with, and the headers they share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Header, Security
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from starlette.requests import HTTPConnection

from gameserver.sessions.client import StoreClient
from matchmaker.api.assignments import Assignments
from matchmaker.api.auth import Callers
from matchmaker.api.estimates import Estimates
from matchmaker.api.regions import Proofs
from matchmaker.api.ticket_watch import TicketWatch
from matchmaker.model import QueueConfig, QueueName
from matchmaker.ports import Allocator, RunningSessions, Supply
from matchmaker.ratings.store import RatingStore
from matchmaker.store import TicketStore

Authorization = Annotated[str, Header(include_in_schema=False)]


class _Bearer(HTTPBearer):
    """Refuses strangers before anything else is read: they learn nothing of what a body should be."""

    async def __call__(self, request: HTTPConnection) -> HTTPAuthorizationCredentials | None:
        callers: Callers = request.app.state.callers
        await callers.identify(request.headers.get("authorization", ""))
        return None


SIGNED: list[Any] = [Security(_Bearer(description="A player's JWT, whose `sub` is the player, or an API key."))]
"""Tells OpenAPI who may call; `Callers.caller` checks what it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the endpoints work with."""

    client: StoreClient
    queues: Mapping[QueueName, QueueConfig]
    store: TicketStore
    allocator: Allocator
    seats: RunningSessions | None
    assignments: Assignments
    callers: Callers
    watch: TicketWatch
    estimates: Estimates
    ratings: RatingStore
    proofs: Proofs
    supply: Supply | None
    """How much is warm; None where that is not known."""
