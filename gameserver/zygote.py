"""
The zygote: a process that has imported a game and all that a server needs, and forks servers from itself.

`python -m gameserver.zygote GAME FD`, started by the laptop's Agones (fleets/local/zygotes.py). It answers requests on the inherited socket FD, one JSON
object a line, until that is closed:

    {"env": {…}, "log": path, "cwd": path}  →  {"pid": n}, {"stale": file} or {"error": text}

A server is forked twice, so that its parent is the one who asked (a subreaper): it can wait for its exit code, the kernel ends it should that one
die, and the zygote's own death harms no server. It has its session, environment, working directory and log to itself, and runs just what
`python -m gameserver` runs; a game that does not import fails there, with the same words.

Nothing here may start a thread, an event loop or a gRPC channel: none of them survives a fork.
"""

import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any, NoReturn

from gameserver import __main__ as server
from gameserver.process import load_game
from gameserver.seats import SeatIssuer, SeatVerifier
from gameserver.sessions.client import connect
from gameserver.sessions.model import ServerName
from gameserver.settings import SettingsError

_PR_SET_PDEATHSIG = 1
_WARM = ("gameserver.transports.udp", "encodings.idna", "hiredis", "asyncio.base_subprocess")
"""Modules that a server imports only when it needs them."""


def main() -> None:
    """Import, then fork on request until the other side is gone."""
    game, descriptor = sys.argv[1], int(sys.argv[2])
    asker = os.getppid()
    for module in _WARM:
        importlib.import_module(module)
    _warm()
    try:
        load_game(game)
    except (SettingsError, SystemExit):
        pass  # each server meets it again, and says so where it is looked for
    sources = _sources()
    gc.collect()
    gc.freeze()  # collections in a server would write to these pages, and so copy them
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asks
    with socket.socket(fileno=descriptor) as control, control.makefile("rwb") as requests:
        requests.write(b'{"ready": true}\n')
        requests.flush()
        for line in requests:
            answer = _answer(json.loads(line), sources, asker, control)
            requests.write(json.dumps(answer).encode() + b"\n")
            requests.flush()


def _warm() -> None:
    """Go through what every server does first: what is set up here once is shared by all."""
    connect("redis://localhost")
    SeatVerifier([SeatIssuer(bytes(32)).public_key], ServerName("warm"))


def _answer(request: dict[str, Any], sources: dict[str, int], asker: int, control: socket.socket) -> dict[str, Any]:
    for name, changed_ns in sources.items():
        if _changed_ns(name) != changed_ns:
            return {"stale": name}
    try:
        return {"pid": _fork(request, asker, control)}
    except OSError as error:
        return {"error": str(error)}


def _fork(request: dict[str, Any], asker: int, control: socket.socket) -> int:
    """Fork a server by way of a process that ends at once; returns the server's pid. Raises OSError."""
    reader, writer = os.pipe()
    middle = os.fork()
    if middle == 0:
        try:
            pid = os.fork()
            if pid == 0:
                os.close(reader)
                os.close(writer)
                control.close()
                _serve(request, asker)
            os.write(writer, str(pid).encode())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        said = os.read(reader, 32)
    finally:
        os.close(reader)
        os.waitpid(middle, 0)
    if not said:
        raise OSError("no process could be forked")
    return int(said)


def _serve(request: dict[str, Any], asker: int) -> NoReturn:
    """Be a server, from here to the end of this process."""
    code = 1
    try:
        _settle(request, asker)
        if "numpy.random" in sys.modules:
            sys.modules["numpy.random"].seed()  # else all servers of a zygote would roll the same dice
        code = server.main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _settle(request: dict[str, Any], asker: int) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["gameserver"]
    # The parent to die with is the one who asked, once the process in between has gone.
    give_up_s = time.monotonic() + 5.0
    while os.getppid() != asker:
        if time.monotonic() > give_up_s:
            raise RuntimeError("whoever asked for this server is gone")
        time.sleep(0.0002)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != asker:
        raise RuntimeError("whoever asked for this server is gone")


def _sources() -> dict[str, int]:
    """Files of the studio's own modules, and when each was changed: a fork of older ones would not be what the studio has written."""
    installed = tuple(
        str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platstdlib", "purelib", "platlib")
    )
    files = [getattr(module, "__file__", None) for module in tuple(sys.modules.values())]
    own = {str(Path(file).resolve()) for file in files if file is not None}
    return {name: _changed_ns(name) for name in sorted(own) if not name.startswith(installed)}


def _changed_ns(name: str) -> int:
    try:
        return Path(name).stat().st_mtime_ns
    except OSError:
        return 0


if __name__ == "__main__":
    main()
