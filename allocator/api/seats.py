"""The allocator's REST resource of seats: parties that come later, players who leave."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter
from pydantic import StringConstraints

from allocator.api.answers import AllocationId, find, given, invalid, parse
from allocator.api.problems import Problem
from allocator.api.schemas import AllocatedBody, PartyBody, SeatsBody, allocated
from allocator.seats import NoSeats
from allocator.service import Allocator
from gameserver.sessions.model import PlayerId
from gameserver.sessions.port import SessionGone


def router(allocator: Allocator) -> APIRouter:
    """Make the routes."""
    api = APIRouter()

    @api.post("/allocations/{allocation}/seats", tags=["seats"])
    async def reserve(allocation: AllocationId, body: SeatsBody) -> AllocatedBody:
        """Seat a party in this match, all of it or nobody; who is seated keeps its place."""
        session, party = parse(allocation), body.party()
        try:
            found = await allocator.seats.reserve(session, party)
        except ValueError as error:
            raise invalid(f"players: {error}") from None
        except SessionGone as error:
            raise Problem(HTTPStatus.CONFLICT, str(error), kind="closed") from None
        if isinstance(found, NoSeats):
            raise Problem(HTTPStatus.CONFLICT, f"{found.free} seats are free, {len(party)} are wanted", kind="no-seats")
        return allocated(found)

    @api.delete("/allocations/{allocation}/seats/{player}", status_code=HTTPStatus.NO_CONTENT, tags=["seats"])
    async def leave(allocation: AllocationId, player: Annotated[str, StringConstraints(max_length=64)]) -> None:
        """A player has left for good: its seat is free for another."""
        found = await find(allocator, allocation)
        try:
            await allocator.seats.release(found.session.id, [PlayerId(player)], epoch=found.session.epoch)
        except SessionGone as error:
            raise Problem(HTTPStatus.CONFLICT, str(error), kind="closed") from None

    @api.post("/seats", tags=["seats"])
    async def seat(body: PartyBody) -> AllocatedBody:
        """Seat a party in whichever running match fits it best. 409 when none has seats enough for all of it."""
        try:
            return given(await allocator.seat(body.to_request()))
        except ValueError as error:
            raise invalid(f"players: {error}") from None

    return api
