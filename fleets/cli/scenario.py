"""`warmfleet simulate --scenario`: a whole service, region by region."""

import dataclasses
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from fleets.cli.options import fail
from fleets.simulate.scenario import Load, ScenarioError, read_scenario, run_region, shapes

_COLUMNS = {
    "players_peak": "players",
    "live_peak": "matches",
    "matches_per_s": "begin /s",
    "servers_peak": "servers",
    "ready_mean": "Ready, mean",
    "nodes_peak": "nodes",
    "cold_share": "cold %",
    "checkpoints_per_s": "saves /s",
    "checkpoint_bytes_per_s": "MB/s",
    "api_writes_per_s": "API /s",
    "node_hours": "node-hours",
    "cost": "cost",
}


def show_scenario(path: Path, *, seed: int, json_output: bool) -> None:
    """Simulate every region and print what it asks for, and all of them together."""
    try:
        scenario = read_scenario(path)
    except (ScenarioError, OSError) as error:
        fail(str(error))
    begun_s = time.perf_counter()
    demand = shapes(scenario)
    one = partial(run_region, scenario, seed=seed)
    with ProcessPoolExecutor(min(len(demand), os.cpu_count() or 1)) as pool:
        loads = list(pool.map(one, demand.keys(), demand.values()))
    rows = [_row(load) for load in loads]
    total = _total(rows)
    took_s = time.perf_counter() - begun_s
    if json_output:
        print(json.dumps({"regions": rows, "total": total, "seconds": round(took_s, 3)}))
        return
    console = Console(width=160)
    table = Table("region", *(Column(title, justify="right", no_wrap=True) for title in _COLUMNS.values()), box=None)
    for row in [*rows, total]:
        table.add_row(row["region"], *(_cell(key, row[key]) for key in _COLUMNS))
    console.print(table)
    console.print("peaks, each in its region's own busiest minute; together: their sums", highlight=False, style="dim")
    events = sum(load.outcome.events for load in loads)
    console.print(f"{events:,} events in {took_s:.1f} s", highlight=False, style="dim")


def _row(load: Load) -> dict[str, Any]:
    outcome = load.outcome
    rates = {
        key: value
        for key, value in dataclasses.asdict(load).items()
        if isinstance(value, int | float) and key != "cost"
    }
    return {
        "region": load.region,
        **rates,
        "matches": outcome.matches,
        "cold": outcome.cold,
        "cold_share": outcome.cold_share,
        "wait_max_s": max(outcome.waits_s, default=0.0),
        "live_peak": outcome.live_peak,
        "servers_peak": outcome.servers_peak,
        "nodes_peak": outcome.nodes_peak,
        "ready_mean": outcome.ready_mean,
        "node_hours": outcome.node_hours,
        "cost": load.cost,
    }


def _total(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums; peaks are those of different hours, so that theirs are upper bounds."""
    total = {key: sum(row[key] for row in rows) for key in rows[0] if key != "region"}
    total["cold_share"] = total["cold"] / max(total["matches"], 1)
    total["wait_max_s"] = max(row["wait_max_s"] for row in rows)
    return {"region": "together", **total}


def _cell(key: str, value: float) -> str:
    if key == "cold_share":
        return f"{100 * value:.4f}"
    return f"{value / 1e6 if key == 'checkpoint_bytes_per_s' else value:,.0f}"
