"""What has happened to each of the newest tickets, and when: kept in memory, for the console."""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

_KEPT = 20_000
"""Tickets; the oldest are forgotten."""
_MOST_STEPS = 50
_SHOWN = 40


class Timelines:
    """Hears of changes (`TicketWatch.listeners`)."""

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._steps: OrderedDict[str, list[dict[str, Any]]] = OrderedDict()

    def heard(self, change: Mapping[str, Any]) -> None:
        """Note a change of some tickets."""
        step = {"state": change["state"], "at": round(self._now(), 3)}
        for name in ("match", "reason"):
            if change.get(name):
                step[name] = change[name]
        for ticket in change["tickets"]:
            steps = self._steps.setdefault(ticket, [])
            if len(steps) < _MOST_STEPS:
                steps.append(step)
            if len(self._steps) > _KEPT:
                self._steps.popitem(last=False)

    def of(self, ticket: str) -> list[dict[str, Any]]:
        """A ticket's steps, oldest first; empty for one that is forgotten, or was never heard of."""
        return self._steps.get(ticket, [])

    def newest(self) -> dict[str, dict[str, Any]]:
        """The tickets that came last, as rows of the console."""
        found = {}
        for ticket in reversed(self._steps):
            steps = self._steps[ticket]
            found[ticket] = {"queue": ticket.partition(".")[0], "state": steps[-1]["state"], "since": steps[-1]["at"]}
            if len(found) == _SHOWN:
                break
        return found
