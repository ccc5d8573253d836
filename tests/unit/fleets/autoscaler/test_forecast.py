"""The forecast of arrivals: level, season, spread."""

import numpy as np
import pytest

from fleets.autoscaler.forecast import BUCKET_S, DAY, WEEK, ArrivalForecast, Recent, RecentArrivals

FLAT = dict.fromkeys(range(2 * DAY), 60)
"""Two days of 60 matches in each five minutes."""
NOW_S = 2 * DAY * BUCKET_S


def recent(per_s: float, seconds: float = 900.0) -> tuple[Recent, ...]:
    return (Recent(ended_s=NOW_S, seconds=seconds, count=round(per_s * seconds)),)


def test_a_flat_history_goes_on() -> None:
    """What was always so is expected again."""
    found = ArrivalForecast(FLAT).outlook(NOW_S, recent(0.2)).over(600)
    assert found.mean == pytest.approx(120, rel=0.02)
    assert found.variance > found.mean


def test_nothing_known_is_nothing_expected() -> None:
    """A new fleet has no demand, not an error."""
    found = ArrivalForecast().outlook(NOW_S).over(60)
    assert found.mean == 0
    assert found.variance == 0


def test_the_level_follows_a_surge() -> None:
    """Three times the usual for a quarter of an hour is expected to stay."""
    assert ArrivalForecast(FLAT).outlook(NOW_S, recent(0.6)).over(300).mean == pytest.approx(180, rel=0.05)


def test_a_day_repeats() -> None:
    """With days of history, the evening is expected before it comes."""
    history = {bucket: 100 if bucket % DAY > 200 else 10 for bucket in range(3 * DAY)}
    morning, evening = 3 * DAY + 100, 3 * DAY + 220
    forecast = ArrivalForecast(history)
    quiet = Recent(ended_s=morning * BUCKET_S, seconds=BUCKET_S, count=10)
    assert forecast.outlook(morning * BUCKET_S, [quiet]).over(BUCKET_S).mean == pytest.approx(10, rel=0.2)
    ahead = forecast.outlook(
        (evening - 40) * BUCKET_S, [Recent(ended_s=(evening - 40) * BUCKET_S, seconds=300, count=10)]
    )
    by_then = ahead.over(40 * BUCKET_S).mean - ahead.over(39 * BUCKET_S).mean
    assert by_then == pytest.approx(100, rel=0.25)


def test_a_week_counts_more_than_a_day() -> None:
    """Saturday is expected as last Saturday was, not as Friday."""
    saturday = {bucket: 90 if bucket // DAY % 7 == 5 else 30 for bucket in range(WEEK + 5 * DAY)}
    forecast = ArrivalForecast(saturday)
    begin = (WEEK + 5 * DAY) * BUCKET_S
    level = [Recent(ended_s=begin - 6 * BUCKET_S, seconds=300, count=30)]
    assert forecast.outlook(begin, level).over(3600).mean == pytest.approx(12 * 90, rel=0.15)


def test_being_wrong_widens_the_spread() -> None:
    """A fleet that jumps about is reckoned with a wider spread than a steady one of the same mean."""
    rng = np.random.default_rng(1)
    wild = {bucket: int(rng.choice([10, 110])) for bucket in range(DAY)}
    steady = {bucket: int(rng.poisson(60)) for bucket in range(DAY)}
    now_s = DAY * BUCKET_S
    same = [Recent(ended_s=now_s, seconds=900, count=180)]
    widths = [ArrivalForecast(history).outlook(now_s, same).over(300).variance for history in (wild, steady)]
    assert widths[0] > 3 * widths[1]


def test_short_stretches_are_joined() -> None:
    """Samples of five seconds make stretches of half a minute; nothing is counted twice or lost."""
    arrivals = RecentArrivals()
    for second in range(5, 65, 5):
        arrivals.add(Recent(ended_s=second, seconds=5, count=1))
    assert [(s.ended_s, s.seconds, s.count) for s in arrivals.all()] == [(30, 30, 6), (60, 30, 6)]
