"""How a call is made: its token, its deadline, its repetitions, its refusals."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel

from gameserver.client.matchmaking import server_sent_events
from matchmaker.client.errors import ApiError, Unavailable, Unreachable, of

_T = TypeVar("_T", bound=BaseModel)
_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_SILENT_S = 45.0
"""A stream that says nothing for so long, not even that it is still there, is asked for anew."""


class Calls:
    """A connection to the API; an async context manager."""

    def __init__(
        self,
        base_url: str,
        token: str,
        *,
        timeout_s: float = 10.0,
        patience_s: float = 10.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """
        Args:
            token: a player's JWT, or an API key.
            timeout_s: of one request.
            patience_s: for how long a call that may be repeated is, while the API is away or asks to be asked later.
        """
        self._patience_s = patience_s
        self._http = httpx.AsyncClient(
            base_url=base_url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=timeout_s,
            transport=transport,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def _ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        wait_s: float = 0.0,
        repeat: bool = True,
    ) -> httpx.Response:
        """
        Ask, and again while that may help. Raises ApiError.

        `wait_s`: for how long the answer may be held back; `repeat`: False where a second request would do something else than the first.
        """
        give_up_s, pause_s = time.monotonic() + self._patience_s, _PAUSE_S
        timeout: Any = httpx.USE_CLIENT_DEFAULT
        if wait_s:
            timeout = httpx.Timeout(self._http.timeout.read or 10.0, read=wait_s + (self._http.timeout.read or 10.0))
        while True:
            try:
                reply = await self._http.request(
                    method, path, json=body, headers=dict(headers or {}), params=dict(params or {}), timeout=timeout
                )
                if not reply.is_error:
                    return reply
                failed = of(reply.status_code, reply.headers, reply.content)
                may = failed.retry_after_s > 0 and failed.status in (
                    HTTPStatus.TOO_MANY_REQUESTS,
                    HTTPStatus.SERVICE_UNAVAILABLE,
                )
                pause_s = failed.retry_after_s or pause_s
            except httpx.TransportError as error:
                failed, may = Unreachable(0, f"{method} {path}: {type(error).__name__} {error}"), repeat
            if not may or time.monotonic() + pause_s > give_up_s:
                raise failed
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _get(self, model: type[_T], path: str, **values: Any) -> _T:
        return model.model_validate_json((await self._ask("GET", path, **values)).content)

    async def _post(self, model: type[_T], path: str, body: Any = None, **values: Any) -> _T:
        return model.model_validate_json((await self._ask("POST", path, body, **values)).content)

    async def _follow(self, model: type[_T], path: str) -> AsyncIterator[_T]:
        """The events of a stream, through lost connections, until it ends by itself. Raises ApiError when it is refused."""
        last_id, pause_s = "", _PAUSE_S
        while True:
            headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
            try:
                timeout = httpx.Timeout(self._http.timeout.read or 10.0, read=_SILENT_S)
                async with self._http.stream("GET", path, headers=headers, timeout=timeout) as reply:
                    if reply.is_error:
                        raise of(reply.status_code, reply.headers, await reply.aread())
                    async for event_id, data in server_sent_events(reply.aiter_lines()):
                        last_id, pause_s = event_id or last_id, _PAUSE_S
                        yield model.model_validate(data)
                    return
            except httpx.TransportError:
                pass
            except Unavailable as away:
                pause_s = max(pause_s, away.retry_after_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


__all__ = ["ApiError", "Calls"]
