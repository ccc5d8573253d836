"""Interest management: whatever is lost or reordered, a client holds the rows of its area, and nothing else."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gameserver.protocol.interest import Area, Areas, Interest, Views
from gameserver.protocol.messages import Snapshot, decode_server
from gameserver.protocol.schema import Float, Schema, SchemaError, Table, UInt
from gameserver.protocol.snapshot import SnapshotHistory, World, apply_delta, decode_full, encode_full

SCHEMA = Schema(
    ships=Table(x=Float(-50, 50, 1 / 64), y=Float(-50, 50, 1 / 64), hp=UInt(8)),
    clock=Table(left=UInt(16)),
    mines=Table(east=Float(-50, 50, 1), north=Float(-50, 50, 1)),
)
AREAS = Areas(SCHEMA, {"ships": Interest(radius=10), "mines": Interest(radius=7, x="east", y="north")})
PLACES = st.floats(-50, 50)


@st.composite
def states(draw: st.DrawFn) -> dict[str, dict[str, list[Any]]]:
    ships = draw(st.dictionaries(st.integers(0, 30), st.tuples(PLACES, PLACES, st.integers(0, 3)), max_size=20))
    mines = draw(st.dictionaries(st.integers(0, 9), st.tuples(PLACES, PLACES), max_size=8))
    return {
        "ships": {"id": list(ships), **{name: [row[k] for row in ships.values()] for k, name in enumerate(("x", "y", "hp"))}},
        "clock": {"id": [0], "left": [draw(st.integers(0, 9))]},
        "mines": {"id": list(mines), **{name: [row[k] for row in mines.values()] for k, name in enumerate(("east", "north"))}},
    }  # fmt: skip


def shown(world: World, point: tuple[float, float] | None) -> dict[str, list[int]]:
    """The ids that are due to someone at a point, one by one."""
    due = {}
    for name, radius, x, y in (("ships", 10, "x", "y"), ("clock", 0, "", ""), ("mines", 7, "east", "north")):
        values = world.values(name)
        due[name] = [
            int(row)
            for k, row in enumerate(values["id"])
            if point is None or not radius
            or all(abs(math.floor(values[axis][k] / radius) - math.floor(at / radius)) <= 1 for axis, at in zip((x, y), point, strict=True))
        ]  # fmt: skip
    return due


@given(st.lists(st.tuples(states(), st.none() | st.tuples(PLACES, PLACES)), min_size=1, max_size=8), st.data())
@settings(max_examples=60, deadline=None)
def test_any_loss_and_reordering(ticks: list[Any], data: st.DataObject) -> None:
    """A client that moves about, loses and reorders: it holds the rows of its area of that tick, each as it truly is."""
    history = SnapshotHistory(size=4)
    views = Views(AREAS, history)
    sent: dict[int, Area | None] = {}
    truth: dict[int, tuple[World, Any]] = {}
    seen: dict[int, World] = {}
    acknowledged = 0
    in_flight: list[tuple[int, int, bytes]] = []
    for tick, (state, point) in enumerate(ticks, 1):
        world = World.of(SCHEMA, state)
        truth[tick] = world, point
        history.push(tick, world)
        area = None if point is None else AREAS.at(*point)
        shared = views.snapshot(acknowledged if acknowledged in sent else 0, sent.get(acknowledged), area)
        snapshot = decode_server(shared.message(7))
        assert isinstance(snapshot, Snapshot)
        baseline, body = snapshot.baseline, snapshot.body
        sent[tick] = area
        in_flight.append((tick, baseline, body))
        for packet in data.draw(st.permutations(in_flight)):
            if data.draw(st.booleans()):
                in_flight.remove(packet)
                at, base, raw = packet
                seen[at] = apply_delta(seen[base], raw) if base else decode_full(SCHEMA, raw)
                whole, where = truth[at]
                due = shown(whole, where)
                for k, name in enumerate(SCHEMA.tables):
                    got, all_rows = seen[at].tables[k], whole.tables[k]
                    assert got.ids.tolist() == due[name]
                    rows = np.isin(all_rows.ids, got.ids)
                    assert all(np.array_equal(a, b[rows]) for a, b in zip(got.columns, all_rows.columns, strict=True))
                if data.draw(st.booleans()):
                    acknowledged = max(acknowledged, at)


@given(states(), PLACES, PLACES)
def test_everything_within_the_radius_is_shown(state: Any, x: float, y: float) -> None:
    """The grid is coarse, but never hides what is near."""
    world = World.of(SCHEMA, state)
    view = AREAS.view(world, AREAS.grid(world), AREAS.at(x, y))
    ships = world.values("ships")
    near = np.hypot(ships["x"] - x, ships["y"] - y) <= 10
    assert set(ships["id"][near].tolist()) <= set(view.tables[0].ids.tolist())


def test_neighbours_share_bytes() -> None:
    """Clients in one cell with one baseline get the same object; a thousand rows cost a tenth of the whole world and less."""
    rng = np.random.default_rng(1)
    history = SnapshotHistory()
    areas = Areas(
        Schema(ships=Table(x=Float(0, 1000, 1 / 64), y=Float(0, 1000, 1 / 64))), {"ships": Interest(radius=80)}
    )
    schema = Schema(ships=Table(x=Float(0, 1000, 1 / 64), y=Float(0, 1000, 1 / 64)))
    views = Views(areas, history)
    at = rng.uniform(0, 1000, (2, 1000))
    for tick in (1, 2):
        world = World.of(schema, {"ships": {"id": np.arange(1000), "x": at[0], "y": at[1]}})
        history.push(tick, world)
        area = areas.at(500, 500)
        assert area == areas.at(490, 510)
        shared = views.snapshot(tick - 1, area, area)
        body = shared.rest
        assert views.snapshot(tick - 1, area, areas.at(490, 510)) is shared
        at += 0.5
    assert len(body) <= 0.1 * len(encode_full(world))


@pytest.mark.parametrize(
    ("interest", "message"),
    [
        ({"what": Interest(radius=1)}, "what"),
        ({"ships": Interest(radius=0)}, "radius"),
        ({"ships": Interest(radius=math.nan)}, "radius"),
        ({"ships": Interest(radius=1, x="east")}, "east"),
    ],
)
def test_a_games_nonsense_is_named(interest: dict[str, Interest], message: str) -> None:
    """An interest that cannot be is refused with the table and what is wrong."""
    with pytest.raises(SchemaError, match=message):
        Areas(SCHEMA, interest)
    with pytest.raises(SchemaError, match="viewpoint"):
        AREAS.at(math.nan, 0)
