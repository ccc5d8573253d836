"""`warmfleet admission`: serve the webhook that makes host networking safe."""

import asyncio
import re
from pathlib import Path
from typing import Annotated

import typer

from fleets.admission.app import serve
from fleets.admission.mutation import Mutation, SidecarPorts
from fleets.cli.options import MISUSED, fail
from gameserver.certificates import CertificateError

_DEFAULT = Mutation()
_PORTS = _DEFAULT.ports


def admission(
    certificate: Annotated[Path, typer.Option(help="TLS certificate (PEM); read again when it changes.")],
    key: Annotated[Path, typer.Option(help="Its key (PEM).")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",  # noqa: S104 (called from outside its pod)
    port: Annotated[int, typer.Option(min=1, max=65535)] = 9443,
    game_ports: Annotated[
        str, typer.Option(help="Agones' gameservers.minPort and maxPort.")
    ] = f"{_PORTS.first}-{_PORTS.last}",
    offsets: Annotated[
        str, typer.Option(help="From a host port to its sidecar's gRPC, HTTP and health port, and its game's metrics.")
    ] = f"{_PORTS.grpc},{_PORTS.http},{_PORTS.health},{_PORTS.metrics}",
    rate_limit: Annotated[str, typer.Option(help="Sidecar's pause between writes, as 20ms.")] = _DEFAULT.rate_limit,
    sidecar_cpu: Annotated[str, typer.Option(help="Of a guaranteed sidecar.")] = _DEFAULT.sidecar_cpu,
    sidecar_memory: Annotated[str, typer.Option(help="Of a guaranteed sidecar.")] = _DEFAULT.sidecar_memory,
    certificate_check: Annotated[float, typer.Option(min=0.01, help="Seconds between looks at the files.")] = 10.0,
) -> None:
    """Serve the admission webhook for game servers' pods over HTTPS."""
    try:
        first, last = _integers(game_ports, r"(\d+)-(\d+)", "--game-ports 7000-8000")
        form = "--offsets 10000,12000,14000,16000"
        grpc, http, health, metrics = _integers(offsets, r"(\d+),(\d+),(\d+),(\d+)", form)
        ports = SidecarPorts(first=first, last=last, grpc=grpc, http=http, health=health, metrics=metrics)
    except ValueError as error:
        fail(str(error), MISUSED)
    if not re.fullmatch(r"\d+(ms|s)", rate_limit):
        fail(f"--rate-limit {rate_limit}: a duration as 20ms or 1s is wanted", MISUSED)
    mutation = Mutation(ports=ports, rate_limit=rate_limit, sidecar_cpu=sidecar_cpu, sidecar_memory=sidecar_memory)
    try:
        asyncio.run(
            serve(mutation, host=host, port=port, certificate=certificate, key=key, check_every_s=certificate_check)
        )
    except CertificateError as error:
        fail(str(error))


def _integers(text: str, pattern: str, wanted: str) -> tuple[int, ...]:
    found = re.fullmatch(pattern, text)
    if found is None:
        raise ValueError(f"{text!r}: {wanted} is the form")
    return tuple(map(int, found.groups()))
