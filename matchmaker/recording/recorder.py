"""
Records a live queue: follows its log, and writes each ticket once it has ended.

Reads only, and takes no lease: the queue does not notice. What is kept in memory are the tickets that have not ended; of those that are still open when the
recording stops only the arrival is written.
"""

import asyncio
import math
from dataclasses import replace

import structlog

from gameserver.sessions.port import StoreUnavailable
from matchmaker.model import FINAL, QueueName, Ticket, TicketId, TicketState
from matchmaker.recording.trace import Arrival, Disguise, TraceWriter
from matchmaker.records import TicketRecord
from matchmaker.store import TicketStore

log = structlog.get_logger(__name__)

_LOOK_S = 0.25
_ASK_S = 5.0
"""How the open tickets stand is asked so often; a record is kept for an hour after its end."""
_ASKED = 1000
_MOST_OPEN = 500_000
"""Tickets in memory; more are written at once, without their end."""


class Recorder:
    """One recording of one queue."""

    def __init__(
        self, store: TicketStore, queue: QueueName, writer: TraceWriter, disguise: Disguise, *, begun_at_s: float
    ) -> None:
        """`begun_at_s`: the store's clock; arrivals count from it."""
        self.gaps = 0
        """How often the log did not reach back, so that tickets were missed."""
        self._store = store
        self._queue = queue
        self._writer = writer
        self._disguise = disguise
        self._begun_at_s = begun_at_s
        self._open: dict[TicketId, Ticket] = {}
        self._left: dict[TicketId, float] = {}
        """When open tickets left the pool other than by a match."""

    @property
    def count(self) -> int:
        """Tickets seen so far."""
        return self._writer.count + len(self._open)

    async def run(self, stop: asyncio.Event) -> None:
        """Record until `stop`, through outages of the store; then write what is open."""
        loop = asyncio.get_running_loop()
        cursor, ask_at_s = "", loop.time() + _ASK_S
        while not stop.is_set():
            try:
                seen = await self._store.follow(self._queue, cursor)
                self.gaps += not seen.complete
                for change in seen.changes:
                    self._note(change.ticket, change.entered, change.at_s)
                cursor = seen.cursor
                if loop.time() >= ask_at_s:
                    await self._settle()
                    ask_at_s = loop.time() + _ASK_S
                if seen.changes:
                    continue
            except StoreUnavailable as error:
                log.warning("recording_waits", queue=self._queue, error=str(error))
            try:
                async with asyncio.timeout(_LOOK_S):
                    await stop.wait()
            except TimeoutError:
                pass
        await self._finish()

    def _note(self, ticket: TicketId, entered: Ticket | None, at_s: float) -> None:
        if entered is None:
            self._left[ticket] = at_s
        elif ticket not in self._open and entered.created_at_s >= self._begun_at_s:
            # One that comes back from a match that came to nothing is known already.
            self._open[ticket] = entered
            if len(self._open) > _MOST_OPEN:
                oldest = next(iter(self._open))
                self._write(self._open.pop(oldest))
        else:
            self._left.pop(ticket, None)

    async def _settle(self) -> None:
        """Write the tickets that have ended."""
        tickets = tuple(self._open)
        for some in (tickets[start : start + _ASKED] for start in range(0, len(tickets), _ASKED)):
            records = await asyncio.gather(*(self._store.fetch(ticket) for ticket in some))
            now_s = await self._store.now_s(self._queue)
            for ticket, record in zip(some, records, strict=True):
                if record is None or record.state in FINAL:
                    self._write(self._open.pop(ticket), record, now_s)

    async def _finish(self) -> None:
        try:
            await self._settle()
        except StoreUnavailable as error:
            log.warning("recording_ends_open", queue=self._queue, error=str(error))
        for ticket in self._open.values():
            self._write(ticket)
        self._open.clear()

    def _write(self, ticket: Ticket, record: TicketRecord | None = None, now_s: float = 0.0) -> None:
        left_at_s = self._left.pop(ticket.id, None)
        arrival = Arrival(
            ticket=self._disguise(replace(ticket, created_at_s=ticket.created_at_s - self._begun_at_s)),
            outcome="" if record is None else record.state.value,
        )
        if record is not None and record.state is TicketState.CANCELLED and left_at_s is not None:
            arrival = replace(arrival, left_after_s=max(0.0, left_at_s - ticket.created_at_s))
        if record is not None and math.isfinite(record.assigned_ago_s):
            arrival = replace(arrival, waited_s=max(0.0, now_s - record.assigned_ago_s - ticket.created_at_s))
        self._writer.write(arrival)
