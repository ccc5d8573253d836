"""The game server as images have it: its busiest modules compiled (`docker/compiled.py`), into a cache folder, once for each state of the sources."""

import hashlib
import subprocess
import sys
from pathlib import Path

from bench.gameserver.colyseus import cache_folder

_ROOT = Path(__file__).parents[2]
_COMPILER, _SOURCE = _ROOT / "docker" / "compiled.py", _ROOT / "gameserver"


def folder() -> Path:
    """Where the present sources' is, or would be: to be first on a server's PYTHONPATH."""
    state = hashlib.sha256(sys.version.encode())
    for path in (_COMPILER, *sorted(_SOURCE.rglob("*.py"))):
        state.update(path.read_bytes())
    return cache_folder().with_name(f"gameserver-{state.hexdigest()[:16]}")


def install() -> str:
    """Compile the present sources, unless they are; returns "" or why that cannot be done here."""
    if folder().exists():
        return ""
    folder().parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(_COMPILER), str(_SOURCE), str(folder())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""
