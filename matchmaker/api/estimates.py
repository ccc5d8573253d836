"""
What tickets are told about their wait, and how far off it was.

Each API process learns from the tickets that came to it: of a queue's tickets it sees a fair share. It has nothing to say until some have been matched.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from matchmaker import metrics
from matchmaker.model import QueueConfig, QueueName, TicketId, TicketState
from matchmaker.records import TicketRecord
from matchmaker.store import queue_of
from matchmaker.waits import Estimate, by_queue

_MATCHED = (TicketState.PROPOSED, TicketState.PLACING, TicketState.TIMED_OUT)
"""The wait is over; who waited in vain waited at least so long."""
_GONE = (TicketState.CANCELLED, TicketState.FAILED)
_YOUNG_S = 0.5
_WAITING = (TicketState.QUEUED, TicketState.SEARCHING)


class Estimates:
    """Of all queues."""

    def __init__(self, queues: Sequence[QueueConfig]) -> None:
        self._waits = by_queue(queues)

    def created(self, record: TicketRecord) -> None:
        """A ticket begins to wait."""
        waits = self._waits[record.queue]
        waits.created(record.ticket.id, waits.likeness(record.ticket.players), _now_s())

    def of(self, record: TicketRecord) -> dict[str, float] | None:
        """What a ticket may be told now: how much longer it waits; None when it waits no more, or when too little is known."""
        if record.state not in _WAITING:
            return None
        waits, age_s = self._waits[record.queue], max(0.0, time.time() - record.ticket.created_at_s)
        begun = waits.begun(record.ticket.id)
        if begun is not None and age_s < _YOUNG_S:
            found = begun[1]  # what it was told holds still
        else:
            like = waits.likeness(record.ticket.players) if begun is None else begun[0]
            found = waits.estimate(like, _now_s(), age_s=age_s)
        return None if found is None else _told(found, age_s)

    def usual(self, queue: QueueName) -> dict[str, float] | None:
        """What whoever comes to a queue now may be told, and by how much half of the estimates were off lately."""
        waits = self._waits[queue]
        if (found := waits.usual) is None:
            return None
        told = _told(found, 0.0)
        if (error_s := waits.error_s) is not None:
            told["error"] = round(error_s, 3)
        return told

    def heard(self, change: Mapping[str, Any]) -> None:
        """Tickets have changed (`TicketWatch.listeners`)."""
        state = change["state"]
        if state in _MATCHED:
            for ticket in change["tickets"]:
                self._matched(ticket)
        elif state in _GONE:
            for ticket in change["tickets"]:
                self._waits[queue_of(ticket)].gone(ticket)

    def _matched(self, ticket: TicketId) -> None:
        queue = queue_of(ticket)
        outcome = self._waits[queue].matched(ticket, _now_s())
        if outcome is not None and outcome.told is not None:
            metrics.WAIT_ERROR.labels(queue).observe(abs(outcome.told.seconds - outcome.waited_s))
            kept = "kept" if outcome.waited_s <= outcome.told.within_s else "late"
            metrics.WAIT_ESTIMATES.labels(queue, kept).inc()


def _told(found: Estimate, age_s: float) -> dict[str, float]:
    return {"seconds": round(max(0.0, found.seconds - age_s), 3), "within": round(max(0.0, found.within_s - age_s), 3)}


def _now_s() -> float:
    return asyncio.get_running_loop().time()
