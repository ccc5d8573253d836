"""How fast queues are: what is heard of their tickets, over the last minute."""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matchmaker.model import TicketId, TicketState
from matchmaker.store import queue_of

_WINDOW_S = 60.0
_SAMPLE = 64
"""Of a queue's tickets that are matched between two looks: their creation is looked up in the store."""
_MOST_WAITS = 4096
_MATCHED = (TicketState.PROPOSED, TicketState.PLACING)


class Pace:
    """Hears of changes (`TicketWatch.listeners`); how long a ticket has waited is told to it later (`note`)."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._matched: dict[str, deque[tuple[TicketId, float]]] = {}
        self._waits: dict[str, deque[tuple[float, float]]] = {}
        self._matches: dict[str, Counter[int]] = {}

    def heard(self, change: Mapping[str, Any]) -> None:
        """Note a change of some tickets, all of one queue."""
        state, now_s = change["state"], self._now()
        if state in _MATCHED:
            for ticket in change["tickets"]:
                self._matched.setdefault(queue_of(ticket), deque(maxlen=_SAMPLE)).append((ticket, now_s))
        elif state == TicketState.ASSIGNED:
            queue = queue_of(next(iter(change["tickets"])))
            self._matches.setdefault(queue, Counter())[int(now_s)] += 1

    def matched(self, queue: str) -> list[tuple[TicketId, float]]:
        """Tickets that were matched since the last time that this was asked, or some of them, and for how many seconds they have been."""
        found, now_s = self._matched.pop(queue, ()), self._now()
        return [(ticket, now_s - at_s) for ticket, at_s in found]

    def note(self, queue: str, waits_s: Sequence[float]) -> None:
        """How long some of them had waited."""
        now_s = self._now()
        self._waits.setdefault(queue, deque(maxlen=_MOST_WAITS)).extend((now_s, max(0.0, wait_s)) for wait_s in waits_s)

    def within(self, queue: str, part: float) -> float | None:
        """Within how many seconds that part of the last minute's tickets had their match; None where there were none."""
        waits, oldest_s = self._waits.get(queue, ()), self._now() - _WINDOW_S
        ordered = sorted(wait_s for at_s, wait_s in waits if at_s >= oldest_s)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else None

    def per_minute(self, queue: str) -> int:
        """Matches that were given a server within the last minute."""
        counts, oldest = self._matches.get(queue, Counter()), int(self._now() - _WINDOW_S)
        for second in [second for second in counts if second <= oldest]:
            del counts[second]
        return sum(counts.values())
