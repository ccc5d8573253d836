"""The order of fleets, as a pure function."""

import itertools
from collections import Counter
from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import given

from allocator.selection import AS_NEAR_MS, COLD_MS, Candidate, rank
from gameserver.sessions.model import FleetName

REGIONS = ("eu", "us", "ap", "")
MS = st.floats(0, 300, allow_nan=False)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Candidate], dict[str, float], str]:
    candidates = [
        Candidate(
            fleet=FleetName(f"f{i}"),
            region=draw(st.sampled_from(REGIONS)),
            weight=draw(st.sampled_from([0.0, 0.5, 1.0, 3.0])),
            kept=draw(st.booleans()),
            warm=draw(st.integers(0, 2)),
        )
        for i in range(draw(st.integers(0, 6)))
    ]
    latency = draw(st.dictionaries(st.sampled_from(REGIONS[:3]), MS))
    return candidates, latency, draw(st.text(max_size=5))


def cost(candidate: Candidate, latency: dict[str, float]) -> float:
    return latency.get(candidate.region, float("inf")) + (0 if candidate.warm else COLD_MS)


@given(worlds())
def test_every_fleet_is_ranked_once_and_always_the_same(world: tuple[list[Candidate], dict[str, float], str]) -> None:
    """None is left out or doubled, and the same match sees the same order."""
    candidates, latency, seed = world
    order = rank(candidates, latency, seed=seed)
    assert sorted(order) == sorted(c.fleet for c in candidates)
    assert rank(candidates, latency, seed=seed) == order


@given(worlds())
def test_nearer_comes_first(world: tuple[list[Candidate], dict[str, float], str]) -> None:
    """Kept before cut off, weighted before last resorts; among these, nobody stands behind one that is clearly farther."""
    candidates, latency, seed = world
    by_name = {c.fleet: c for c in candidates}
    order = [by_name[name] for name in rank(candidates, latency, seed=seed)]
    for before, after in itertools.pairwise(order):
        assert (not before.kept, before.weight == 0) <= (not after.kept, after.weight == 0)
        if latency and (before.kept, before.weight == 0) == (after.kept, after.weight == 0):
            assert cost(before, latency) < cost(after, latency) + AS_NEAR_MS or cost(before, latency) == cost(
                after, latency
            )


@given(worlds())
def test_without_measurements_the_callers_order_holds(world: tuple[list[Candidate], dict[str, float], str]) -> None:
    """Then only fleets that are cut off, and last resorts, move back."""
    candidates, _, seed = world
    usual = [replace(c, kept=True, weight=1.0) for c in candidates]
    assert rank(usual, {}, seed=seed) == tuple(c.fleet for c in usual)


def test_fleets_as_near_share_by_weight() -> None:
    """Three to one, within what chance allows; the far one is never first."""
    near, also, far = (
        Candidate(fleet=FleetName("near"), region="eu", weight=3.0),
        Candidate(fleet=FleetName("also"), region="eu2", weight=1.0),
        Candidate(fleet=FleetName("far"), region="us", weight=100.0),
    )
    latency = {"eu": 20.0, "eu2": 24.0, "us": 90.0}
    first = Counter(rank([far, also, near], latency, seed=f"m{i}")[0] for i in range(4000))
    assert set(first) == {"near", "also"}
    assert 0.7 < first[FleetName("near")] / 4000 < 0.8
    assert rank([far, also, replace(near, kept=False)], latency, seed="m")[-1] == "near"
    assert rank([far, also, replace(near, weight=0.0)], latency, seed="m") == ("also", "far", "near")


def test_a_warm_room_a_little_farther_beats_a_cold_one() -> None:
    """A server need not be waited for when one is warm hardly farther; across the ocean it is waited for."""
    cold = Candidate(fleet=FleetName("cold"), region="eu", warm=0)
    near, far = (Candidate(fleet=FleetName(name), region=name) for name in ("near", "far"))
    latency = {"eu": 20.0, "near": 25.0, "far": 120.0}
    assert rank([cold, near, far], latency, seed="m") == ("near", "cold", "far")
