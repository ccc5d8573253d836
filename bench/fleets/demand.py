"""
What the autoscaler's decisions cost, and what they are worth against Agones' fixed buffer.

Decisions: the policy's CPU for 1,000 fleets of different sizes, each with four weeks of history; a webhook answers one at a time.
Worth: three simulated weeks (a quarter of a day with `--quick`) of a fleet with 0.5 matches a second, each drawn anew and after two weeks that only the
forecast sees; nodes of 20 servers that take 120 s to come, servers that take 20 s to boot, decisions every 10 s. Fixed buffers and `buffer: auto` play the same
week, and the worst of the weeks counts. Other chances play the first week, whose whole curve is drawn into docs/autoscaling.svg by the full form. Simulator:
events a second of CPU, on that week with a fixed buffer, and on an hour of 1,000,000 concurrent players (ten to a match).
"""

import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.report import Report
from fleets.autoscaler.forecast import BUCKET_S, KEEP, ArrivalForecast, Recent
from fleets.autoscaler.policy import FleetAim, Observed, decide
from fleets.simulate.engine import simulate
from fleets.simulate.model import World
from fleets.simulate.plot import plot
from fleets.simulate.supply import FixedBuffer
from fleets.simulate.sweep import Advantage, Point, Setting, advantage, run_all
from fleets.simulate.trace import DAY_S, Shape, Trace, synthetic

AIM = FleetAim(rooms=1, shelf=2, max=1_000_000, chance=0.001)
PICTURE = Path(__file__).parents[2] / "docs" / "autoscaling.svg"
LEARNED_DAYS = 14


def measure(report: Report, quick: bool) -> None:
    """Add the rows."""
    _decisions(report, 100 if quick else 1000)
    weeks = [_week(0.25 if quick else 7.0, seed) for seed in ((1,) if quick else (1, 2, 3))]
    _simulator(report, weeks[0][1], quick=quick)
    _worth(report, weeks, quick=quick)


def _decisions(report: Report, fleets: int) -> None:
    rng = random.Random(1)
    now = 4 * KEEP
    made = []
    for _ in range(fleets):
        scale = 10 ** rng.uniform(-1, 2.5)
        counts = np.random.default_rng(rng.randrange(1 << 30)).poisson(scale, KEEP // (1 if fleets > 100 else 4))
        forecast = ArrivalForecast(dict(enumerate(counts.tolist(), now - len(counts))))
        recent = tuple(Recent(ended_s=now * BUCKET_S - 30 * i, seconds=30, count=round(scale / 10)) for i in range(30))
        seen = Observed(
            at_s=now * BUCKET_S, replicas=60, ready=10, allocated=50, free_rooms=2, live=48, ends_per_s=1 / 900,
            lead_s=rng.uniform(5, 150), recent=recent,
        )  # fmt: skip
        made.append((forecast, seen))
    begun_s = time.process_time()
    for forecast, seen in made:
        decide(AIM, seen, forecast, (), interval_s=2)
    took_s = time.process_time() - begun_s
    report.add(f"autoscaler, decisions for {fleets:,} fleets, CPU", 1e3 * took_s, "ms")


def _week(days: float, seed: int) -> tuple[Trace, Trace]:
    """What only the forecast sees, and what is played."""
    shape = Shape(matches_per_s=0.5, days=LEARNED_DAYS + days)
    whole = synthetic(shape, np.random.default_rng(seed))
    cut_s = shape.begin_s + LEARNED_DAYS * DAY_S
    return whole.between(0, cut_s), whole.between(cut_s, float("inf"))


def _simulator(report: Report, week: Trace, *, quick: bool) -> None:
    for name, trace, aim in (
        ("a week of 0.5 matches a second", week, AIM),
        (
            "an hour of 1,000,000 concurrent players",
            _million(600 if quick else 3600),
            FleetAim(rooms=10, shelf=500, max=10**6),
        ),
    ):
        begun_s = time.process_time()
        outcome = simulate(trace, aim, World(), FixedBuffer(aim, 200), np.random.default_rng(1))
        took_s = time.process_time() - begun_s
        report.add(f"simulator, {name}, events a second of CPU", outcome.events / took_s, "/s")
        report.add(f"simulator, {name}, CPU", took_s, "s")


def _million(seconds: float) -> Trace:
    """Matches of ten players and twenty minutes: 83 a second keep a million players busy."""
    rng = np.random.default_rng(2)
    begins_s = 1e9 + np.sort(rng.random(round(83.3 * seconds))) * seconds
    return Trace(begins_s, rng.lognormal(7.03, 0.35, len(begins_s)))


def _worth(report: Report, weeks: Sequence[tuple[Trace, Trace]], *, quick: bool) -> None:
    buffers = (4, 32) if quick else (5, 10, 15, 20, 30, 40, 50, 60, 80, 120)
    declared = Setting(chance=AIM.chance)
    fixed = [Setting(buffer=size) for size in buffers]
    others = [] if quick else [Setting(chance=chance) for chance in (0.01, 0.003, 0.0003)]
    found: list[Advantage] = []
    for index, (past, counted) in enumerate(weeks):
        settings = [*fixed, declared, *(others if index == 0 else [])]
        points = run_all(counted, past, AIM, World(), settings, seed=1, processes=os.cpu_count() or 1)
        ours = next(point for point in points if point.setting == declared)
        found.append(advantage(points, ours))
        for point in points if index == 0 else [ours]:
            _row(report, point, f"week {index + 1}, ")
        if index == 0 and not quick:
            plot(points, PICTURE, title="One week, 0.5 matches a second on average")
    for index, week in enumerate(found):
        name = f"week {index + 1}, auto: fewer"
        report.add(f"{name} cold starts than the fixed buffer of equal node-hours", week.cold_ratio, "×")
        report.add(f"{name} node-hours than the one with as few cold starts", 100 * week.node_hours_saved, "%")
    worst = min(week.cold_ratio for week in found)
    report.add("fewer cold starts at equal node-hours, worst week", worst, "×", goal=5.0, at_least=True)


def _row(report: Report, point: Point, week: str) -> None:
    outcome = point.outcome
    report.add(f"{week}{point.setting.name}: cold starts", 100 * outcome.cold_share, "% of matches")
    report.add(f"{week}{point.setting.name}: node-hours", outcome.node_hours, "h")
