"""
The webhook of Agones' FleetAutoscaler: `POST /v1/fleet-autoscale`; also `GET /v1/fleets/{fleet}/decision`.

Owns HTTP: sizes and status codes. Anything but 200 makes Agones fall back to the next policy of its chain, the fixed buffer.
"""

from dataclasses import asdict
from typing import Protocol

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from fleets.autoscaler.policy import Decision
from fleets.autoscaler.review import MAX_BODY_BYTES, BadReview, answer, parse
from fleets.autoscaler.service import Servers
from gameserver.sessions.model import FleetName
from gameserver.sessions.port import StoreUnavailable

log = structlog.get_logger(__name__)


class Decides(Protocol):
    """An `Autoscaler`."""

    async def decide(self, fleet: FleetName, servers: Servers, *, interval_s: float) -> Decision:
        """Decide for a fleet. Raises KeyError for an unknown one."""

    async def why(self, fleet: FleetName) -> Decision | None:
        """The newest decision. Raises KeyError, StoreUnavailable."""


def make_app(autoscaler: Decides, *, namespace: str, interval_s: float) -> Starlette:
    """
    The ASGI app.

    Args:
        namespace: of our fleets; one of another namespace is not ours, whatever its name. "": any.
        interval_s: the FleetAutoscaler's `sync.fixedInterval.seconds`.
    """

    async def scale(request: Request) -> Response:
        body = await _read(request)
        if body is None:
            return PlainTextResponse(f"the body is larger than {MAX_BODY_BYTES} bytes\n", 413)
        try:
            review = parse(body)
            if namespace and review.namespace != namespace:
                raise KeyError(review.fleet)
            servers = Servers(
                replicas=review.replicas, ready=review.ready, allocated=review.allocated, reserved=review.reserved
            )
            decision = await autoscaler.decide(FleetName(review.fleet), servers, interval_s=interval_s)
        except BadReview as error:
            return PlainTextResponse(f"{error}\n", 400)
        except KeyError:
            return PlainTextResponse(f"no fleet {review.fleet!r} in namespace {review.namespace!r} is ours\n", 404)
        if decision.replicas != review.replicas:
            log.info("fleet_scaled", fleet=review.fleet, replicas=decision.replicas, reasons=list(decision.reasons))
        return JSONResponse(answer(review, decision))

    async def why(request: Request) -> Response:
        fleet = request.path_params["fleet"]
        try:
            decision = await autoscaler.why(FleetName(fleet))
        except KeyError:
            return PlainTextResponse(f"no fleet {fleet!r} is ours\n", 404)
        except StoreUnavailable as error:
            return PlainTextResponse(f"{error}\n", 503, headers={"Retry-After": "2"})
        return JSONResponse(None if decision is None else asdict(decision))

    return Starlette(
        routes=[
            Route("/v1/fleet-autoscale", scale, methods=["POST"]),
            Route("/v1/fleets/{fleet}/decision", why),
        ]
    )


async def _read(request: Request) -> bytes | None:
    """The body, None when it is too large."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)
