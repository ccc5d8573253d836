"""`warmfleet console`: where the web console of the running system is."""

from pathlib import Path
from typing import Annotated

import typer

from fleets.cli.options import DataDir, fail
from fleets.home import Home, NotRunning


def console(
    data_dir: DataDir = Path(".warmfleet"),
    view: Annotated[bool, typer.Option("--view", help="An address that lets one look, and not act.")] = False,
) -> None:
    """Print the console's address, with a token: whoever has it may do what an operator may."""
    try:
        running = Home(data_dir).running()
    except NotRunning as error:
        fail(str(error))
    # After the #, where a browser sends it to nobody; the page keeps it for its tab and takes it out of the address.
    print(f"{running.url}/console/#token={running.viewer_token if view else running.operator_token}")
