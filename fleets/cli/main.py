"""The command `warmfleet`. Exit codes: 0 done, 1 failed, 2 misused."""

import typer

from fleets.cli.admission import admission
from fleets.cli.apply import apply_command
from fleets.cli.bots import bots
from fleets.cli.doctor import app as doctor
from fleets.cli.drain import drain
from fleets.cli.logs import logs
from fleets.cli.new import new
from fleets.cli.plan import diff_command, plan_command
from fleets.cli.render import render_command
from fleets.cli.rollout import app as rollout
from fleets.cli.schema import schema
from fleets.cli.serve import serve
from fleets.cli.simulate import simulate
from fleets.cli.status import status
from fleets.cli.up import up
from fleets.cli.validate import validate

app = typer.Typer(
    help="Warm fleets of multiplayer game servers: matched, seated, and kept alive.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (up, status, logs, drain, bots, new, validate, schema, simulate, serve, admission):
    app.command()(command)
app.command("render")(render_command)
app.command("plan")(plan_command)
app.command("diff")(diff_command)
app.command("apply")(apply_command)
app.add_typer(rollout, name="rollout")
app.add_typer(doctor, name="doctor")


def main() -> None:
    """Run the command line."""
    app()
