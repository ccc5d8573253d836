"""A game client over UDP: the session of `session.py` in netcode payloads; used as the client of `websocket.py` is."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

from gameserver.client.session import ClientEvent, ClientSession, Ended
from gameserver.client.websocket import ConnectFailed
from gameserver.protocol import messages as m
from gameserver.protocol.netcode.client import ClientState, NetcodeClient, Received, StateChanged
from gameserver.protocol.netcode.fragments import Reassembly
from gameserver.protocol.snapshot import World

HELLO_INTERVAL_S = 0.1
"""Between Hellos, until Welcome. Source: docs/protocol.md."""
_MAX_WAITING = 1024
"""Events that may wait for a caller who does not iterate; newer ones are lost, as on the way."""
_SNAPSHOT, _FRAGMENT = 0x82, 0x87


class UdpGameClient:
    """A seat in a match, as an async context manager; iterate `events()` to follow it."""

    def __init__(self, connect_token: bytes, token: str, *, spectator: bool = False, timeout_s: float = 5.0) -> None:
        """
        Prepare to connect.

        Args:
            connect_token: opens the connection, and names the servers.
            token: the seat's.
            timeout_s: for connecting, to whichever of the servers.
        """
        self._connect_token = connect_token
        self._timeout_s = timeout_s
        self._sockets: dict[bool, asyncio.DatagramTransport] = {}
        """By whether it is for IPv6."""
        self._running: asyncio.Task[None]
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        """Connected, or not going to be."""
        self._waiting: asyncio.Queue[ClientEvent | m.MalformedMessage | None] = asyncio.Queue(_MAX_WAITING)
        self._pieces = Reassembly()
        self._hello_due_s = 0.0
        self._migrate = b""
        self.session = ClientSession(token, spectator=spectator, repeat=m.MAX_INPUTS)

    async def __aenter__(self) -> Self:
        """Connect and say Hello. Raises ConnectFailed."""
        self._core = NetcodeClient(self._connect_token, time.monotonic())
        failed: OSError | None = None
        for v6 in {":" in host for host, _ in self._core.servers}:
            try:
                self._sockets[v6] = await self._open(v6=v6)
            except OSError as error:
                failed = error  # no IPv6 here, say: servers of the other family may do
        if failed is not None and not self._sockets:
            raise ConnectFailed(f"no UDP socket: {failed}") from failed
        self._running = asyncio.create_task(self._run(), name="netcode")
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._settled.wait()
        except TimeoutError:
            pass  # the state says so
        except BaseException:
            await self._stop()
            raise
        if self._core.state is not ClientState.CONNECTED:
            state, server = self._core.state, self._core.server
            await self._stop()
            raise ConnectFailed(f"{server[0]}:{server[1]}: {state.name.lower().replace('_', ' ')}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    @property
    def world(self) -> World | None:
        """The newest state."""
        return self.session.world

    async def events(self) -> AsyncIterator[ClientEvent]:
        """Yield what happens until the connection ends; the last one is Ended where the server said why. Raises MalformedMessage."""
        while (event := await self._waiting.get()) is not None:
            if isinstance(event, m.MalformedMessage):
                raise event
            yield event
            if isinstance(event, Ended):
                return

    async def send_input(self, **values: Any) -> None:
        """Send one input; a connection that is gone shows in `events`."""
        self._send(self.session.send_input(values))

    async def leave(self) -> None:
        """Say Bye: the seat is given up."""
        for _ in range(3):
            self._send(m.encode_client_bye(m.CloseCode.NORMAL))

    def received(self, data: bytes, address: tuple[Any, ...]) -> None:
        """Take a datagram in (called by the socket)."""
        now_s = time.monotonic()
        self._core.receive(data, (address[0], address[1]), now_s)
        self._pump(now_s)

    # The connection.

    async def _open(self, *, v6: bool) -> asyncio.DatagramTransport:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Protocol(self),
            local_addr=("::" if v6 else "0.0.0.0", 0),  # noqa: S104 (a client's socket, any free port)
            family=socket.AF_INET6 if v6 else socket.AF_INET,
        )
        return transport

    async def _run(self) -> None:
        while self._core.state > ClientState.DISCONNECTED:
            now_s = time.monotonic()
            due_s = self._session_due(now_s)
            self._flush(now_s)
            self._pump(now_s)
            timer_s = self._core.next_timer_s()
            if timer_s is None:
                break
            self._wake.clear()
            try:
                async with asyncio.timeout(max(0.0, min(timer_s, due_s) - now_s)):
                    await self._wake.wait()
            except TimeoutError:
                pass  # a timer is due
        self._pump(time.monotonic())

    def _session_due(self, now_s: float) -> float:
        """Send what the session has to say by the clock, and tell when it has more."""
        if self._core.state is not ClientState.CONNECTED:
            return float("inf")
        if self.session.welcome is None:
            if now_s >= self._hello_due_s:
                self._hello_due_s = now_s + HELLO_INTERVAL_S
                self._core.send(self.session.hello())
            return self._hello_due_s
        for message in self.session.data_to_send(now_s):
            self._core.send(message)
        return self.session.next_timer_s() or float("inf")

    def _send(self, message: bytes) -> None:
        self._core.send(message)
        self._flush(time.monotonic())

    def _flush(self, now_s: float) -> None:
        for address, data in self._core.data_to_send(now_s):
            if (transport := self._sockets.get(":" in address[0])) is not None:
                transport.sendto(data, address)

    def _pump(self, now_s: float) -> None:
        while (event := self._core.next_event()) is not None:
            match event:
                case Received(payload):
                    self._message(payload, now_s)
                case StateChanged(state):
                    if state is ClientState.CONNECTED or state <= ClientState.DISCONNECTED:
                        self._settled.set()
                    if state <= ClientState.DISCONNECTED:
                        self._offer(None)
                    self._wake.set()

    def _message(self, message: bytes, now_s: float) -> None:
        try:
            if message[0] == _FRAGMENT:
                fragment = m.decode_server(message)
                assert isinstance(fragment, m.Fragment)
                whole = self._pieces.add(fragment)
                if whole is None:
                    return
                message = whole
            if self.session.welcome is None and message[:1] == bytes((_SNAPSHOT,)):
                return  # it overtook Welcome
            if message == self._migrate:
                return  # one of the copies
            if message[:1] == b"\x85":
                self._migrate = message
            self.session.receive(message, now_s)
        except m.MalformedMessage as error:
            self._offer(error)
            return
        while (event := self.session.next_event()) is not None:
            self._offer(event)

    def _offer(self, event: ClientEvent | m.MalformedMessage | None) -> None:
        if event is None and self._waiting.full():
            self._waiting.get_nowait()  # the end must be seen
        if not self._waiting.full():
            self._waiting.put_nowait(event)

    async def _stop(self) -> None:
        self._core.disconnect()
        self._flush(time.monotonic())
        for transport in self._sockets.values():
            transport.close()
        self._running.cancel()
        await asyncio.wait([self._running])


class _Protocol(asyncio.DatagramProtocol):
    def __init__(self, client: UdpGameClient) -> None:
        self._client = client

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._client.received(data, addr)

    def error_received(self, exc: Exception) -> None:
        """A server that is not there: its timeout says so."""
