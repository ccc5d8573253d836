"""
The baseline: the same rooms, gate and checks, on a transport written as the documentation of `websockets` suggests.

Receiving is `async for`, sending is `websockets.broadcast()`; everything else of the server is the product's. `python -m bench.gameserver.broadcast SEATS`
prints its port and serves until it is killed.
"""

import asyncio
import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from gameserver.gate import Gate
from gameserver.process import GameServerProcess
from gameserver.protocol.messages import SUBPROTOCOL, CloseCode, SharedSnapshot
from gameserver.seats import SeatVerifier
from gameserver.sessions.model import FleetName, ServerName
from gameserver.settings import Settings


class Connection:
    """A `transports.port.Connection` that broadcasts."""

    reliable = True
    peer = "127.0.0.1"

    def __init__(self, socket: ServerConnection) -> None:
        self._to = (socket,)
        self._closing: asyncio.Task[None] | None = None

    def send(self, message: bytes) -> None:
        """Send one message."""
        broadcast(self._to, message)

    def send_snapshot(self, snapshot: SharedSnapshot, ack_input: int) -> bool:
        """Send a snapshot."""
        broadcast(self._to, snapshot.message(ack_input))
        return True

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Close, once."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._to[0].close(4000 + code, reason))


async def main(seats: int) -> None:
    """Serve."""
    from bench.gameserver.sides import ISSUER
    from bench.gameserver.swarm import Swarm

    settings = Settings(
        game="",
        fleet=FleetName("bench"),
        server=ServerName("bench-1"),
        agones_grpc_port=0,
        seats=seats,
        listen_ports={},
    )
    process = GameServerProcess(settings, Swarm, None)
    gate = Gate(SeatVerifier([ISSUER.public_key], settings.server), process.find_room)

    async def handle(socket: ServerConnection) -> None:
        handler = gate.accept(Connection(socket))
        try:
            async for message in socket:
                handler.received(message if isinstance(message, bytes) else message.encode())
        except ConnectionClosed:
            pass
        finally:
            handler.lost()

    async with serve(
        handle, "127.0.0.1", 0, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None, max_size=4096, ping_interval=10,
        ping_timeout=10,
    ) as server:  # fmt: skip
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await gate.watch()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])), loop_factory=uvloop.new_event_loop) if sys.version_info >= (
        3,
        12,
    ) else uvloop.run(main(int(sys.argv[1])))
