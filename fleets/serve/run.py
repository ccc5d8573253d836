"""
Run one part until it is told to stop: listen, wire, serve, drain.

`/healthz`, `/readyz` and `/metrics` are answered here for every part, from the first moment on, so that a container that waits for Valkey is alive
and not ready. On a stop the part is not ready at once, requests under way are finished, then services end and say what is left to be said.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import structlog
import uvicorn
from prometheus_client import REGISTRY
from redis.exceptions import RedisError
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response

from fleets.garbage import settle
from fleets.listening import Impatient, Server, listen
from fleets.serve.parts import Part, make
from fleets.serve.settings import CERTIFICATE_CHECK_S, PartName, ServeSettings, SettingsError
from fleets.spec.loader import Specs
from gameserver.certificates import CertificateFiles, ServerCertificate
from gameserver.exposition import exposition
from gameserver.sessions.client import StoreClient, connect
from gameserver.sessions.health import watch_store
from gameserver.sessions.port import StoreUnavailable

log = structlog.get_logger(__name__)

_LAST_WORDS_S = 2.0


async def run(
    name: PartName,
    settings: ServeSettings,
    specs: Specs,
    *,
    stop: asyncio.Event,
    on_listening: Callable[[str], None] = lambda url: None,
) -> None:
    """
    Serve a part until `stop`.

    Raises: CannotListen, SettingsError, BackendUnavailable, CertificateError.
    """
    listener = listen(settings.host, settings.port, mend="Give another --host or --port")
    async with AsyncExitStack() as stack:
        stack.callback(listener.close)
        try:
            client = None if name is PartName.BEACON else connect(settings.url())
        except ValueError as error:
            raise SettingsError(f"WARMFLEET_VALKEY_URL: {error}") from None
        if client is not None:
            stack.push_async_callback(client.aclose)
        part = await make(name, settings, specs, client, stack)
        settle()
        host, port = listener.getsockname()[:2]
        on_listening(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        await _serve(part, settings, client, listener, stop)


async def _serve(
    part: Part, settings: ServeSettings, client: StoreClient | None, listener: socket.socket, stop: asyncio.Event
) -> None:
    config = uvicorn.Config(
        _Operations(part, client, stop),
        http=Impatient,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=max(1, round(settings.drain_s)),
        ws="websockets-sansio",
    )
    tls = None
    if settings.tls_certificate is not None and settings.tls_key is not None:
        tls = ServerCertificate(CertificateFiles(certificate=settings.tls_certificate, key=settings.tls_key))
        config.load()
        config.ssl = tls.context  # ours, since uvicorn reads its files once only
    server = Server(config)
    log.info("part_serves", part=part.name.value, services=sorted(part.services))
    async with asyncio.TaskGroup() as tasks:
        services = [tasks.create_task(_service(run), name=name) for name, run in part.services.items()]
        if client is not None:
            services.append(tasks.create_task(watch_store(client), name="watch-store"))
        if tls is not None:
            services.append(tasks.create_task(tls.watch(CERTIFICATE_CHECK_S), name="certificate"))
        web = tasks.create_task(server.serve(sockets=[listener]), name="web")
        try:
            await stop.wait()
        finally:
            log.info("part_drains", part=part.name.value)
            server.should_exit = True
            await asyncio.wait([web])
            for service in services:
                service.cancel()
            if services:
                await asyncio.wait(services)
    if part.last is not None:
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                await part.last()
        except (StoreUnavailable, TimeoutError) as error:
            log.info("last_words_unheard", part=part.name.value, error=str(error))


async def _service(run: Callable[[], Any]) -> None:
    await run()
    raise RuntimeError("a service ended by itself")


class _Operations:
    """The operations' endpoints around a part's own application."""

    def __init__(self, part: Part, client: StoreClient | None, stop: asyncio.Event) -> None:
        self._part, self._client, self._stop = part, client, stop
        self._endpoints = {"/healthz": self._alive, "/readyz": self._ready, "/metrics": self._metrics}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        endpoint = self._endpoints.get(scope.get("path", "")) if scope["type"] == "http" else None
        if endpoint is not None:
            await (await endpoint(Headers(scope=scope)))(scope, receive, send)
        elif self._part.app is not None:
            await self._part.app(scope, receive, send)
        elif scope["type"] == "http":
            response = PlainTextResponse(f"{self._part.name} answers /healthz, /readyz and /metrics\n", 404)
            await response(scope, receive, send)

    async def _alive(self, _: Headers) -> Response:
        return PlainTextResponse("ok\n")

    async def _ready(self, _: Headers) -> Response:
        missing = "draining" if self._stop.is_set() else await self._missing()
        return PlainTextResponse(f"{missing}\n", 503) if missing else PlainTextResponse("ok\n")

    async def _missing(self) -> str:
        try:
            if self._client is not None:
                await self._client.ping()
        except (RedisError, OSError) as error:
            return f"the store does not answer: {error}"
        return "" if self._part.ready is None else await self._part.ready()

    async def _metrics(self, headers: Headers) -> Response:
        body, kind = await exposition(REGISTRY, headers.get("accept", ""))
        return Response(body, media_type=kind)
