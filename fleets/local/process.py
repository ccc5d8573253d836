"""
One game server's operating-system process: started so that nothing can be left behind, its output in a file.

Owns the process group, the log file and the order of ending (SIGTERM, wait, SIGKILL). Knows nothing of GameServers.
"""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

LOG_MAX_BYTES = 16 * 1024 * 1024


class ServerProcess:
    """A running process."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self.log = log
        self.pid = process.pid

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
        return cls(process, log)

    async def wait(self) -> int:
        """Wait for the end; returns the exit code, negative for a signal."""
        return await self._process.wait()

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
                        await self._process.wait()
                        break
                except TimeoutError:
                    pass
        finally:
            self._signal(signal.SIGKILL)
        await self._process.wait()

    def bound_log(self) -> None:
        """Empty the log once it has grown too large: an endless writer must not fill the disk."""
        if self.log.exists() and self.log.stat().st_size > LOG_MAX_BYTES:
            os.truncate(self.log, 0)

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass  # it has ended, and so has all of its group


def last_lines(log: Path, count: int, *, tail_bytes: int = 8192) -> tuple[str, ...]:
    """The last lines of a log; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - tail_bytes))
            return tuple(file.read().decode(errors="replace").splitlines()[-count:])
    except FileNotFoundError:
        return ()
