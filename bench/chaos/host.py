"""What this machine lets a chaos run do to it, and what it does not: each ability is asked for once, and its lack is told."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

DISK = "96m"


@contextlib.contextmanager
def small_disks(folder: Path, count: int, skipped: dict[str, str]) -> Iterator[list[Path]]:
    """So many file systems of `DISK` below `folder`; none, and why in `skipped`, where they cannot be mounted."""
    with contextlib.ExitStack() as stack:
        disks = []
        for number in range(count):
            disk = folder / str(number)
            disk.mkdir(parents=True)
            failed = run("mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk))
            if failed:
                skipped["disk full"] = f"no small file system: {failed}"
                yield []
                return
            stack.callback(run, "umount", "-l", str(disk))
            disks.append(disk)
        yield disks


def run(*command: str) -> str:
    """Run a command; returns why it failed, empty when it did not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else (done.stderr.strip() or f"exit code {done.returncode}")
