"""
One client over WebSocket: the short way in and out, and when the library has its say.

A `WebSocketConnection` is the server's side of a connection, `websocket_socket.Socket` the library's; `websocket.py` makes both.
"""

import asyncio
import socket
import struct
from functools import lru_cache
from os import read, write
from select import EPOLLIN

import structlog
from websockets.protocol import State

from gameserver.protocol.messages import Bye, CloseCode, SharedSnapshot, encode
from gameserver.transports.port import Handler
from gameserver.transports.pump import Pump
from gameserver.transports.websocket_socket import READ_BYTES, Socket

try:
    from websockets.speedups import apply_mask  # in C
except ImportError:  # pragma: no cover (no wheel for this machine)
    from websockets.utils import apply_mask

log = structlog.get_logger(__name__)

MAX_MESSAGE_BYTES = 4096
"""A client's longest message, Hello, is below 1 KiB."""
_SHORT_BYTES = 448
"""Asked for at first: nearly always more than there is, and little enough to be cut from the interpreter's own store of small blocks."""
_SKIP_BYTES = 64 * 1024
"""Bytes unsent in the kernel, or with TLS in the transport, from which a client misses snapshots."""
_CLOSE_AFTER_SKIPS = 90
"""Snapshots missed in a row (3 s at 30 Hz) after which a client is closed."""
_BINARY, _CLOSE, _PING, _PONG = 0x82, 0x88, 0x89, 0x8A
"""First bytes of whole frames. Source: RFC 6455, section 5.2."""
_ASK = bytes((_PING, 0))
_ACK_INPUT_AT = 1
"""In a Snapshot; docs/protocol.md."""
put_number = struct.Struct("<I").pack_into


@lru_cache(1024)
def frame_header(size: int) -> bytes:
    """Header of an unmasked, unfragmented binary frame. Source: RFC 6455, section 5.2."""
    if size < 126:
        return bytes((_BINARY, size))
    if size < 1 << 16:
        return struct.pack(">BBH", _BINARY, 126, size)
    return struct.pack(">BBQ", _BINARY, 127, size)


