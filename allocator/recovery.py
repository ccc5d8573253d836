"""
Recovery: matches leave servers that are lost or about to go, and go on elsewhere.

Runs beside a fleet's keeper and under its lease, on the store alone, so that no slow backend call stands between a dead server and its matches; the
keeper says which servers are lost. A session whose server is gone is moved at once, and its new server told, which opens it from its
checkpoint before its players come. A session on a server that is to go has a room kept for it elsewhere, and its server hands it over live, at a
tick of its own choice. Every step is one function and may be repeated; what is left undone is seen at the next look.
"""

import asyncio
from collections.abc import Callable

import structlog

from allocator import metrics
from allocator.model import Allocation, FleetPolicy
from allocator.shelf import LeaseLost, Shelf
from gameserver.sessions.model import SessionId, SessionState
from gameserver.sessions.port import StoreUnavailable

log = structlog.get_logger(__name__)

PERIOD_S = 0.5
"""Between two looks when nothing wakes them."""
_PAUSE_S = 0.02
"""At least between two looks: the fleet's wake-ups are not all for us."""


class Recovery:
    """Moves one fleet's matches; `run` until cancelled."""

    def __init__(self, policy: FleetPolicy, shelf: Shelf, *, leads: Callable[[], bool] = lambda: True) -> None:
        """`shelf`: under the keeper's lease. `leads`: whether the keeper holds it, as far as it knows."""
        self._policy = policy
        self._shelf = shelf
        self._leads = leads
        self._wake = asyncio.Event()
        self.moved = 0
        """Sessions that were given another server after theirs was lost."""

    def wake(self) -> None:
        """Look now."""
        self._wake.set()

    async def run(self) -> None:
        """Recover until cancelled."""
        while True:
            self._wake.clear()
            try:
                if self._leads():
                    await self.round()
            except LeaseLost:
                pass  # the keeper will notice
            except StoreUnavailable as error:
                log.warning("recovery_waits", fleet=self._policy.name, error=str(error))
            try:
                async with asyncio.timeout(PERIOD_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(_PAUSE_S)

    async def round(self) -> bool:
        """Look, and act on what is seen; True when something was moved or reserved. Raises StoreUnavailable, LeaseLost."""
        if not self._policy.managed:
            return False
        pulse = await self._shelf.pulse(self._policy.name, migrate=self._policy.migrate)
        done = False
        for server in pulse.draining:
            done |= await self._shelf.drain(self._policy.name, server)
        for session, epoch in pulse.lost:
            done |= await self._move(session, epoch, "lost")
        for session, epoch, state in pulse.leaving:
            if state is SessionState.PENDING:
                # Nobody has come yet: there is nothing to hand over.
                done |= await self._move(session, epoch, "drained")
            elif await self._shelf.reserve(session, epoch=epoch, strategy=self._policy.strategy):
                done = True
        return done

    async def _move(self, session: SessionId, epoch: int, why: str) -> bool:
        moved = await self._shelf.move(session, epoch=epoch, strategy=self._policy.strategy)
        if not isinstance(moved, Allocation):
            return False
        self.moved += 1
        metrics.SESSIONS_MOVED.labels(why).inc()
        log.info("session_moved", session=session, epoch=moved.session.epoch, server=moved.session.server, why=why)
        return True
