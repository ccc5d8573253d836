"""
Who waits for which ticket: one subscription per process, any number of watchers.

A change of a ticket sets the events of those who watch it; what they send is read afresh, so a change that was missed costs nothing but time.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import orjson

from gameserver.sessions.client import StoreClient, listen
from matchmaker.model import QueueName, TicketId
from matchmaker.store import changed_channel


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
        await listen(self._client, self._channels, self._changed, subscribed=self._wake_all)

    def _changed(self, message: bytes) -> None:
        for ticket in orjson.loads(message)["tickets"]:
            self._set(self._watchers.get(ticket, ()))

    def _wake_all(self) -> None:
        for events in tuple(self._watchers.values()):
            self._set(events)

    @staticmethod
    def _set(events: Iterable[asyncio.Event]) -> None:
        for event in tuple(events):
            event.set()
