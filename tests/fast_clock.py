"""A clock that runs faster than time, for outages that last minutes: the loop, its timers and `time.monotonic` go by it. Valkey's own does not."""

import asyncio
import selectors
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest


class _Hurried(selectors.DefaultSelector):
    """Waits for a fraction of the time that it is told."""

    def __init__(self, speed: float) -> None:
        super().__init__()
        self._speed = speed

    def select(self, timeout: float | None = None) -> Any:
        return super().select(timeout if timeout is None else timeout / self._speed)


@contextmanager
def hurried(speed: float) -> Iterator[Callable[[], asyncio.AbstractEventLoop]]:
    """Makes event loops on which `speed` seconds pass in one."""
    real = time.monotonic
    begun_s = real()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: begun_s + (real() - begun_s) * speed)
        yield lambda: asyncio.SelectorEventLoop(_Hurried(speed))
