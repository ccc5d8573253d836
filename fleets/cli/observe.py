"""`warmfleet observe`: files for a Prometheus and a Grafana of one's own."""

from pathlib import Path
from typing import Annotated

import typer

from fleets.cli.options import fail
from fleets.observability.files import files


def observe(
    folder: Annotated[Path, typer.Argument(help="Where to write; files of these names are overwritten.")],
    url: Annotated[str, typer.Option(help="Of `warmfleet up`, as Prometheus reaches it.")] = "http://127.0.0.1:8080",
) -> None:
    """Write Prometheus' configuration and rules, and Grafana's dashboards with their provisioning."""
    try:
        for name, content in files(url).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
    except OSError as error:
        fail(f"cannot write to {folder}: {error.strerror}")
    print(
        f"written to {folder}: prometheus --config.file {folder / 'prometheus.yml'} --enable-feature=exemplar-storage"
    )
    print(f"Grafana: provisioning in {folder / 'grafana'}, dashboards in {folder / 'dashboards'}")
