"""`warmfleet drain`: have a server's matches handed over or finished, and the server replaced."""

from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import httpx
import typer

from fleets.cli.options import DataDir, TokenFile, Url, console_of, fail


def drain(
    server: Annotated[str, typer.Argument(help="Its name, as `warmfleet status` and `warmfleet top` show it.")],
    data_dir: DataDir = Path(".warmfleet"),
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Take a server away as a node drain would: its matches go on elsewhere, or to their end (`disruption.onDrain`)."""
    with console_of(url, token_file, data_dir, act=True) as http:
        try:
            reply = http.post(f"/v1/console/servers/{quote(server, safe='')}/drain")
        except httpx.HTTPError as error:
            fail(f"{http.base_url} does not answer: {error}")
        if reply.status_code == httpx.codes.NOT_FOUND:
            fail(f"no server {server!r} runs here; `warmfleet top` lists them")
        if reply.is_error:
            fail(f"{http.base_url} answers {reply.status_code}: {reply.text[:200]}")
    print(f"{server} drains")
