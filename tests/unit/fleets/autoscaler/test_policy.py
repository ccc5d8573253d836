"""Decisions: bounds, holds, schedules, blindness, and their reasons."""

from dataclasses import replace
from datetime import UTC, datetime, time

from hypothesis import given
from hypothesis import strategies as st

from fleets.autoscaler.forecast import ArrivalForecast, Recent
from fleets.autoscaler.leadtime import HOUR_S, LeadTimes
from fleets.autoscaler.policy import HOLD_S, Decision, FleetAim, Observed, decide, decide_blind
from fleets.autoscaler.schedule import Schedule

AIM = FleetAim(rooms=2, shelf=2, min=0, max=100, chance=0.01)
NOW_S = datetime(2026, 3, 6, 17, 55, tzinfo=UTC).timestamp()
"""A Friday."""
QUIET = Observed(at_s=NOW_S, replicas=1, ready=0, allocated=1, free_rooms=2)
NOBODY = ArrivalForecast()
BUSY = ArrivalForecast(dict.fromkeys(range(int(NOW_S // 300) - 300, int(NOW_S // 300)), 300))


def choose(
    aim: FleetAim = AIM, seen: Observed = QUIET, arrivals: ArrivalForecast = NOBODY, earlier: tuple[Decision, ...] = ()
) -> Decision:
    return decide(aim, seen, arrivals, earlier, interval_s=5)


def test_nobody_comes_and_the_shelf_is_enough() -> None:
    """Without demand, no server beyond the shelf's is kept."""
    assert (choose().replicas, choose().buffer) == (1, 0)


def test_an_empty_shelf_is_filled() -> None:
    """Rooms that the shelf lacks are asked for as servers."""
    assert choose(seen=replace(QUIET, free_rooms=0, allocated=0, replicas=0)).buffer == 1


def test_demand_is_covered_until_a_server_can_be_there() -> None:
    """A match a second and half a minute to boot want about fifty rooms, beyond those on the shelf."""
    decision = choose(arrivals=BUSY)
    assert 17 <= decision.buffer <= 40
    assert "matches are expected" in decision.reasons[0]
    slower = choose(arrivals=BUSY, seen=replace(QUIET, lead_s=120))
    assert slower.buffer > 2 * decision.buffer


def test_rooms_that_come_free_need_no_server() -> None:
    """Many sessions that end soon make room for those that begin; not where rooms are used only once."""
    seen = replace(QUIET, live=2000, ends_per_s=1 / 1000)
    assert choose(arrivals=BUSY, seen=seen).buffer < choose(arrivals=BUSY).buffer / 2
    assert choose(replace(AIM, recycle=False), seen, BUSY).buffer == choose(arrivals=BUSY).buffer


def test_those_who_wait_come_on_top() -> None:
    """Every waiting match wants a room now."""
    assert choose(seen=replace(QUIET, free_rooms=0, waiting=20)).buffer == 10


def test_a_lull_does_not_shrink_it_at_once() -> None:
    """What was wanted within the last minutes is held, and said; later it is not."""
    busy = choose(arrivals=BUSY)
    soon = choose(seen=replace(QUIET, at_s=NOW_S + 60), earlier=(busy,))
    assert soon.buffer == busy.buffer
    assert any("shrinks later" in reason for reason in soon.reasons)
    assert choose(seen=replace(QUIET, at_s=NOW_S + HOLD_S + 1), earlier=(busy,)).buffer == 0


def test_nothing_is_kept_for_nobody() -> None:
    """With idle-to-zero, a fleet that nobody has come to for so long keeps nothing, unless a schedule or a waiter says so."""
    aim = replace(AIM, idle_to_zero_s=600)
    idle = replace(QUIET, idle_s=601, free_rooms=0)
    assert choose(aim, idle).idle
    assert choose(aim, idle).buffer == 0
    assert not choose(aim, replace(idle, idle_s=599)).idle
    assert not choose(aim, replace(idle, waiting=1)).idle
    launch = replace(aim, schedules=(Schedule(name="launch", ready=4, for_s=3600, at_s=NOW_S + 300),))
    assert not choose(launch, idle).idle
    assert choose(launch, idle).buffer == 4


def test_a_schedule_is_warm_before_it_begins() -> None:
    """Eighteen o'clock in Berlin, on Fridays: servers are Ready a lead time before, until it is over."""
    evening = Schedule(
        name="evening", ready=7, for_s=3600, lead_s=600, daily=time(18), days=("fri",), zone="Europe/Berlin"
    )
    aim = replace(AIM, schedules=(evening,))
    begin_s = datetime(2026, 3, 6, 17, 0, tzinfo=UTC).timestamp()
    at = {offset: choose(aim, replace(QUIET, at_s=begin_s + offset)).buffer for offset in (-601, -599, 0, 3599, 3601)}
    assert at == {-601: 0, -599: 7, 0: 7, 3599: 7, 3601: 0}
    assert choose(aim, replace(QUIET, at_s=begin_s + 86_400)).buffer == 0
    assert any("'evening'" in reason for reason in choose(aim, replace(QUIET, at_s=begin_s)).reasons)


def test_bounds_hold_and_are_said() -> None:
    """Never below min, never above max but for those that have players."""
    assert choose(replace(AIM, min=5)).replicas == 5
    assert choose(replace(AIM, max=3), arrivals=BUSY).replicas == 3
    assert choose(replace(AIM, max=3), replace(QUIET, allocated=8, replicas=8), BUSY).replicas == 8


def test_blind_takes_nothing_away() -> None:
    """Without a view of the demand, what is there stays, and the shelf can be filled anew."""
    seen = replace(QUIET, replicas=9, allocated=3)
    decision = decide_blind(AIM, seen, why="the store is away")
    assert decision.blind
    assert decision.replicas == 9
    assert decide_blind(AIM, replace(seen, replicas=3), why="x").replicas == 4


@given(
    allocated=st.integers(0, 300), ready=st.integers(0, 50), free=st.integers(0, 50), waiting=st.integers(0, 500),
    low=st.integers(0, 50), high=st.integers(0, 300), live=st.integers(0, 5000), hazard=st.floats(0, 1),
    lead_s=st.floats(0.1, 3600), came=st.integers(0, 10_000),
)  # fmt: skip
def test_a_decision_keeps_its_bounds(
    allocated: int,
    ready: int,
    free: int,
    waiting: int,
    low: int,
    high: int,
    live: int,
    hazard: float,
    lead_s: float,
    came: int,
) -> None:
    """Whatever is observed: at least those taken and min, at most max or those taken; the buffer is the difference."""
    aim = replace(AIM, min=low, max=max(low, high, 1))
    seen = Observed(
        at_s=NOW_S, replicas=allocated + ready, ready=ready, allocated=allocated, free_rooms=free, waiting=waiting, live=live,
        ends_per_s=hazard, lead_s=lead_s, recent=(Recent(ended_s=NOW_S, seconds=60, count=came),),
    )  # fmt: skip
    decision = choose(aim, seen, BUSY)
    assert max(allocated, low) <= decision.replicas <= max(aim.max, allocated)
    assert decision.buffer == decision.replicas - allocated
    assert decision.reasons
    assert choose(aim, seen, BUSY) == decision


def test_the_slowest_hour_of_the_day_counts() -> None:
    """A quiet night does not make a fleet forget what its evening's starts took; a day later it does, and one stuck pod is no hour."""
    times = LeadTimes({100: 20.0})
    for _ in range(50):
        times.note(101 * HOUR_S, 150)
    for _ in range(19):
        times.note(102 * HOUR_S, 20)
    times.note(102 * HOUR_S + 1, 900)
    assert times.reckon(5) == 150
    times.note(126 * HOUR_S, 21)
    assert times.reckon(5) == 21
    assert LeadTimes().reckon(5) == 5
