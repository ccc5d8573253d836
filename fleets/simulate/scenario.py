"""
A whole service in one file: players at the world's busiest minute, the regions they are in, and what a region's fleet runs on.

Owns the file and what is reckoned from it: each region's own demand, and from what its simulation gave, the loads of the parts that are not
simulated (store, API server). Pure but for `read_scenario`; `run_region` plays one region.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import yaml
from pydantic import Field, ValidationError, model_validator

from fleets.autoscaler.policy import FleetAim
from fleets.autoscaler.schedule import Schedule
from fleets.simulate.model import Outcome, World
from fleets.simulate.sweep import Setting, run_one
from fleets.simulate.trace import DAY_S, Burst, Shape, Trace, busy, synthetic
from fleets.spec.types import Memory, Model, Name, Seconds, Share, size_bytes

_MINUTE_S = 60.0
_WRITES_A_SERVER = 20
"""At the API server, from a server's order to its end: the GameServer's states, its pod's, the binding, events, the removal of both."""
_WRITES_AN_ALLOCATION = 3
"""Its allocation, its shelf label, and its return to Ready."""


class ScenarioError(Exception):
    """The file is no scenario; the message names the key and the mend."""


class Standing(Model):
    """A schedule of the region's fleet: servers Ready for a while, whatever is forecast."""

    after: Annotated[Seconds, Field(ge=0, description="From the begin of the counted days.")]
    for_: Annotated[Seconds, Field(alias="for", gt=0)]
    ready: Annotated[int, Field(ge=0)]


class Region(Model):
    """Where a share of the players is."""

    share: Share
    peak_hour: Annotated[float, Field(ge=0, lt=24, description="Of the day, UTC.")]
    shelf: Annotated[int, Field(ge=0, description="Rooms kept claimable.")]
    schedules: list[Standing] = Field(default=[])


class Surge(Model):
    """A launch or a tournament, everywhere at once, on top of the evening."""

    after: Annotated[Seconds, Field(ge=0, description="From the begin of the counted days.")]
    factor: Annotated[float, Field(ge=1, le=1000, description="Times the usual, at once.")]
    fade: Annotated[Seconds, Field(gt=0, description="After so long, 37 % of the addition is left.")]


class Scenario(Model):
    """What is simulated."""

    players: Annotated[int, Field(ge=1, le=100_000_000, description="At once, in the world's busiest minute.")]
    players_per_match: Annotated[int, Field(ge=1, le=10_000)]
    match_length: Annotated[Seconds, Field(gt=0, description="On average.")]
    days: Annotated[float, Field(gt=0, le=60)] = 1.0
    learned_days: Annotated[float, Field(ge=0, le=35, description="Before, which only the forecast sees.")] = 7.0
    rooms: Annotated[int, Field(ge=1, le=1000, description="Matches per server.")]
    servers_per_node: Annotated[int, Field(ge=1, le=1000)]
    boot: Annotated[Seconds, Field(gt=0, description="From a server's order to Ready, where a node has room.")] = 20.0
    node_boot: Seconds = 120.0
    node_price: Annotated[float, Field(ge=0, description="Of a node-hour.")] = 0.0
    cold_start_chance: Annotated[float, Field(gt=0, lt=1)] = 0.001
    interval: Annotated[Seconds, Field(gt=0, description="Between two decisions.")] = 10.0
    checkpoint_interval: Annotated[Seconds, Field(gt=0)] = 1.0
    checkpoint_size: Memory = "8Ki"
    surges: list[Surge] = Field(default=[])
    regions: Annotated[dict[Name, Region], Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _whole(self) -> "Scenario":
        total = sum(region.share for region in self.regions.values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"regions: their shares are {total:.1%} together; 100% is wanted")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one region's day asks for, at its busiest where it is a rate."""

    region: str
    outcome: Outcome
    players_peak: int
    matches_per_s: float
    """Claims a second, and a tenth of the tickets where ten players make a match."""
    tickets_per_s: float
    """Of players who queue alone."""
    checkpoints_per_s: float
    checkpoint_bytes_per_s: float
    api_writes_per_s: float
    """An estimate: writes of a server's life and of its allocations, and two for each match that the server shows to Agones."""
    cost: float
    """Of its node-hours."""


def read_scenario(path: Path) -> Scenario:
    """Read a file. Raises ScenarioError, OSError."""
    try:
        return Scenario.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: is no YAML: {error}") from None
    except ValidationError as error:
        lines = [f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False)]
        raise ScenarioError("\n".join(lines)) from None


