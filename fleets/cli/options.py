"""What the commands share: options, and how a command fails. Imports nothing that takes time: `warmfleet status` is asked often."""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

DataDir = Annotated[
    Path, typer.Option("--data-dir", help="Where `warmfleet up` keeps its data.", envvar="WARMFLEET_DATA_DIR")
]
Kubeconfig = Annotated[
    Path | None, typer.Option("--kubeconfig", help="Absent: $KUBECONFIG, ~/.kube/config, or the pod's own.")
]
Context = Annotated[str | None, typer.Option("--context", help="Of the kubeconfig.")]

FAILED = 1
"""Exit code: the command did not reach its goal."""
MISUSED = 2
"""Exit code: the command was called wrongly."""


def tracing_for(service: str) -> None:
    """Trace this command as `service`, where the environment says so; a mistake in it ends the command."""
    from gameserver import tracing

    try:
        tracing.configure(service, os.environ)
    except tracing.TracingError as error:
        fail(str(error), MISUSED)


def fail(message: str, code: int = FAILED) -> NoReturn:
    """End the command with a message on standard error."""
    print(f"warmfleet: {message}", file=sys.stderr)
    raise typer.Exit(code)
