"""
One game server's operating-system process: started, or forked by a zygote, so that nothing can be left behind; its output in a file.

Owns the process group, the log file and the order of ending (SIGTERM, wait, SIGKILL). Knows nothing of GameServers.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

LOG_MAX_BYTES = 16 * 1024 * 1024


class ServerProcess:
    """A running process."""

    def __init__(self, pid: int, ended: Callable[[], Awaitable[int]], log: Path) -> None:
        """`ended`: waits for the exit code; may be called often, and at once by several."""
        self._ended = ended
        self.log = log
        self.pid = pid

    @classmethod
    def adopt(cls, pid: int, log: Path) -> "ServerProcess":
        """Take over a child of this process that somebody else has forked for it, in a session of its own."""
        return cls(pid, _Child(pid).wait, log)

    @classmethod
    async def start(
        cls, command: Sequence[str], *, env: Mapping[str, str], log: Path, cwd: str | None = None
    ) -> "ServerProcess":
        """
        Start `command` in a process group of its own; standard output and error are appended to `log`.

        The kernel kills it should this process end without stopping it (setpriv --pdeathsig). Raises OSError when it cannot start.
        """
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "KILL", "--", *command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        return cls(process.pid, process.wait, log)

    async def wait(self) -> int:
        """Wait for the end; returns the exit code, negative for a signal."""
        return await self._ended()

    async def end(self, *, grace_s: float, hurry: bool = False) -> None:
        """
        Ask it to end, wait up to `grace_s`, then kill whatever its group still has.

        With `hurry` it is asked a second time after half of that: a server that waits for its matches to finish waits no longer then.
        """
        try:
            for part_s in (grace_s / 2, grace_s / 2) if hurry else (grace_s,):
                self._signal(signal.SIGTERM)
                try:
                    async with asyncio.timeout(part_s):
                        await self._ended()
                        break
                except TimeoutError:
                    pass
        finally:
            self._signal(signal.SIGKILL)
        await self._ended()
        self._reap_orphans()

    def bound_log(self) -> None:
        """Empty the log once it has grown too large: an endless writer must not fill the disk."""
        if self.log.exists() and self.log.stat().st_size > LOG_MAX_BYTES:
            os.truncate(self.log, 0)

    def _reap_orphans(self) -> None:
        """What it has left behind in its group and this process has inherited (as a subreaper)."""
        try:
            while os.waitpid(-self.pid, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass  # there is nothing

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass  # it has ended, and so has all of its group


class _Child:
    """A child that was not started by asyncio."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._descriptor = os.pidfd_open(pid)
        self._loop = asyncio.get_running_loop()
        self._code: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(self._descriptor, self._reap)

    async def wait(self) -> int:
        return await asyncio.shield(self._code)

    def _reap(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        try:
            _, status = os.waitpid(self._pid, 0)
            code = os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            code = -signal.SIGKILL  # somebody else has waited for it: how it ended is not known
        self._code.set_result(code)


def last_lines(log: Path, count: int, *, tail_bytes: int = 8192) -> tuple[str, ...]:
    """The last lines of a log; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - tail_bytes))
            return tuple(file.read().decode(errors="replace").splitlines()[-count:])
    except FileNotFoundError:
        return ()
