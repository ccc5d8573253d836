"""
Who waits for which ticket: one subscription per process, any number of watchers.

A change of a ticket sets the events of those who watch it; what they send is read afresh, so a change that was missed costs nothing but time.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import structlog
from redis.exceptions import RedisError

from gameserver.sessions.client import StoreClient
from matchmaker.model import QueueName, TicketId
from matchmaker.store import changed_channel

log = structlog.get_logger(__name__)

_RETRY_S = 0.2


class TicketWatch:
    """Wakes watchers; `run` until cancelled."""

    def __init__(self, client: StoreClient, queues: Iterable[QueueName]) -> None:
        self._client = client
        self._channels = [changed_channel(queue) for queue in queues]
        self._watchers: defaultdict[TicketId, set[asyncio.Event]] = defaultdict(set)

    @asynccontextmanager
    async def watching(self, ticket: TicketId) -> AsyncIterator[asyncio.Event]:
        """An event that is set when the ticket may have changed; the waiter clears it."""
        event = asyncio.Event()
        self._watchers[ticket].add(event)
        try:
            yield event
        finally:
            self._watchers[ticket].discard(event)
            if not self._watchers[ticket]:
                del self._watchers[ticket]

    async def run(self) -> None:
        """Listen until cancelled; after an outage everyone is woken, since something may have been missed."""
        while True:
            pubsub: Any = self._client.pubsub()
            try:
                await pubsub.subscribe(*self._channels)
                for events in tuple(self._watchers.values()):
                    self._set(events)
                while True:
                    message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=None)
                    if message is not None:
                        self._set(self._watchers.get(TicketId(message["data"].decode()), ()))
            except (RedisError, OSError) as error:
                log.warning("listening_broke", error=str(error))
            finally:
                await pubsub.aclose()
            await asyncio.sleep(_RETRY_S)

    @staticmethod
    def _set(events: Iterable[asyncio.Event]) -> None:
        for event in tuple(events):
            event.set()
