"""The game server as images have it: its busiest modules compiled from the same sources."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TESTS = (
    "tests/unit/gameserver/test_bad_games.py", "tests/unit/gameserver/test_datagrams.py", "tests/unit/gameserver/test_gate.py",
    "tests/unit/gameserver/test_limits.py", "tests/unit/gameserver/test_netcode_wire.py", "tests/unit/gameserver/test_room.py",
    "tests/unit/gameserver/test_seating.py",
    "tests/unit/gameserver/test_websocket.py", "tests/integration/gameserver/test_fence.py",
    "tests/integration/gameserver/test_link.py", "tests/integration/gameserver/test_udp.py",
    "tests/property/gameserver/test_netcode_connections.py", "tests/property/test_messages.py", "tests/property/test_snapshot.py",
)  # fmt: skip
"""Of what is compiled, and of what uses it."""


@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("gcc") is None, reason="wants a C compiler")
@pytest.mark.skipif(not Path(sysconfig.get_path("include"), "Python.h").exists(), reason="wants Python's headers")
def test_the_compiled_game_server_passes_the_same_tests(tmp_path: Path) -> None:
    """The compiled modules are imported in place of the sources, and do what those do."""
    folder = tmp_path / "compiled"
    subprocess.run([sys.executable, ROOT / "docker" / "compiled.py", ROOT / "gameserver", folder], check=True)
    mine = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = mine | {"PYTHONPATH": str(folder)}
    where = "import gameserver.room, gameserver.transports.udp as udp; print(gameserver.room.__file__, udp.__file__)"
    found = subprocess.check_output([sys.executable, "-P", "-c", where], env=environment, text=True).split()
    assert all(path.startswith(str(folder)) and path.endswith(".so") for path in found), found
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not sources and not node"]
    command += ["-o", f"pythonpath={folder} tests .", *TESTS]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:]
    assert "passed" in done.stdout
