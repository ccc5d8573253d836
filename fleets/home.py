"""
The data directory of `warmfleet up`: `.warmfleet/` beside the studio's YAML.

Owns its layout (`valkey/`, `logs/`, `keys/`, `up.json`, `lock`), the secrets in it (mode 0600, made once) and the rule
that one `up` at a time uses it. The other commands (`status`, `logs`, `bots`) find the running system through `up.json`.
"""

import fcntl
import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self


class HomeInUse(Exception):
    """Another `warmfleet up` runs on this data directory."""


class NotRunning(Exception):
    """No `warmfleet up` runs on this data directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What `up.json` says of the system that runs now."""

    pid: int
    url: str
    operator_token: str
    """Bearer token for the operator's endpoints."""
    valkey_url: str = ""
    """With its password, where it has one."""
    viewer_token: str = ""
    """For the console, to look and not act."""


class Home:
    """One data directory. As a context manager it holds the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.logs = self.path / "logs"
        self.valkey = self.path / "valkey"
        self._keys = self.path / "keys"
        self._up = self.path / "up.json"
        self._lock: int | None = None

    def __enter__(self) -> Self:
        for folder in (self.path, self.logs, self.valkey, self._keys):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.path / ".gitignore").write_text("*\n", encoding="utf-8")
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise HomeInUse(
                f"another `warmfleet up` runs on {self.path}: stop it (Ctrl-C), or give this one --data-dir of its own"
            ) from None
        self._lock = lock
        self._up.unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._up.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def secret(self, name: str) -> bytes:
        """Return 32 random bytes that are the same in every run: made at the first call, kept in `keys/<name>`."""
        path = self._keys / name
        try:
            return bytes.fromhex(path.read_text(encoding="ascii"))
        except FileNotFoundError:
            value = secrets.token_bytes(32)
            _write_private(path, value.hex())
            return value

    def publish(self, running: Running) -> None:
        """Let the other commands find this system."""
        _write_private(self._up, json.dumps(asdict(running)))

    def running(self) -> Running:
        """Find the system that runs on this directory; raises NotRunning with the mend."""
        try:
            running = Running(**json.loads(self._up.read_text(encoding="utf-8")))
            os.kill(running.pid, 0)
        except (FileNotFoundError, ProcessLookupError):
            raise NotRunning(
                f"nothing runs on {self.path}: start it with `warmfleet up`, or name its --data-dir"
            ) from None
        except (ValueError, TypeError) as error:
            raise NotRunning(f"{self._up} is damaged ({error}): start `warmfleet up` again") from error
        return running


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)
