"""The simulator: what it keeps count of, and what it must never do."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleets.autoscaler.policy import FleetAim, Observed
from fleets.simulate.engine import simulate
from fleets.simulate.model import Outcome, World
from fleets.simulate.plot import plot
from fleets.simulate.supply import AutoBuffer, FixedBuffer
from fleets.simulate.sweep import Point, Setting, advantage, history_of, recommend, run_all, usual_settings
from fleets.simulate.trace import DAY_S, Burst, Shape, Trace, TraceError, read, synthetic

AIM = FleetAim(rooms=4, shelf=2, max=10_000)
WORLD = World(warm_up_s=0.0, interval_s=30)
SHAPE = Shape(matches_per_s=0.02, days=1, length_s=600)


def run(trace: Trace, buffer: int, aim: FleetAim = AIM, world: World = WORLD) -> Outcome:
    return simulate(trace, aim, world, FixedBuffer(aim, buffer), np.random.default_rng(1))


def every(seconds: float, count: int, length_s: float) -> Trace:
    begins = 1e9 + seconds * np.arange(count)
    return Trace(begins, np.full(count, length_s))


def test_steady_matches_find_the_shelf() -> None:
    """A match a minute of ten minutes each needs ten rooms; but for the beginning nobody meets a cold start."""
    outcome = run(every(60, 500, 600), buffer=2, world=replace(WORLD, warm_up_s=3600))
    assert outcome.cold == 0
    assert outcome.matches == outcome.shelf + outcome.buffer
    assert 10 <= outcome.live_peak <= 11
    hours = (500 * 60 - 3600) / 3600
    assert outcome.node_hours == pytest.approx(hours, rel=0.02)
    assert 3 * hours <= outcome.server_hours <= 6 * hours


def test_a_rush_waits_in_order_for_servers() -> None:
    """More matches at once than there is room for wait for boots, and all are served."""
    outcome = run(every(0.001, 40, 600), buffer=50)
    assert outcome.cold > 20
    assert outcome.unserved + len(outcome.waits_s) == outcome.cold
    later = Trace(np.append(every(0.001, 40, 600).begins_s, 1e9 + 500), np.full(41, 600.0))
    served = run(later, buffer=50)
    assert served.unserved == 0
    assert 100 < served.wait_s(0.9) < 300  # a node's boot and a server's


def test_a_failed_server_loses_no_session() -> None:
    """Sessions of a server that fails are moved, and counted."""
    outcome = run(every(30, 400, 900), buffer=4, world=replace(WORLD, crash_per_server_h=2.0))
    assert outcome.recovered > 0
    assert outcome.unserved == 0


@settings(max_examples=20, deadline=None)
@given(
    gaps=st.lists(st.floats(0, 300), min_size=1, max_size=80), length=st.floats(1, 2000), rooms=st.integers(1, 5),
    shelf=st.integers(0, 4), buffer=st.integers(0, 6), recycle=st.booleans(), most=st.integers(1, 12), crashes=st.sampled_from([0.0, 20.0]),
)  # fmt: skip
def test_it_keeps_its_books(
    gaps: list[float], length: float, rooms: int, shelf: int, buffer: int, recycle: bool, most: int, crashes: float
) -> None:
    """Every match is of one temperature, waits only when cold, and servers never exceed the maximum."""
    aim = FleetAim(rooms=rooms, shelf=min(shelf, most * rooms), max=most, recycle=recycle)
    trace = Trace(1e9 + np.cumsum(gaps), np.full(len(gaps), length))
    world = replace(WORLD, crash_per_server_h=crashes)

    class Checked(FixedBuffer):
        def replicas(self, seen: Observed, came: int) -> int:
            assert seen.ready + seen.allocated <= seen.replicas <= most
            assert 0 <= seen.free_rooms <= seen.allocated * rooms
            assert not (seen.waiting and (seen.free_rooms or seen.ready))
            return super().replicas(seen, came)

    outcome = simulate(trace, aim, world, Checked(aim, buffer), np.random.default_rng(1))
    assert outcome.matches == len(trace) == outcome.shelf + outcome.buffer + outcome.cold
    assert all(wait >= 0 for wait in outcome.waits_s)
    assert outcome == simulate(trace, aim, world, FixedBuffer(aim, buffer), np.random.default_rng(1))


def test_our_policy_beats_a_fixed_buffer_of_equal_cost() -> None:
    """Over a day with a peak, at least five times fewer cold starts at equal node-hours."""
    whole = synthetic(replace(SHAPE, matches_per_s=0.3, days=4), np.random.default_rng(2))
    cut_s = SHAPE.begin_s + 3 * DAY_S
    past, day = whole.between(0, cut_s), whole.between(cut_s, math.inf)
    aim = FleetAim(rooms=1, shelf=2, max=10_000, chance=0.002)
    world = World(interval_s=60)
    settings_ = [*(Setting(buffer=size) for size in (1, 4, 16, 64)), Setting(chance=0.002)]
    points = run_all(day, past, aim, world, settings_, seed=1)
    found = advantage(points, points[-1])
    assert points[-1].outcome.cold_share <= 0.004
    assert found.cold_ratio >= 5
    assert recommend(points, 0.004).setting.buffer is None


def test_a_sweep_covers_the_curve(tmp_path: Path) -> None:
    """Fixed buffers from one up and several chances; their picture is an SVG with both curves."""
    trace = synthetic(SHAPE, np.random.default_rng(1))
    chosen = usual_settings(AIM, trace)
    assert {setting.buffer is None for setting in chosen} == {True, False}
    points = run_all(trace, Trace(np.empty(0), np.empty(0)), AIM, WORLD, chosen[:2] + chosen[-1:], seed=1)
    plot(points, tmp_path / "curve.svg", title="a day")
    picture = (tmp_path / "curve.svg").read_text()
    assert "buffer: auto" in picture
    assert "node-hours" in picture


def test_the_recommendation() -> None:
    """The cheapest that keeps the chance; where none does, the one with the fewest cold starts."""

    def point(buffer: int, cold: int, hours: float) -> Point:
        return Point(setting=Setting(buffer=buffer), outcome=Outcome(matches=1000, cold=cold, node_hours=hours))

    points = [point(1, 50, 10), point(2, 1, 12), point(3, 0, 15)]
    assert recommend(points, 0.001).setting.buffer == 2
    assert recommend(points[:1], 0.001).setting.buffer == 1
    ours = Point(setting=Setting(), outcome=Outcome(matches=1000, cold=1, node_hours=11))
    assert advantage(points, ours).cold_ratio == pytest.approx(math.sqrt(50))
    assert advantage(points, ours).node_hours_saved == pytest.approx(1 - 11 / 12)


def test_a_synthetic_week_has_its_shape() -> None:
    """The average, the quiet night, the weekend and the burst are those that were asked for; a seed repeats it."""
    shape = Shape(matches_per_s=1.0, days=7, noise=0.0, bursts=(Burst(at_s=2 * DAY_S, factor=4, fade_s=1800),))
    trace = synthetic(shape, np.random.default_rng(5))
    assert np.array_equal(trace.begins_s, synthetic(shape, np.random.default_rng(5)).begins_s)
    plain = synthetic(replace(shape, bursts=()), np.random.default_rng(5))
    assert len(plain) == pytest.approx(7 * DAY_S, rel=0.01)
    assert plain.lengths_s.mean() == pytest.approx(900, rel=0.02)

    def per_s(trace: Trace, day: int, hour: float) -> float:
        begin_s = shape.begin_s + day * DAY_S + hour * 3600
        return len(trace.between(begin_s, begin_s + 3600)) / 3600

    assert per_s(plain, 1, 7.5) < 0.25 * per_s(plain, 1, 19.5)
    assert per_s(plain, 5, 19.5) > 1.2 * per_s(plain, 1, 19.5)
    assert per_s(trace, 2, 0) > 1.8 * per_s(plain, 2, 0)


def test_a_trace_is_read(tmp_path: Path) -> None:
    """Times as ISO 8601 or seconds, lengths where they are given; lines in any order."""
    file = tmp_path / "trace.csv"
    file.write_text("length,begin\n60,2026-01-05T00:01:00+00:00\n,1767571200\n")
    trace = read(file, length_s=300)
    assert trace.begins_s.tolist() == [1767571200, 1767571260]
    assert trace.lengths_s.tolist() == [300, 60]


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "first line"), ("a,b\n1,2\n", "first line"), ("begin\n", "no match"), ("begin\nsoon\n", "trace.csv:2"),
     ("begin,length\n1,-4\n", "trace.csv:2"), ("begin\nnan\n", "trace.csv:2")],
)  # fmt: skip
def test_a_bad_trace_is_named(tmp_path: Path, text: str, said: str) -> None:
    """The message names the line."""
    file = tmp_path / "trace.csv"
    file.write_text(text)
    with pytest.raises(TraceError, match=said):
        read(file)


def test_history_is_by_bucket() -> None:
    """Five minutes to a bucket."""
    assert history_of(every(100, 6, 1)) == {3333333: 2, 3333334: 3, 3333335: 1}


def test_the_policy_learns_within_a_simulation() -> None:
    """Without a history it starts blind to the season, and still serves."""
    trace = synthetic(replace(SHAPE, matches_per_s=0.2), np.random.default_rng(3))
    outcome = simulate(trace, AIM, World(interval_s=60), AutoBuffer(AIM, interval_s=60), np.random.default_rng(1))
    assert outcome.cold_share < 0.02
