"""`warmfleet simulate`: what a fleet's warm settings would have cost, and spared, over a recorded or synthetic week."""

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Column, Table

from fleets.autoscaler.policy import FleetAim
from fleets.cli.options import MISUSED, fail
from fleets.cli.scenario import show_scenario
from fleets.simulate.model import World
from fleets.simulate.plot import PlotUnavailable, plot
from fleets.simulate.sweep import Point, Setting, advantage, recommend, run_all, usual_settings
from fleets.simulate.trace import DAY_S, Burst, Shape, Trace, TraceError, read, synthetic
from fleets.spec.convert import to_aim
from fleets.spec.loader import SpecError, load


def simulate(
    files: Annotated[
        list[Path] | None, typer.Argument(help="YAML files with the fleet; none: a fleet by the options.")
    ] = None,
    scenario: Annotated[
        Path | None,
        typer.Option(help="Instead: a YAML with a whole service by regions (docs/scale.md)."),
    ] = None,
    fleet: Annotated[str, typer.Option(help="Which fleet of the files; by default the first.")] = "",
    trace: Annotated[
        Path | None,
        typer.Option(help="A CSV of matches with the columns begin and length; by default a synthetic week."),
    ] = None,
    matches: Annotated[float, typer.Option(min=0.0001, help="Synthetic: matches a second, on average.")] = 0.5,
    days: Annotated[float, typer.Option(min=0.05, max=60, help="Synthetic: days that are counted.")] = 7.0,
    learned_days: Annotated[
        float, typer.Option(min=0, max=35, help="Days before, which only the forecast sees.")
    ] = 14.0,
    length: Annotated[float, typer.Option(min=1, help="Of a match, in seconds, where a trace does not say.")] = 900.0,
    burst: Annotated[
        list[str] | None, typer.Option(help="Synthetic: HOUR:FACTOR, as 66:5 for five times the demand after 66 hours.")
    ] = None,
    boot: Annotated[float, typer.Option(min=0.01, help="Seconds from a server's order to Ready.")] = 20.0,
    node_boot: Annotated[float, typer.Option(min=0, help="Seconds until a new node runs its first pod.")] = 120.0,
    servers_per_node: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    crashes: Annotated[float, typer.Option(min=0, help="Failures of a server, an hour.")] = 0.0,
    node_price: Annotated[float, typer.Option(min=0, help="Of a node-hour, in any currency.")] = 0.0,
    interval: Annotated[float, typer.Option(min=0.5, help="Seconds between two decisions.")] = 10.0,
    sweep: Annotated[bool, typer.Option("--sweep", help="Try fixed buffers and chances; recommend one.")] = False,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="SVG or PNG of the sweep.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same week.")] = 1,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Simulate a fleet over a week of matches: cold starts, waits, node-hours, and which warm settings to choose."""
    if scenario is not None:
        show_scenario(scenario, seed=seed, json_output=json_output)
        return
    aim = _aim(files or [], fleet)
    world = World(
        boot_s=boot, node_boot_s=node_boot, servers_per_node=servers_per_node, crash_per_server_h=crashes,
        interval_s=interval,
    )  # fmt: skip
    shape = Shape(
        matches_per_s=matches, days=days + learned_days, length_s=length, bursts=_bursts(burst or [], learned_days)
    )
    past, counted = _trace(trace, shape, learned_days, length, seed)
    settings = usual_settings(aim, counted) if sweep or plot_file else [Setting(chance=aim.chance)]
    begun_s = time.perf_counter()
    processes = min(len(settings), os.cpu_count() or 1)
    points = run_all(counted, past, aim, world, settings, seed=seed, processes=processes)
    took_s = time.perf_counter() - begun_s
    if plot_file is not None:
        try:
            plot(points, plot_file, title=f"{len(counted):,} matches, rooms per server: {aim.rooms}")
        except (PlotUnavailable, ValueError, OSError) as error:
            fail(str(error))
    if json_output:
        print(json.dumps({"points": [_row(point, node_price) for point in points], "seconds": round(took_s, 3)}))
    else:
        _show(points, aim, node_price, took_s)


def _aim(files: list[Path], fleet: str) -> FleetAim:
    if not files:
        return FleetAim(rooms=1, shelf=2, max=1_000_000)
    try:
        specs = load(files)
    except SpecError as error:
        fail("\n".join(map(str, error.problems)))
    names = [spec.metadata.name for spec in specs.fleets]
    if not names or (fleet and fleet not in names):
        fail(f"--fleet {fleet}: the files describe {', '.join(names) or 'no fleet'}", MISUSED)
    return to_aim(specs.fleets[names.index(fleet) if fleet else 0])


def _bursts(texts: list[str], learned_days: float) -> tuple[Burst, ...]:
    found = []
    for text in texts:
        hour, _, factor = text.partition(":")
        try:
            found.append(Burst(at_s=learned_days * DAY_S + float(hour) * 3600, factor=float(factor), fade_s=3600.0))
        except ValueError:
            fail(f"--burst {text}: HOUR:FACTOR is wanted, as 66:5", MISUSED)
    return tuple(found)


def _trace(path: Path | None, shape: Shape, learned_days: float, length_s: float, seed: int) -> tuple[Trace, Trace]:
    if path is None:
        whole = synthetic(shape, np.random.default_rng(seed))
        cut_s = shape.begin_s + learned_days * DAY_S
    else:
        try:
            whole = read(path, length_s=length_s)
        except (TraceError, OSError) as error:
            fail(str(error))
        first_s, last_s = float(whole.begins_s[0]), float(whole.begins_s[-1])
        # A short trace has nothing to spare for learning.
        cut_s = first_s + learned_days * DAY_S if last_s - first_s > 2 * learned_days * DAY_S else first_s
    return whole.between(0, cut_s), whole.between(cut_s, float("inf"))


def _row(point: Point, node_price: float) -> dict[str, Any]:
    outcome = point.outcome
    return {
        "setting": point.setting.name,
        "matches": outcome.matches,
        "cold": outcome.cold,
        "coldShare": outcome.cold_share,
        "waitP999S": outcome.wait_s(0.999),
        "waitMaxS": max(outcome.waits_s, default=0.0),
        "nodeHours": outcome.node_hours,
        "serverHours": outcome.server_hours,
        "cost": outcome.node_hours * node_price,
        "livePeak": outcome.live_peak,
        "serversPeak": outcome.servers_peak,
        "nodesPeak": outcome.nodes_peak,
        "recovered": outcome.recovered,
        "unserved": outcome.unserved,
        "events": outcome.events,
    }


def _show(points: list[Point], aim: FleetAim, node_price: float, took_s: float) -> None:
    console = Console()
    table = Table(
        Column("setting", no_wrap=True), "matches", "cold", "cold %", "wait p99.9", "node-hours", "peak nodes", box=None
    )
    if node_price:
        table.add_column("cost")
    for point in points:
        row = _row(point, node_price)
        cells = [
            row["setting"], f"{row['matches']:,}", f"{row['cold']:,}", f"{100 * row['coldShare']:.3f}",
            f"{row['waitP999S']:.1f} s", f"{row['nodeHours']:,.0f}", f"{row['nodesPeak']:,}",
        ]  # fmt: skip
        table.add_row(*cells, *([f"{row['cost']:,.0f}"] if node_price else []))
    console.print(table)
    if len(points) > 1:
        best = recommend(points, aim.chance)
        console.print(f"to choose for coldStartChance {aim.chance:g}: [bold]{best.setting.name}[/]", highlight=False)
        for ours in (p for p in points if p.setting == Setting(chance=aim.chance)):
            found = advantage(points, ours)
            console.print(
                f"auto at that chance: {found.cold_ratio:.1f} times fewer cold starts than the fixed buffer of equal node-hours, "
                f"{100 * found.node_hours_saved:.0f} % fewer node-hours than the one with as few cold starts",
                highlight=False,
            )
    events = sum(point.outcome.events for point in points)
    console.print(f"{events:,} events in {took_s:.1f} s", highlight=False, style="dim")
