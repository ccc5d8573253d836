"""`warmfleet replay`: a trace through one or several queues, side by side."""

import json
import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from fleets.cli.options import FAILED, MISUSED, fail
from fleets.spec.convert import to_queue_config
from fleets.spec.loader import SpecError, load
from matchmaker.evaluator import MatchFunctionError
from matchmaker.matching.wants import missing
from matchmaker.model import QueueConfig
from matchmaker.recording.replay import Outcome, measured, replay
from matchmaker.recording.trace import Arrival, Trace, TraceError, read_trace

_QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}


def replay_command(
    trace: Annotated[Path, typer.Argument(help="A Parquet file of `warmfleet record` or `warmfleet generate`.")],
    queue: Annotated[
        list[str], typer.Option(help="FILE or FILE:NAME, YAML with the queue (and its fleets); several are compared.")
    ],
    interval: Annotated[
        float, typer.Option(min=0.01, max=60, help="Seconds between two cycles; a director looks four times as often.")
    ] = 1.0,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run recorded tickets through a queue's rules at full speed: waits, quality, and who is not matched."""
    try:
        recorded = read_trace(trace)
    except (TraceError, OSError) as error:
        fail(str(error))
    queues = [_queue(text, recorded) for text in queue]
    # The same numbers are measured for all, whatever each one's rules look at.
    attributes = tuple(dict.fromkeys(name for config in queues for name in measured(config)))
    runs = [_Run(trace, text, config, interval, attributes) for text, config in zip(queue, queues, strict=True)]
    try:
        if len(runs) == 1:
            rows = [_row(runs[0], recorded)]
        else:
            with ProcessPoolExecutor(min(len(runs), os.cpu_count() or 1), get_context("spawn")) as processes:
                rows = list(processes.map(_row, runs))
    except MatchFunctionError as error:
        fail(str(error), FAILED)
    live = _live(recorded)
    if json_output:
        print(json.dumps({"trace": str(trace), "tickets": len(recorded.arrivals), "live": live, "queues": rows}))
    else:
        _show(rows, live, recorded)


def _queue(text: str, trace: Trace) -> QueueConfig:
    file, _, name = text.partition(":") if not Path(text).exists() else (text, "", "")
    try:
        specs = load([Path(file)])
    except SpecError as error:
        fail("\n".join(map(str, error.problems)))
    known = {spec.metadata.name: spec for spec in (*specs.queues, *specs.shadows)}
    if not name:
        name = trace.queue if trace.queue in known else next(iter(known), "") if len(known) == 1 else ""
    if name not in known:
        fail(
            f"--queue {text}: name one of its queues, as {file}:NAME; there are: {', '.join(known) or 'none'}", MISUSED
        )
    return to_queue_config(known[name], specs.fleets)


@dataclass(frozen=True, slots=True)
class _Run:
    """One queue's turn, as a process of its own is told of it."""

    trace: Path
    name: str
    queue: QueueConfig
    interval_s: float
    attributes: tuple[str, ...]


def _row(run: _Run, trace: Trace | None = None) -> dict[str, Any]:
    """Raises MatchFunctionError."""
    arrivals = (trace or read_trace(run.trace)).arrivals
    begun_s = time.perf_counter()
    try:
        outcome = replay(run.queue, arrivals, interval_s=run.interval_s, attributes=run.attributes)
    except MatchFunctionError as error:
        raise MatchFunctionError(f"{run.name}: {error}") from error
    seconds = round(time.perf_counter() - begun_s, 3)
    return {"name": run.name, **summary(outcome), "refused": refused(run.queue, arrivals), "seconds": seconds}


def refused(queue: QueueConfig, arrivals: Sequence[Arrival]) -> dict[str, int]:
    """Why the API would take no such ticket, and of how many; replayed they wait in vain."""
    reasons: Counter[str] = Counter()
    for arrival in arrivals:
        players = arrival.ticket.players
        flaw = next(filter(None, (missing(queue, player) for player in players)), None)
        if len(players) > queue.party_max:
            reasons[f"a party of {len(players)}, and {queue.party_max} may be"] += 1
        elif flaw is not None:
            reasons[f"{flaw[0]}: the queue {flaw[1]}"] += 1
    return dict(reasons.most_common())


def summary(outcome: Outcome) -> dict[str, Any]:
    """An outcome's figures, as JSON has them."""
    tickets = sum(outcome.tickets.values())
    waits_s = outcome.all_waits_s
    return {
        "queue": outcome.queue,
        "tickets": tickets,
        "matched": len(waits_s),
        "unmatched": outcome.unmatched,
        "matches": outcome.matches,
        "waitS": _spread(waits_s),
        "quality": _spread(outcome.quality),
        "spread": {name: _spread(values) for name, values in outcome.spread.items()},
        "latencyMs": _spread(outcome.latency_ms),
        "parties": {
            str(size): {
                "tickets": count,
                "unmatched": count - len(outcome.waits_s.get(size, ())),
                "waitS": _spread(outcome.waits_s.get(size, ())),
            }
            for size, count in sorted(outcome.tickets.items())
        },
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    """Mean and quantiles; None of nothing."""
    if not values:
        return None
    found = np.quantile(np.asarray(values, np.float64), list(_QUANTILES.values()))
    quantiles = {name: round(float(value), 4) for name, value in zip(_QUANTILES, found, strict=True)}
    return {"mean": round(float(np.mean(values)), 4), **quantiles}


def _live(trace: Trace) -> dict[str, Any] | None:
    """How it went live; None for players that never were."""
    ended = [arrival for arrival in trace.arrivals if arrival.outcome]
    if not ended:
        return None
    outcomes = sorted({arrival.outcome for arrival in ended})
    waiting = {"waiting": len(trace.arrivals) - len(ended)}  # when the recording ended
    return {
        "waitS": _spread([arrival.waited_s for arrival in ended if math.isfinite(arrival.waited_s)]),
        "outcomes": {name: sum(arrival.outcome == name for arrival in ended) for name in outcomes} | waiting,
    }


def _show(rows: list[dict[str, Any]], live: dict[str, Any] | None, trace: Trace) -> None:
    console = Console()
    console.print(f"{len(trace.arrivals):,} tickets over {trace.duration_s:,.0f} s", highlight=False)
    table = Table("", *(row["name"] for row in rows), *(["live"] if live else []), box=None, pad_edge=False)

    def line(title: str, cells: list[str], lived: str = "") -> None:
        table.add_row(title, *cells, *([lived] if live else []))

    matched = [f"{row['matched']:,} of {row['tickets']:,}" for row in rows]
    line("tickets matched", matched, f"{live['outcomes'].get('assigned', 0):,}" if live else "")
    for key, title in (("cancelled", "cancelled"), ("timed_out", "timed out"), ("waiting", "still waiting")):
        line(title, [f"{row['unmatched'][key]:,}" for row in rows], f"{live['outcomes'].get(key, 0):,}" if live else "")
    for name in ("mean", *_QUANTILES):
        line(f"wait {name}, s", [_cell(row["waitS"], name) for row in rows], _cell(live["waitS"], name) if live else "")
    for name in ("mean", "p50"):
        line(f"quality {name}", [_cell(row["quality"], name, 3) for row in rows])
    for attribute in rows[0]["spread"]:
        for name in ("mean", "p95"):
            line(f"{attribute} spread {name}", [_cell(row["spread"][attribute], name, 1) for row in rows])
    line("slowest round trip p95, ms", [_cell(row["latencyMs"], "p95", 0) for row in rows])
    for size in sorted({size for row in rows for size in row["parties"]}, key=int):
        parties = [row["parties"].get(size, {"waitS": None, "tickets": 0, "unmatched": 0}) for row in rows]
        waits = [
            f"{_cell(p['waitS'], 'p50')} / {_cell(p['waitS'], 'p95')} s, {p['unmatched']:,} unmatched" for p in parties
        ]
        line(f"parties of {size}: wait p50 / p95", waits)
    line("would be refused", [f"{sum(row['refused'].values()):,}" for row in rows])
    line("took, s", [f"{row['seconds']:.1f}" for row in rows])
    console.print(table)
    for row in rows:
        for reason, count in row["refused"].items():
            console.print(
                f"{row['name']} would refuse {count:,}: {reason}", highlight=False, markup=False, soft_wrap=True
            )


def _cell(spread: dict[str, float] | None, name: str, digits: int = 1) -> str:
    return "-" if spread is None else f"{spread[name]:,.{digits}f}"
