"""Snapshots: a delta applied to its baseline is the world it was made of; no bytes do harm."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gameserver.protocol.messages import MalformedMessage, Snapshot, decode_server
from gameserver.protocol.schema import F32, Bool, Float, Int, Schema, SchemaError, Table, UInt, parse_schema
from gameserver.protocol.snapshot import SnapshotHistory, World, apply_delta, decode_full, encode_delta, encode_full

SCHEMA = Schema(
    ships=Table(x=Float(-50, 50, 1 / 64), hp=UInt(8), big=UInt(32), turn=Int(16), alive=Bool(), f=F32()),
    clock=Table(left=UInt(16)),
)


@st.composite
def states(draw: st.DrawFn) -> dict[str, dict[str, list[Any]]]:
    ids = draw(st.lists(st.integers(0, 40), unique=True, max_size=20))
    n = len(ids)

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=n, max_size=n))

    near = st.floats(-60, 60) | st.sampled_from([0.0, 0.5, float("nan")])
    return {
        "ships": {
            "id": ids,
            "x": column(near),
            "hp": column(st.integers(0, 3)),
            "big": column(st.integers(0, 2**32 - 1) | st.integers(100, 110)),
            "turn": column(st.integers(-32768, 32767) | st.integers(-3, 3)),
            "alive": column(st.booleans()),
            "f": column(st.floats(width=32)),
        },
        "clock": {"id": [0], "left": [draw(st.integers(0, 70000))]},
    }


@given(states(), states())
def test_a_delta_gives_the_world_back(before: Any, after: Any) -> None:
    """Any two worlds: full round trip, and delta onto the first gives the second."""
    first, second = World.of(SCHEMA, before), World.of(SCHEMA, after)
    assert decode_full(SCHEMA, encode_full(second)).same(second)
    assert apply_delta(first, encode_delta(second, first)).same(second)
    assert parse_schema(SCHEMA.describe()).describe() == SCHEMA.describe()


@given(st.lists(states(), min_size=1, max_size=8), st.data())
@settings(max_examples=60)
def test_any_loss_and_reordering(ticks: list[Any], data: st.DataObject) -> None:
    """A client that loses and reorders snapshots, and whose acknowledgements are lost, still sees the true state."""
    history = SnapshotHistory(size=4)
    truth: dict[int, World] = {}
    seen: dict[int, World] = {}
    acknowledged = 0
    in_flight: list[tuple[int, int, bytes]] = []
    for tick, state in enumerate(ticks, 1):
        truth[tick] = World.of(SCHEMA, state, truth.get(tick - 1))
        assert truth[tick].same(World.of(SCHEMA, state))
        history.push(tick, truth[tick])
        shared = history.snapshot(acknowledged)
        snapshot = decode_server(shared.message(7))
        assert isinstance(snapshot, Snapshot)
        baseline, body = snapshot.baseline, snapshot.body
        in_flight.append((tick, baseline, body))
        for packet in data.draw(st.permutations(in_flight)):
            if data.draw(st.booleans()):
                in_flight.remove(packet)
                at, base, raw = packet
                seen[at] = apply_delta(seen[base], raw) if base else decode_full(SCHEMA, raw)
                assert seen[at].same(truth[at])
                if data.draw(st.booleans()):
                    acknowledged = max(acknowledged, at)


@given(states(), st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(state: Any, junk: bytes) -> None:
    """No byte string raises anything but MalformedMessage."""
    world = World.of(SCHEMA, state)
    for read in (lambda: decode_full(SCHEMA, junk), lambda: apply_delta(world, junk)):
        try:
            read()
        except MalformedMessage:
            pass


@given(states(), states(), st.data())
def test_a_damaged_delta_is_read_or_refused(before: Any, after: Any, data: st.DataObject) -> None:
    """One changed, missing or added byte of a real delta raises nothing but MalformedMessage."""
    first = World.of(SCHEMA, before)
    body = bytearray(encode_delta(World.of(SCHEMA, after), first))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at : at + data.draw(st.integers(0, 1))] = data.draw(st.binary(max_size=2))
    try:
        apply_delta(first, bytes(body))
    except MalformedMessage:
        pass


def test_half_the_world_moving_is_small() -> None:
    """Small moves take a byte per coordinate and a bit per row."""
    ids = np.arange(400)
    x = np.linspace(-50, 50, 400)
    schema = Schema(ships=Table(x=Float(-50, 50, 1 / 64), y=Float(-50, 50, 1 / 64)))
    first = World.of(schema, {"ships": {"id": ids, "x": x, "y": x}})
    moved = x + np.where(ids % 2, 0.5, 0)
    second = World.of(schema, {"ships": {"id": ids, "x": moved, "y": moved}})
    assert len(encode_delta(second, first)) <= 4 + 2 * (1 + 50 + 200)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"ships": {"id": [1]}}, "missing"),
        ({"what": {}}, "what"),
        ({"clock": {"id": [1, 1], "left": [1, 2]}}, "twice"),
        ({"clock": {"id": [1], "left": [1, 2]}}, "left"),
        ({"clock": {"id": [70000], "left": [1]}}, "65535"),
        ({"clock": {"id": [1], "left": ["a"]}}, "left"),
        ({"clock": {"id": [1], "left": [None]}}, "left"),
    ],
)
def test_a_games_nonsense_is_named(state: Any, message: str) -> None:
    """What a game returns wrongly is refused with the table and column."""
    with pytest.raises(SchemaError, match=message):
        World.of(SCHEMA, state)
