"""`warmfleet import`: another matchmaker's configuration as YAML of ours, with a report of what is not as it was."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from fleets.cli.options import fail
from fleets.importers.draft import ImportFailed
from fleets.importers.importing import Source, import_file


def import_command(
    file: Annotated[
        Path, typer.Argument(help="JSON: a FlexMatch rule set, a PlayFab queue, or a Unity Matchmaker queue.")
    ],
    source: Annotated[Source | None, typer.Option("--from", help="Whose it is; by default its keys say.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the YAML; by default standard output.")] = None,
    region: Annotated[list[str] | None, typer.Option(help="A Fleet to begin with is written for each.")] = None,
    fleets: Annotated[list[Path] | None, typer.Option(help="YAML files with the Fleets to run on, instead.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object, the YAML in it.")] = False,
) -> None:
    """Turn another matchmaker's configuration into queues; the result is always valid, and never laxer than the original."""
    try:
        imported = import_file(file, source, regions=region or ["local"], fleets=fleets or [])
        if out is not None:
            out.write_text(imported.yaml, encoding="utf-8")
    except ImportFailed as error:
        fail(str(error))
    except OSError as error:
        fail(f"{out}: {error.strerror or error}")
    if json_output:
        notes = [dataclasses.asdict(note) for note in imported.notes]
        print(json.dumps({"from": imported.source, "queues": imported.queues, "notes": notes, "yaml": imported.yaml}))
        return
    if out is None:
        print(imported.yaml, end="")
    for note in imported.notes:
        typer.secho(str(note), fg="yellow", err=True)
    typer.echo(f"{len(imported.queues)} queues, {len(imported.notes)} notes", err=True)
