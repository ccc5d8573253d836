"""A live game server, looked into."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from up import EXAMPLE, Up

from fleets.cli.profile import py_spy

LAZY = """
import time
from gameserver.games.arena import Arena

class Lazy(Arena):
    def step(self, dt_s):
        super().step(dt_s)
        if self.room.tick % 15 == 0:
            self.dawdle()

    def dawdle(self):
        end_s = time.monotonic() + 0.03
        while time.monotonic() < end_s:
            pass
"""


@pytest.mark.skipif(py_spy() is None, reason="py-spy is not installed: pip install 'warmfleet[profile]'")
def test_a_lazy_game_is_found_out(start: Callable[..., Up], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Its slow ticks are caught with stack and inputs, and its flame graph names the function; a server that is not there is none of those that are named."""
    yaml = EXAMPLE.read_text().replace(
        "game: gameserver.games.arena:Arena", 'game: "lazy:Lazy"\n    env: {WARMFLEET_SLOW_TICK_MS: "10"}'
    )
    (tmp_path / "studio").mkdir()
    (tmp_path / "studio" / "lazy.py").write_text(LAZY)
    up = start(yaml).until_ready()
    bots = subprocess.Popen([*up.process.args[:3], "bots"], cwd=up.folder, stdout=subprocess.DEVNULL)  # type: ignore[index]
    request.addfinalizer(bots.wait)
    request.addfinalizer(bots.kill)
    logs = up.folder / ".warmfleet/logs"

    def caught() -> list[tuple[str, dict[str, Any]]]:
        lines = [(path.stem, line) for path in logs.glob("*.log") for line in path.read_text().splitlines()]
        told = [(server, json.loads(line)) for server, line in lines if "slow_tick_caught" in line]
        return [(server, line) for server, line in told if line["stack"][0].endswith(" dawdle")]

    up.until(lambda: any(line["inputs"] for _, line in caught()), 40.0)
    server = caught()[-1][0]
    if os.geteuid() != 0:
        pytest.skip("looking into another process wants to be root")
    done = up.cli("profile", server, "--seconds", "2", "--out", "flames.svg")
    assert done.returncode == 0, done.stderr
    flames = (up.folder / "flames.svg").read_text()
    assert flames.lstrip().startswith("<?xml")
    assert "dawdle" in flames
    missing = up.cli("profile", "nobody")
    assert (missing.returncode, server in missing.stderr) == (2, True)
