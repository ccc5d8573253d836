"""`warmfleet bots`: players that queue, play and report what they saw."""

import asyncio
import importlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.console import Console
from rich.table import Table

from fleets.cli.options import DataDir, fail, tracing_for
from fleets.home import Home, NotRunning
from gameserver import tracing
from gameserver.client.matchmaking import MatchmakingFailed, development_player
from gameserver.client.play import Policy, run_bots


def bots(
    queue: Annotated[str, typer.Option(help="The queue to play in.")] = "duel",
    players: Annotated[int, typer.Option(min=1, max=10_000, help="How many bots.")] = 2,
    duration: Annotated[float, typer.Option(min=0.1, help="How long, in seconds.")] = 30.0,
    url: Annotated[str, typer.Option(help="The system's URL; by default the `warmfleet up` of this folder.")] = "",
    policy: Annotated[
        str,
        typer.Option(help="What bots do, as module:function(world, seat, rng) → input; by default anything at all."),
    ] = "",
    rating: Annotated[float, typer.Option(help="The bots' rating attribute.")] = 1500.0,
    waiting: Annotated[
        int,
        typer.Option(
            min=0, help="How many queue at once: one fewer than a match has, and they wait for people. 0: all."
        ),
    ] = 0,
    transport: Annotated[str, typer.Option(help="websocket or udp.")] = "websocket",
    data_dir: DataDir = Path(".warmfleet"),
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Let bots play match after match over the real API, and report what they saw: waits, snapshots, disconnects."""
    tracing_for("warmfleet-bots")
    try:
        url = url or Home(data_dir).running().url
    except NotRunning as error:
        fail(str(error))
    if transport not in ("websocket", "udp"):
        fail(f"--transport {transport}: websocket or udp is wanted", code=2)
    chosen = load_policy(policy) if policy else None

    async def token_for(name: str) -> tuple[str, str]:
        return await development_player(url, name)

    async def run() -> dict[str, Any]:
        report = await run_bots(
            url,
            queue,
            players,
            duration_s=duration,
            policy=chosen,
            token_for=token_for,
            attributes={"rating": rating},
            transport=transport,
            waiting=waiting,
        )
        return report.summary()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            summary = runner.run(run())
    except* (MatchmakingFailed, OSError) as errors:
        fail(f"{url}: {errors.exceptions[0]}")
    except* KeyboardInterrupt:
        fail("interrupted")
    finally:
        tracing.shutdown()
    if json_output:
        print(json.dumps(summary))
        return
    table = Table("what", "value", box=None)
    for key, value in summary.items():
        table.add_row(key, f"{value:.4f}" if isinstance(value, float) else str(value))
    Console().print(table)


def load_policy(name: str) -> Policy:
    """Import a policy by module:function."""
    module, _, function = name.partition(":")
    sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        fail(f"policy {name!r}: module:function is wanted ({error})", code=2)
    policy: Policy = found
    return policy
