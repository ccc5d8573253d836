"""Whom to ask of several endpoints."""

import pytest

from allocator.backends.endpoints import FIRST_PAUSE_S, LONGEST_PAUSE_S, Endpoint, Endpoints

FAR, NEAR, ALSO_NEAR = (
    Endpoint(address="far:443", region="us"),
    Endpoint(address="near:443", region="eu"),
    Endpoint(address="near-too:443", region="eu"),
)


def test_the_near_ones_come_first_in_their_order() -> None:
    """The asker's region decides, then the order they were named in."""
    assert Endpoints([FAR, NEAR, ALSO_NEAR], region="eu").order(0.0) == (NEAR, ALSO_NEAR, FAR)
    assert Endpoints([FAR, NEAR, ALSO_NEAR], region="asia").order(0.0) == (FAR, NEAR, ALSO_NEAR)


def test_one_that_fails_is_put_aside_for_longer_each_time_and_comes_back() -> None:
    """It is asked last until its pause is over; an answer forgets its failures."""
    endpoints, now_s = Endpoints([NEAR, FAR], region="eu"), 0.0
    for pause_s in (FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S):
        endpoints.failed(NEAR, now_s)
        assert endpoints.order(now_s + 0.9 * pause_s) == (FAR, NEAR)
        now_s += pause_s
        assert endpoints.order(now_s) == (NEAR, FAR)
    endpoints.answered(NEAR)
    endpoints.failed(NEAR, now_s)
    assert endpoints.order(now_s + FIRST_PAUSE_S) == (NEAR, FAR)
    for _ in range(100):
        endpoints.failed(NEAR, now_s)
    assert endpoints.order(now_s + LONGEST_PAUSE_S) == (NEAR, FAR)


def test_with_all_put_aside_the_one_that_is_soonest_back_is_asked() -> None:
    """Nobody is left unasked."""
    endpoints = Endpoints([NEAR, FAR])
    endpoints.failed(FAR, 0.0)
    endpoints.failed(NEAR, 0.5)
    assert endpoints.order(0.6) == (FAR, NEAR)


def test_none_is_no_service() -> None:
    """The error says what an address looks like."""
    with pytest.raises(ValueError, match="one address at least"):
        Endpoints([])
