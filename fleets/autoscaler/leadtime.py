"""
What a server's start must be reckoned to take: as long as it took in the slowest hour of the last day.

Pure. Most starts find a node with room and an image that is there; those of a growing fleet wait for a new node, and they come all at once, just
when it matters. The newest starts tell too little of that: after a quiet night all of them were quick. Within an hour a high quantile
counts, so that one stuck pod does not.
"""

from collections.abc import Mapping

HOUR_S = 3600
_HOURS = 24
_QUANTILE = 0.95
_SAMPLES = 200
"""Newest ones kept of an hour."""


class LeadTimes:
    """Measured starts of one fleet."""

    def __init__(self, hours: Mapping[int, float] | None = None) -> None:
        """`hours`: what was reckoned for earlier hours of the epoch, in seconds."""
        self._hours = dict(hours or {})
        self._now: list[float] = []
        self._hour = max(self._hours, default=0)

    def note(self, at_s: float, seconds: float) -> tuple[int, float]:
        """Add a start that was done at `at_s` (Unix seconds); returns its hour and what is now reckoned for that."""
        hour = int(at_s // HOUR_S)
        if hour != self._hour:
            self._hour, self._now = hour, []
            self._hours = {kept: value for kept, value in self._hours.items() if kept > hour - _HOURS}
        self._now.append(seconds)
        del self._now[:-_SAMPLES]
        ordered = sorted(self._now)
        self._hours[hour] = max(ordered[int(_QUANTILE * (len(ordered) - 1))], 0.0)
        return hour, self._hours[hour]

    def reckon(self, default_s: float) -> float:
        """Seconds; `default_s` where nothing was measured."""
        return max(self._hours.values(), default=default_s)
