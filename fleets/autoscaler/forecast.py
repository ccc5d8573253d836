"""
How many matches will begin in the next minutes: level times season, with an honest spread.

Pure: history in, mean and variance out. The season is the fleet's own: the same five minutes of earlier weeks, of earlier days while there is no
week yet, and flat before that. The level is how the last minutes compare with their season, so a quiet Christmas or a good review counts at once. The
spread is Poisson's own plus what the forecast has lately been wrong by.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass

BUCKET_S = 300
"""History is kept in buckets of five minutes of the epoch."""
DAY = 86_400 // BUCKET_S
WEEK = 7 * DAY
KEEP = 4 * WEEK + DAY
"""Buckets of history that are looked at: four weeks, and a day to smooth over."""
_SMOOTH = (1.0, 2.0, 3.0, 2.0, 1.0)
"""Weights of a season's bucket and its neighbours: a single bucket of a small fleet is mostly noise."""
_FADE = 0.6
"""What a season counts for, compared with the one after it."""
_HALF_LIFE_S = 900.0
"""Of what the level remembers: shorter follows a surge faster, longer is calmer on a small fleet."""
_STRETCH_S, _STRETCHES = 30.0, 30
_ERROR_FADE = 0.5 ** (1 / 72)
"""Of what the error remembers, a bucket: half of it is six hours old."""
_JUDGED = DAY
"""Newest buckets of a history that the error is learned from: older ones count for less than a fifteenth, and four weeks of them take half a second of CPU."""
_FIRST_ERROR, _LEAST_ERROR = 0.15, 0.03
"""Relative error assumed before any was seen, and the least that is ever assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Matches that begin within some time."""

    mean: float
    variance: float
    """At least the mean: a count of independent arrivals has that much by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """Matches that began in a stretch of time, finer than a bucket and newer than the history."""

    ended_s: float
    seconds: float
    count: int


class RecentArrivals:
    """The newest stretches, of about half a minute each, a quarter of an hour in all."""

    def __init__(self) -> None:
        self._stretches: deque[Recent] = deque(maxlen=_STRETCHES)

    def add(self, stretch: Recent) -> None:
        """Add the newest; a short one is joined to the one before."""
        last = self._stretches[-1] if self._stretches else None
        if last is not None and last.seconds + stretch.seconds <= _STRETCH_S:
            self._stretches.pop()
            seconds, count = last.seconds + stretch.seconds, last.count + stretch.count
            stretch = Recent(ended_s=stretch.ended_s, seconds=seconds, count=count)
        self._stretches.append(stretch)

    def all(self) -> tuple[Recent, ...]:
        """Oldest first."""
        return tuple(self._stretches)


class ArrivalForecast:
    """The arrivals of one fleet's matches. Times are Unix seconds; a bucket's number is its begin divided by BUCKET_S."""

    def __init__(self, history: Mapping[int, int] | None = None) -> None:
        """`history`: matches by bucket, closed ones only; those that are missing within its span had none."""
        self._counts: dict[int, int] = {}
        self._seasons: dict[int, float] = {}
        """Computed since the newest bucket closed."""
        self._error2 = _FIRST_ERROR**2
        if history:
            newest = max(history)
            first = max(min(history), newest - KEEP)
            judged = max(first, newest - _JUDGED)
            self._counts = {bucket: history.get(bucket, 0) for bucket in range(first, judged)}
            for bucket in range(judged, newest + 1):
                self.close(bucket, history.get(bucket, 0))

    def close(self, bucket: int, count: int) -> None:
        """Add a bucket that is over; each once, in order."""
        if self._counts:
            expected = self.outlook(bucket * BUCKET_S).over(BUCKET_S).mean
            if expected >= 1.0:
                # Of the squared error, `expected` is Poisson's share; what is left is the forecast's own.
                error2 = min(max((count - expected) ** 2 - expected, 0.0) / expected**2, 4.0)
                self._error2 = _ERROR_FADE * self._error2 + (1 - _ERROR_FADE) * error2
        self._counts[bucket] = count
        self._counts.pop(bucket - KEEP, None)
        self._seasons.clear()

    def outlook(self, now_s: float, recent: Iterable[Recent] = ()) -> "Outlook":
        """
        Look ahead from `now_s`.

        Args:
            recent: the newest stretches, disjoint; without any, the newest buckets stand for them.
        """
        level, told = self._level(now_s, tuple(recent) or self._newest_buckets(now_s))
        # A level that few matches tell of is unsure, whatever was right before.
        error2 = max(self._error2, _LEAST_ERROR**2)
        return Outlook(self._season_over, now_s=now_s, level=level, error2=error2, unsure=1.0 / (1.0 + told))

    def _newest_buckets(self, now_s: float) -> tuple[Recent, ...]:
        newest = math.floor(now_s / BUCKET_S)
        return tuple(
            Recent(ended_s=(bucket + 1) * BUCKET_S, seconds=BUCKET_S, count=self._counts[bucket])
            for bucket in range(newest - 6, newest)
            if bucket in self._counts
        )

    def _level(self, now_s: float, recent: tuple[Recent, ...]) -> tuple[float, float]:
        """How the newest stretches compare with their season, and how many matches tell so."""
        count = season = 0.0
        for stretch in recent:
            weight = 0.5 ** (max(0.0, now_s - stretch.ended_s) / _HALF_LIFE_S)
            count += weight * stretch.count
            middle = math.floor((stretch.ended_s - stretch.seconds / 2) / BUCKET_S)
            season += weight * self._season(middle) * stretch.seconds / BUCKET_S
        if not recent:
            return 1.0, 0.0
        # One season-like match more on both sides keeps a level out of nothing finite, and a quiet night from meaning "never again".
        return (count + 1.0) / (season + 1.0), count

    def _season_over(self, from_s: float, seconds: float) -> float:
        """Matches that the season has in a stretch of time."""
        total, at_s, end_s = 0.0, from_s, from_s + seconds
        while at_s < end_s - 1e-9:
            bucket = math.floor(at_s / BUCKET_S + 1e-9)
            until_s = min(end_s, (bucket + 1) * BUCKET_S)
            total += self._season(bucket) * (until_s - at_s) / BUCKET_S
            at_s = until_s
        return total

    def _season(self, bucket: int) -> float:
        season = self._seasons.get(bucket)
        if season is None:
            season = self._seasons[bucket] = self._earlier(bucket)
        return season

    def _earlier(self, bucket: int) -> float:
        """Matches that earlier weeks, or days, had in this bucket; where there are none, the mean of what there is."""
        for period, most in ((WEEK, 4), (DAY, 3)):
            value = weights = 0.0
            for back in range(1, most + 1):
                smooth = self._smooth(bucket - back * period)
                if smooth is not None:
                    value += _FADE**back * smooth
                    weights += _FADE**back
            if weights:
                return value / weights
        recent = [self._counts[b] for b in list(self._counts)[-DAY:]]
        return sum(recent) / len(recent) if recent else 0.0

    def _smooth(self, bucket: int) -> float | None:
        value = weights = 0.0
        for offset, weight in enumerate(_SMOOTH, start=-(len(_SMOOTH) // 2)):
            count = self._counts.get(bucket + offset)
            if count is not None:
                value += weight * count
                weights += weight
        return value / weights if bucket in self._counts else None


@dataclass(frozen=True, slots=True)
class Outlook:
    """A forecast from one moment on."""

    season_over: Callable[[float, float], float]
    """(from, seconds) → matches that the season has."""
    _: KW_ONLY
    now_s: float
    level: float
    """Times the season."""
    error2: float
    """Squared relative error of the forecast of a bucket."""
    unsure: float
    """Squared relative error of the level, since it is counted from few matches."""

    def over(self, seconds: float) -> Forecast:
        """Matches that begin within `seconds`."""
        mean = self.level * self.season_over(self.now_s, seconds)
        # The error grows with how far it looks, as that of a level that wanders.
        own = self.error2 * max(1.0, seconds / BUCKET_S) + self.unsure
        return Forecast(mean=mean, variance=mean + mean**2 * own)
