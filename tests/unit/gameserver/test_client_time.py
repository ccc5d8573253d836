"""A client's clock of its server, its interpolation, and the simulated network: pure, with times of the test's."""

import math
import random
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gameserver.client.clock import ServerClock
from gameserver.client.interpolation import Interpolation
from gameserver.protocol.schema import Float, Schema, Table, UInt
from gameserver.protocol.snapshot import World
from gameserver.transports.loopback import RETRANSMIT_S, Conditions, Path

SCHEMA = Schema(
    t=Table(x=Float(0, 100, 0.001), aim=Float(-math.pi, math.pi, 0.001), hp=UInt(8)),
)


def world(*rows: tuple[int, float, float, int]) -> World:
    ids, xs, aims, hps = zip(*rows, strict=True) if rows else ((), (), (), ())
    return World.of(SCHEMA, {"t": {"id": np.array(ids, int), "x": list(xs), "aim": list(aims), "hp": list(hps)}})


class Server:
    """Ticks at 20 Hz from a moment on; its pongs take as long as the test says."""

    def __init__(self, began_s: float) -> None:
        self.began_s = began_s
        self.clock = ServerClock(20)

    def tick(self, now_s: float) -> float:
        return (now_s - self.began_s) * 20

    def pong(self, now_s: float, there_s: float, back_s: float, client_set_s: float = 0.0) -> None:
        """A ping sent `there_s + back_s` ago by a clock that was set by `client_set_s` before."""
        sent_s = now_s + client_set_s - there_s - back_s
        tick = self.tick(now_s - back_s)
        self.clock.pong(int(sent_s * 1000) & 0xFFFFFFFF, int(tick * 256) & 0xFFFFFFFF, int(tick), now_s + client_set_s)


def test_the_quickest_pong_sets_the_clock() -> None:
    """A slow or one-sided one changes nothing; the round trip is smoothed."""
    server = Server(90.0)
    assert server.clock.tick(100.0) is None
    server.pong(100.0, 0.01, 0.01)
    assert server.clock.tick(100.0) == pytest.approx(server.tick(100.0), abs=0.05)
    server.pong(101.0, 0.3, 0.01)
    assert server.clock.tick(101.0) == pytest.approx(server.tick(101.0), abs=0.05)
    assert server.clock.rtt_s == pytest.approx(0.02 * 0.8 + 0.31 * 0.2, abs=0.003)
    assert server.clock.jitter_s > 0


@pytest.mark.parametrize("jump_s", [-86_400.0, -2.0, -0.5, 0.5, 2.0, 86_400.0])
def test_a_clock_that_was_set_is_noticed_at_once(jump_s: float) -> None:
    """The first pong after it overrides those before, however quick they were."""
    server = Server(-200_000.0)
    for second in range(5):
        server.pong(100_000.0 + second, 0.005, 0.005)
    server.pong(100_010.0, 0.02, 0.02, client_set_s=jump_s)
    assert server.clock.tick(100_010.0 + jump_s) == pytest.approx(server.tick(100_010.0), abs=0.1)


def test_a_ping_that_the_jump_overtook_is_not_believed() -> None:
    """Its round trip would be an hour, or negative."""
    server = Server(0.0)
    server.pong(100.0, 0.01, 0.01)
    for wrong_s in (3600.0, -3600.0):
        server.clock.pong(int((200.0 - wrong_s) * 1000) & 0xFFFFFFFF, 1, 1, 200.0)
        assert server.clock.tick(200.0) is None
        assert server.clock.rtt_s < 0.1


def test_ticks_beyond_the_wire_are_told_by_the_newest_snapshot() -> None:
    """24 bits of tick are in a pong."""
    clock = ServerClock(20)
    tick = 3 * 2**24 + 5
    clock.pong(1000, (tick * 256) & 0xFFFFFFFF, tick - 2, 1.0)
    assert clock.tick(1.0) == pytest.approx(tick)


