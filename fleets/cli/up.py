"""`warmfleet up`: the whole system on this machine."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console
from rich.live import Live
from rich.table import Table

import fleets
from fleets.cli.options import FAILED, DataDir, fail, tracing_for
from fleets.home import Home, HomeInUse
from fleets.laptop import CannotStart, LaptopSettings, default_files, run
from fleets.local.valkey import ValkeyFailed
from fleets.spec.loader import SpecError, Specs, load
from gameserver import tracing
from gameserver.telemetry import configure_logging

EXAMPLE = Path(fleets.__file__).parent / "examples" / "arena.yaml"


def up(
    files: Annotated[list[Path] | None, typer.Argument(help="YAML files; by default those of this folder.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port for the page and the API; 0 for any.")] = 8080,
    valkey_url: Annotated[str, typer.Option(help="Your own Valkey or Redis, instead of the embedded one.")] = "",
    bots: Annotated[int, typer.Option(min=0, max=1000, help="Bots to play against.")] = 0,
    data_dir: DataDir = Path(".warmfleet"),
) -> None:
    """Run everything: Valkey, warm game servers, allocator, matchmaker and the page to play on."""
    configure_logging(json=not sys.stderr.isatty())
    tracing_for("warmfleet-up")
    specs = _specs(files or [])
    display = _Display()
    try:
        with Home(data_dir) as home, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, display:
            settings = LaptopSettings(specs=specs, home=home, host=host, port=port, valkey_url=valkey_url, bots=bots)
            runner.run(_run(settings, display))
    except (HomeInUse, CannotStart, ValkeyFailed) as error:
        fail(str(error))
    finally:
        tracing.shutdown()


async def _run(settings: LaptopSettings, display: "_Display") -> None:
    stop = asyncio.Event()
    task = asyncio.current_task()
    assert task is not None

    def on_signal() -> None:
        if stop.is_set():
            os._exit(FAILED)  # the second one does not wait: the kernel ends the children
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    await run(settings, report=display.report, on_ready=display.ready, stop=stop)
    display.say("stopped; nothing is left running")


def _specs(files: list[Path]) -> Specs:
    chosen = files or default_files(Path())
    if not chosen:
        if sys.stdin.isatty() and not typer.confirm(
            "No fleet is described in this folder. Run the arena example?", default=True
        ):
            fail("nothing to run: write a YAML file, or name one: warmfleet up FILE", code=2)
        print(f"no fleet is described in this folder: running the example {EXAMPLE.name}")
        chosen = [EXAMPLE]
    try:
        specs = load(chosen)
    except SpecError as error:
        for problem in error.problems:
            typer.secho(str(problem), fg="red", err=True)
        raise typer.Exit(FAILED) from None
    for note in specs.notes:
        typer.secho(f"note: {note}", fg="yellow", err=True)
    if not specs.fleets:
        fail("no Fleet is described in these files: there is nothing to run", code=2)
    return specs


class _Display:
    """Readiness part by part: a live table on a terminal, a line a change elsewhere."""

    def __init__(self) -> None:
        self._console = Console()
        self._parts: dict[str, tuple[str, bool]] = {}
        self._live = Live(self._table(), console=self._console, transient=False, refresh_per_second=10)
        self._is_live = False

    def __enter__(self) -> "_Display":
        if self._console.is_terminal:
            self._live.start()
            self._is_live = True
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_live()

    def report(self, part: str, state: str, ready: bool) -> None:
        """Show how a part stands."""
        if self._parts.get(part) == (state, ready):
            return
        self._parts[part] = (state, ready)
        if self._is_live:
            self._live.update(self._table())
        else:
            self.say(f"{'ready  ' if ready else 'waiting'}  {part}: {state}")

    def ready(self, url: str) -> None:
        """Everything is up."""
        self._stop_live()
        self._console.print(f"[bold green]warmfleet is up:[/] [bold]{url}[/]  (Ctrl-C stops it)", highlight=False)
        self._console.print("what happens in it: warmfleet console, warmfleet top", highlight=False, style="dim")
        self._parts.clear()

    def say(self, line: str) -> None:
        """Print a line now, whatever standard output is."""
        self._console.print(line, markup=False, highlight=False)
        sys.stdout.flush()

    def _stop_live(self) -> None:
        if self._is_live:
            self._live.stop()
            self._is_live = False

    def _table(self) -> Table:
        table = Table(box=None, show_header=False, pad_edge=False)
        for part, (state, ready) in self._parts.items():
            table.add_row("[green]●[/]" if ready else "[yellow]○[/]", part, state)
        return table
