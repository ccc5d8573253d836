"""What the store's clock should show."""

from gameserver.sessions.clock import StoreClock


def test_it_goes_on_as_ours_does() -> None:
    """From what it showed last; before the first look nothing is expected."""
    now_s = [5.0]
    clock = StoreClock(lambda: now_s[0])
    assert (clock.expected_s(), clock.expected_ms()) == (None, "")
    assert clock.saw(1000.0) == 0
    now_s[0] = 7.5
    assert (clock.expected_s(), clock.expected_ms()) == (1002.5, 1_002_500)
    assert clock.saw(4600.0) == 3597.5
    assert clock.expected_s() == 4600.0
