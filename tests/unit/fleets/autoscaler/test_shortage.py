"""How many warm rooms a chance of a cold start wants."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleets.autoscaler.forecast import Forecast
from fleets.autoscaler.shortage import warm_rooms

NONE = Forecast(mean=0, variance=0)


@pytest.mark.parametrize(
    ("mean", "releases", "trials"), [(0.3, 0, 0), (4, 0, 0), (20, 5, 100), (60, 40, 200), (900, 700, 9000)]
)
def test_it_is_the_smallest_that_keeps_the_chance(mean: float, releases: float, trials: int) -> None:
    """Drawn at random a million times, that many rooms keep the share of cold starts, and clearly fewer do not."""
    rng = np.random.default_rng(1)
    share = releases / trials if trials else 0
    net = rng.poisson(mean, 1_000_000) - rng.binomial(trials, share, 1_000_000)
    wanted = warm_rooms(
        Forecast(mean=mean, variance=mean), Forecast(mean=releases, variance=releases * (1 - share)), chance=0.01
    )

    def cold_share(rooms: int) -> float:
        return float(np.maximum(net - rooms, 0).mean()) / mean

    assert cold_share(wanted) <= 0.0105
    assert wanted == 0 or cold_share(wanted - 1 - round(0.02 * wanted)) > 0.0095


@given(mean=st.floats(0, 5000), spread=st.floats(1, 20), chance=st.floats(1e-6, 0.5), releases=st.floats(0, 5000))
def test_it_is_monotonic(mean: float, spread: float, chance: float, releases: float) -> None:
    """More demand, more spread or a smaller chance never want fewer rooms; nobody wants none."""
    freed = Forecast(mean=releases, variance=releases * 0.9)
    rooms = warm_rooms(Forecast(mean=mean, variance=mean * spread), freed, chance)
    assert rooms >= 0
    assert warm_rooms(Forecast(mean=mean, variance=mean * spread), NONE, chance) >= rooms - 1 - round(0.02 * rooms)
    assert warm_rooms(Forecast(mean=mean, variance=mean * spread), freed, chance / 2) >= rooms
    assert warm_rooms(NONE, freed, chance) == 0
