"""
The store's clock as one who looks at it again and again knows it: whether it has jumped since the last look, by our own monotonic clock.

It jumps when it is set, and when a failover brings another machine. What has waited by it must not look older for it: who decides by ages says with
each look what the clock should show, and the store's function moves its times along where it shows something else (docs/decisions/0150).
"""

import time
from collections.abc import Callable

JUMP_S = 10.0
"""By so much it may differ from ours between two looks: a look that was held up is no jump. As in the Lua functions."""


class StoreClock:
    """What the store's clock should show now."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._ahead_s: float | None = None

    def saw(self, at_s: float) -> float:
        """It showed this just now. Returns by how much it was not what it should have been, in s."""
        before_s, self._ahead_s = self._ahead_s, at_s - self._monotonic_s()
        return 0.0 if before_s is None else self._ahead_s - before_s

    def expected_s(self) -> float | None:
        """What it should show now, Unix seconds; None before the first look."""
        return None if self._ahead_s is None else self._monotonic_s() + self._ahead_s

    def expected_ms(self) -> int | str:
        """The same for a Valkey function, to which '' is unknown."""
        expected_s = self.expected_s()
        return "" if expected_s is None else round(expected_s * 1000)
