"""
The webhook over HTTPS: `POST /mutate`, `/healthz`, `/readyz`, `/metrics`.

Owns HTTP: sizes, status codes, counters. The answer is `review`'s.
"""

import asyncio
import signal
from pathlib import Path

import structlog
import uvicorn
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from fleets.admission.metrics import REVIEWS, SECONDS
from fleets.admission.mutation import Mutation
from fleets.admission.review import MAX_BODY_BYTES, BadReview, answer
from fleets.listening import Impatient
from gameserver.certificates import CertificateFiles, ServerCertificate
from gameserver.exposition import exposition

_log = structlog.get_logger(__name__)


def make_app(mutation: Mutation) -> Starlette:
    """The ASGI app."""

    async def mutate(request: Request) -> Response:
        body = await _read(request)
        if body is None:
            REVIEWS.labels("too_large").inc()
            return PlainTextResponse(f"the body is larger than {MAX_BODY_BYTES} bytes\n", 413)
        try:
            with SECONDS.time():
                review = answer(body, mutation)
        except BadReview as error:
            REVIEWS.labels("malformed").inc()
            return PlainTextResponse(f"{error}\n", 400)
        response = review["response"]
        outcome = "patched" if "patch" in response else "unchanged" if response["allowed"] else "denied"
        REVIEWS.labels(outcome).inc()
        if outcome == "denied":
            _log.warning("pod denied", uid=response["uid"], reason=response["status"]["message"])
        return JSONResponse(review)

    async def healthy(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def metrics(request: Request) -> Response:
        body, kind = await exposition(REGISTRY, request.headers.get("accept", ""))
        return Response(body, media_type=kind)

    return Starlette(
        routes=[
            Route("/mutate", mutate, methods=["POST"]),
            Route("/healthz", healthy),
            Route("/readyz", healthy),
            Route("/metrics", metrics),
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


async def serve(
    mutation: Mutation, *, host: str, port: int, certificate: Path, key: Path, check_every_s: float
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is under way. Raises CertificateError."""
    pair = ServerCertificate(CertificateFiles(certificate=certificate, key=key))
    config = uvicorn.Config(
        make_app(mutation), http=Impatient, host=host, port=port, log_level="warning", access_log=False, lifespan="off"
    )
    config.load()
    config.ssl = pair.context  # ours, since uvicorn reads its files once only
    server = uvicorn.Server(config)
    # uvicorn raises the signal again once it has stopped, for whoever handled it before: nobody needs to, so that we exit with 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, lambda: None)
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(pair.watch(check_every_s), name="admission certificate")
        await server.serve()
        watch.cancel()
