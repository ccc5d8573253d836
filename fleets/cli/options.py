"""What the commands share: options, and how a command fails. Imports nothing that takes time: `warmfleet status` is asked often."""

import os
import ssl
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import httpx
import typer

from fleets.home import Home, NotRunning

DataDir = Annotated[
    Path, typer.Option("--data-dir", help="Where `warmfleet up` keeps its data.", envvar="WARMFLEET_DATA_DIR")
]
Kubeconfig = Annotated[
    Path | None, typer.Option("--kubeconfig", help="Absent: $KUBECONFIG, ~/.kube/config, or the pod's own.")
]
Context = Annotated[str | None, typer.Option("--context", help="Of the kubeconfig.")]

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="WARMFLEET_CONSOLE_URL",
        help="Of a cluster's console (`warmfleet serve console`); absent: of the `warmfleet up` of --data-dir.",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help="With --url: a file that holds the token; absent: $WARMFLEET_CONSOLE_TOKEN."),
]

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


def console_of(url: str | None, token_file: Path | None, data_dir: Path, *, act: bool) -> httpx.Client:
    """
    The console of a cluster, or of the `warmfleet up` that runs on a data directory; ends the command where neither is to be had.

    Args: act: with the operator's token of a laptop, not the viewer's.
    """
    if url is None:
        try:
            running = Home(data_dir).running()
        except NotRunning as error:
            fail(f"{error}; for a cluster give --url")
        return _client(running.url, running.operator_token if act else running.viewer_token)
    try:
        token = (
            token_file.read_text().strip() if token_file is not None else os.environ.get("WARMFLEET_CONSOLE_TOKEN", "")
        )
    except (OSError, UnicodeDecodeError) as error:
        fail(f"--token-file {token_file}: {error}", MISUSED)
    if not token or not token.isascii():
        fail("--url wants a token: --token-file FILE or $WARMFLEET_CONSOLE_TOKEN", MISUSED)
    if not url.startswith(("https://", "http://")):
        fail(f"--url {url}: an address as https://console.example is wanted", MISUSED)
    return _client(url.rstrip("/"), token)


def _client(url: str, token: str) -> httpx.Client:
    # The system's authorities, and those of $SSL_CERT_FILE; no proxy, which would see the token of a loopback address.
    trusted = ssl.create_default_context() if url.startswith("https:") else True
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=url, headers=headers, timeout=10, trust_env=False, verify=trusted)


def fail(message: str, code: int = FAILED) -> NoReturn:
    """End the command with a message on standard error."""
    print(f"warmfleet: {message}", file=sys.stderr)
    raise typer.Exit(code)
