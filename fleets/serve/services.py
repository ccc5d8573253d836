"""
The allocator part's own interfaces for other services: REST and Agones' gRPC.

REST answers on the part's own port when there are service tokens to check, or when only this machine can connect. With a certificate both are served
over TLS on addresses of their own, to clients with a certificate of `client_ca`, a service token, or both.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog
import uvicorn
from fastapi import FastAPI

from allocator.api.agones import AllocationServer, AllocationService
from allocator.api.app import create_app
from allocator.api.tokens import ServiceTokens, TokensUnusable
from allocator.ports import Backend
from allocator.service import Allocator
from allocator.shelf import Shelf
from fleets.listening import Impatient, Server
from fleets.serve.settings import CERTIFICATE_CHECK_S, ServeSettings, SettingsError
from gameserver.certificates import CertificateFiles, ServerCertificate

log = structlog.get_logger(__name__)

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_DRAIN_S = 2


@dataclass(frozen=True, slots=True)
class Interfaces:
    """What the part serves: on its own port (None: nothing), and as services."""

    app: FastAPI | None
    services: Mapping[str, Callable[[], Awaitable[object]]]


def interfaces(settings: ServeSettings, allocator: Allocator, shelf: Shelf, backend: Backend) -> Interfaces:
    """Make them. Raises SettingsError."""
    try:
        tokens = ServiceTokens(settings.service_tokens) if settings.service_tokens else None
    except TokensUnusable as error:
        raise SettingsError(f"WARMFLEET_SERVICE_TOKENS: {error}") from None
    tls = _tls(settings, tokens)
    services: dict[str, Callable[[], Awaitable[object]]] = {}
    if settings.service_grpc:
        service = AllocationService(allocator, backend, tokens=tokens)
        try:
            server = AllocationServer(service, address=settings.service_grpc, tls=tls)
        except (ValueError, RuntimeError) as error:
            raise SettingsError(f"WARMFLEET_SERVICE_GRPC: {error}") from None
        services["grpc"] = lambda: _run_grpc(server)
    if settings.service_rest:
        if tls is None:
            raise SettingsError("WARMFLEET_SERVICE_REST: wants WARMFLEET_SERVICE_CERTIFICATE and _KEY")
        secured = _Secured(create_app(allocator=allocator, shelf=shelf, tokens=tokens), settings.service_rest, tls)
        services["rest"] = secured.run
    app = None
    if tokens is not None or settings.host in _LOOPBACK:
        app = create_app(allocator=allocator, shelf=shelf, tokens=tokens)
    return Interfaces(app, services)


def _tls(settings: ServeSettings, tokens: ServiceTokens | None) -> CertificateFiles | None:
    certificate, key, ca = settings.service_certificate, settings.service_key, settings.service_client_ca
    if (certificate is None) != (key is None):
        raise SettingsError("WARMFLEET_SERVICE_CERTIFICATE and WARMFLEET_SERVICE_KEY belong together")
    if certificate is None or key is None:
        if ca is not None:
            raise SettingsError("WARMFLEET_SERVICE_CLIENT_CA: wants WARMFLEET_SERVICE_CERTIFICATE and _KEY")
        return None
    if ca is None and tokens is None:
        raise SettingsError(
            "WARMFLEET_SERVICE_CLIENT_CA or WARMFLEET_SERVICE_TOKENS is wanted: else whoever can connect may take servers"
        )
    for name, file in (("CERTIFICATE", certificate), ("KEY", key), ("CLIENT_CA", ca)):
        if file is not None and not file.is_file():
            raise SettingsError(f"WARMFLEET_SERVICE_{name}: {file} is no file")
    return CertificateFiles(certificate=certificate, key=key, ca=ca)


async def _run_grpc(server: AllocationServer) -> None:
    async with server:
        log.info("allocation_service_listens", port=server.port)
        await asyncio.Event().wait()


class _Secured(Server):
    """REST over TLS on an address of its own."""

    def __init__(self, app: FastAPI, address: str, tls: CertificateFiles) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise SettingsError(f"WARMFLEET_SERVICE_REST: {address!r}: host:port is wanted")
        super().__init__(
            uvicorn.Config(
                app,
                http=Impatient,
                host=host.strip("[]"),
                port=int(port),
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=_DRAIN_S,
            )
        )
        self._certificate = ServerCertificate(tls)
        self.config.load()
        self.config.ssl = self._certificate.context  # ours, since uvicorn reads its files once only

    async def run(self) -> None:  # type: ignore[override]
        """Serve until cancelled."""
        serving = asyncio.create_task(self.serve(), name="rest-tls")
        watching = asyncio.create_task(self._certificate.watch(CERTIFICATE_CHECK_S), name="rest-certificate")
        try:
            await asyncio.shield(serving)
        finally:
            self.should_exit = True
            watching.cancel()
            await asyncio.wait([serving, watching])
