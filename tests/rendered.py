"""Fleets and Platforms in a line, and what is rendered of them."""

from typing import Any

from fleets.render.rendering import render
from fleets.spec.fleet import FleetSpec
from fleets.spec.platform import PlatformBody

ADMISSION = {"image": "registry.example/warmfleet:1", "issuer": {"name": "internal"}}


def fleet(name: str = "arena", server: dict[str, Any] | None = None, **spec: Any) -> FleetSpec:
    base = (
        {"game": "g:G", "image": "registry.example/g:1"}
        if server is None or "command" not in server
        else {"image": "i"}
    )
    body = {"server": base | (server or {}), **spec}
    document = {"apiVersion": "warmfleet.dev/v1", "kind": "Fleet", "metadata": {"name": name}, "spec": body}
    return FleetSpec.model_validate(document)


def platform(**spec: Any) -> PlatformBody:
    return PlatformBody.model_validate(spec)


def rendered(*fleets_: FleetSpec, on: PlatformBody | None = None) -> dict[tuple[str, str], dict[str, Any]]:
    return {(item["kind"], item["metadata"]["name"]): item for item in render(fleets_, on or platform())}


def game_server(item: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = item["spec"]["template"]["spec"]
    return found


def pod(item: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = game_server(item)["template"]["spec"]
    return found
