"""`warmfleet validate`: check YAML files, and what a cluster would make of them, for people and for CI."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from fleets.cli.options import FAILED, MISUSED, fail
from fleets.cli.wanted import (
    Crds,
    Folder,
    KubernetesVersion,
    PlatformFile,
    finding_rows,
    read_objects,
    schema_problems,
    show_findings,
)
from fleets.render.checks import Finding, Severity, check
from fleets.render.manifest import Manifest
from fleets.render.policies import policies
from fleets.render.rendering import render
from fleets.spec.loader import SpecError, SpecProblem, Specs, load
from fleets.spec.platform import PlatformSpec


def validate(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILES...", help="YAML files of Fleets, Queues and a Platform; checked together."),
    ] = None,
    platform: PlatformFile = None,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Check for a cluster even where no file holds a Platform.")
    ] = False,
    manifests: Folder = None,
    crds: Crds = None,
    kubernetes: KubernetesVersion = "",
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """
    Check files; exit code 1 and every problem with its file, line, path and mend if something is wrong.

    With a Platform, also what a cluster would do with them: policy checks, and the schemas of every object that would be rendered.
    """
    if bool(files) == (manifests is not None):
        fail("give FILES, or --manifests FOLDER", MISUSED)
    problems: tuple[SpecProblem, ...] = ()
    specs = Specs(fleets=(), queues=())
    try:
        specs = load([*(files or []), *([platform] if platform is not None else [])])
    except SpecError as error:
        problems = error.problems
    findings: tuple[Finding, ...] = ()
    items: tuple[Manifest, ...] = ()
    if manifests is not None:
        items = read_objects(manifests)
        findings = policies(items)
    elif not problems and (cluster or specs.platform is not None):
        body = (specs.platform or PlatformSpec()).spec
        findings = check(specs.fleets, body)
        if not _broken(findings):
            items = render(specs.fleets, body, specs.documents)
            findings += policies(items)
    wrong, unknown = schema_problems(items, crds, kubernetes) if items else ([], [])
    valid = not problems and not wrong and not _broken(findings)
    count = len(specs.fleets) + len(specs.queues) + len(specs.shadows) + (specs.platform is not None)
    if json_output:
        rows = {
            "problems": [dataclasses.asdict(p) for p in problems],
            "notes": [dataclasses.asdict(p) for p in specs.notes],
        }
        print(
            json.dumps(
                {
                    "valid": valid,
                    **rows,
                    "findings": finding_rows(findings),
                    "schema": wrong,
                    "unchecked": unknown,
                    "objects": len(items),
                }
            )
        )
    else:
        for note in specs.notes:
            typer.secho(f"note: {note}", fg="yellow", err=True)
        for line in [*map(str, problems), *wrong]:
            typer.secho(line, fg="red", err=True)
        show_findings(findings)
        if unknown:
            typer.secho(f"note: no schemas at hand of {', '.join(unknown)}: give --crds", fg="yellow", err=True)
        if valid:
            print(f"{len(items)} objects are valid" if manifests is not None else f"{count} documents are valid")
    if not valid:
        raise typer.Exit(FAILED)


def _broken(findings: tuple[Finding, ...]) -> bool:
    return any(finding.severity is Severity.ERROR for finding in findings)
