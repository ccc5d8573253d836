"""
The whole trade-off of a fleet's warm settings: cold starts against node-hours, for fixed buffers and for our policy, and what to choose.

Pure but for the processes that share the work.
"""

import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from fleets.autoscaler.forecast import BUCKET_S
from fleets.autoscaler.policy import FleetAim
from fleets.simulate.engine import simulate
from fleets.simulate.model import Outcome, World
from fleets.simulate.supply import AutoBuffer, FixedBuffer, Supply
from fleets.simulate.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One `warm` setting to try: a fixed buffer, or `auto` with a declared chance."""

    buffer: int | None = None
    chance: float = 0.001

    @property
    def name(self) -> str:
        """As people say it."""
        return f"auto, coldStartChance {self.chance:g}" if self.buffer is None else f"fixed buffer {self.buffer}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What a setting led to."""

    setting: Setting
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Advantage:
    """Our policy against the curve of fixed buffers."""

    point: Point
    cold_ratio: float
    """Cold starts of the fixed buffer that costs as many node-hours, over ours; infinite where ours has none."""
    node_hours_saved: float
    """Share that the fixed buffer with as few cold starts costs more, of its node-hours; NaN where no fixed one was tried that is as good."""


def history_of(past: Trace) -> dict[int, int]:
    """What the autoscaler would remember of an earlier trace."""
    return dict(Counter((past.begins_s // BUCKET_S).astype(int).tolist()))


def run_one(trace: Trace, past: Trace, aim: FleetAim, world: World, seed: int, setting: Setting) -> Point:
    """Simulate one setting."""
    supply: Supply
    if setting.buffer is None:
        aim = replace(aim, chance=setting.chance)
        supply = AutoBuffer(aim, interval_s=world.interval_s, history=history_of(past))
    else:
        supply = FixedBuffer(aim, setting.buffer)
    return Point(setting=setting, outcome=simulate(trace, aim, world, supply, np.random.default_rng(seed)))


def run_all(
    trace: Trace,
    past: Trace,
    aim: FleetAim,
    world: World,
    settings: Sequence[Setting],
    *,
    seed: int,
    processes: int = 1,
) -> list[Point]:
    """Simulate some settings on the same trace, in their order."""
    one = partial(run_one, trace, past, aim, world, seed)
    if processes <= 1:
        return [one(setting) for setting in settings]
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(one, settings))


def usual_settings(aim: FleetAim, trace: Trace) -> list[Setting]:
    """Fixed buffers from one server to a fifth of the busiest hour's, and chances from 10 % to 0.01 %."""
    hours = np.bincount(((trace.begins_s - trace.begins_s[0]) // 3600).astype(int))
    busiest = hours.max() / 3600 * float(trace.lengths_s.mean()) / aim.rooms
    most = max(4.0, busiest / 5)
    buffers = sorted({round(most ** (step / 8)) for step in range(9)})
    return [
        *(Setting(buffer=buffer) for buffer in buffers),
        *(Setting(chance=chance) for chance in (0.1, 0.03, 0.01, 0.003, 0.001, 0.0001)),
    ]


def recommend(points: Sequence[Point], chance: float) -> Point:
    """The cheapest setting whose share of cold starts is within `chance`; where none is, the one with the fewest."""
    good = [point for point in points if point.outcome.cold_share <= chance]
    if good:
        return min(good, key=lambda point: (point.outcome.node_hours, point.outcome.cold))
    return min(points, key=lambda point: (point.outcome.cold_share, point.outcome.node_hours))


def advantage(points: Sequence[Point], ours: Point) -> Advantage:
    """
    Compare one of our points with the fixed buffers.

    Between two fixed buffers the curve is taken as straight in node-hours against the logarithm of cold starts; left of it, the smallest buffer stands.
    """
    fixed = sorted((p.outcome for p in points if p.setting.buffer is not None), key=lambda outcome: outcome.node_hours)
    hours = np.array([outcome.node_hours for outcome in fixed])
    # Half a match stands for none: a logarithm wants more than 0.
    cold = np.log(np.array([max(outcome.cold, 0.5) for outcome in fixed]))
    there = math.exp(float(np.interp(ours.outcome.node_hours, hours, cold)))
    own = math.log(max(ours.outcome.cold, 0.5))
    falling = np.minimum.accumulate(cold)
    as_good = float(np.interp(-own, -falling, hours, right=np.nan)) if own < falling[0] else float(hours[0])
    return Advantage(
        point=ours,
        cold_ratio=there / ours.outcome.cold if ours.outcome.cold else math.inf,
        node_hours_saved=1 - ours.outcome.node_hours / as_good,
    )
