"""
UDP transport: messages as netcode payloads on one socket.

Owns the socket, Fragments, and what a lossy path needs that a reliable one does not: Welcome said again to a client that repeats Hello, Bye
and Migrate said three times. The connections themselves are `protocol/netcode`'s. The socket is read by
a `Pump`, and what a tick sends is collected and goes out in one go (`datagrams.py`). docs/decisions/0070 and 0112 have what was measured.
"""

import asyncio
import os
import re
import socket
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import structlog

from gameserver import metrics
from gameserver.protocol.messages import SNAPSHOT_BEGIN, Bye, CloseCode, SharedSnapshot, encode
from gameserver.protocol.netcode.addresses import Address, make_address
from gameserver.protocol.netcode.fragments import MAX_MESSAGE_BYTES, MAX_PLAIN_BYTES, split
from gameserver.protocol.netcode.limits import HandshakeLimits
from gameserver.protocol.netcode.server import Client, Connected, Disconnected, NetcodeServer
from gameserver.transports.datagrams import MOST_READ, open_datagrams
from gameserver.transports.port import Accept, Handler
from gameserver.transports.pump import Pump

log = structlog.get_logger(__name__)

_BUFFER_BYTES = 4 << 20
"""Of the socket, each way: a tick's snapshots to hundreds of clients at once. The kernel may grant less."""
_REPEATS = 3
"""Copies of Bye and Migrate, which nobody asks for again."""
_WELCOME_INTERVAL_S = 0.05
"""Between Welcomes to one client: it repeats Hello every 0.1 s."""
_make_begin = SNAPSHOT_BEGIN.pack
_HELLO, _WELCOME, _MIGRATE = 0x01, 0x81, 0x85
_CLASSES = {"EF": 46, "VA": 44, "LE": 1, "DF": 0}


def parse_dscp(name: str) -> int:
    """A DSCP by name (EF, VA, LE, DF, CS0 to CS7, AF11 to AF43) or number. Raises ValueError. Source: the IANA registry of DSCP values."""
    if name in _CLASSES:
        return _CLASSES[name]
    if re.fullmatch("CS[0-7]", name):
        return 8 * int(name[2])
    if re.fullmatch("AF[1-4][1-3]", name):
        return 8 * int(name[2]) + 2 * int(name[3])
    if name.isdecimal() and int(name) < 64:
        return int(name)
    raise ValueError(f"dscp {name!r}: EF, VA, LE, DF, CS0 to CS7, AF11 to AF43 or 0 to 63 is wanted")