@given(
    seed=st.integers(0, 2**32), rtt_s=st.floats(0.0, 0.3), jitter_s=st.floats(0.0, 0.2),
    jumps=st.lists(st.floats(-1e6, 1e6), max_size=3),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_the_clock_is_within_half_a_round_trip(seed: int, rtt_s: float, jitter_s: float, jumps: list[float]) -> None:
    """For any delays, however unlike the two ways are, and any jumps of the client's clock; one too small to tell from a delay is not noticed."""
    rng, set_s = random.Random(seed), 0.0
    server = Server(-2_000_000.0)
    for k in range(40):
        if jumps and k % 10 == 9:
            set_s += jumps.pop()
        now_s = 2_000_000.0 + k
        there_s, back_s = (rtt_s / 2 + jitter_s * rng.random() for _ in range(2))
        server.pong(now_s, there_s, back_s, set_s)
        off = abs((server.clock.tick(now_s + set_s) or 0.0) - server.tick(now_s)) / 20
        unnoticed_s = rtt_s + 2 * jitter_s + 0.05 if set_s else 0.0
        assert off <= rtt_s / 2 + jitter_s + unnoticed_s + 0.1


def play(buffer: Interpolation, arrivals: list[tuple[int, float]], rate_hz: int = 20) -> list[tuple[float, float]]:
    """Feed worlds at their arrivals, look every 5 ms; (time, shown tick) of each look."""
    shown, at_s = [], 0.0
    due = sorted(arrivals, key=lambda arrival: arrival[1])
    while due:
        while due and due[0][1] <= at_s:
            tick, _ = due.pop(0)
            buffer.push(tick, world((1, tick / 10, 0, 1)), at_s)
        shown.append((at_s, buffer.advance(at_s)))
        at_s += 0.005
    return shown


def test_with_even_arrivals_the_world_is_one_interval_in_the_past() -> None:
    """Between two snapshots that are there, and no further back."""
    buffer = Interpolation(20)
    shown = play(buffer, [(tick, tick * 0.05) for tick in range(1, 80)])
    at_s, tick = shown[-1]
    assert tick == pytest.approx(at_s * 20 - 1, abs=0.2)
    assert buffer.values("t")["x"][0] == pytest.approx(tick / 10, abs=0.01)
    assert buffer.jitter_s < 0.006


@given(seed=st.integers(0, 2**32), jitter_s=st.floats(0.0, 0.1), loss=st.floats(0, 0.2))
@settings(max_examples=20, deadline=None)
def test_the_shown_time_never_runs_back_and_never_jerks(seed: int, jitter_s: float, loss: float) -> None:
    """However snapshots arrive; the buffer is as long as the jitter, not longer."""
    rng = random.Random(seed)
    buffer = Interpolation(20)
    arrivals = [(t, t * 0.05 + jitter_s * rng.random()) for t in range(1, 120) if rng.random() >= loss]
    shown = [tick for at_s, tick in play(buffer, arrivals) if at_s > 0.5]
    steps = [b - a for a, b in pairwise(shown)]
    assert all(0 <= step <= 0.1 * 1.11 for step in steps)
    assert buffer.delay_s <= 0.05 + jitter_s + 0.01


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0])
def test_a_clock_that_is_set_shows_the_newest_world_again_at_once(jump_s: float) -> None:
    """Neither an hour of standstill nor one of racing ahead."""
    buffer = Interpolation(20)
    for tick in range(1, 60):
        at_s = tick * 0.05 + (jump_s if tick > 30 else 0.0)
        buffer.push(tick, world((1, 1, 0, 1)), at_s)
        shown = buffer.advance(at_s)
        if tick > 32:
            assert abs(shown - tick) < 3
    assert buffer.delay_s < 0.1


def test_angles_turn_the_short_way_integers_step_and_a_leap_is_not_smeared() -> None:
    """Rows that come or go are shown at their own time."""
    buffer = Interpolation(20, angles=["aim"], teleport=5.0)
    buffer.push(1, world((1, 10, 3.1, 5), (2, 10, 0, 5), (3, 1, 0, 1)), 1.0)
    buffer.push(2, world((1, 12, -3.1, 6), (2, 50, 0, 6), (4, 1, 0, 1)), 1.05)
    buffer.shown_tick = 1.5
    shown: dict[str, Any] = buffer.values("t")
    assert shown["id"].tolist() == [1, 2, 3]
    assert shown["x"].tolist() == pytest.approx([11, 50, 1], abs=0.01)
    assert abs(shown["aim"][0]) == pytest.approx(math.pi, abs=0.01)
    assert shown["hp"].tolist() == [5, 6, 1]


def test_before_the_first_world_there_is_nothing() -> None:
    """And an old world is passed over."""
    buffer = Interpolation(20)
    assert buffer.advance(1.0) == 0.0
    assert buffer.values("t") == {}
    buffer.push(5, world((1, 1, 0, 1)), 1.0)
    buffer.push(4, world((1, 2, 0, 1)), 1.0)
    assert buffer.values("t")["x"].tolist() == pytest.approx([1])


def test_a_seed_makes_the_same_network_again() -> None:
    """The same messages meet the same loss, delays and copies."""
    network = Conditions(loss=0.2, delay_s=0.05, jitter_s=0.05, duplicates=0.2, reorder=0.1)

    def run(seed: int, *, reliable: bool) -> list[list[float]]:
        path = Path(network, random.Random(seed), reliable=reliable)
        return [path.arrivals(k * 0.01) for k in range(400)]

    for reliable in (False, True):
        assert run(7, reliable=reliable) == run(7, reliable=reliable)
        assert run(7, reliable=reliable) != run(8, reliable=reliable)
    counts = [len(arrivals) for arrivals in run(7, reliable=False)]
    assert 50 < counts.count(0) < 110
    assert 40 < counts.count(2) < 100
    times = [at for arrivals in run(7, reliable=False) for at in arrivals]
    assert times != sorted(times), "some are overtaken"
    in_order = [at for [at] in run(7, reliable=True)]
    assert in_order == sorted(in_order)
    assert max(at - k * 0.01 for k, at in enumerate(in_order)) >= RETRANSMIT_S


def test_a_perfect_network_changes_nothing() -> None:
    """No conditions: everything arrives once, at once."""
    path = Path(Conditions(), random.Random(0), reliable=False)
    assert [path.arrivals(t) for t in (1.0, 2.0)] == [[1.0], [2.0]]
