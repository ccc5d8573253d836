"""
Who decides how many servers a simulated fleet has: Agones' fixed buffer, or our autoscaler's own policy, unchanged.
"""

from collections import deque
from typing import Protocol

from fleets.autoscaler.forecast import BUCKET_S, ArrivalForecast, Recent, RecentArrivals
from fleets.autoscaler.policy import HOLD_S, Decision, FleetAim, Observed, decide


class Supply(Protocol):
    """Decides the number of servers, every `interval_s`."""

    def replicas(self, seen: Observed, came: int) -> int:
        """
        Servers in all that there should be.

        Args:
            came: matches that began since the last call.
        """


class FixedBuffer:
    """Agones' Buffer policy: so many Ready beside the Allocated ones. Source: Agones, pkg/fleetautoscalers (applyBufferPolicy)."""

    def __init__(self, aim: FleetAim, buffer: int) -> None:
        self._aim = aim
        self._buffer = buffer

    def replicas(self, seen: Observed, came: int) -> int:
        """Allocated plus the buffer, within the bounds."""
        del came
        taken = seen.allocated + seen.reserved
        return max(min(max(taken + self._buffer, self._aim.min), self._aim.max), taken)


class AutoBuffer:
    """Our policy, with the history that it would have gathered by then."""

    def __init__(self, aim: FleetAim, *, interval_s: float, history: dict[int, int] | None = None) -> None:
        """`history`: matches by bucket before the trace begins."""
        self._aim = aim
        self._interval_s = interval_s
        self._arrivals = ArrivalForecast(history)
        self._bucket: int | None = None
        self._in_bucket = 0
        self._recent = RecentArrivals()
        self._decisions: deque[Decision] = deque()
        self._idle_since_s: float | None = None

    def replicas(self, seen: Observed, came: int) -> int:
        """Ask the policy."""
        self._note(seen.at_s, came)
        while self._decisions and seen.at_s - self._decisions[0].at_s > HOLD_S:
            self._decisions.popleft()
        idle_s = seen.at_s - (self._idle_since_s or seen.at_s)
        observed = Observed(
            at_s=seen.at_s,
            replicas=seen.replicas,
            ready=seen.ready,
            allocated=seen.allocated,
            free_rooms=seen.free_rooms,
            waiting=seen.waiting,
            live=seen.live,
            ends_per_s=seen.ends_per_s,
            lead_s=seen.lead_s,
            idle_s=idle_s,
            recent=self._recent.all(),
        )
        decision = decide(self._aim, observed, self._arrivals, self._decisions, interval_s=self._interval_s)
        self._decisions.append(decision)
        return decision.replicas

    def _note(self, at_s: float, came: int) -> None:
        bucket = int(at_s // BUCKET_S)
        if self._bucket is not None and bucket > self._bucket:
            self._arrivals.close(self._bucket, self._in_bucket)
            self._in_bucket = 0
        self._bucket = bucket
        self._in_bucket += came
        self._recent.add(Recent(ended_s=at_s, seconds=self._interval_s, count=came))
        if came or self._idle_since_s is None:
            self._idle_since_s = at_s
