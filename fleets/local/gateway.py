"""One HTTP listener per local game server, without a web server's loop for each: uvicorn's protocol on plain asyncio listeners."""

import asyncio
import functools

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState


class Gateway:
    """Serves an ASGI app on a free loopback port."""

    def __init__(self, server: asyncio.Server, state: ServerState) -> None:
        self._server = server
        self._state = state
        self.port: int = server.sockets[0].getsockname()[1]

    @classmethod
    async def start(cls, app: ASGIApp) -> "Gateway":
        """Start listening."""
        config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, ws="none")
        config.load()
        state = ServerState()

        protocol = functools.partial(H11Protocol, config=config, server_state=state, app_state={})
        return cls(await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0), state)

    async def stop(self) -> None:
        """Close the listener and every connection (a watch would never end by itself)."""
        self._server.close()
        for connection in tuple(self._state.connections):
            connection.transport.close()
        for task in tuple(self._state.tasks):
            task.cancel()
