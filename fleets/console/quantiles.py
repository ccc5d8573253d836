"""Quantiles of histograms over the last while, from cumulative buckets: what Prometheus' histogram_quantile does, for one process."""

import math
from collections import deque
from collections.abc import Iterable, Mapping

Buckets = Mapping[float, float]
"""Upper bound to how many observations lie at or below it."""


def quantile(q: float, buckets: Buckets) -> float | None:
    """The q-quantile, even within a bucket; None without observations, the highest bound for what lies beyond it."""
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    rank, below, low = q * total, 0.0, 0.0
    for bound in bounds:
        upto = buckets[bound]
        if upto >= rank and upto > below:
            return low if math.isinf(bound) else low + (bound - low) * (rank - below) / (upto - below)
        below, low = upto, bound if not math.isinf(bound) else low
    return low


def buckets_in(page: Iterable[str], metric: str) -> dict[float, float]:
    """Of a metric without labels, in the text format."""
    found = {}
    start = f'{metric}_bucket{{le="'
    for line in page:
        if line.startswith(start):
            bound, _, value = line.removeprefix(start).partition('"} ')
            found[float(bound)] = float(value)
    return found


class Recent:
    """What was observed within the last looks."""

    def __init__(self, looks: int) -> None:
        self._seen: deque[Buckets] = deque(maxlen=looks)

    def note(self, buckets: Buckets) -> dict[float, float]:
        """Take a look; returns what came since the oldest one that is kept (nothing after a restart, until there are two)."""
        first = self._seen[0] if self._seen else buckets
        self._seen.append(buckets)
        since = {bound: value - first.get(bound, 0.0) for bound, value in buckets.items()}
        if min(since.values(), default=0.0) < 0:  # begun anew
            self._seen.clear()
            return {}
        return since
