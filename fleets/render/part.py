"""How one of our services differs from the others: what `services` reads of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fleets.render.network import Ports
from fleets.spec.fleet import SecretKey
from fleets.spec.platform import SERVICE_PORT

Volume = tuple[dict[str, Any], str]
"""A volume, and the folder that it is mounted at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of them."""

    secrets: tuple[tuple[str, SecretKey], ...] = ()
    """Variable, and where its value is."""
    rules: tuple[Mapping[str, Any], ...] = ()
    """What it may do at the API server, in its own namespace."""
    out: Ports
    """Ports that it reaches, beside DNS and the API server."""
    by_queue: bool = False
    """Whether the depth of the queues is its load."""
    store: bool = True
    """Whether it has the store's URL."""
    values: tuple[tuple[str, str], ...] = ()
    """Variables that only it has."""
    volumes: tuple[Volume, ...] = ()
    """That only it mounts."""
    ports: tuple[tuple[str, int, str], ...] = ()
    """Name, number and protocol, beside that of every part."""
    port: int = SERVICE_PORT
    """Of its Service."""
    service: Mapping[str, Any] = field(default_factory=dict)
    """More of its Service's spec."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Of its Service."""
    inside: bool = False
    """Only pods of the cluster reach it."""
    tls_secret: str | None = None
    """It answers over HTTPS, with the certificate of this Secret."""


def name_of(part: str) -> str:
    """Of its objects."""
    return f"warmfleet-{part}"
