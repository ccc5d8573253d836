"""`warmfleet logs`: what a game server wrote, while it runs and afterwards."""

import difflib
import time
from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from fleets.cli.options import DataDir, fail
from fleets.home import Home

_FOLLOW_POLL_S = 0.2


def logs(
    name: Annotated[str, typer.Argument(help="A game server's name, as `warmfleet status` shows it.")],
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing what is added.")] = False,
    data_dir: DataDir = Path(".warmfleet"),
) -> None:
    """Print a game server's log."""
    folder = Home(data_dir).logs
    known = sorted(path.stem for path in folder.glob("*.log"))
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:5]
        fail(f"no log of a server named {name!r} in {folder}" + (f"; there are: {', '.join(near)}" if near else ""))
    path = folder / f"{name}.log"
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in deque(file, maxlen=lines):
            typer.echo(line, nl=False)
        while follow:
            if line := file.readline():
                typer.echo(line, nl=False)
                continue
            if path.exists() and path.stat().st_size < file.tell():  # cut back when it grew too large
                file.seek(0)
            time.sleep(_FOLLOW_POLL_S)
