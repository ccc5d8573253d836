"""The WebSocket transport, over real sockets: what passes the library by, what does not, and clients that misbehave."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gameserver.protocol import messages as m
from gameserver.transports import websocket
from gameserver.transports.port import Connection
from gameserver.transports.websocket import WebSocketTransport
from gameserver.transports.websocket_connection import MAX_MESSAGE_BYTES, WebSocketConnection, frame_header

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: warmfleet.1\r\n\r\n"
)


def frame(message: bytes, kind: int = 0x82, mask: bytes | None = None) -> bytes:
    """A client's frame."""
    mask = mask or os.urandom(4)
    size = len(message)
    head = bytes((kind, 0x80 | size)) if size < 126 else struct.pack(">BBH", kind, 0xFE, size)
    return head + mask + bytes(byte ^ mask[k % 4] for k, byte in enumerate(message))


class Hall:
    """A transport whose handlers keep what they are told."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.received: list[bytes] = []
        self.lost = 0
        self.fail = False

    def accept(self, connection: Connection) -> "Guest":
        self.connections.append(connection)
        return Guest(self)

    async def until(self, condition: str) -> None:
        """Wait for an expression of `hall`."""
        async with asyncio.timeout(20):
            while not eval(condition, {"hall": self}):
                await asyncio.sleep(0.005)


class Guest:
    def __init__(self, hall: Hall) -> None:
        self.hall = hall

    def received(self, message: bytes) -> None:
        if self.hall.fail:
            raise RuntimeError("a fault")
        self.hall.received.append(message)

    def lost(self) -> None:
        self.hall.lost += 1


class Raw:
    """A client of bytes."""

    opened: ClassVar[list["Raw"]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.opened.append(self)

    @classmethod
    async def connect(cls, port: int, *, pipelined: bytes = b"") -> "Raw":
        raw = cls(*await asyncio.open_connection("127.0.0.1", port))
        raw.writer.write(HANDSHAKE + pipelined)
        assert b" 101 " in await raw.reader.readuntil(b"\r\n\r\n")
        return raw

    @classmethod
    def close_all(cls) -> None:
        for raw in cls.opened:
            raw.writer.close()
        cls.opened.clear()

    async def frame(self) -> tuple[int, bytes]:
        """The next frame: its first byte, and its payload."""
        async with asyncio.timeout(20):
            kind, size = await self.reader.readexactly(2)
            if size == 126:
                size = int.from_bytes(await self.reader.readexactly(2), "big")
            elif size == 127:
                size = int.from_bytes(await self.reader.readexactly(8), "big")
            return kind, await self.reader.readexactly(size)

    async def closed(self) -> int:
        """The code of the close frame that comes."""
        while True:
            kind, payload = await self.frame()
            if kind == 0x88:
                return int.from_bytes(payload[:2], "big")


@pytest.fixture
async def hall() -> AsyncIterator[tuple[Hall, int]]:
    hall = Hall()
    async with WebSocketTransport(hall.accept, host="127.0.0.1", port=0) as transport:
        yield hall, transport.port
        Raw.close_all()


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("127.0.0.1", {"127.0.0.1"}),
        ("::1", {"::1"}),
        ("0.0.0.0", {"127.0.0.1"}),
        ("::", {"127.0.0.1", "::1"}),
        ("localhost", {"127.0.0.1"}),
    ],
)
async def test_addresses_and_names_to_listen_at(host: str, reached: set[str]) -> None:
    """It listens where it was told, and nowhere else."""
    there = set()
    async with WebSocketTransport(Hall().accept, host=host, port=0) as transport:
        for address in ("127.0.0.1", "::1"):
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection((address, transport.port)):
                there.add(address)
    assert there - {"::1"} == reached if host == "localhost" else there == reached


async def test_messages_of_any_size_and_split(hall: tuple[Hall, int]) -> None:
    """Frames of every header size arrive whole and in order, however the network cuts them, with pings in between."""
    stage, port = hall
    raw = await Raw.connect(port)
    messages = [os.urandom(size) for size in (0, 1, 22, 125, 126, 127, 1000, MAX_MESSAGE_BYTES)]
    stream = b"".join(frame(message) + frame(b"hi", 0x89) for message in messages)
    for start in range(0, len(stream), 37):
        raw.writer.write(stream[start : start + 37])
        await raw.writer.drain()
        if start % 5 == 0:
            await asyncio.sleep(0)
    for _ in messages:
        assert await raw.frame() == (0x8A, b"hi")
    await stage.until(f"len(hall.received) == {len(messages)}")
    assert stage.received == messages


async def test_fragments_are_put_together_by_the_library(hall: tuple[Hall, int]) -> None:
    """A client may split its messages; what comes after them is still in order."""
    stage, port = hall
    raw = await Raw.connect(port)
    raw.writer.write(frame(b"one") + frame(b"tw", 0x02) + frame(b"", 0x89) + frame(b"o", 0x80) + frame(b"three"))
    await stage.until("len(hall.received) == 3")
    assert stage.received == [b"one", b"two", b"three"]
    assert await raw.frame() == (0x8A, b"")
    stage.connections[0].send(b"back")
    assert await raw.frame() == (0x82, b"back")


async def test_a_client_that_does_not_wait_for_its_handshake(hall: tuple[Hall, int]) -> None:
    """Frames that come with the request, the last one half, are not lost."""
    stage, port = hall
    last = frame(b"second")
    raw = await Raw.connect(port, pipelined=frame(b"first") + last[:5])
    raw.writer.write(last[5:] + frame(b"third"))
    await stage.until("len(hall.received) == 3")
    assert stage.received == [b"first", b"second", b"third"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x82\x03abc", 1002), (b"\x88\x00", 1002), (b"\xc2\x80aaaa", 1002), (b"\x83\x80aaaa", 1002), (b"\x80\x80aaaa", 1002),
        (frame(b"text", 0x81), 4002), (b"\x82\xff" + bytes(6) + b"\xff\xff", 1009), (b"\x82\xfe\xff\xff", 1009),
        (frame(struct.pack(">H", 1000), 0x88), 1000), (frame(b"x", 0x88), 1002),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "after",
)  # fmt: skip
async def test_what_breaks_the_rules_is_closed_by_the_library(hall: tuple[Hall, int], data: bytes, code: int) -> None:
    """Unmasked, reserved, orphaned, text, too long; also after good messages. Others are not disturbed."""
    stage, port = hall
    other, raw = await Raw.connect(port), await Raw.connect(port)
    raw.writer.write(frame(b"good") + data)
    assert await raw.closed() == code
    raw.writer.close()
    await stage.until("hall.lost == 1")
    other.writer.write(frame(b"mine"))
    await stage.until("b'mine' in hall.received")


async def test_a_connection_that_breaks_off(hall: tuple[Hall, int]) -> None:
    """End of stream, also within a frame, and a reset: the handler hears of each once."""
    stage, port = hall
    for ending in (b"", frame(b"half")[:7]):
        raw = await Raw.connect(port)
        raw.writer.write(ending)
        raw.writer.close()
    raw = await Raw.connect(port)
    raw.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.writer.transport.abort()
    await stage.until("hall.lost == 3")
    for connection in stage.connections:
        connection.send(b"nobody hears it")
        assert not connection.send_snapshot(m.SharedSnapshot(1, 0, b"body"), 0)


async def test_the_servers_close(hall: tuple[Hall, int]) -> None:
    """Bye, then the close frame with its code; nothing after it, and what the client still says is not heard."""
    stage, port = hall
    raw = await Raw.connect(port)
    await stage.until("hall.connections")
    stage.connections[0].close(m.CloseCode.KICKED, "out")
    stage.connections[0].send(b"too late")
    raw.writer.write(frame(b"not heard"))
    kind, bye = await raw.frame()
    assert (kind, m.decode_server(bye)) == (0x82, m.Bye(code=m.CloseCode.KICKED, reason="out"))
    assert await raw.frame() == (0x88, struct.pack(">H", 4008) + b"out")
    raw.writer.write(frame(struct.pack(">H", 4008), 0x88))
    async with asyncio.timeout(20):
        assert await raw.reader.read() == b""
    raw.writer.close()
    await stage.until("hall.lost == 1")
    assert not stage.received


async def test_a_handler_that_fails_costs_its_client_alone(hall: tuple[Hall, int]) -> None:
    """The client is told that the server failed; the other one plays on."""
    stage, port = hall
    good, bad = await Raw.connect(port), await Raw.connect(port)
    stage.fail = True
    bad.writer.write(frame(b"x"))
    assert await bad.closed() == 4009
    stage.fail = False
    good.writer.write(frame(b"y"))
    await stage.until("hall.received == [b'y']")


async def test_a_client_that_never_reads(hall: tuple[Hall, int]) -> None:
    """Its snapshots are skipped, nobody waits, then it is closed; what it did read was whole."""
    stage, port = hall
    slow, quick = await Raw.connect(port), await Raw.connect(port)
    await stage.until("len(hall.connections) == 2")
    slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
    sent = skipped = 0
    large, small = m.SharedSnapshot(1, 0, bytes(60_000)), m.SharedSnapshot(1, 0, b"b")
    async with asyncio.timeout(60):
        while isinstance(stage.connections[0], WebSocketConnection) and stage.connections[0]._closing is None:
            if stage.connections[0].send_snapshot(large, sent):
                sent += 1
            else:
                skipped += 1
            assert stage.connections[1].send_snapshot(small, 7)
            assert await quick.frame() == (0x82, small.message(7))
    assert sent
    assert skipped == 91
    slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
    for number in range(sent):
        assert await slow.frame() == (0x82, large.message(number))
    await stage.until("hall.lost == 1")


async def test_connections_of_one_address_are_limited() -> None:
    """The one too many is refused in its handshake; one that goes makes room."""
    hall = Hall()
    async with WebSocketTransport(hall.accept, host="127.0.0.1", port=0, max_per_address=2) as transport:
        first, _ = await Raw.connect(transport.port), await Raw.connect(transport.port)
        await hall.until("len(hall.connections) == 2")
        reader, writer = await asyncio.open_connection("127.0.0.1", transport.port)
        writer.write(HANDSHAKE)
        assert b" 503 " in await reader.readuntil(b"\r\n\r\n")
        writer.close()
        first.writer.close()
        await hall.until("hall.lost == 1")
        await Raw.connect(transport.port)
        Raw.close_all()


@pytest.mark.sources
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=300) | st.integers(0, 5), max_size=8), st.lists(st.integers(1, 40), max_size=20))
def test_any_cut_gives_the_same_messages(parts: list[bytes | int], cuts: list[int]) -> None:
    """Messages and control frames, cut anywhere: the messages come out whole, in order, and each control frame whole."""
    stream = b"".join(
        frame(part, mask=b"\0abc") if isinstance(part, bytes) else frame(bytes(part), 0x89, b"mask") for part in parts
    )
    connection = object.__new__(WebSocketConnection)
    connection._rest, got, controls = b"", [], []
    connection.received = got.append  # type: ignore[method-assign]
    connection._library = controls.append  # type: ignore[method-assign]
    at = 0
    for cut in [*cuts, len(stream)]:
        connection.take(stream[at : at + cut])
        at += cut
    assert got == [part for part in parts if isinstance(part, bytes)]
    assert controls == [frame(bytes(part), 0x89, b"mask") for part in parts if isinstance(part, int)]
    assert connection._rest == b""


def test_frame_headers() -> None:
    """The three sizes of RFC 6455."""
    assert frame_header(125) == b"\x82\x7d"
    assert frame_header(126) == b"\x82\x7e\x00\x7e"
    assert frame_header(1 << 16) == b"\x82\x7f\0\0\0\0\0\x01\0\0"


async def test_half_open_handshakes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that never finish their handshake are closed after a while, and meanwhile so many are let in, and no more; then there is room again."""
    monkeypatch.setattr(websocket, "OPEN_TIMEOUT_S", 1.0)
    hall = Hall()
    async with WebSocketTransport(hall.accept, host="127.0.0.1", port=0, max_per_address=3) as transport:
        async with asyncio.timeout(20):
            slow = [await asyncio.open_connection("127.0.0.1", transport.port) for _ in range(3)]
            for _, writer in slow:
                writer.write(HANDSHAKE[:20])
            while transport._half_open.total() < 3:
                await asyncio.sleep(0.005)
            reader, writer = await asyncio.open_connection("127.0.0.1", transport.port)
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
            for reader, writer in slow:
                with contextlib.suppress(ConnectionResetError):
                    await reader.read()
                writer.close()
            while transport._half_open:
                await asyncio.sleep(0.005)
            await Raw.connect(transport.port)
            await hall.until("len(hall.connections) == 1")
            assert not transport._half_open
        Raw.close_all()


async def test_the_silent_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who says nothing is pinged; who answers or plays stays, and who does neither is let go of."""
    monkeypatch.setattr(websocket, "SILENCE_S", 0.3)
    hall = Hall()
    async with WebSocketTransport(hall.accept, host="127.0.0.1", port=0) as transport:
        mute, polite, player = [await Raw.connect(transport.port) for _ in range(3)]
        await hall.until("len(hall.connections) == 3")
        playing = asyncio.create_task(_play(player))
        asked = 0
        while hall.lost < 1 or asked < 3:
            kind, payload = await polite.frame()
            assert kind == 0x89
            asked += 1
            polite.writer.write(frame(payload, 0x8A))
        playing.cancel()
        assert hall.lost == 1
        assert (await mute.reader.read(), player.reader.at_eof(), polite.reader.at_eof()) == (b"\x89\0", False, False)
        Raw.close_all()


async def _play(player: Raw) -> None:
    while True:
        player.writer.write(frame(b"hello"))
        await asyncio.sleep(0.02)