def shapes(scenario: Scenario) -> Mapping[str, Shape]:
    """
    Each region's demand: its own evening, scaled so that the world's busiest minute, surges aside, has the scenario's players.

    Regions peak at different hours, so their own peaks are more than that together.
    """
    begin_s = scenario.learned_days * DAY_S
    bursts = tuple(Burst(at_s=begin_s + s.after, factor=s.factor, fade_s=s.fade) for s in scenario.surges)
    made, curves = {}, []
    for name, region in scenario.regions.items():
        shape = Shape(
            matches_per_s=1.0,
            days=scenario.days + scenario.learned_days,
            length_s=scenario.match_length,
            peak_hour=region.peak_hour,
            bursts=bursts,
        )
        made[name] = shape
        curve = busy(shape)
        curves.append(region.share * curve / curve.max())
    worldwide = np.sum(curves, axis=0).max()
    peak = scenario.players / scenario.players_per_match / scenario.match_length / worldwide
    return {
        name: replace(shape, matches_per_s=peak * scenario.regions[name].share / float(busy(shape).max()))
        for name, shape in made.items()
    }


def run_region(scenario: Scenario, name: str, shape: Shape, *, seed: int) -> Load:
    """Simulate one region's fleet under our own policy."""
    whole = synthetic(shape, np.random.default_rng(seed))
    cut_s = shape.begin_s + scenario.learned_days * DAY_S
    counted = whole.between(cut_s, float("inf"))
    region = scenario.regions[name]
    aim = FleetAim(
        rooms=scenario.rooms,
        shelf=region.shelf,
        max=10_000_000,
        chance=scenario.cold_start_chance,
        schedules=tuple(
            Schedule(name=f"{index}", ready=standing.ready, for_s=standing.for_, at_s=cut_s + standing.after)
            for index, standing in enumerate(region.schedules)
        ),
    )
    world = World(
        boot_s=scenario.boot,
        node_boot_s=scenario.node_boot,
        servers_per_node=scenario.servers_per_node,
        interval_s=scenario.interval,
    )
    setting = Setting(chance=scenario.cold_start_chance)
    outcome = run_one(counted, whole.between(0, cut_s), aim, world, seed, setting).outcome
    return _load(scenario, name, counted, outcome)


def _load(scenario: Scenario, name: str, counted: Trace, outcome: Outcome) -> Load:
    minutes = np.bincount(((counted.begins_s - counted.begins_s[0]) // _MINUTE_S).astype(int))
    matches_per_s = float(minutes.max()) / _MINUTE_S
    checkpoints = outcome.live_peak / scenario.checkpoint_interval
    server_writes = _WRITES_A_SERVER * outcome.ordered_peak + _WRITES_AN_ALLOCATION * outcome.allocated_peak
    return Load(
        region=name,
        outcome=outcome,
        players_peak=outcome.live_peak * scenario.players_per_match,
        matches_per_s=matches_per_s,
        tickets_per_s=matches_per_s * scenario.players_per_match,
        checkpoints_per_s=checkpoints,
        checkpoint_bytes_per_s=checkpoints * size_bytes(scenario.checkpoint_size),
        api_writes_per_s=server_writes / _MINUTE_S + 2 * matches_per_s,
        cost=outcome.node_hours * scenario.node_price,
    )
