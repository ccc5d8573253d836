"""What this machine lets a chaos run do to it, and what it does not: each ability is asked for once, and its lack is told."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

DISK = "192m"


@contextlib.contextmanager
def small_disk(folder: Path, skipped: dict[str, str]) -> Iterator[Path | None]:
    """A file system of `DISK` at `folder`; None, and why in `skipped`, where none can be mounted."""
    folder.mkdir(parents=True)
    made = run("mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)) if os.geteuid() == 0 else "not root"
    if made:
        skipped["disk full"] = f"no small file system: {made}"
        yield None
        return
    try:
        yield folder
    finally:
        run("umount", "-l", str(folder))


def run(*command: str) -> str:
    """Run a command; returns why it failed, empty when it did not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else (done.stderr.strip() or f"exit code {done.returncode}")
