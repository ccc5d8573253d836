"""Servers forked from a zygote: proper processes in every way, told apart from cold ones by their speed alone."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from allocator.model import ServerState
from fleets.local.agones import LocalAgones, ServerStatus
from fleets.local.planner import LocalFleet
from gameserver.seats import SeatIssuer
from gameserver.sessions.model import FleetName

FLEET = FleetName("f")
GAME = """
    import numpy as np
    from gameserver.game import Game
    from gameserver.protocol.schema import Fields, Schema, Table, UInt

    class Mine(Game):
        schema = Schema(t=Table(n=UInt(8)))
        inputs = Fields(n=UInt(8))
        join = leave = input = step = restore = lambda self, *_: None
        def snapshot(self): return {"t": {"id": [0], "n": [VERSION]}}
        def save(self): return b""

    VERSION = 1
"""


@asynccontextmanager
async def agones(
    folder: Path, game: str = "mine:Mine", source: str = GAME, **values: object
) -> AsyncIterator[LocalAgones]:
    (folder / "mine.py").write_text(textwrap.dedent(source))
    env = {
        "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
        "WARMFLEET_GAME": game, "WARMFLEET_FLEET": FLEET, "WARMFLEET_SEAT_KEYS": SeatIssuer(bytes(32)).public_key,
        "OPENBLAS_NUM_THREADS": "1",
    }  # fmt: skip
    command = (sys.executable, "-m", "gameserver")
    options = {"max": 3, "buffer": 2, "drain_timeout_s": 1.0, **values}
    fleet = LocalFleet(name=FLEET, command=command, game=game, env=env, ports=("websocket",), **options)  # type: ignore[arg-type]
    async with LocalAgones([fleet], logs=folder / "logs") as running:
        yield running


async def until(check: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not check():
            await asyncio.sleep(0.02)


def ready(running: LocalAgones) -> list[ServerStatus]:
    return [s for s in running.status()[0].servers if s.server.state is ServerState.READY]


def stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the name: state, parent, group, session…"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


async def test_a_forked_server_is_a_process_of_its_own(tmp_path: Path) -> None:
    """Its parent is the one who asked, its session and log its own; it drains on SIGTERM and its zygote stays for the next."""
    async with agones(tmp_path) as running:
        await until(lambda: len(ready(running)) == 2)
        (zygote,) = running.zygotes()
        one, two = ready(running)
        for server in (one, two):
            assert stat(server.pid)[1:4] == [str(os.getpid()), str(server.pid), str(server.pid)]
            await until(lambda log=server.log, name=server.server.name: f'"server": "{name}"' in log.read_text())  # type: ignore[misc]
        await running.delete(one.server.name)
        await until(lambda: len(ready(running)) == 2 and one.server.name not in {s.server.name for s in ready(running)})
        assert running.zygotes() == [zygote]
        assert not running.status()[0].reason
    assert [pid for pid in (zygote, one.pid, two.pid) if Path(f"/proc/{pid}").exists()] == []


def spares(zygote: int) -> list[int]:
    """Servers that it has forked ahead: children of this process, in the zygote's group until they are told who they are."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [pid for pid in pids if pid != zygote and is_spare(pid, zygote)]


def is_spare(pid: int, group: int) -> bool:
    try:
        state, parent, its_group = stat(pid)[:3]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z" and int(parent) == os.getpid() and int(its_group) == group


async def test_a_server_is_forked_ahead(tmp_path: Path) -> None:
    """The next server is there before it is asked for, another one follows it, and the last one ends with the fleet."""
    async with agones(tmp_path, buffer=1) as running:
        await until(lambda: len(ready(running)) == 1)
        (zygote,) = running.zygotes()
        await until(lambda: len(spares(zygote)) == 1)
        (ahead,) = spares(zygote)
        running.set_buffer(FLEET, 2)
        await until(lambda: len(ready(running)) == 2)
        (told,) = [server for server in ready(running) if server.pid == ahead]
        assert stat(ahead)[1:4] == [str(os.getpid()), str(ahead), str(ahead)]
        await until(lambda: f'"server": "{told.server.name}"' in told.log.read_text())
        await until(lambda: len(spares(zygote)) == 1)
        (last,) = spares(zygote)
        assert last != ahead
    assert not Path(f"/proc/{last}").exists()


