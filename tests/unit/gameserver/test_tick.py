"""The fixed-step clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gameserver.tick import MAX_BEHIND, TickClock


def test_on_time_ticks_are_an_interval_apart() -> None:
    """The first is due at once, the others an interval after the one before, however little late each is."""
    clock = TickClock(10, 100.0)
    assert clock.wait_s(100.0) == 0
    assert clock.ticked(100.004) == pytest.approx(0.004)
    assert clock.wait_s(100.004) == pytest.approx(0.096)


def test_a_short_stall_is_made_up_for() -> None:
    """Late ticks follow at once until the clock has caught up; none is dropped."""
    clock = TickClock(10, 0.0)
    clock.ticked(0.0)
    now, count = 0.35, 0
    while clock.wait_s(now) == 0:
        clock.ticked(now)
        count += 1
    assert (count, clock.dropped) == (3, 0)


def test_a_long_stall_is_dropped_and_counted() -> None:
    """After ten seconds away the match goes on from now, not with a hundred ticks at once."""
    clock = TickClock(10, 0.0)
    clock.ticked(0.0)
    now, count = 10.0, 0
    while clock.wait_s(now) == 0:
        clock.ticked(now)
        count += 1
    assert count <= MAX_BEHIND + 1
    assert clock.dropped == 100 - count


@given(st.lists(st.floats(0, 2), max_size=60), st.integers(1, 120))
def test_ticks_and_drops_add_up(stalls: list[float], rate_hz: int) -> None:
    """Whatever the stalls: ticks run and dropped are what the time passed asks for, within one and the tolerated backlog."""
    clock, now, ran = TickClock(rate_hz, 0.0), 0.0, 0
    for stall in stalls:
        now += stall
        if clock.wait_s(now) == 0:
            clock.ticked(now)
            ran += 1
        assert clock.due_s <= now + clock.interval_s + 1e-9
    assert (ran + clock.dropped) / rate_hz == pytest.approx(clock.due_s, abs=1e-6)
