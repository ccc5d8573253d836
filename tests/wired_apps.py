"""Every HTTP application of ours as it is wired, for tests that ask all of its routes."""

import base64
import secrets
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.types import ASGIApp

from allocator.api.app import create_app as create_allocator
from allocator.api.tokens import ServiceTokens
from allocator.model import FleetPolicy
from allocator.service import Allocator
from allocator.shelf import Shelf
from fleets.admission.app import make_app as make_admission
from fleets.admission.mutation import Mutation
from fleets.beacons import local_beacons
from fleets.home import Home
from fleets.laptop import LaptopSettings, _Laptop
from fleets.serve.backends import Unlisted
from fleets.serve.parts import make
from fleets.serve.settings import PartName, ServeSettings
from fleets.spec.loader import load
from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import FleetName

SPECS = """
apiVersion: warmfleet.dev/v1
kind: Fleet
metadata: {name: arena}
spec:
  server: {game: "gameserver.games.arena:Arena", image: "registry.example/arena:1", rooms: 2, seats: 4}
  warm: {shelf: 0, buffer: auto, min: 0, max: 4}
---
apiVersion: warmfleet.dev/v1
kind: Queue
metadata: {name: duel}
spec:
  fleets: [arena]
  teams: [{name: red, players: 1}, {name: blue, players: 1}]
"""


def settings(client: StoreClient, valkey_url: str) -> ServeSettings:
    return ServeSettings.read(
        {
            "WARMFLEET_VALKEY_URL": valkey_url,
            "WARMFLEET_SEAT_SIGNING_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "WARMFLEET_PLAYER_KEYS": "players-secret-of-thirty-two-bytes-or-more",
            "WARMFLEET_OPERATOR_TOKEN": "the-operators-own-token",
            "WARMFLEET_MATCHMAKER_URL": "http://127.0.0.1:1",
            "WARMFLEET_BACKEND": "none",
        }
    )


async def applications(client: StoreClient, valkey_url: str, folder: Path, stack: AsyncExitStack) -> dict[str, ASGIApp]:
    """Name to application: those of `warmfleet up`, of each served part, and of the webhook."""
    (folder / "specs.yaml").write_text(SPECS)
    specs = load([folder / "specs.yaml"])
    home = stack.enter_context(Home(folder / "home"))
    url = "http://127.0.0.1:1"
    beacons = await local_beacons(specs.fleets, home, "127.0.0.1", url, stack)
    laptop = _Laptop(LaptopSettings(specs=specs, home=home), client, valkey_url, url, beacons)
    found: dict[str, ASGIApp] = {"up": laptop._app}
    served = settings(client, valkey_url)
    for name in (PartName.MATCHMAKER, PartName.AUTOSCALER, PartName.CONSOLE):
        part = await make(name, served, specs, client, stack)
        assert part.app is not None
        found[name.value] = part.app
    allocator = Allocator(Shelf(client), client, [FleetPolicy(name=FleetName("arena"), rooms=2)], Unlisted())
    tokens = folder / "tokens"
    tokens.write_text("matchmaker:0123456789abcdef\n")
    found["allocator"] = create_allocator(allocator=allocator, shelf=Shelf(client), tokens=ServiceTokens(tokens))
    found["admission"] = make_admission(Mutation())
    return found


def routes(app: ASGIApp) -> list[tuple[str, str]]:
    """(method, path) of every route; WS for WebSockets, MOUNT for static files."""
    assert isinstance(app, Starlette)
    listed = {route for one in app.routes for route in _of(one)}
    if isinstance(app, FastAPI):  # some are answered before FastAPI, and described there alone
        listed |= {(method.upper(), path) for path, ways in app.openapi()["paths"].items() for method in ways}
    return sorted(listed)


def _of(route: BaseRoute) -> Iterator[tuple[str, str]]:
    if isinstance(route, Route):
        yield from ((method, route.path) for method in route.methods or () if method not in ("HEAD", "OPTIONS"))
    elif isinstance(route, WebSocketRoute):
        yield "WS", route.path
    elif isinstance(route, Mount):
        yield "MOUNT", route.path
    else:  # an included router, whose own paths have its prefix
        inner = route.original_router  # type: ignore[attr-defined]
        prefix = route.include_context.prefix  # type: ignore[attr-defined]
        yield from ((method, prefix + path) for one in inner.routes for method, path in _of(one))
