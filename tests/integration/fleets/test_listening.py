"""How our HTTP servers end."""

import asyncio
import logging
from typing import Any

import pytest
import uvicorn
from conftest import free_port

from fleets.listening import Impatient, Server, listen


@pytest.mark.parametrize("impatience", [1, 2])
async def test_a_stream_is_cut_off_without_an_error(caplog: pytest.LogCaptureFixture, impatience: int) -> None:
    """A server that ends does not wait for who follows something, and its handlers hear of it as of a client that goes."""
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"data", "more_body": True})
        while heard[-1:] != ["http.disconnect"]:
            heard.append((await receive())["type"])

    listener = listen("127.0.0.1", free_port(), mend="")
    config = uvicorn.Config(app, http=Impatient, lifespan="off", log_config=None, timeout_graceful_shutdown=impatience)
    server = Server(config)
    with caplog.at_level(logging.ERROR):
        async with asyncio.timeout(20):
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            await reader.readuntil(b"data")
            server.should_exit = True
            await serving
            writer.close()
    assert heard[-1] == "http.disconnect"
    assert not caplog.records
