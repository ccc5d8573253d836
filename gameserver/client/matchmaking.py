"""The matchmaker's REST API from a player's side: tickets, their events, and the way back after a lost server."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from gameserver import tracing

_PATIENCE_S = 10.0
"""How long an unreachable or overloaded matchmaker is asked again."""


class MatchmakingFailed(Exception):
    """The matchmaker refused, or the ticket ended without a match; the message is its reason."""

    def __init__(self, message: str, status: int = 0, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        """HTTP's; 0 where the matchmaker could not be reached."""
        self.retry_after_s = retry_after_s
        """How long it asks to be left alone."""


class Matchmaking:
    """A player's (or party leader's) connection to the matchmaker, as an async context manager."""

    def __init__(self, base_url: str, token: str) -> None:
        """`token`: the player's bearer JWT."""
        self._http = httpx.AsyncClient(
            base_url=base_url, headers={"Authorization": f"Bearer {token}"}, timeout=10.0, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def create_ticket(
        self, queue: str, players: list[Mapping[str, Any]], *, idempotency_key: str = ""
    ) -> dict[str, Any]:
        """Queue up; a lost reply never makes a second ticket. Raises MatchmakingFailed with the problem's detail."""
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex, **tracing.headers()}
        return await self._call("POST", "/v1/tickets", json={"queue": queue, "players": players}, headers=headers)

    async def cancel_ticket(self, ticket: str) -> None:
        """Leave the queue; a ticket that is over is no error."""
        try:
            await self._call("DELETE", f"/v1/tickets/{ticket}")
        except MatchmakingFailed as error:
            if error.status not in (404, 409):
                raise

    async def regions(self) -> list[dict[str, Any]]:
        """The regions and their beacons, for `beacons.measure_regions`. Raises MatchmakingFailed."""
        found: Any = await self._call("GET", "/v1/regions")
        return list(found)

    async def ticket_states(self, ticket: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the ticket now and at each change, through lost connections, until it is over."""
        last_id = ""
        while True:
            headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
            try:
                async with self._http.stream(
                    "GET", f"/v1/tickets/{ticket}/events", headers=headers, timeout=60.0
                ) as reply:
                    if reply.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                        await asyncio.sleep(float(reply.headers.get("retry-after", "1")))
                        continue
                    if reply.status_code != httpx.codes.OK:
                        raise MatchmakingFailed(_detail(await reply.aread()), reply.status_code)
                    async for event_id, data in server_sent_events(reply.aiter_lines()):
                        last_id = event_id or last_id
                        yield data
                        if data["state"] in ("assigned", "cancelled", "timed_out", "failed"):
                            return
            except httpx.TransportError:
                await asyncio.sleep(0.2)

    async def assignment(self, ticket: str) -> dict[str, Any]:
        """Wait for the ticket's assignment. Raises MatchmakingFailed when it ends otherwise."""
        async for state in self.ticket_states(ticket):
            if state["state"] == "assigned":
                assignment: dict[str, Any] = state["assignment"]
                return assignment
            if state["state"] in ("cancelled", "timed_out", "failed"):
                raise MatchmakingFailed(f"ticket {state['state']}: {state.get('reason', '')}")
        raise MatchmakingFailed("the ticket's events ended")

    async def seat(self, session: str, *, patience_s: float = _PATIENCE_S) -> dict[str, Any]:
        """Ask where a session is now: a fresh assignment. Raises MatchmakingFailed (status 410 when it has ended)."""
        return await self._call("GET", f"/v1/sessions/{session}/seat", patience_s=patience_s)

    async def _call(
        self, method: str, path: str, *, patience_s: float = _PATIENCE_S, **arguments: Any
    ) -> dict[str, Any]:
        """Ask, again and again while the matchmaker is away or says when to ask again: every call here may be repeated."""
        give_up_s = time.monotonic() + patience_s
        while True:
            try:
                reply = await self._http.request(method, path, **arguments)
                if not reply.is_error:
                    body: dict[str, Any] = reply.json() if reply.content else {}
                    return body
                after = reply.headers.get("retry-after", "")
                pause_s = float(after) if after.isdecimal() else None
                failed = MatchmakingFailed(_detail(reply.content), reply.status_code, pause_s or 0.0)
            except httpx.TransportError as error:
                failed, pause_s = MatchmakingFailed(f"{path}: {type(error).__name__} {error}"), 0.2
            if pause_s is None or time.monotonic() + pause_s > give_up_s:
                raise failed
            await asyncio.sleep(pause_s)


async def development_player(base_url: str, name: str = "") -> tuple[str, str]:
    """Get a player id and its token from a `warmfleet up`. Raises MatchmakingFailed."""
    async with httpx.AsyncClient(base_url=base_url, timeout=10.0, trust_env=False) as http:
        reply = await http.post("/v1/dev/players", json={"name": name} if name else {})
        if reply.is_error:
            raise MatchmakingFailed(_detail(reply.content), reply.status_code)
        body = reply.json()
        return body["player"], body["token"]


async def server_sent_events(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Parse server-sent events: (id, data) of each."""
    event_id, data = "", ""
    async for line in lines:
        if not line and data:
            yield event_id, json.loads(data)
            data = ""
        elif line.startswith("id:"):
            event_id = line[3:].strip()
        elif line.startswith("data:"):
            data += line[5:].strip()


def _detail(body: bytes) -> str:
    try:
        problem = json.loads(body)
        return str(problem.get("detail") or problem.get("title"))
    except (ValueError, AttributeError):
        return body[:200].decode(errors="replace")
