"""What the REST resources share: who may ask, what is asked about, and how outcomes become answers."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Header
from pydantic import StringConstraints

from allocator.api.problems import Problem
from allocator.api.schemas import AllocatedBody, allocated
from allocator.api.tokens import ServiceTokens
from allocator.model import Allocation, Cause, Unavailable
from allocator.service import Allocator
from gameserver.sessions.model import SessionId, parse_session_id

_STATUS = {
    Cause.UNKNOWN_FLEET: HTTPStatus.UNPROCESSABLE_ENTITY,
    Cause.NO_CAPACITY: HTTPStatus.SERVICE_UNAVAILABLE,
    Cause.NO_SERVER: HTTPStatus.SERVICE_UNAVAILABLE,
    Cause.NO_SEATS: HTTPStatus.CONFLICT,
    Cause.ENDED: HTTPStatus.CONFLICT,
}
_RETRY_AFTER_S = {Cause.NO_SERVER: "1", Cause.NO_CAPACITY: "60", Cause.NO_SEATS: "5"}

AllocationId = Annotated[str, StringConstraints(max_length=128)]


def bearer(tokens: ServiceTokens | None) -> Callable[..., Awaitable[None]]:
    """A dependency that refuses who has no token; without `tokens` whoever can connect may ask (mutual TLS, or a loopback address)."""

    async def check(authorization: Annotated[str, Header(max_length=4096)] = "") -> None:
        if tokens is not None:
            tokens.check(authorization)

    return check


def given(found: Allocation | Unavailable) -> AllocatedBody:
    """What a request got, as its answer. Raises Problem when it got nothing."""
    if isinstance(found, Allocation):
        return allocated(found)
    after = _RETRY_AFTER_S.get(found.cause)
    headers = {"Retry-After": after} if after else None
    detail = f"fleets: {found.reason}" if found.cause is Cause.UNKNOWN_FLEET else found.reason
    raise Problem(_STATUS[found.cause], detail, kind=found.cause.value, headers=headers)


async def find(allocator: Allocator, allocation: str) -> Allocation:
    """An allocation by its id. Raises Problem 404."""
    found = await allocator.find(parse(allocation))
    if found is None:
        raise Problem(HTTPStatus.NOT_FOUND, f"no allocation {allocation!r}", kind="not-found")
    return found


def parse(allocation: str) -> SessionId:
    """A session id from a path. Raises Problem 404: what is none names nothing."""
    try:
        return parse_session_id(allocation)
    except ValueError as error:
        raise Problem(HTTPStatus.NOT_FOUND, str(error), kind="not-found") from None


def known(allocator: Allocator, fleet: str) -> None:
    """Raises Problem 404 when no such fleet is kept here."""
    if fleet not in allocator.fleets:
        raise Problem(HTTPStatus.NOT_FOUND, f"unknown fleet {fleet!r}", kind="unknown-fleet")


def invalid(detail: str) -> Problem:
    """A body that contradicts itself; `detail` begins with the field and a colon."""
    errors: list[dict[str, Any]] = [{"field": detail.partition(":")[0], "message": detail.partition(": ")[2]}]
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, kind="invalid", errors=errors)
