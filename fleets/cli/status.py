"""`warmfleet status`: what runs, and why not more."""

import json
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from fleets.cli.options import DataDir, fail
from fleets.home import Home, NotRunning


def status(
    data_dir: DataDir = Path(".warmfleet"),
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the fleets of the running `warmfleet up`: servers, shelf, and why a server fails with its last log lines."""
    try:
        running = Home(data_dir).running()
        headers = {"Authorization": f"Bearer {running.operator_token}"}
        reply = httpx.get(f"{running.url}/v1/fleets", headers=headers, timeout=5, trust_env=False)
        reply.raise_for_status()
    except NotRunning as error:
        fail(str(error))
    except httpx.HTTPError as error:
        fail(f"{running.url} does not answer: {error}")
    body = reply.json()
    if json_output:
        print(json.dumps(body))
    else:
        _show(body)


def _show(body: dict[str, Any]) -> None:
    console = Console()
    for fleet in body["fleets"]:
        shelf = fleet["shelf"]
        console.print(
            f"[bold]{fleet['name']}[/]  ready {fleet['ready']}, allocated {fleet['allocated']}; "
            f"shelf {shelf['free']} of {shelf['wanted']} rooms free, {shelf['waiters']} waiting; "
            f"{shelf['sessions']} sessions, {fleet['moved']} moved"
        )
        table = Table("server", "state", "for", "pid", "ports", "note", box=None, pad_edge=False)
        for server in fleet["servers"]:
            ports = " ".join(f"{name}:{port}" for name, port in server["ports"].items())
            table.add_row(
                server["name"],
                server["state"],
                f"{server['sinceS']:.0f} s",
                str(server["pid"]),
                ports,
                server["reason"],
            )
        console.print(table)
        if fleet["failures"]:
            console.print(
                f"[red]{fleet['failures']} starts failed in a row[/], next try in {fleet['retryInS']:.1f} s: {fleet['reason']}",
                highlight=False,
            )
            for line in fleet["lastLines"]:
                console.print(f"  | {line}", markup=False, highlight=False)
    for queue in body["queues"]:
        console.print(f"queue [bold]{queue['name']}[/]  {queue['depth']} tickets wait")
