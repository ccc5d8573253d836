"""What the API refuses, as exceptions: one for each status that it answers with, with the problem's own words (RFC 9457)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httpx

_KIND = "urn:warmfleet:problem:"


@dataclass
class ApiError(Exception):
    """The API refused, or could not be asked."""

    status: int
    """HTTP's; 0: it could not be reached."""
    detail: str
    """Names the field and the mend."""
    kind: str = ""
    """The last part of the problem's type: `live-ticket`, `not-found`, …; "" where there is none."""
    retry_after_s: float = 0.0
    """How long it asks to be left alone; 0: it does not say."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What else the problem says: `ticket`, `party`, `player`, `version`, `errors`."""

    def __str__(self) -> str:
        return f"{self.status} {self.kind or 'error'}: {self.detail}"


class Unreachable(ApiError):
    """No answer; what was asked may have been done all the same."""


class Invalid(ApiError):
    """400, 422: the request is wrong; `extra["errors"]` has {field, message}s where there are several."""


class Unauthorized(ApiError):
    """401."""


class Forbidden(ApiError):
    """403."""


class NotFound(ApiError):
    """404: not there, or another's."""


class Conflict(ApiError):
    """409: not now; `kind` says what stands in the way."""


class Gone(ApiError):
    """410: the match is over."""


class TooLarge(ApiError):
    """413."""


class RateLimited(ApiError):
    """429: ask again after `retry_after_s`."""


class Unavailable(ApiError):
    """503: the store is away, the queue is full or closed; ask again after `retry_after_s`."""


_BY_STATUS: Mapping[int, type[ApiError]] = {
    HTTPStatus.BAD_REQUEST: Invalid,
    HTTPStatus.UNPROCESSABLE_ENTITY: Invalid,
    HTTPStatus.UNAUTHORIZED: Unauthorized,
    HTTPStatus.FORBIDDEN: Forbidden,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.GONE: Gone,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: TooLarge,
    HTTPStatus.TOO_MANY_REQUESTS: RateLimited,
    HTTPStatus.SERVICE_UNAVAILABLE: Unavailable,
}


def of(status: int, headers: httpx.Headers, content: bytes) -> ApiError:
    """The exception for an answer that is none; one without a problem in it (a proxy's) has its text as detail."""
    try:
        problem = json.loads(content)
        if not isinstance(problem, dict):
            raise ValueError
    except ValueError:
        problem = {"detail": content[:200].decode(errors="replace")}
    after = headers.get("retry-after", "")
    said = {"type", "title", "status", "detail"}
    return _BY_STATUS.get(status, ApiError)(
        status,
        str(problem.get("detail") or problem.get("title") or f"HTTP {status}"),
        kind=str(problem.get("type", "")).removeprefix(_KIND).replace("about:blank", ""),
        retry_after_s=float(after) if after.isdecimal() else 0.0,
        extra={name: value for name, value in problem.items() if name not in said},
    )