async def test_the_death_of_a_server_forked_ahead(tmp_path: Path) -> None:
    """Killed before anybody asked for it, it is missed by nobody; one whose zygote is killed ends too."""
    async with agones(tmp_path, buffer=1) as running:
        await until(lambda: len(ready(running)) == 1)
        (zygote,) = running.zygotes()
        await until(lambda: spares(zygote))
        os.kill(spares(zygote)[0], signal.SIGKILL)
        await until(lambda: not spares(zygote))
        running.set_buffer(FLEET, 2)
        await until(lambda: len(ready(running)) == 2)
        assert all("gameserver.zygote" in Path(f"/proc/{s.pid}/cmdline").read_text() for s in ready(running))
        await until(lambda: spares(zygote))
        os.kill(zygote, signal.SIGKILL)
        await until(lambda: not spares(zygote))


async def test_the_death_of_a_server_and_of_the_zygote(tmp_path: Path) -> None:
    """A killed server's signal is known and it is replaced; a killed zygote takes no server with it, and is replaced too."""
    async with agones(tmp_path) as running:
        await until(lambda: len(ready(running)) == 2)
        (zygote,) = running.zygotes()
        victim, other = ready(running)
        os.kill(zygote, signal.SIGKILL)
        await until(lambda: not running.zygotes())
        os.kill(victim.pid, signal.SIGKILL)
        await until(lambda: "by signal 9" in running.status()[0].reason)
        await until(lambda: len(ready(running)) == 2)
        assert other.pid in {server.pid for server in ready(running)}
        (again,) = running.zygotes()
        assert again != zygote


async def test_a_crash_says_where_it_was(tmp_path: Path) -> None:
    """A server that ends by a fault in a library leaves what it was doing in its log."""
    async with agones(tmp_path, buffer=1) as running:
        await until(lambda: ready(running))
        (server,) = ready(running)
        os.kill(server.pid, signal.SIGABRT)
        await until(lambda: "by signal 6" in running.status()[0].reason)
        said = server.log.read_text()
        assert "Fatal Python error: Aborted" in said
        assert "gameserver/__main__.py" in said


async def test_an_edited_game_is_imported_anew(tmp_path: Path) -> None:
    """A server started after the game was changed runs what the studio wrote."""
    async with agones(tmp_path, buffer=1) as running:
        await until(lambda: len(ready(running)) == 1)
        (zygote,) = running.zygotes()
        (tmp_path / "mine.py").write_text(textwrap.dedent(GAME) + "\nraise RuntimeError('edited')\n")
        running.set_buffer(FLEET, 2)
        await until(lambda: running.status()[0].failures)
        assert "edited" in "\n".join(running.status()[0].last_lines)
        assert running.zygotes() != [zygote]


@pytest.mark.parametrize(
    ("source", "game", "words"),
    [
        ("import nowhere_at_all", "mine:Mine", "game 'mine:Mine' does not import: ModuleNotFoundError"),
        ("raise SystemExit(3)", "mine:Mine", "exit code 3"),
        ("", "mine:Other", "module mine has no Other"),
    ],
)
async def test_a_game_that_does_not_import_says_so(tmp_path: Path, source: str, game: str, words: str) -> None:
    """The reason is the cold start's: in the server's log, with the exit code in the status."""
    async with agones(tmp_path, source=source, game=game, buffer=1) as running:
        await until(lambda: running.status()[0].failures)
        status = running.status()[0]
        assert "with exit code" in status.reason
        assert words in "\n".join((status.reason, *status.last_lines))


def test_servers_die_with_whoever_asked_for_them(tmp_path: Path) -> None:
    """Killed outright, a supervisor leaves neither servers nor zygote behind."""
    script = textwrap.dedent(
        f"""
        import asyncio, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_zygotes import agones, ready, until
        async def main():
            async with agones(Path({str(tmp_path)!r})) as running:
                await until(lambda: len(ready(running)) == 2)
                print(*running.zygotes(), *(s.pid for s in ready(running)), flush=True)
                await asyncio.sleep(3600)
        asyncio.run(main())
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        pids = [int(word) for word in supervisor.stdout.readline().split()]
        assert len(pids) == 3
        supervisor.kill()

    async def gone() -> None:
        await until(lambda: not [p for p in pids if Path(f"/proc/{p}").exists() and stat(p)[0] != "Z"])

    asyncio.run(gone())
