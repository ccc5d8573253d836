"""`warmfleet drain`: have a server's matches handed over or finished, and the server replaced."""

from pathlib import Path
from typing import Annotated

import httpx
import typer

from fleets.cli.options import DataDir, fail
from fleets.home import Home, NotRunning


def drain(
    server: Annotated[str, typer.Argument(help="Its name, as `warmfleet status` shows it.")],
    data_dir: DataDir = Path(".warmfleet"),
) -> None:
    """Take a server of the running `warmfleet up` away as a node drain would: its matches go on elsewhere, or to their end (`disruption.onDrain`)."""
    try:
        running = Home(data_dir).running()
        headers = {"Authorization": f"Bearer {running.operator_token}"}
        url = f"{running.url}/v1/servers/{server}/drain"
        reply = httpx.post(url, headers=headers, timeout=5, trust_env=False)
    except NotRunning as error:
        fail(str(error))
    except httpx.HTTPError as error:
        fail(f"{running.url} does not answer: {error}")
    if reply.status_code == httpx.codes.NOT_FOUND:
        fail(f"no server {server!r} runs here; `warmfleet status` lists them")
    if reply.is_error:
        fail(f"{url} answers {reply.status_code}: {reply.text[:200]}")
    print(f"{server} drains")
