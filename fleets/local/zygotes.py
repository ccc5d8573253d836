"""
Warm parents of game servers: one zygote per game and Python environment, started when the first server of it is wanted.

Owns the zygotes' processes and the conversation with them (gameserver/zygote.py); what is forked is a `ServerProcess` like any other. A zygote
that has died, or whose game has been edited since, is replaced; where none can be had, a server is started cold.
"""

import asyncio
import ctypes
import json
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from fleets.local.process import ServerProcess

log = structlog.get_logger(__name__)

_PR_SET_CHILD_SUBREAPER = 36
_IMPORT_TIMEOUT_S = 60.0
_FORK_TIMEOUT_S = 10.0
_SPARE_ENDS_S = 2.0
_LOOK_AGAIN_S = 0.002


class NoZygote(Exception):
    """No server can be forked now; the message says why."""


class _Stale(Exception):
    """The game has been edited since the zygote imported it."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a zygote has imported, and under which settings."""

    game: str
    cwd: str
    env: tuple[tuple[str, str], ...]


@dataclass(slots=True, eq=False)
class _Zygote:
    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def alive(self) -> bool:
        return self.process.returncode is None and not self.writer.is_closing()

    async def ask(self, request: Mapping[str, object]) -> int:
        """Have a server forked; returns its pid. Raises NoZygote, _Stale."""
        async with self.asking:
            try:
                async with asyncio.timeout(_FORK_TIMEOUT_S):
                    self.writer.write(json.dumps(request).encode() + b"\n")
                    answer = json.loads(await self.reader.readline() or b"{}")
            except (OSError, TimeoutError, asyncio.CancelledError) as error:
                self.writer.close()  # an answer that is still to come would be taken for the next one's
                if isinstance(error, asyncio.CancelledError):
                    raise
                raise NoZygote(f"the zygote does not answer: {error}") from error
        if "stale" in answer:
            raise _Stale(answer["stale"])
        if "pid" not in answer:
            raise NoZygote(answer.get("error", "the zygote has ended"))
        return int(answer["pid"])

    async def end(self) -> None:
        self.writer.close()
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reap_spare()

    async def _reap_spare(self) -> None:
        """The server that it had forked ahead ends with it, and is a child of this process: the only one in its process group by now."""
        try:
            async with asyncio.timeout(_SPARE_ENDS_S):
                while True:
                    if not _reap_one(self.process.pid):
                        await asyncio.sleep(_LOOK_AGAIN_S)
        except ChildProcessError:
            pass  # there is none, or no more
        except TimeoutError:
            log.warning("spare_stays", group=self.process.pid)


class Zygotes:
    """All zygotes of this process."""

    def __init__(self, logs: Path) -> None:
        """`logs`: where what a zygote itself says is kept, in `zygote.log`."""
        self._log = logs / "zygote.log"
        self._zygotes: dict[_Kind, _Zygote] = {}
        self._starting: dict[_Kind, asyncio.Lock] = {}

    async def fork(
        self, game: str, *, shared: Mapping[str, str], env: Mapping[str, str], log_path: Path, cwd: str | None
    ) -> ServerProcess:
        """
        Fork a server of `game`.

        Args:
            shared: the part of `env` that all servers of its fleet share: what the game may read when it is imported.
            env: the server's whole environment.
        Raises: NoZygote.
        """
        cwd = cwd or str(Path.cwd())
        kind = _Kind(game, cwd, tuple(sorted(shared.items())))
        request = {"env": dict(env), "log": str(log_path), "cwd": cwd}
        for _ in range(2):
            zygote = await self._get(kind, env)
            try:
                return ServerProcess.adopt(await zygote.ask(request), log_path)
            except _Stale as error:
                log.info("zygote_replaced", game=game, changed=str(error))
                await zygote.end()
        raise NoZygote("its game changes faster than it can be imported")

    def pids(self) -> list[int]:
        """Processes of the zygotes that live."""
        return [zygote.process.pid for zygote in self._zygotes.values() if zygote.alive]

    async def stop(self) -> None:
        """End them all; their servers go on."""
        for zygote in self._zygotes.values():
            await zygote.end()
        self._zygotes.clear()

    async def _get(self, kind: _Kind, env: Mapping[str, str]) -> _Zygote:
        async with self._starting.setdefault(kind, asyncio.Lock()):
            zygote = self._zygotes.get(kind)
            if zygote is None or not zygote.alive:
                if zygote is not None:
                    await zygote.end()
                    log.info("zygote_gone", game=kind.game, exit_code=zygote.process.returncode)
                zygote = self._zygotes[kind] = await self._start(kind, env)
            return zygote

    async def _start(self, kind: _Kind, env: Mapping[str, str]) -> _Zygote:
        _become_subreaper()
        ours, theirs = socket.socketpair()
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        command = (sys.executable, "-m", "gameserver.zygote", kind.game, str(theirs.fileno()))
        try:
            process = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "KILL", "--", *command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=dict(env),
                cwd=kind.cwd,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise NoZygote(f"no zygote for {kind.game}: {error}") from error
        finally:
            theirs.close()
            os.close(descriptor)
        reader, writer = await asyncio.open_connection(sock=ours)
        zygote = _Zygote(process, reader, writer)
        try:
            async with asyncio.timeout(_IMPORT_TIMEOUT_S):
                ready = await reader.readline()
        except (OSError, TimeoutError):
            ready = b""
        except asyncio.CancelledError:
            await zygote.end()
            raise
        if not ready:
            await zygote.end()
            raise NoZygote(f"the zygote of {kind.game} does not start: see {self._log}")
        return zygote


def _reap_one(group: int) -> bool:
    """Take note of one child's end; whether there was one. Raises ChildProcessError where there are no children in the group."""
    return os.waitpid(-group, os.WNOHANG)[0] != 0


def _become_subreaper() -> None:
    """From here on a descendant whose parent has ended is this process's child, which can wait for it."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise NoZygote(f"no subreaper: {os.strerror(ctypes.get_errno())}")