class WebSocketConnection:
    """One client."""

    reliable = True

    def __init__(self, socket_: Socket, address: str) -> None:
        self._socket = socket_
        self._transport = socket_.transport
        self._handler: Handler | None = None
        self._pump: Pump | None = None
        self._rest = b""
        """The beginning of a frame."""
        self._live = True
        """Whether messages may be sent: a write after the close frame would break the closing handshake."""
        self._delayed = False
        """Whether the asyncio transport holds something that has to go out first."""
        self._skipped = 0
        self.heard = True
        """Whether anything came since silence was last looked for."""
        self._asked = False
        self._closing: asyncio.Task[None] | None = None
        self.direct: socket.socket | None = None
        """The same TCP socket, to read and write without a way through the loop; None with TLS."""
        self._fd = -1
        """Its descriptor: read and write cost a third less by it than by the socket's methods."""
        self.peer = address

    def open(self, handler: Handler, pump: Pump) -> None:
        """The handshake is done: what comes goes to `handler` from now on."""
        self._handler = handler
        raw = self._transport.get_extra_info("socket")
        if raw is not None and raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # What a client has not read yet waits here, not in megabytes of the kernel's: a slow client is seen soon, and shown fresh snapshots.
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _SKIP_BYTES)
        self._socket.owner = self
        if self._socket.library_only or self._transport.is_closing():
            return
        self._socket.passed_by = True
        if raw is not None and self._transport.get_extra_info("sslcontext") is None:
            self._transport.pause_reading()
            self.direct = raw.dup()
            self.direct.setblocking(False)
            self._fd = self.direct.fileno()
            self._pump = pump
            pump.add(self._fd, self)
        if self._socket.early:
            self.take(self._socket.early)

    # In.

    def readable(self, events: int) -> int:
        """Read what has come (called by the pump)."""
        if self.direct is None:
            return 0
        try:
            data = read(self._fd, _SHORT_BYTES)
            if len(data) == _SHORT_BYTES:
                data += self._read_more()
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self._abort()
            return 0
        self.heard = True
        if not data:
            # The library is told, as by its transport; that closes itself.
            self._unwatch()
            self._live = False
            self._socket.eof_received()
            self._transport.close()
            return 1
        if events != EPOLLIN and self._pump is not None:
            self._pump.again(self._fd)  # the end may come after this, and is not told of twice
        if not self._rest and len(data) > 6 and len(data) + 0x7A == data[1] < 0xFE and data[0] == _BINARY:
            # One short message, as nearly always.
            self.received(apply_mask(data[6:], data[2:6]))
        else:
            self.take(data)
        return 1

    def _read_more(self) -> bytes:
        try:
            more = read(self._fd, READ_BYTES - _SHORT_BYTES)
        except OSError:
            more = b""  # nothing more, or an error that the next look meets
        if self._pump is not None:
            self._pump.again(self._fd)
        return more

    def take(self, data: bytes) -> None:
        """Split frames: whole binary messages are the handler's, the rest is the library's."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        at, end = 0, len(data)
        while end - at >= 2:
            kind, size, start = data[at], data[at + 1] - 0x80, at + 6
            if size == 126:
                start = at + 8
                if end - at < 4:
                    break
                size = data[at + 2] << 8 | data[at + 3]
            if (
                not 0 <= size <= MAX_MESSAGE_BYTES
                or data[at + 1] == 0xFF
                or kind not in (_BINARY, _CLOSE, _PING, _PONG)
            ):
                # Not masked, too long, text, fragments or nonsense: the library knows what to do, from here on.
                self._stand_aside(data[at:])
                return
            stop = start + size
            if stop > end:
                break
            if kind == _BINARY:
                self.received(apply_mask(data[start:stop], data[start - 4 : start]))
            else:
                self._library(data[at:stop])
            at = stop
        if at < end:
            self._rest = data[at:]

    def received(self, message: bytes) -> None:
        """Hand a message on. A fault in handling it costs this client alone."""
        if self._live and self._handler is not None:
            try:
                self._handler.received(message)
            except Exception:
                log.exception("handler_failed", peer=self.peer)
                self.close(CloseCode.GAME_ERROR, "the server failed")

    def _library(self, data: bytes) -> None:
        self._socket.library(data)
        if self._socket.state is not State.OPEN:
            self._live = False

    def _stand_aside(self, data: bytes) -> None:
        self._unwatch()
        self._socket.passed_by, self._socket.library_only = False, True
        self._transport.resume_reading()
        self._library(data)

    # Out.

    def send(self, message: bytes) -> None:
        """See `port.Connection`, as for the two below."""
        if self._open():
            self.write(frame_header(len(message)) + message)

    def send_snapshot(self, snapshot: SharedSnapshot, ack_input: int) -> bool:
        """Send one, unless the client is behind."""
        if self.direct is None or self._delayed or not self._live:
            return self._send_late(snapshot.message(ack_input))
        frame = snapshot.frame
        if frame is None:
            frame = snapshot.frame = bytearray(frame_header(snapshot.size_bytes) + snapshot.message(ack_input))
        # Every client's frame is this one, but for four bytes.
        put_number(frame, len(frame) - snapshot.size_bytes + _ACK_INPUT_AT, ack_input)
        try:
            sent = write(self._fd, frame)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._abort()  # gone; reading would have told soon
            return False
        self._skipped = 0
        if sent < len(frame):
            self._delayed = True
            self._transport.write(frame[sent:])
        return True

    def write(self, frame: bytes) -> None:
        """Write to the socket, after what waits already."""
        if self.direct is not None and not (self._delayed and self._transport.get_write_buffer_size()):
            try:
                sent = write(self._fd, frame)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self._abort()  # gone; reading would have told soon
                return
            if sent == len(frame):
                self._delayed = False
                return
            frame = frame[sent:]
        self._delayed = True
        self._transport.write(frame)

    def _send_late(self, message: bytes) -> bool:
        """Send a snapshot where more than a write is to be thought of."""
        if not self._open():
            return False
        if self._transport.get_write_buffer_size() > (0 if self.direct is not None else _SKIP_BYTES):
            self._skipped += 1
            if self._skipped > _CLOSE_AFTER_SKIPS:
                self.close(CloseCode.TOO_SLOW, "snapshots were not read in time")
            return False
        self._skipped = 0
        self.write(frame_header(len(message)) + message)
        return True

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Say Bye, and close."""
        if self._closing is None:
            self.send(encode(Bye(code=code, reason=reason)))
            self._live = False
            # A close handshake with a client that does not read would wait; the transport is dropped after close_timeout.
            closing = self._socket.close(4000 + code, reason.encode()[:120].decode(errors="ignore"))
            self._closing = asyncio.get_running_loop().create_task(closing, name=f"close-{self.peer}")

    def check_silence(self) -> None:
        """Ask a client that has said nothing since the last time; let go of one that has not answered either."""
        if self.heard:
            self.heard = self._asked = False
        elif self._asked:
            self._abort()
        elif self._open():
            self._asked = True
            self.write(_ASK)

    async def closed(self) -> None:
        """Wait for a close that is under way."""
        if self._closing is not None:
            await asyncio.wait([self._closing])

    def lost(self) -> None:
        """The client is gone: tell the handler, once."""
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.lost()

    def release(self) -> None:
        """Let go of the socket: it is closed only when nobody has it."""
        self._live = False
        self._unwatch()
        direct, self.direct, self._fd = self.direct, None, -1
        if direct is not None:
            direct.close()

    def _unwatch(self) -> None:
        if self._pump is not None and self.direct is not None:
            self._pump.remove(self.direct.fileno())
        self._pump = None

    def _abort(self) -> None:
        self._live = False
        self._unwatch()
        self._transport.abort()

    def _open(self) -> bool:
        # A write after write_eof() raises in uvloop.
        return self._live and self._socket.state is State.OPEN and not self._transport.is_closing()