class UdpTransport:
    """A netcode server on a UDP socket, as an async context manager."""

    def __init__(
        self,
        accept: Accept,
        *,
        host: str,
        port: int,
        protocol_id: int,
        private_key: bytes,
        other_keys: Sequence[bytes] = (),
        addresses: Sequence[Address] = (),
        max_connections: int = 4096,
        dscp: int = 0,
        limits: HandshakeLimits | None = None,
    ) -> None:
        """
        Prepare to listen on the IP address `host` and `port` (0: any free port). Raises ValueError for a host name.

        Args:
            other_keys: of connect tokens that are accepted too, while keys are rotated.
            addresses: this server's own as connect tokens name them, where they differ from `host:port` (node address and host port); needed
                when `host` is a wildcard.
            dscp: 0 to 63, marks what is sent (`parse_dscp`).
        """
        self._accept = accept
        self._host, _ = make_address(host, port or 1)
        self._port = port
        self._protocol_id = protocol_id
        self._private_key = private_key
        self._other_keys = tuple(other_keys)
        self._addresses = tuple(addresses)
        self._max_connections = max_connections
        self._dscp = dscp
        self._limits = limits
        self._connections: dict[Client, _UdpConnection] = {}
        self.flushing = False
        self._unsent = 0
        self._counted = (0, 0, 0, 0)
        self._clock_due_s = 0.0
        """When to look at the wall clock again, which may have been set."""
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        """Listen. Raises OSError (the port is taken), ValueError (a wildcard without `addresses`)."""
        self._loop = asyncio.get_running_loop()
        self._socket = _bind(self._host, self._port, self._dscp)
        self._datagrams = open_datagrams(self._socket)
        try:
            if not self._addresses and self._host in ("0.0.0.0", "::"):  # noqa: S104 (compared, not bound)
                raise ValueError(f"listening on {self._host}: the addresses that clients use must be given")
            self.core = NetcodeServer(
                addresses=self._addresses or (make_address(self._host, self.port),),
                protocol_id=self._protocol_id,
                private_key=self._private_key,
                other_keys=self._other_keys,
                max_clients=self._max_connections,
                challenge_key=os.urandom(32),
                unix_offset_s=_unix_offset_s(),
                limits=self._limits,
                host_of=self._datagrams.host,
            )
        except ValueError:
            self._socket.close()
            raise
        self._pump = Pump(self._loop)
        self._pump.add(self._socket.fileno(), self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in tuple(self._connections.values()):
            connection.close(CloseCode.GOING_AWAY, "the server goes")
        self._flush(time.monotonic())
        self._pump.close()
        if self._timer is not None:
            self._timer.cancel()
        self._socket.close()

    @property
    def port(self) -> int:
        """The port it listens on."""
        port: int = self._socket.getsockname()[1]
        return port

    @property
    def ignored(self) -> int:
        """Datagrams that led to nothing."""
        return self.core.ignored

    @property
    def unsent(self) -> int:
        """Datagrams that the kernel did not take."""
        return self._unsent

    def look(self) -> None:
        """Read what has come by now: a tick is about to begin."""
        self._pump.look()

    # What connections ask.

    def send(self, client: Client, message: bytes) -> None:
        """Send a message of at most 1,200 bytes with the next flush."""
        self.core.send(client, message)
        if not self.flushing:
            self.flush_soon()

    def disconnect(self, client: Client) -> None:
        """Let a client go."""
        client.receiver = None
        self.core.disconnect(client)
        self.flush_soon()

    def _count(self) -> None:
        """Tell the metrics what has happened since the last time."""
        counters = (
            metrics.DATAGRAMS_RECEIVED,
            metrics.DATAGRAMS_LOST,
            metrics.DATAGRAMS_IGNORED,
            metrics.DATAGRAMS_UNSENT,
        )
        counts = (self.core.received, self.core.lost, self.core.ignored, self._unsent)
        for counter, count, before in zip(counters, counts, self._counted, strict=True):
            counter.inc(count - before)
        self._counted = counts

    # What the loop calls.

    def readable(self, events: int) -> int:
        """Read what has come (called by the pump)."""
        now_s = time.monotonic()
        if now_s >= self._clock_due_s:
            self._clock_due_s = now_s + 1.0
            self.core.unix_offset_s = _unix_offset_s()
            self._count()
        peers, sizes = self._datagrams.receive()
        self.core.receive_rows(self._datagrams.inbox, peers, sizes, now_s)
        self._flush(now_s)
        if len(peers) == MOST_READ:
            self._pump.again(self._socket.fileno())
        return len(peers)

    def _flush(self, now_s: float) -> None:
        """Handle events, send what waits, and come back in time for the next keep-alive."""
        self.flushing = True  # what handlers send goes out below
        next_event = self.core.next_event
        while (event := next_event()) is not None:
            try:
                if isinstance(event, tuple):
                    client, message = event
                    if message[0] == _HELLO:
                        self._connections[client].welcome_again(now_s)
                    if client.receiver is not None:
                        client.receiver(message)
                else:
                    self._handle(event)
            except Exception:
                # A fault in handling one client costs that client alone.
                client = event[0] if isinstance(event, tuple) else event.client
                log.exception("handler_failed", client=client.number)
                if (faulty := self._connections.get(client)) is not None:
                    faulty.close(CloseCode.GAME_ERROR, "the server failed")
        self.flushing = False
        while (out := self.core.rows_to_send(self._datagrams.outbox, now_s))[0]:
            self._unsent += self._datagrams.send(*out)
        if self._timer is None and (due_s := self.core.next_timer_s()) is not None:
            # The loop's timers are a millisecond coarse: rather late than too early, and again and again.
            self._timer = self._loop.call_later(max(0.0, due_s - now_s) + 0.001, self._on_timer)

    def _handle(self, event: Connected | Disconnected) -> None:
        match event:
            case Connected(client, peer):
                connection = self._connections[client] = _UdpConnection(self, client, self._datagrams.host(peer))
                connection.handler = self._accept(connection)
                if not client.gone:
                    client.receiver = connection.handler.received
            case Disconnected(client):
                client.receiver = None
                self._connections.pop(client).lost()

    def _on_timer(self) -> None:
        self._timer = None
        self._flush(time.monotonic())

    def flush_soon(self) -> None:
        """One flush after everything that runs now: a tick's snapshots go out together."""
        if not self.flushing:
            self.flushing = True
            self._loop.call_soon(self._flush_if_wanted)

    def _flush_if_wanted(self) -> None:
        if self.flushing and self._socket.fileno() >= 0:
            self._flush(time.monotonic())


class _UdpConnection:
    """One client."""

    __slots__ = ("_client", "_closed", "_fragmented", "_transport", "_welcome", "_welcome_at_s", "handler", "peer")
    reliable = False

    def __init__(self, transport: UdpTransport, client: Client, peer: str) -> None:
        self.handler: Handler | None = None
        self._transport = transport
        self._client = client
        self._closed = False
        self._fragmented = 0
        self._welcome = b""
        self._welcome_at_s = 0.0
        self.peer = peer

    def send(self, message: bytes) -> None:
        if self._closed:
            return
        kind = message[0]
        if kind == _WELCOME:
            self._welcome = message
        for _ in range(_REPEATS if kind == _MIGRATE else 1):
            self._send(message)

    def send_snapshot(self, snapshot: SharedSnapshot, ack_input: int) -> bool:
        if self._closed:
            return False
        transport = self._transport
        if snapshot.size_bytes <= MAX_PLAIN_BYTES:  # as `_send`, without the calls: this runs for each client and tick
            transport.core.send(self._client, _make_begin(0x82, ack_input), snapshot.rest)
            if not transport.flushing:
                transport.flush_soon()
        else:
            self._send(snapshot.message(ack_input))
        return True

    def close(self, code: CloseCode, reason: str = "") -> None:
        if self._closed:
            return
        bye = encode(Bye(code=code, reason=reason.encode()[:1000].decode(errors="ignore")))
        for _ in range(_REPEATS):
            self._send(bye)
        self._closed = True
        self._transport.disconnect(self._client)

    def welcome_again(self, now_s: float) -> None:
        """Repeat Welcome to a client that repeats Hello."""
        if not self._closed and self._welcome and now_s - self._welcome_at_s >= _WELCOME_INTERVAL_S:
            self._welcome_at_s = now_s
            self._send(self._welcome)

    def lost(self) -> None:
        """The client is gone."""
        self._closed = True
        if self.handler is not None:
            self.handler.lost()

    def _send(self, message: bytes) -> None:
        if len(message) <= MAX_PLAIN_BYTES:
            self._transport.send(self._client, message)
        elif len(message) <= MAX_MESSAGE_BYTES:
            for piece in split(message, self._fragmented):
                self._transport.send(self._client, piece)
            self._fragmented += 1
        else:
            log.error("message_too_long", peer=self.peer, kind=message[0], size_bytes=len(message))


def _bind(host: str, port: int, dscp: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_DGRAM)
    try:
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, dscp << 2)
        # On a dual-stack socket this marks what goes to IPv4 clients.
        bound.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def _unix_offset_s() -> float:
    return time.time() - time.monotonic()
