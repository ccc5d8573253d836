"""`warmfleet serve`: one part of the system alone, as in a container."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from fleets.cli.options import FAILED, MISUSED, fail, tracing_for
from fleets.serve.settings import BackendName, PartName, ServeSettings, SettingsError
from fleets.spec.loader import SpecError, Specs, load
from gameserver import tracing
from gameserver.telemetry import configure_logging


def serve(
    part: Annotated[PartName, typer.Argument(help="Which part.")],
    files: Annotated[list[Path], typer.Argument(help="YAML files of fleets and queues, or folders of them.")],
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [WARMFLEET_HOST; 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 for any.  [WARMFLEET_PORT; 8080]")] = None,
    valkey_url: Annotated[str | None, typer.Option(help="[WARMFLEET_VALKEY_URL]")] = None,
    backend: Annotated[BackendName | None, typer.Option(help="Where servers come from.  [WARMFLEET_BACKEND]")] = None,
    namespace: Annotated[str | None, typer.Option(help="Of the game servers.  [WARMFLEET_NAMESPACE]")] = None,
    kubeconfig: Annotated[Path | None, typer.Option(help="[WARMFLEET_KUBECONFIG]")] = None,
) -> None:
    """Serve one part; its other settings are WARMFLEET_ variables (docs/serve.md)."""
    configure_logging(json=not sys.stderr.isatty())
    tracing_for(f"warmfleet-{part.value}")
    specs = _specs(files)
    try:
        settings = ServeSettings.read(
            os.environ,
            host=host,
            port=port,
            valkey_url=valkey_url,
            backend=backend,
            namespace=namespace,
            kubeconfig=kubeconfig,
        )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(part, settings, specs))
    except SettingsError as error:
        fail(str(error), MISUSED)
    finally:
        tracing.shutdown()


async def _run(part: PartName, settings: ServeSettings, specs: Specs) -> None:
    # Imported here: the other commands start without a Kubernetes client.
    from allocator.ports import BackendUnavailable
    from fleets.listening import CannotListen
    from fleets.serve.run import run
    from gameserver.certificates import CertificateError

    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(FAILED)  # the second one does not wait
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)

    def listening(url: str) -> None:
        print(f"{part.value} listens on {url}", flush=True)

    try:
        await run(part, settings, specs, stop=stop, on_listening=listening)
    except (CannotListen, BackendUnavailable, CertificateError) as error:
        fail(str(error))


def _specs(files: list[Path]) -> Specs:
    found: list[Path] = []
    for path in files:
        # A mounted ConfigMap has its files beside hidden folders of its versions.
        inside = sorted(p for kind in ("*.yaml", "*.yml") for p in path.glob(kind) if not p.name.startswith("."))
        if path.is_dir() and not inside:
            fail(f"{path}: no YAML file is in this folder", MISUSED)
        found += inside if path.is_dir() else [path]
    try:
        return load(found)
    except SpecError as error:
        for problem in error.problems:
            typer.secho(str(problem), fg="red", err=True)
        raise typer.Exit(FAILED) from None
