"""`warmfleet doctor`: what of a node and of a cluster stands in the way of real time, and how to mend it."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fleets.cli.options import FAILED, Context, Kubeconfig
from fleets.cli.options import fail as end
from fleets.cli.wanted import JsonOutput, PlatformFile, connect
from fleets.cluster.ports import ClusterError
from fleets.doctor import cluster as of_cluster
from fleets.doctor import node as of_node
from fleets.doctor.model import Check, Verdict
from fleets.spec.loader import SpecError, Specs, load
from fleets.spec.platform import PlatformSpec

app = typer.Typer(
    help="What of a node and of a cluster stands in the way of real time, and how to mend it.", no_args_is_help=True
)
Files = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[FILES...]", help="Fleets (and a Platform): what they ask for is then wanted here."),
]
_SIGNS = {
    Verdict.OK: ("ok  ", "green"),
    Verdict.WARN: ("warn", "yellow"),
    Verdict.FAIL: ("FAIL", "red"),
    Verdict.UNKNOWN: ("?   ", None),
}


@app.command()
def node(
    files: Files = None,
    root: Annotated[Path, typer.Option(help="Where the machine's file system is, as /host in a debug pod.")] = Path(
        "/"
    ),
    json_output: JsonOutput = False,
) -> None:
    """Look at this machine: CPU manager, huge pages, kernel, interrupts, network. Exit code 1 when something cannot work."""
    specs = _specs(files, None)
    levers = [fleet.spec.low_latency for fleet in specs.fleets]
    wishes = of_node.Wishes(
        pinning=any(lever.cpu_pinning for lever in levers),
        numa=any(lever.numa == "single" for lever in levers),
        huge_pages=any(lever.hugepages_2_mi or lever.hugepages_1_gi for lever in levers),
        realtime=any(lever.kernel == "realtime" for lever in levers),
        game_port_last=(specs.platform or PlatformSpec()).spec.game_ports.last,
    )
    _show(of_node.examine(of_node.Node(root), wishes), json_output=json_output)


@app.command()
def cluster(
    files: Files = None,
    platform: PlatformFile = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    json_output: JsonOutput = False,
) -> None:
    """Look at a cluster: Agones and its settings, what the Platform counts on, nodes for every fleet. Exit code 1 when something cannot work."""
    specs = _specs(files, platform)
    body = (specs.platform or PlatformSpec()).spec
    try:
        found = of_cluster.examine(connect(kubeconfig, context), body, specs.fleets)
    except ClusterError as error:
        end(str(error))
    _show(found, json_output=json_output)


def _specs(files: Sequence[Path] | None, platform: Path | None) -> Specs:
    try:
        return load([*(files or []), *([platform] if platform is not None else [])])
    except SpecError as error:
        end(str(error))


def _show(checks: Sequence[Check], *, json_output: bool) -> None:
    if json_output:
        print(json.dumps({"checks": [dataclasses.asdict(check) for check in checks]}))
    else:
        for check in checks:
            sign, colour = _SIGNS[check.verdict]
            typer.secho(f"{sign} {check.name}: {check.said}", fg=colour)
            if check.mend:
                print(f"       → {check.mend}")
    if any(check.verdict is Verdict.FAIL for check in checks):
        raise typer.Exit(FAILED)
