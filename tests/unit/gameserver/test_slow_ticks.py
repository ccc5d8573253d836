"""Ticks caught in the act."""

import time

import pytest

from gameserver.slow_ticks import SlowTicks


def dawdle(for_s: float) -> None:
    end_s = time.monotonic() + for_s
    while time.monotonic() < end_s:
        pass


def test_a_long_tick_is_caught_where_it_stands() -> None:
    """Its stack names the function at fault; one in time has none, and one that raised is not blamed on the next."""
    slow = SlowTicks(0.01)
    slow.begin()
    dawdle(0.05)
    stack = slow.end()
    assert stack[0].endswith(" dawdle")
    assert any("test_a_long_tick" in line for line in stack)
    slow.begin()
    assert slow.end() == []
    slow.begin()
    with pytest.raises(ZeroDivisionError):
        _ = 1 / 0
    slow.end()
    dawdle(0.03)
    assert slow.end() == []
