"""
Several directors for several queues: who should lead which.

Owns a preference, not a right: the lease in the store decides. Every replica knows which others live, and all agree which of them a queue should
go to, so that the queues spread evenly and move only when a replica comes or goes.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Sequence

import structlog

from gameserver.sessions.port import StoreUnavailable
from matchmaker.model import QueueName
from matchmaker.store import TicketStore

log = structlog.get_logger(__name__)

_BEAT_S = 0.5
_ALIVE_S = 2.0
"""A replica that has not been heard of for so long is gone."""


class Replicas:
    """This process among the directors; `run` until cancelled."""

    def __init__(self, store: TicketStore, *, name: str = "") -> None:
        self.name = name or secrets.token_hex(6)
        self._store = store
        self._alive: tuple[str, ...] = (self.name,)

    async def run(self) -> None:
        """Say that this one lives, and hear who else does."""
        while True:
            try:
                self._alive = await self._store.beat(self.name, alive_s=_ALIVE_S) or (self.name,)
            except StoreUnavailable as error:
                log.warning("replicas_unknown", error=str(error))
            await asyncio.sleep(_BEAT_S)

    async def leave(self) -> None:
        """Say that this one goes: its queues are the others' at once."""
        await self._store.beat(self.name, alive_s=0)

    def preferred(self, queue: QueueName) -> bool:
        """Whether this replica should lead the queue."""
        return preferred(queue, self._alive) == self.name


def preferred(queue: QueueName, replicas: Sequence[str]) -> str:
    """Which of some replicas a queue should go to (highest random weight: only the queues of one that goes are moved)."""
    return max(replicas, key=lambda replica: hashlib.sha256(f"{queue}:{replica}".encode()).digest())
