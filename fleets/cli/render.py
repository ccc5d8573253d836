"""`warmfleet render`: the YAML's fleets as Kubernetes manifests, for kubectl, kustomize, Argo CD or Flux."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fleets.cli.options import FAILED, MISUSED, fail
from fleets.render.checks import Severity, check
from fleets.render.manifest import to_yaml
from fleets.render.rendering import FolderForeign, differences, files, render, write
from fleets.spec.loader import SpecError, load
from fleets.spec.platform import PlatformSpec


def render_command(
    paths: Annotated[list[Path], typer.Argument(metavar="FILES...", help="YAML files of Fleets and Queues.")],
    out: Annotated[str, typer.Option("--out", "-o", help="A folder, or - for one stream on standard output.")] = "-",
    platform: Annotated[Path | None, typer.Option(help="The cluster's `kind: Platform`.")] = None,
    current: Annotated[bool, typer.Option("--check", help="Write nothing; fail if the folder is not current.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the findings and files as one object.")] = False,
) -> None:
    """Render fleets to Kubernetes manifests. Exit code 1 when something would go wrong in a cluster."""
    if out == "-" and (current or json_output):
        fail("--check and --json go with --out FOLDER", MISUSED)
    try:
        specs = load([*paths, platform] if platform is not None else paths)
    except SpecError as error:
        fail(str(error))
    body = (specs.platform or PlatformSpec()).spec
    findings = check(specs.fleets, body)
    broken = any(finding.severity is Severity.ERROR for finding in findings)
    for finding in findings:
        typer.secho(str(finding), fg="red" if finding.severity is Severity.ERROR else "yellow", err=True)
    rows: list[str] = []
    if not broken:
        items = render(specs.fleets, body, specs.documents)
        if out == "-":
            typer.echo(to_yaml(items), nl=False)
            return
        folder, contents = Path(out), files(items)
        try:
            rows = differences(folder, contents)
            if not current:
                write(folder, contents)
        except (FolderForeign, OSError) as error:
            fail(str(error))
    if json_output:
        shown = [{"severity": f.severity, "fleet": f.fleet, "path": f.path, "message": f.message} for f in findings]
        print(json.dumps({"valid": not broken, "findings": shown, "changed": rows}))
    elif not broken:
        told = rows if current else [f"{out}: {len(rows)} of {len(contents)} files changed"]
        print("\n".join(told) if rows else f"{out}: is current")
    if broken or (current and rows):
        raise typer.Exit(FAILED)
