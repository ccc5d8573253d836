"""
The allocator as the matchmaker sees it: a match in, a session on a warm server out.

The warm path is one Valkey function. A match that finds no room waits in order, while the keeper brings servers; whatever happens to the
wait (deadline, cancellation, a lost reply), the match ends with exactly one session or with none.

A match may go to several fleets, tried in order. Each claim is repeatable by the session's id, and no later fleet is asked before the earlier one
has answered, so one run claims at most once. A run that follows a crashed one (`retried`) looks in all fleets first.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import ParamSpec, TypeVar

import redis.asyncio
import structlog
from redis.exceptions import RedisError

from allocator.model import Allocation, AllocationRequest, FleetPolicy, ServerState, Temperature, Unavailable
from allocator.ports import Backend, BackendUnavailable
from allocator.shelf import Shelf
from gameserver.sessions.model import FleetName, SessionId, SessionState, session_id
from gameserver.sessions.port import StoreUnavailable
from gameserver.sessions.valkey import wake_channel

log = structlog.get_logger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")

_ASK_AGAIN_S = 0.5
"""A waiter asks so often even if no wake-up reaches it; below the store's 2 s after which a silent one has left."""
_STORE_RETRY_S = 0.1


class Allocator:
    """Finds matches their servers."""

    def __init__(
        self, shelf: Shelf, client: redis.asyncio.Redis, fleets: Sequence[FleetPolicy], backend: Backend
    ) -> None:
        self._shelf = shelf
        self._client = client
        self._fleets: Mapping[FleetName, FleetPolicy] = {fleet.name: fleet for fleet in fleets}
        self._backend = backend

    async def allocate(self, request: AllocationRequest, *, deadline_s: float) -> Allocation | Unavailable:
        """
        Give a match its session, the same one however often it is asked for.

        Args:
            deadline_s: how long to wait for a server, in s; warm ones come at once.
        Returns: the allocation, or Unavailable once the deadline has passed (then nothing is held).
        Raises: StoreUnavailable when the store stays away until the deadline; ask again with `retried`.
        """
        if unknown := [fleet for fleet in request.fleets if fleet not in self._fleets]:
            return Unavailable(reason=f"unknown fleet {unknown[0]!r}")
        begun_s = time.monotonic()
        try:
            async with asyncio.timeout(deadline_s):
                found = await self._first(request)
                if found is None:
                    found = await self._wait(request)
                if found.session.state is SessionState.ENDED:
                    return Unavailable(reason=f"session {found.session.id} has ended")
                return replace(found, waited_s=time.monotonic() - begun_s)
        except TimeoutError:
            await self._give_up(request)
            return Unavailable(reason=f"no server within {deadline_s:g} s")
        except asyncio.CancelledError:
            # The caller is gone: nobody would ever use what was claimed.
            await self._give_up(request)
            raise

    async def find(self, session: SessionId) -> Allocation | None:
        """Where a session is now, ended or not; None when there is none. Raises StoreUnavailable."""
        return await self._shelf.find(session)

    async def end(self, session: SessionId, *, reason: str) -> None:
        """End a session from outside; one that is over is no error. Raises StoreUnavailable."""
        fleet = self._fleets.get(FleetName(session.partition(".")[0]))
        await self._shelf.end(session, reason=reason, recycle=fleet is None or fleet.recycle)

    async def _first(self, request: AllocationRequest) -> Allocation | None:
        """Look at every shelf once, in order."""
        if request.retried:
            for fleet in request.fleets:
                found = await self._until_answered(self._find_in, request, fleet)
                if found is not None:
                    return found
        for fleet in request.fleets:
            found = await self._until_answered(self._claim_now, request, fleet)
            if found is not None:
                return found
        return None

    async def _wait(self, request: AllocationRequest) -> Allocation:
        """Wait in the queue of every fleet; the first that has a room is taken, the other places are given up."""
        temperature = await self._temperature(request.fleets)
        async with AsyncExitStack() as stack:
            pubsub = self._client.pubsub()
            stack.push_async_callback(pubsub.aclose)
            while True:
                for fleet in request.fleets:
                    allocation = await self._until_answered(self._claim_waiting, request, fleet, temperature)
                    if allocation is not None:
                        await self._leave_queues(request, but=fleet)
                        return allocation
                try:
                    if not pubsub.subscribed:
                        await pubsub.subscribe(*(wake_channel(fleet) for fleet in request.fleets))
                        continue  # something may have happened before the subscription
                    await pubsub.get_message(ignore_subscribe_messages=True, timeout=_ASK_AGAIN_S)
                except (RedisError, OSError):
                    await asyncio.sleep(_STORE_RETRY_S)

    async def _find_in(self, request: AllocationRequest, fleet: FleetName) -> Allocation | None:
        found = await self._shelf.find(session_id(fleet, request.match))
        return None if found is None or found.session.state is SessionState.ENDED else found

    async def _claim_now(self, request: AllocationRequest, fleet: FleetName) -> Allocation | None:
        return await self._claim(request, fleet, Temperature.SHELF, wait=False)

    async def _claim_waiting(
        self, request: AllocationRequest, fleet: FleetName, temperature: Temperature
    ) -> Allocation | None:
        return await self._claim(request, fleet, temperature, wait=True)

    async def _claim(
        self, request: AllocationRequest, fleet: FleetName, temperature: Temperature, *, wait: bool
    ) -> Allocation | None:
        reply = await self._shelf.claim(
            fleet,
            session_id(fleet, request.match),
            seats=request.seats,
            options=request.options,
            temperature=temperature,
            wait=wait,
        )
        return reply if isinstance(reply, Allocation) else None

    async def _until_answered(self, ask: Callable[_P, Awaitable[_T]], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Ask until the store answers: a lost reply may hide a claim, so no other fleet may be tried before."""
        while True:
            try:
                return await ask(*args, **kwargs)
            except StoreUnavailable as error:
                log.warning("store_unavailable", error=str(error))
                await asyncio.sleep(_STORE_RETRY_S)

    async def _temperature(self, fleets: Sequence[FleetName]) -> Temperature:
        """What a match that found no room will get: a Ready server is there, or a new one must come."""
        try:
            for fleet in fleets:
                if any(server.state is ServerState.READY for server in await self._backend.servers(fleet)):
                    return Temperature.BUFFER
        except BackendUnavailable as error:
            log.warning("backend_unavailable", error=str(error))
        return Temperature.COLD

    async def _leave_queues(self, request: AllocationRequest, *, but: FleetName) -> None:
        for fleet in request.fleets:
            if fleet != but:
                await self._until_answered(self._shelf.abandon, session_id(fleet, request.match))

    async def _give_up(self, request: AllocationRequest) -> None:
        """Abandon to the end, also when cancelled meanwhile: half of it would leave a waiter or a room behind."""
        abandoning = asyncio.create_task(self._abandon(request), name=f"abandon-{request.match}")
        try:
            await asyncio.shield(abandoning)
        except asyncio.CancelledError:
            await asyncio.wait([abandoning])
            raise

    async def _abandon(self, request: AllocationRequest) -> None:
        """Hold nothing any more; if the store is away, silent waiters and sessions that nobody joins expire by themselves."""
        for fleet in request.fleets:
            try:
                await self._shelf.abandon(session_id(fleet, request.match), recycle=self._fleets[fleet].recycle)
            except StoreUnavailable as error:
                log.warning("abandon_failed", fleet=fleet, match=request.match, error=str(error))
