"""`warmfleet validate`: check YAML files, for people and for CI."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from fleets.cli.options import FAILED
from fleets.spec.loader import SpecError, SpecProblem, load


def validate(
    files: Annotated[list[Path], typer.Argument(help="YAML files of Fleets and Queues; they are checked together.")],
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check fleets and queues; exit code 1 and every problem with its file, line, path and mend if something is wrong."""
    problems: tuple[SpecProblem, ...] = ()
    notes: tuple[SpecProblem, ...] = ()
    count = 0
    try:
        specs = load(files)
        notes, count = specs.notes, len(specs.fleets) + len(specs.queues)
    except SpecError as error:
        problems = error.problems
    if json_output:
        rows = {"problems": problems, "notes": notes}
        print(json.dumps({"valid": not problems, **{k: [dataclasses.asdict(p) for p in v] for k, v in rows.items()}}))
    else:
        for note in notes:
            typer.secho(f"note: {note}", fg="yellow", err=True)
        for problem in problems:
            typer.secho(str(problem), fg="red", err=True)
        if not problems:
            print(f"{count} documents are valid")
    if problems:
        raise typer.Exit(FAILED)
