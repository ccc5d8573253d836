"""
What a tick was doing when it had taken too long: its stack, caught in the act.

Off unless asked for (`WARMFLEET_SLOW_TICK_MS`): two system calls a tick arm and disarm the process's interval timer. Its signal interrupts a tick that is
over its time, and Python runs the handler between two bytecodes, in the frame that is at fault (for a long call into C: right after it). A thread that
watched would have to wake for every tick, and would hold it up.
"""

import signal
import traceback
from itertools import islice
from types import FrameType

_MOST_FRAMES = 40


class SlowTicks:
    """One process's: ticks never overlap. Make it in the main thread."""

    def __init__(self, over_s: float) -> None:
        """`over_s`: a tick that takes longer is caught."""
        self._over_s = over_s
        self._watching = False
        self._stack: list[str] = []
        signal.signal(signal.SIGALRM, self._caught)

    def begin(self) -> None:
        """A tick begins."""
        self._stack, self._watching = [], True
        signal.setitimer(signal.ITIMER_REAL, self._over_s)

    def end(self) -> list[str]:
        """It has ended; returns its stack as it was when its time was over, innermost first, empty when it was in time."""
        self._watching = False
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        return self._stack

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self._watching and not self._stack:
            # Innermost first; without the lines of source, which would be read from files now.
            frames = islice(traceback.walk_stack(frame), _MOST_FRAMES)
            self._stack = [f"{at.f_code.co_filename}:{line} {at.f_code.co_name}" for at, line in frames]
