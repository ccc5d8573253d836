"""The allocator's REST resources: allocations, seats, fleets."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Response
from pydantic import StringConstraints

from allocator.api.problems import Problem
from allocator.api.schemas import (
    AllocatedBody,
    AllocationBody,
    FleetBody,
    ListBody,
    PartyBody,
    SeatsBody,
    TargetBody,
    allocated,
)
from allocator.api.tokens import ServiceTokens
from allocator.model import Allocation, Cause, Unavailable
from allocator.seats import NoSeats
from allocator.service import Allocator
from allocator.shelf import Shelf
from gameserver.sessions.model import FleetName, PlayerId, SessionId, SessionState, parse_session_id
from gameserver.sessions.port import SessionGone

MAX_WAITING = 5000
"""Requests that wait for a server at the same time, in one process."""
_NOW_S = 2.0
"""For a request that does not wait for a server: how long the store may take."""
_STATUS = {
    Cause.UNKNOWN_FLEET: HTTPStatus.UNPROCESSABLE_ENTITY,
    Cause.NO_CAPACITY: HTTPStatus.SERVICE_UNAVAILABLE,
    Cause.NO_SERVER: HTTPStatus.SERVICE_UNAVAILABLE,
    Cause.NO_SEATS: HTTPStatus.CONFLICT,
    Cause.ENDED: HTTPStatus.CONFLICT,
}
_RETRY_AFTER_S = {Cause.NO_SERVER: "1", Cause.NO_CAPACITY: "60", Cause.NO_SEATS: "5"}

AllocationId = Annotated[str, StringConstraints(max_length=128)]


def router(allocator: Allocator, shelf: Shelf, tokens: ServiceTokens | None) -> APIRouter:
    """Make the routes; without `tokens` whoever can connect may ask (mutual TLS, or a loopback address)."""
    api = APIRouter(prefix="/v1", dependencies=[Depends(_check(tokens))])
    waiting = 0

    @api.post("/allocations", status_code=HTTPStatus.CREATED, tags=["allocations"])
    async def allocate(body: AllocationBody, response: Response) -> AllocatedBody:
        """
        Give a match its server.

        Repeat it after a lost answer: the same `id` gets the same allocation. 503 with Retry-After when none came in time (nothing is held then) or
        the session store is away (ask again with the same id).
        """
        nonlocal waiting
        players = [player.id for player in body.players]
        if len(set(players)) < len(players):
            raise _invalid("players: one is there twice")
        if waiting >= MAX_WAITING:
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"{MAX_WAITING} requests wait for a server already",
                kind="busy",
                headers={"Retry-After": "1"},
            )
        waiting += 1
        try:
            deadline_s, wait = (body.timeout_s, True) if body.timeout_s else (_NOW_S, False)
            found = await allocator.allocate(body.to_request(), deadline_s=deadline_s, wait=wait)
        finally:
            waiting -= 1
        done = _given(found)
        response.headers["Location"] = f"/v1/allocations/{done.id}"
        return done

    @api.get("/allocations", tags=["allocations"])
    async def page(
        fleet: Annotated[str, Query(max_length=63)],
        state: SessionState | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[str, Query(max_length=256)] = "",
    ) -> ListBody:
        """
        The allocations on a fleet's servers, server by server; a page may be a little longer than `limit`, as no server is split.

        One that moves to another server while the pages are read may be seen twice or not at all.
        """
        _known(allocator, fleet)
        found, following = await shelf.page(FleetName(fleet), after=after, limit=limit)
        items = [allocated(one) for one in found if state in (None, one.session.state)]
        return ListBody(items=items, next=following)

    @api.get("/allocations/{allocation}", tags=["allocations"])
    async def find(allocation: AllocationId) -> AllocatedBody:
        """Where a match is now; for an hour after its end too."""
        return allocated(await _find(allocator, allocation))

    @api.delete("/allocations/{allocation}", status_code=HTTPStatus.NO_CONTENT, tags=["allocations"])
    async def release(allocation: AllocationId) -> None:
        """End a match from outside: its room is free for others. One that is over stays so."""
        found = await _find(allocator, allocation)
        await allocator.end(found.session.id, reason="released")

    @api.post("/allocations/{allocation}/seats", tags=["seats"])
    async def reserve(allocation: AllocationId, body: SeatsBody) -> AllocatedBody:
        """Seat a party in this match, all of it or nobody; who is seated keeps its place."""
        session, party = _parse(allocation), body.party()
        try:
            found = await allocator.seats.reserve(session, party)
        except ValueError as error:
            raise _invalid(f"players: {error}") from None
        except SessionGone as error:
            raise Problem(HTTPStatus.CONFLICT, str(error), kind="closed") from None
        if isinstance(found, NoSeats):
            raise Problem(HTTPStatus.CONFLICT, f"{found.free} seats are free, {len(party)} are wanted", kind="no-seats")
        return allocated(found)

    @api.delete("/allocations/{allocation}/seats/{player}", status_code=HTTPStatus.NO_CONTENT, tags=["seats"])
    async def leave(allocation: AllocationId, player: Annotated[str, StringConstraints(max_length=64)]) -> None:
        """A player has left for good: its seat is free for another."""
        found = await _find(allocator, allocation)
        try:
            await allocator.seats.release(found.session.id, [PlayerId(player)], epoch=found.session.epoch)
        except SessionGone as error:
            raise Problem(HTTPStatus.CONFLICT, str(error), kind="closed") from None

    @api.post("/seats", tags=["seats"])
    async def seat(body: PartyBody) -> AllocatedBody:
        """Seat a party in whichever running match fits it best. 409 when none has seats enough for all of it."""
        try:
            return _given(await allocator.seat(body.to_request()))
        except ValueError as error:
            raise _invalid(f"players: {error}") from None

    @api.get("/fleets", tags=["fleets"])
    async def fleets() -> list[FleetBody]:
        """The fleets that can be asked for, and how they stand."""
        found = []
        for policy in allocator.fleets.values():
            kept, claimable = await shelf.standing(policy.name)
            figures = {"rooms": policy.rooms, "shelf": policy.shelf, "min": policy.min, "max": policy.max}
            found.append(FleetBody(name=policy.name, region=policy.region, kept=kept, claimable=claimable, **figures))
        return found

    @api.put("/fleets/{fleet}/target", status_code=HTTPStatus.NO_CONTENT, tags=["fleets"])
    async def target(fleet: Annotated[str, StringConstraints(max_length=63)], body: TargetBody) -> None:
        """Keep so many rooms claimable, in place of the fleet's own figure; within the fleet's max of servers."""
        _known(allocator, fleet)
        await shelf.set_target(FleetName(fleet), body.rooms, ttl_s=body.ttl_s)

    return api


def _check(tokens: ServiceTokens | None) -> Callable[..., Awaitable[None]]:
    async def check(authorization: Annotated[str, Header(max_length=4096)] = "") -> None:
        if tokens is not None:
            tokens.check(authorization)

    return check


def _given(found: Allocation | Unavailable) -> AllocatedBody:
    if isinstance(found, Allocation):
        return allocated(found)
    after = _RETRY_AFTER_S.get(found.cause)
    headers = {"Retry-After": after} if after else None
    detail = f"fleets: {found.reason}" if found.cause is Cause.UNKNOWN_FLEET else found.reason
    raise Problem(_STATUS[found.cause], detail, kind=found.cause.value, headers=headers)


async def _find(allocator: Allocator, allocation: str) -> Allocation:
    found = await allocator.find(_parse(allocation))
    if found is None:
        raise Problem(HTTPStatus.NOT_FOUND, f"no allocation {allocation!r}", kind="not-found")
    return found


def _parse(allocation: str) -> SessionId:
    try:
        return parse_session_id(allocation)
    except ValueError as error:
        raise Problem(HTTPStatus.NOT_FOUND, str(error), kind="not-found") from None


def _known(allocator: Allocator, fleet: str) -> None:
    if fleet not in allocator.fleets:
        raise Problem(HTTPStatus.NOT_FOUND, f"unknown fleet {fleet!r}", kind="unknown-fleet")


def _invalid(detail: str) -> Problem:
    errors: list[dict[str, Any]] = [{"field": detail.partition(":")[0], "message": detail.partition(": ")[2]}]
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, kind="invalid", errors=errors)
