"""
The command `warmfleet`. Exit codes: 0 done, 1 failed, 2 misused.

A command's module is imported when it is called: together they bring in a Kubernetes client, web servers and game clients, which takes seconds.
"""

import sys
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

COMMANDS = {
    "up": "up:up",
    "status": "status:status",
    "top": "top:top",
    "console": "console:console",
    "logs": "logs:logs",
    "profile": "profile:profile",
    "observe": "observe:observe",
    "drain": "drain:drain",
    "bots": "bots:bots",
    "new": "new:new",
    "validate": "validate:validate",
    "import": "importing:import_command",
    "schema": "schema:schema",
    "simulate": "simulate:simulate",
    "record": "record:record",
    "replay": "replay:replay_command",
    "generate": "generate:generate",
    "render": "render:render_command",
    "plan": "plan:plan_command",
    "diff": "plan:diff_command",
    "apply": "apply:apply_command",
    "rollout": "rollout:app",
    "doctor": "doctor:app",
    "serve": "serve:serve",
    "admission": "admission:admission",
}
"""Name to module:function or module:app, in the order of the help."""

EXTRAS = {"aiohttp": "kubernetes", "kubernetes": "kubernetes"}
"""What only some commands need, module to the extra that brings it: a first `warmfleet up` is not to wait for it."""


class _Commands(TyperGroup):
    # Typer carries a click of its own, whose types are private.
    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        found = getattr(import_module(f"fleets.cli.{module}"), attribute)
        if not isinstance(found, typer.Typer):
            single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            single.command(cmd_name)(found)
            found = single
        command = typer.main.get_command(found)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=_Commands,
    help="Warm fleets of multiplayer game servers: matched, seated, and kept alive.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(*, wanted: bool) -> None:
    if wanted:
        print(f"warmfleet {version('warmfleet')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    try:
        app()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRAS:
            raise
        print(f"warmfleet: this needs {missing}: pip install 'warmfleet[{EXTRAS[missing]}]'", file=sys.stderr)
        sys.exit(1)
