"""What the allocator is given to answer other services, and Agones' own clients: REST and gRPC over TLS."""

from dataclasses import dataclass
from typing import Any

from fleets.spec.platform import Allocation

_TLS = "/var/run/warmfleet/allocation"
_TOKENS = "/var/run/warmfleet/tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """For the allocator's container."""

    values: tuple[tuple[str, str], ...] = ()
    volumes: tuple[tuple[dict[str, Any], str], ...] = ()
    """Each with its folder."""
    ports: tuple[tuple[str, int, str], ...] = ()
    """Name, number and protocol."""


def served(allocation: Allocation | None) -> Served:
    """Nothing where the platform has none: then nobody but the director and the matchmaker asks, through Valkey."""
    if allocation is None:
        return Served()
    ports = (("grpc", allocation.grpc_port, "TCP"), ("rest", allocation.rest_port, "TCP"))
    values = {
        **{f"WARMFLEET_SERVICE_{name.upper()}": f"0.0.0.0:{port}" for name, port, _ in ports},
        "WARMFLEET_SERVICE_CERTIFICATE": f"{_TLS}/tls.crt",
        "WARMFLEET_SERVICE_KEY": f"{_TLS}/tls.key",
    }
    volumes: list[tuple[dict[str, Any], str]]
    volumes = [({"name": "allocation", "secret": {"secretName": allocation.tls_secret}}, _TLS)]
    if allocation.mutual_tls:
        values["WARMFLEET_SERVICE_CLIENT_CA"] = f"{_TLS}/ca.crt"
    if allocation.tokens is not None:
        items = [{"key": allocation.tokens.key, "path": "tokens"}]
        volumes.append(
            ({"name": "tokens", "secret": {"secretName": allocation.tokens.secret, "items": items}}, _TOKENS)
        )
        values["WARMFLEET_SERVICE_TOKENS"] = f"{_TOKENS}/tokens"
    return Served(values=tuple(values.items()), volumes=tuple(volumes), ports=ports)
