"""`warmfleet new`: what it writes works as it stands."""

import subprocess
import sys
from pathlib import Path

import pytest


def warmfleet(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fleets.cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


ROOM = """
import asyncio
from gameserver.process import load_game
from gameserver.room import Room
from gameserver.sessions.model import ServerName, Session, SessionId, SessionState
from gameserver.transports.loopback import LoopbackTransport
from gameserver.seats import SeatGrant
from gameserver.client.session import Ended, WorldSeen

async def main():
    game = load_game("space_race.game:SpaceRace")
    session = Session(
        id=SessionId("space-race.1"), server=ServerName("s"), room=0, epoch=1, state=SessionState.LIVE, seats=(), options={"duration_s": "1"}
    )
    room = Room(session, game, seats=4, tick_rate_hz=30, store=None)

    class Way:
        def __init__(self, connection):
            self.connection, self.member = connection, None

        def received(self, message):
            from gameserver.protocol.messages import Hello, decode_client
            decoded = decode_client(message)
            if isinstance(decoded, Hello):
                grant = SeatGrant(player="ann", seat=0, team="", session=session.id, server=session.server, epoch=1)
                self.member = room.seat(grant, self.connection)
            elif self.member is not None and message[:1] == b"\x02":
                room.take_input(self.member, message)

        def lost(self):
            pass

    running = asyncio.create_task(room.run())
    async with LoopbackTransport(Way, reliable=True).client("token") as ann:
        worlds = 0
        async for event in ann.events():
            if isinstance(event, WorldSeen):
                worlds += 1
                await ann.send_input(move_x=1, sprint=True)
            elif isinstance(event, Ended):
                print(int(event.code), ann.session.results, worlds > 10 and ann.session.ack_input > 5)
    await running

asyncio.run(main())
"""


def test_a_new_game_passes_its_tests_validates_and_runs(tmp_path: Path) -> None:
    """Its own tests pass, its YAML is valid, and a real room plays a match of it to its results."""
    made = warmfleet(tmp_path, "new", "Space-Race")
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "space-race"
    assert "warmfleet up" in made.stdout
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert "3 passed" in tests.stdout
    valid = warmfleet(folder, "validate", "fleets.yaml")
    assert valid.returncode == 0, valid.stdout + valid.stderr
    played = subprocess.run(
        [sys.executable, "-c", ROOM], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert played.returncode == 0, played.stderr
    assert played.stdout.startswith("0 {'scores': {'ann': ")
    assert played.stdout.strip().endswith("True")
    lint = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length", "160", "--select", "E,F,B,UP", "."],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert lint.returncode == 0, lint.stdout

    again = warmfleet(tmp_path, "new", "space_race")
    assert again.returncode == 1
    assert "not overwritten" in again.stderr + again.stdout


@pytest.mark.parametrize("name", ["", "2fast", "naïve", "a b", "../up", "json", "class", "x" * 41])
def test_a_name_that_cannot_be_a_package_is_refused(tmp_path: Path, name: str) -> None:
    """With the reason, before anything is written."""
    made = warmfleet(tmp_path, "new", "--", name)
    assert made.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_another_folder_may_be_chosen_but_not_one_with_such_files(tmp_path: Path) -> None:
    """One file in the way stops it all: half a game is none."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    made = warmfleet(tmp_path, "new", "hop", "--dir", "mine")
    assert made.returncode == 1
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["README.md"]
    assert (tmp_path / "mine" / "README.md").read_text() == "mine"
    assert warmfleet(tmp_path, "new", "hop", "--dir", "other").returncode == 0
    assert (tmp_path / "other" / "hop" / "game.py").exists()
