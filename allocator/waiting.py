"""
What a request that waits for a room needs to know: when it is called, and what could be brought for it.

One subscription and one look at the backend serve all waiters of a process, however many they are. Called by the allocator's service alone.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from allocator.model import ServerState
from allocator.ports import Backend, BackendUnavailable
from allocator.shelf import called_channel
from gameserver.sessions.client import StoreClient, listen
from gameserver.sessions.model import FleetName, SessionId

_T = TypeVar("_T")

log = structlog.get_logger(__name__)

_SUPPLY_TTL_S = 0.25
"""How old a look at the backend may be: many requests wait at the same time."""
_SUPPLY_TIMEOUT_S = 0.5
"""A backend that does not answer must not hold a waiter up."""


class Calls:
    """Hears which waiters are called."""

    def __init__(self, client: StoreClient, fleets: Sequence[FleetName]) -> None:
        self._client = client
        self._channels = [called_channel(fleet) for fleet in fleets]
        self._waiting: dict[bytes, asyncio.Event] = {}
        self._listening: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def waiting(self, sessions: Sequence[SessionId]) -> AsyncIterator[asyncio.Event]:
        """An event that is set when one of these is called, and whenever a call may have been missed."""
        event = asyncio.Event()
        mine = {session.encode(): event for session in sessions}
        self._waiting |= mine
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen(), name="waiters-calls")
        try:
            yield event
        finally:
            for session in mine:
                if self._waiting.get(session) is event:  # the same match may have been asked for twice here
                    del self._waiting[session]
            if not self._waiting and self._listening is not None:
                listening, self._listening = self._listening, None
                listening.cancel()

    async def _listen(self) -> None:
        await listen(self._client, self._channels, self._heard, subscribed=self._missed)

    def _heard(self, called: bytes) -> None:
        for session in called.split():
            if (event := self._waiting.get(session)) is not None:
                event.set()

    def _missed(self) -> None:
        for event in self._waiting.values():
            event.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """What a fleet has, when a request begins to wait."""

    ready: int
    servers: int
    """All of them, in any state."""


class Glances(Generic[_T]):
    """Looks at fleets, each shared by all who ask within a moment."""

    def __init__(
        self, look: Callable[[FleetName], Awaitable[_T]], fleets: Iterable[FleetName], *, ttl_s: float
    ) -> None:
        self._look = look
        self._ttl_s = ttl_s
        self._seen: dict[FleetName, tuple[float, _T]] = {}
        self._looking = {fleet: asyncio.Lock() for fleet in fleets}

    async def of(self, fleet: FleetName) -> _T:
        """What was seen, `ttl_s` ago at most. Raises what looking raises."""
        loop = asyncio.get_running_loop()
        if (seen := self._seen.get(fleet)) is not None and loop.time() - seen[0] <= self._ttl_s:
            return seen[1]
        async with self._looking[fleet]:
            seen = self._seen.get(fleet)
            if seen is None or loop.time() - seen[0] > self._ttl_s:
                seen = self._seen[fleet] = (loop.time(), await self._look(fleet))
            return seen[1]


class Supplies(Glances[Supply | None]):
    """Looks at the backend for those that wait; None when it does not say."""

    def __init__(self, backend: Backend, fleets: Iterable[FleetName]) -> None:
        super().__init__(self._ask, fleets, ttl_s=_SUPPLY_TTL_S)
        self._backend = backend

    async def _ask(self, fleet: FleetName) -> Supply | None:
        try:
            async with asyncio.timeout(_SUPPLY_TIMEOUT_S):
                servers = await self._backend.servers(fleet)
        except (BackendUnavailable, TimeoutError) as error:
            log.warning("backend_unavailable", fleet=fleet, error=str(error))
            return None
        return Supply(ready=sum(server.state is ServerState.READY for server in servers), servers=len(servers))
