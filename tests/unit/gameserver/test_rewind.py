"""Lag compensation: the world as a player saw it, between two snapshots, never too old and never of the future."""

import numpy as np
import pytest

from gameserver.protocol.schema import Bool, Float, Schema, Table
from gameserver.protocol.snapshot import SnapshotHistory, World
from gameserver.rewind import seen_at

SCHEMA = Schema(ships=Table(x=Float(0, 100, 0.5), alive=Bool()))


def history(ticks: int = 20) -> SnapshotHistory:
    """Ship 1 is at x = tick; ship 2 is there from tick 11 on; ship 3 until tick 10."""
    kept = SnapshotHistory(size=16)
    for tick in range(1, ticks + 1):
        ids = [1, 2] if tick > 10 else [1, 3]
        world = World.of(SCHEMA, {"ships": {"id": ids, "x": [tick, 50], "alive": [tick % 2 == 0, True]}})
        kept.push(tick, world)
    return kept


def test_between_two_ticks_numbers_are_interpolated() -> None:
    """Numbers lie between the snapshots, truth values are the earlier one's."""
    seen = seen_at(history(), "ships", (15 << 8) + 64, 10)
    assert seen["id"].tolist() == [1, 2]
    assert seen["x"].tolist() == [15.25, 50.0]
    assert seen["alive"].tolist() == [False, True]


def test_rows_that_come_and_go_are_the_earlier_snapshots() -> None:
    """At 10.5 ship 3 is still shown, and ship 2 is not yet."""
    seen = seen_at(history(), "ships", (10 << 8) + 128, 15)
    assert seen["id"].tolist() == [1, 3]
    assert seen["x"].tolist() == [10.5, 50.0]


@pytest.mark.parametrize(
    ("view", "x"),
    [(0, 20.0), (20 << 8, 20.0), (25 << 8, 20.0), (0xFFFFFFFF, 20.0), (1, 14.0), (14 << 8, 14.0), (13 << 8, 14.0)],
)
def test_the_past_is_bounded_and_the_future_is_not_known(view: int, x: float) -> None:
    """Unknown is the newest; what is claimed beyond the bounds is the nearest moment within."""
    assert seen_at(history(), "ships", view, 6)["x"][0] == x


def test_a_moment_before_what_is_kept_is_the_oldest_kept() -> None:
    """A room that has just been resumed has little to look back at."""
    assert seen_at(history(), "ships", (2 << 8) + 100, 100)["x"][0] == 5.0


def test_the_result_is_the_callers() -> None:
    """A game may scribble on what it is given: the next caller sees the truth."""
    kept = history()
    for view in (15 << 8, (15 << 8) + 128):
        seen_at(kept, "ships", view, 10)["x"][:] = 99
        assert np.all(seen_at(kept, "ships", view, 10)["x"] < 60)


def test_nothing_to_see() -> None:
    """Before the first snapshot, and for a table that is not there."""
    with pytest.raises(LookupError):
        seen_at(SnapshotHistory(), "ships", 0, 10)
    with pytest.raises(KeyError):
        seen_at(history(), "nothing", 0, 10)
