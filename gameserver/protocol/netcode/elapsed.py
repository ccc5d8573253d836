"""Time as connections live it: the caller's clock without its jumps."""

MOST_AT_ONCE_S = 1.0
"""A longer step is a jump, or a stall of this very process: no peer was silent meanwhile."""


class Elapsed:
    """
    Elapsed seconds that only ever grow, by no more than `MOST_AT_ONCE_S` at once.

    A clock that is set forward ends no connection, and one that is set back delays no keep-alive; nor does a process that was stopped for
    longer than its peers' timeouts give up the peers whose packets still wait in its socket.
    """

    __slots__ = ("_last_s", "time_s")

    def __init__(self, now_s: float | None = None) -> None:
        """`now_s`: the caller's clock; None for whatever it is at the first `advance`."""
        self._last_s = now_s
        self.time_s = 0.0

    def advance(self, now_s: float) -> float:
        """Move on to the caller's `now_s`, and return the time."""
        if self._last_s is not None:
            self.time_s += min(max(now_s - self._last_s, 0.0), MOST_AT_ONCE_S)
        self._last_s = now_s
        return self.time_s

    def outside_s(self, time_s: float) -> float:
        """What the caller's clock will be at `time_s`."""
        return (self._last_s or 0.0) + time_s - self.time_s
