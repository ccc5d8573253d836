"""Who sends slowly, endlessly or nothing at all is cut off: on every listener, HTTP and gRPC, beacons included."""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import uvicorn
from agones_fake import Certificates
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from allocator.api import agones
from fleets.listening import Impatient, Server
from fleets.serve.run import run
from fleets.serve.settings import PartName, ServeSettings
from fleets.spec.loader import Specs
from gameserver import exposition
from gameserver.exposition import MetricsServer
from gameserver.transports.port import Connection
from gameserver.transports.websocket import WebSocketTransport

ROOT = Path(__file__).parents[2]
HEAD = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{len(await request.body())}\n")


@contextlib.asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    app = Starlette(routes=[Route("/", echo, methods=["GET", "POST"])])
    config = uvicorn.Config(app, http=Impatient, log_config=None, port=0, lifespan="off")
    config.load()
    config.ssl = tls
    server = Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await task


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Impatient, "HEAD_S", 1.0)
    monkeypatch.setattr(Impatient, "BODY_S", 1.0)
    monkeypatch.setattr(exposition, "_TIMEOUT_S", 1.0)


async def dripped(port: int, first: bytes, drip: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """Send something, then a little at a time for ever; returns what came back until the server hung up."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=tls, server_hostname="localhost" if tls else None
    )

    async def drips() -> None:
        writer.write(first)
        while drip:
            writer.write(drip)
            await asyncio.sleep(0.02)

    sending = asyncio.create_task(drips())
    got = b""
    try:
        async with asyncio.timeout(60):
            while data := await reader.read(65536):
                got += data
        return got
    except ConnectionError:
        return got  # cut off while more was on its way: what came before counts
    finally:
        sending.cancel()
        await asyncio.wait([sending])
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


DRIPS = {
    "nothing": (b"", b""),
    "a head that never ends": (HEAD, b"X-a: b\r\n"),
    "a head a byte at a time": (b"G", b"E"),
    "empty lines": (b"", b"\r\n"),
    "a body that never ends": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", b"x"),
    "chunks that never end": (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "a second head that never ends": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + HEAD, b"X-a: b\r\n"),
}


@pytest.mark.parametrize("name", DRIPS)
async def test_http_cuts_slow_requests_off(name: str) -> None:
    """Of whatever part of a request."""
    async with serving() as port:
        reply = await dripped(port, *DRIPS[name])
        assert reply.count(b"200 OK") == (1 if "second" in name else 0)


async def test_https_does_too(tmp_path: Path) -> None:
    """The same inside TLS."""
    certificates = Certificates(tmp_path)
    there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    there.load_cert_chain(certificates.server.certificate, certificates.server.key)
    here = ssl.create_default_context(cafile=str(certificates.ca))
    async with serving(there) as port:
        assert b"200" not in await dripped(port, HEAD, b"X-a: b\r\n", here)


async def test_a_long_head_is_cut_off() -> None:
    """However fast it comes."""
    async with serving() as port:
        assert b"200" not in await dripped(port, HEAD, b"X-a: " + b"b" * 20_000 + b"\r\n")


async def test_who_is_not_slow_notices_nothing() -> None:
    """Requests, kept connections and slow answers go on."""
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"200 OK" in head
            assert await reader.readexactly(2) == b"5\n"
            await asyncio.sleep(1.2)  # a kept connection may be idle for longer than a head may take
        writer.close()
        await writer.wait_closed()


def test_every_http_server_is_impatient() -> None:
    """No other uvicorn listens beyond this machine's loopback."""
    lenient = []
    for package in ("fleets", "matchmaker", "allocator", "gameserver"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text()
            if "uvicorn.Config(" in text and "http=Impatient" not in text and path.name != "gateway.py":
                lenient.append(str(path))
    assert not lenient


async def test_the_metrics_listener_cuts_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scraper that never asks."""
    async with MetricsServer(host="127.0.0.1", port=0) as server:
        assert await dripped(server.port, HEAD, b"X-a: b\r\n") == b""


async def test_the_game_servers_websocket_cuts_off() -> None:
    """A handshake that never ends; its own limit is five seconds."""

    def accept(connection: Connection) -> object:
        raise AssertionError("nobody has shaken hands")

    handshake = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
    async with WebSocketTransport(accept, host="127.0.0.1", port=0) as transport:  # type: ignore[arg-type]
        ways: list[Callable[[], Awaitable[bytes]]] = [
            lambda: dripped(transport.port, b"", b""),
            lambda: dripped(transport.port, handshake, b"X-a: b\r\n"),
        ]
        for reply in await asyncio.gather(*(way() for way in ways)):
            assert b"101" not in reply


async def test_a_beacon_cuts_off() -> None:
    """As it is served: its measurements and the operations' endpoints."""
    key = base64.urlsafe_b64encode(bytes(32)).decode()
    environment = {"WARMFLEET_BEACON_KEY": key, "WARMFLEET_BEACON_REGION": "eu", "WARMFLEET_BEACON_UDP": "127.0.0.1:0"}
    settings = ServeSettings.read({**environment, "WARMFLEET_PORT": "0"})
    stop, listening = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = run(PartName.BEACON, settings, Specs(fleets=(), queues=()), stop=stop, on_listening=listening.set_result)
    task = asyncio.create_task(serving)
    port = int((await listening).rpartition(":")[2])
    ask = b"GET /v1/beacon?nonce=AAAAAAAAAAA HTTP/1.1\r\nHost: a\r\n"
    try:
        for first, drip in ((b"", b""), (ask, b"X-a: b\r\n"), (ask + b"Content-Length: 100000\r\n\r\n", b"x")):
            await dripped(port, first, drip)
    finally:
        stop.set()
        await task


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """Of HTTP/2."""
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def literal(text: bytes) -> bytes:
    return bytes([len(text)]) + text


HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
CALL = frame(
    1, 4, 1,
    b"\x83\x86\x04" + literal(b"/allocation.AllocationService/Allocate")
    + b"\x00" + literal(b"content-type") + literal(b"application/grpc") + b"\x00" + literal(b"te") + literal(b"trailers"),
)  # fmt: skip
"""The head of a request whose body is still to come."""


@pytest.mark.parametrize(
    ("first", "drip"),
    [
        (b"", b""), (b"PRI", b" "), (HTTP2, b""), (HTTP2 + CALL, b""),
        (HTTP2 + CALL + frame(0, 0, 1, b"\x00\x00\x01\x00\x00"), frame(0, 0, 1, b"x")),
    ],
    ids=["nothing", "no handshake", "no request", "a request without a body", "a body that never ends"],
)  # fmt: skip
async def test_grpc_cuts_off(monkeypatch: pytest.MonkeyPatch, first: bytes, drip: bytes) -> None:
    """By its connection's end, whatever is still to come."""
    for name in ("server_handshake_timeout", "max_connection_idle", "max_connection_age", "max_connection_age_grace"):
        monkeypatch.setitem(agones.LIMITS, f"grpc.{name}_ms", 1000)
    service = agones.AllocationService(None, None)  # type: ignore[arg-type]
    async with agones.AllocationServer(service, address="127.0.0.1:0", tls=None) as server:
        await dripped(server.port, first, drip)


def test_every_grpc_server_is_limited() -> None:
    """No other one listens beyond this machine's loopback."""
    found = {}
    for package in ("fleets", "matchmaker", "allocator", "gameserver"):
        for path in (ROOT / package).rglob("*.py"):
            if "aio.server(" in (text := path.read_text()):
                found[path.relative_to(ROOT).as_posix()] = (
                    "LIMITS" in text or 'add_insecure_port("127.0.0.1:0")' in text
                )
    assert found == {"allocator/api/agones.py": True, "fleets/local/endpoints.py": True}
