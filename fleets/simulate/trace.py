"""
When matches begin, and how long they last: recorded ones read from a file, synthetic ones drawn with a seed.

Owns the file format and the shape of a synthetic week. Pure but for `read`; all randomness comes from the generator that is passed in.
"""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DAY_S = 86_400
_MINUTE_S = 60
_DEFAULT_LENGTH_S = 900.0


class TraceError(Exception):
    """The file is no trace; the message names the line and the mend."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Matches in order of their begin."""

    begins_s: NDArray[np.float64]
    """Unix seconds, ascending."""
    lengths_s: NDArray[np.float64]
    """One for each."""

    def __len__(self) -> int:
        return len(self.begins_s)

    def between(self, from_s: float, to_s: float) -> "Trace":
        """The matches that begin in a stretch of time."""
        low, high = np.searchsorted(self.begins_s, (from_s, to_s))
        return Trace(self.begins_s[low:high], self.lengths_s[low:high])


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """A launch or a tournament: `factor` times the usual, fading."""

    at_s: float
    """Since the trace's begin."""
    factor: float
    fade_s: float
    """After so long, 37 % of the addition is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A synthetic demand."""

    matches_per_s: float
    """On average over a week."""
    days: float = 7.0
    night: float = 0.15
    """The quietest hour, as a share of the busiest."""
    peak_hour: float = 20.0
    """Of the day, UTC."""
    weekend: float = 1.35
    """Friday evening to Sunday, times a weekday."""
    noise: float = 0.10
    """Relative deviation that no season explains; it wanders over about half an hour."""
    length_s: float = _DEFAULT_LENGTH_S
    length_deviation: float = 0.35
    """Of a match's length, relative."""
    begin_s: float = 1_767_571_200.0
    """2026-01-05, a Monday, 00:00 UTC."""
    bursts: tuple[Burst, ...] = ()


def busy(shape: Shape) -> NDArray[np.float64]:
    """How busy each minute is by the season alone, as a multiple of the mean."""
    season = _season(shape, np.arange(round(shape.days * DAY_S / _MINUTE_S)) * _MINUTE_S)
    multiple: NDArray[np.float64] = season / season.mean()
    return multiple


def synthetic(shape: Shape, rng: np.random.Generator) -> Trace:
    """Draw a trace: Poisson arrivals, minute by minute, whose rate has a day, a week, bursts and a noise of its own."""
    minutes = round(shape.days * DAY_S / _MINUTE_S)
    at_s = np.arange(minutes) * _MINUTE_S
    rate = shape.matches_per_s * busy(shape)
    rate *= np.exp(_wandering(minutes, shape.noise, rng))
    for burst in shape.bursts:
        since_s = at_s - burst.at_s
        rate *= 1 + (burst.factor - 1) * np.where(since_s >= 0, np.exp(-np.maximum(since_s, 0) / burst.fade_s), 0)
    counts = rng.poisson(rate * _MINUTE_S)
    begins_s = shape.begin_s + np.repeat(at_s, counts) + rng.random(counts.sum()) * _MINUTE_S
    begins_s.sort()
    spread = math.sqrt(math.log1p(shape.length_deviation**2))
    lengths_s = shape.length_s * rng.lognormal(-(spread**2) / 2, spread, len(begins_s))
    return Trace(begins_s, lengths_s)


def read(path: Path, *, length_s: float = _DEFAULT_LENGTH_S) -> Trace:
    """
    Read a CSV file with the columns `begin` (ISO 8601 or Unix seconds) and, if you have it, `length` (seconds); any order of lines.

    Args:
        length_s: of matches whose length is not given.
    Raises: TraceError, OSError.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if "begin" not in (reader.fieldnames or ()):
            raise TraceError(f"{path}: its first line must name the columns, `begin` and perhaps `length`")
        rows = sorted(_rows(path, reader, length_s))
    if not rows:
        raise TraceError(f"{path}: there is no match in it")
    table = np.array(rows)
    return Trace(table[:, 0], table[:, 1])


def _rows(path: Path, reader: "csv.DictReader[str]", length_s: float) -> Iterator[tuple[float, float]]:
    for row in reader:
        try:
            length = float(row.get("length") or length_s)
            begin = _time(row["begin"])
            if not (math.isfinite(begin) and 0 < length < math.inf):
                raise ValueError("begin and length are numbers, and length is above 0")
        except (TypeError, ValueError) as error:
            raise TraceError(f"{path}:{reader.line_num}: {error}") from None
        yield begin, length


def _time(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _season(shape: Shape, at_s: NDArray[np.int64]) -> NDArray[np.float64]:
    hour = (shape.begin_s + at_s) % DAY_S / 3600
    # A cosine to a power has one evening peak and a long, flat night, as player counts do.
    day: NDArray[np.float64] = ((1 + np.cos(2 * np.pi * (hour - shape.peak_hour) / 24)) / 2) ** 1.5
    day = shape.night + (1 - shape.night) * day
    weekday = (shape.begin_s + at_s + 3 * DAY_S) // DAY_S % 7  # the epoch was a Thursday; 0 is Monday
    late_friday = (weekday == 4) & (hour >= 17)
    return day * np.where((weekday >= 5) | late_friday, shape.weekend, 1.0)


def _wandering(minutes: int, deviation: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """An autoregressive noise of the given deviation that forgets within about half an hour."""
    keep = math.exp(-1 / 30)
    steps = rng.normal(0, deviation * math.sqrt(1 - keep**2), minutes)
    values = np.empty(minutes)
    value = rng.normal(0, deviation)
    for index, step in enumerate(steps.tolist()):
        value = keep * value + step
        values[index] = value
    return values
