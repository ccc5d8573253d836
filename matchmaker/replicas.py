"""
Several directors for several queues: who should lead which.

Owns a preference, not a right: the lease in the store decides. Every replica knows which others live, and all agree which of them a queue should
go to, so that the queues spread evenly and move only when a replica comes or goes. Whoever leads a queue that should go to another hands the lease to that
one by name, once: only when two beats have told of the same replicas, and not to the one from which it has just taken over, which is counted as alive for
a while yet.
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
        self._since_s: dict[str, float] = {}
        """When each of those alive was first heard of, by the loop's clock."""
        self._settled = False
        """The last two beats told of the same replicas."""
        self._known = asyncio.Event()

    async def run(self) -> None:
        """Say that this one lives, and hear who else does."""
        while True:
            try:
                self._hear(await self._store.beat(self.name, alive_s=_ALIVE_S) or (self.name,))
            except StoreUnavailable as error:
                log.warning("replicas_unknown", error=str(error))
            await asyncio.sleep(_BEAT_S)

    async def leave(self) -> None:
        """Say that this one goes: its queues are the others' at once."""
        await self._store.beat(self.name, alive_s=0)

    async def known(self) -> None:
        """Returns once it is known which others live."""
        await self._known.wait()

    def preferred(self, queue: QueueName) -> bool:
        """Whether this replica should lead the queue."""
        return preferred(queue, self._alive) == self.name

    def heir(self, queue: QueueName, led_since_s: float) -> str | None:
        """
        The replica to which this one, which leads a queue since `led_since_s` (the loop's clock), should hand it now; None: it goes on leading.

        Of those that lived already when it began to lead, one may be the dead leader before it: they get the queue when they outlive its time.
        """
        best, now_s = preferred(queue, self._alive), asyncio.get_running_loop().time()
        if best == self.name or not self._settled:
            return None
        came_since = self._since_s[best] > led_since_s
        return best if came_since or now_s - led_since_s > _ALIVE_S else None

    def _hear(self, alive: tuple[str, ...]) -> None:
        now_s = asyncio.get_running_loop().time()
        self._settled = alive == self._alive
        self._alive = alive
        self._since_s = {replica: self._since_s.get(replica, now_s) for replica in alive}
        self._known.set()


def preferred(queue: QueueName, replicas: Sequence[str]) -> str:
    """Which of some replicas a queue should go to (highest random weight: only the queues of one that goes are moved)."""
    return max(replicas, key=lambda replica: hashlib.sha256(f"{queue}:{replica}".encode()).digest())
