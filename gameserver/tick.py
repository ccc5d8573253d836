"""
The fixed-step clock: when the next tick is due, and what happens when ticks are late.

Policy: every tick is one step of the same length. A late tick runs at once, and so do those after it until the clock has caught up; more than
`MAX_BEHIND` ticks behind, the backlog is dropped and counted: the match runs slower for a moment instead of falling ever further behind.
Pure: time is an argument.
"""

MAX_BEHIND = 5
"""Ticks that may be made up for; at 30 Hz a stall of 170 ms is invisible in the count of ticks."""


class TickClock:
    """The schedule of one room."""

    def __init__(self, rate_hz: int, now_s: float) -> None:
        """The first tick is due at `now_s` (any monotonic clock)."""
        self.interval_s = 1.0 / rate_hz
        self.due_s = now_s
        self.dropped = 0
        """Ticks that were never run."""

    def wait_s(self, now_s: float) -> float:
        """How long to sleep before the next tick; 0 when it is due."""
        return max(0.0, self.due_s - now_s)

    def ticked(self, now_s: float) -> float:
        """Note that the tick that was due has begun at `now_s`; returns how late it was, in s."""
        late_s = now_s - self.due_s
        self.due_s += self.interval_s
        behind = int((now_s - self.due_s) / self.interval_s)
        if behind > MAX_BEHIND:
            self.dropped += behind
            self.due_s += behind * self.interval_s
        return late_s
