"""Token buckets: so many at once, so many a second in the long run, for a bounded number of callers."""

from collections import OrderedDict


class Buckets:
    """One bucket per caller; who was not seen for longest is forgotten first, with a full bucket."""

    def __init__(self, *, per_s: float, burst: float, max_callers: int = 100_000) -> None:
        self.per_s = per_s
        self._burst = burst
        self._max_callers = max_callers
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str, now_s: float) -> float:
        """Count one; returns 0, or how long the caller must wait, in s, when that was too many."""
        credit, at_s = self._buckets.pop(caller, (self._burst, now_s))
        credit = min(self._burst, credit + (now_s - at_s) * self.per_s) - 1.0
        self._buckets[caller] = (max(credit, -1.0), now_s)
        if len(self._buckets) > self._max_callers:
            self._buckets.popitem(last=False)
        return max(0.0, -credit / self.per_s)
