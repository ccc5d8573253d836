"""
How the paths that `lean` answers look in the OpenAPI document.

Signatures only: they are never called, since `lean` stands before the framework. tests/integration/test_matchmaker_api.py holds the answers to them.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query
from fastapi.responses import StreamingResponse

from matchmaker.api.schemas import AcceptanceRequest, TicketBody, TicketRequest
from matchmaker.api.services import SIGNED

TicketPath = Annotated[str, Path(examples=["duel.Vq4JH0fCkGkT8mbS"])]

LastEventId = Annotated[str, Header(max_length=20)]
EVENT_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}


def router() -> APIRouter:
    """The descriptions."""
    api = APIRouter(prefix="/v1", tags=["tickets"], dependencies=SIGNED)

    @api.post("/tickets", status_code=201, response_model_exclude_none=True)
    async def create_ticket(
        body: TicketRequest, idempotency_key: Annotated[str, Header(max_length=128)] = ""
    ) -> TicketBody:
        """Queue a party; with an Idempotency-Key a repeated request returns the same ticket."""
        raise NotImplementedError

    @api.get("/tickets/{ticket}", response_model_exclude_none=True)
    async def get_ticket(
        ticket: TicketPath,
        wait: Annotated[float, Query(ge=0, le=60, description="Long poll: s to wait for a change.")] = 0,
    ) -> TicketBody:
        """A ticket as it stands; with `wait`, as soon as it changes or is over."""
        raise NotImplementedError

    @api.delete("/tickets/{ticket}", status_code=204)
    async def cancel_ticket(ticket: TicketPath) -> None:
        """Leave the queue, or decline the proposed match; 409 once the ticket is being placed."""

    @api.post("/tickets/{ticket}/acceptance", response_model_exclude_none=True)
    async def accept_match(ticket: TicketPath, body: AcceptanceRequest) -> TicketBody:
        """Accept or decline the match that is proposed to the ticket; may be repeated. 409 when there is none (any more)."""
        raise NotImplementedError

    @api.get(
        "/tickets/{ticket}/events",
        response_class=StreamingResponse,
        responses=EVENT_STREAM,
    )
    async def ticket_events(ticket: TicketPath, last_event_id: LastEventId = "") -> StreamingResponse:
        """
        Server-sent events: the ticket now and at each change, until it is over; resumable by Last-Event-ID.

        The same over WebSocket at `/v1/tickets/{ticket}/watch`, with the subprotocols `warmfleet.tickets.1` and `bearer.<JWT>`.
        """
        raise NotImplementedError

    return api
