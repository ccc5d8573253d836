"""`warmfleet status`: what runs, and why not more."""

import json
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from fleets.cli.options import FAILED, Context, DataDir, Kubeconfig, fail
from fleets.home import Home, NotRunning


def status(
    data_dir: DataDir = Path(".warmfleet"),
    cluster: Annotated[bool, typer.Option("--cluster", help="Of a Kubernetes cluster, not of this machine.")] = False,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="With --cluster.")] = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    why: Annotated[bool, typer.Option("--why", help="Say why each fleet has as many servers as it has.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show fleets: servers, shelf, and why a server fails; of the running `warmfleet up`, or of a cluster."""
    if cluster or kubeconfig is not None or context is not None:
        _cluster(kubeconfig, context, namespace, json_output)
        return
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
        _show(body, why=why)


def _cluster(kubeconfig: Path | None, context: str | None, namespace: str, json_output: bool) -> None:
    """Exit code 1 when something is not as it is wanted."""
    # Imported here: the status of this machine is asked often, and needs no Kubernetes client.
    from fleets.cli.wanted import connect
    from fleets.cluster.overview import overview
    from fleets.cluster.ports import ClusterError

    try:
        found = overview(connect(kubeconfig, context), namespace)
    except ClusterError as error:
        fail(str(error))
    if json_output:
        print(json.dumps(found))
    else:
        _show_cluster(found)
    if not all(row["ready"] for row in [*found["fleets"], *found["services"]]):
        raise typer.Exit(FAILED)


def _show_cluster(found: dict[str, Any]) -> None:
    console = Console()
    if not found["fleets"] and not found["services"]:
        console.print(f"nothing of ours is in namespace {found['namespace']}")
        return
    table = Table("fleet", "wanted", "ready", "allocated", "reserved", "autoscaler", box=None, pad_edge=False)
    for fleet in found["fleets"]:
        scaler = fleet.get("autoscaler")
        told = "none" if scaler is None else f"{scaler['lastApplied'] or scaler['policy']}: wants {scaler['wants']}"
        if scaler is not None:
            told += "" if scaler["able"] else ", cannot scale"
            told += ", at its limit" if scaler["limited"] else ""
        numbers = [str(fleet[key]) for key in ("replicas", "readyServers", "allocated", "reserved")]
        table.add_row(fleet["name"], *numbers, told)
    console.print(table)
    for row in found["services"]:
        mark = "[green]ready[/]" if row["ready"] else "[red]not ready[/]"
        console.print(f"{row['kind']} {row['name']}: {row['said']}, {mark}", highlight=False)
    for row in [*found["fleets"], *found["services"]]:
        for reason in row.get("why", ()):
            console.print(f"  {row['name']}: {reason}", markup=False, highlight=False)


def _show(body: dict[str, Any], *, why: bool) -> None:
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
        if why:
            _show_why(console, fleet["decision"])
        if fleet["failures"]:
            console.print(
                f"[red]{fleet['failures']} starts failed in a row[/], next try in {fleet['retryInS']:.1f} s: {fleet['reason']}",
                highlight=False,
            )
            for line in fleet["lastLines"]:
                console.print(f"  | {line}", markup=False, highlight=False)
    for queue in body["queues"]:
        console.print(f"queue [bold]{queue['name']}[/]  {queue['depth']} tickets wait")
    for shadow in body["shadows"]:
        wait = "none matched yet" if shadow["meanWaitS"] is None else f"mean wait {shadow['meanWaitS']:.1f} s"
        ended = ", ".join(f"{count} {name}" for name, count in shadow["tickets"].items())
        console.print(f"shadow [bold]{shadow['name']}[/] of {shadow['of']}  {shadow['waiting']} wait; {ended}; {wait}")


def _show_why(console: Console, decision: dict[str, Any] | None) -> None:
    if decision is None:
        console.print("  its buffer is a fixed number: `buffer: auto` follows the demand")
        return
    console.print(f"  [bold]{decision['replicas']} servers[/] are wanted, {decision['buffer']} of them Ready, since")
    for reason in decision["reasons"]:
        console.print(f"  - {reason}", markup=False, highlight=False)
