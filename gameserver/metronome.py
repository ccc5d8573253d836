"""
The process's sense of time: sleeps that end when they should, and garbage collection in the pauses between ticks.

An event loop's own timers are a millisecond coarse (uvloop rounds to it), which is most of a tick's lateness on an idle machine. Here one timerfd, armed
with the earliest moment anyone waits for, wakes the loop to within tens of microseconds. Automatic garbage collection strikes in the middle of a
tick, whenever enough was allocated; here it is turned off, and done when everybody sleeps for longer than it takes.
"""

import asyncio
import ctypes
import gc
import os
import time
from heapq import heappop, heappush
from types import TracebackType
from typing import Self

_YOUNG = 2_000
"""Objects allocated, and not freed again, from which a young collection is worth its call."""
_TOO_MANY = 200_000
"""From here on it is done whatever the time: a process that never has a pause must not run out of memory."""
_FULL_EVERY_S = 10.0
_CLOCK_MONOTONIC = 1
_TFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_ABSTIME = 1


class _Spec(ctypes.Structure):
    """`struct itimerspec`: interval and first expiry."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class Metronome:
    """Waits and collects for one event loop; a context manager, entered inside the loop."""

    def __init__(self, *, collect: bool = True) -> None:
        """`collect`: whether to take garbage collection over from the interpreter."""
        self._collect = collect
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0
        self._armed_s = float("inf")
        self._fd = -1
        self._full_at_s = 0.0
        self._took_s = {1: 0.001, 2: 0.01}
        """How long the last collection of each generation took; a guess at first."""

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            self._settime = libc.timerfd_settime
            self._fd = libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_FLAGS)
        except (AttributeError, OSError):
            self._fd = -1  # not Linux: the loop's timers have to do
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._due)
        if self._collect:
            gc.collect()
            gc.freeze()  # what was imported is never garbage: collections have less to look at
            gc.disable()
            self._full_at_s = time.monotonic() + _FULL_EVERY_S
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        for _, _, waiter in self._waiting:
            waiter.cancel()
        if self._collect:
            gc.enable()

    async def sleep(self, delay_s: float) -> None:
        """Sleep so long, to within tens of microseconds; at once for 0 or less, after the loop has had its turn."""
        if delay_s <= 0.0 or self._fd < 0:
            await asyncio.sleep(delay_s)
            return
        now_s = time.monotonic()
        due_s = now_s + delay_s
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._count += 1
        heappush(self._waiting, (due_s, self._count, waiter))
        if self._collect:
            self._collect_within(self._waiting[0][0] - now_s)
        self._arm()
        await waiter

    def _arm(self) -> None:
        while self._waiting and self._waiting[0][2].done():  # cancelled
            heappop(self._waiting)
        due_s = self._waiting[0][0] if self._waiting else float("inf")
        if due_s == self._armed_s or not self._waiting:
            return
        self._armed_s = due_s
        seconds, rest = divmod(max(due_s, 0.0), 1.0)
        spec = _Spec(0, 0, int(seconds), max(int(rest * 1e9), 1))
        self._settime(self._fd, _TFD_ABSTIME, ctypes.byref(spec), None)

    def _due(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            pass  # armed anew meanwhile
        self._armed_s = float("inf")
        now_s = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now_s:
            waiter = heappop(self._waiting)[2]
            if not waiter.done():
                waiter.set_result(None)
        self._arm()

    def _collect_within(self, pause_s: float) -> None:
        """Collect what a pause of this length has room for, with as much to spare."""
        young = gc.get_count()[0]
        if young < _YOUNG:
            return
        begun_s = time.monotonic()
        generation = 2 if begun_s >= self._full_at_s and 2 * self._took_s[2] < pause_s else 1
        if 2 * self._took_s[generation] > pause_s and young < _TOO_MANY:
            return
        gc.collect(generation)
        ended_s = time.monotonic()
        self._took_s[generation] = ended_s - begun_s
        if generation == 2:
            self._full_at_s = ended_s + _FULL_EVERY_S
