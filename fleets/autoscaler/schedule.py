"""
Capacity by the clock: a launch at 18:00, every Friday evening. Pure; time zones are the IANA database's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Ready servers for a while: once (`at_s`), or on days at a time of the day."""

    name: str
    ready: int
    """Servers kept Ready at least."""
    for_s: float
    lead_s: float = 600.0
    """They are to be Ready so long before."""
    at_s: float | None = None
    """Unix seconds of the one time; None: it repeats."""
    daily: time = time(0)
    days: tuple[str, ...] = DAYS
    zone: str = "UTC"

    def covers(self, now_s: float, *, ahead_s: float) -> bool:
        """Whether it holds at `now_s`, or will within `ahead_s`."""
        return any(begin_s - ahead_s <= now_s < begin_s + self.for_s for begin_s in self._begins(now_s, ahead_s))

    def _begins(self, now_s: float, ahead_s: float) -> Iterator[float]:
        if self.at_s is not None:
            yield self.at_s
            return
        zone = ZoneInfo(self.zone)
        first = datetime.fromtimestamp(now_s - self.for_s, zone).date() - timedelta(days=1)
        last = datetime.fromtimestamp(now_s + ahead_s, zone).date()
        day: date = first
        while day <= last:
            if DAYS[day.weekday()] in self.days:
                yield datetime.combine(day, self.daily, zone).timestamp()
            day += timedelta(days=1)
