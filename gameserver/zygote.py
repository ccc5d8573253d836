"""
The zygote: a process that has imported a game and all that a server needs, and forks servers from itself.

`python -m gameserver.zygote GAME FD`, started by the laptop's Agones (fleets/local/zygotes.py). It answers requests on the inherited socket FD, one JSON
object a line, until that is closed:

    {"env": {…}, "log": path, "cwd": path}  →  {"pid": n}, {"stale": file} or {"error": text}

A server is forked twice, so that its parent is the one who asked (a subreaper): it can wait for its exit code, the kernel ends it should that one
die, and the zygote's own death harms no server. It has its session, environment, working directory and log to itself, and runs just what
`python -m gameserver` runs; a game that does not import fails there, with the same words.

What this process writes to, the servers that it has forked no longer share with it: between two forks it does as little as it can, and leaves a
request to be read by the server that it is for.

While nobody asks, one server is forked ahead, the spare: it has made its event loop, gone once through what every server does first, and waits to be
told who it is. The next request is its; those that come before there is another are forked when they come. It ends with the zygote.

Nothing that is done before a fork may start a thread, an event loop or a gRPC channel: none of them survives it.
"""

import asyncio
import ctypes
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import grpc.aio

from gameserver import __main__ as server
from gameserver.agones.sdk import AgonesSDK, SDKUnavailable
from gameserver.process import load_game
from gameserver.seats import SeatIssuer, SeatVerifier
from gameserver.sessions.client import connect
from gameserver.sessions.model import ServerName
from gameserver.settings import SettingsError
from gameserver.transports.port import Connection
from gameserver.transports.websocket import WebSocketTransport

_PR_SET_PDEATHSIG = 1
_WARM = ("gameserver.transports.udp", "encodings.idna", "hiredis", "asyncio.base_subprocess")
"""Modules that a server imports only when it needs them."""
_QUIET_S = 0.2
"""Without a request, after which a spare is forked: one that comes sooner would wait for that, and the cores are the new server's and its players'."""
_NOBODY_PORT = 9
"""Nothing listens there (the discard service's)."""


def main() -> None:
    """Import, then fork on request until the other side is gone."""
    game, descriptor = sys.argv[1], int(sys.argv[2])
    asker = os.getppid()
    for module in _WARM:
        importlib.import_module(module)
    try:
        load_game(game)
    except (SettingsError, SystemExit):
        pass  # each server meets it again, and says so where it is looked for
    sources = _sources()
    _forget_lookups()
    _warm()
    gc.collect()
    gc.freeze()  # collections in a server would write to these pages, and so copy them
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asks
    with socket.socket(fileno=descriptor) as control, control.makefile("rwb") as requests:
        requests.write(b'{"ready": true}\n')
        requests.flush()
        forks = _Forks(asker, control)
        while True:
            if not select.select([control], [], [], _QUIET_S)[0]:
                forks.prepare()
            if not (line := requests.readline()):
                return
            answer = _answer(line, sources, forks)
            requests.write(json.dumps(answer).encode() + b"\n")
            requests.flush()


def _warm() -> None:
    """Go through what every server does first: what is set up here once is shared by all."""
    connect("redis://localhost")
    SeatVerifier([SeatIssuer(bytes(32)).public_key], ServerName("warm"))


def _forget_lookups() -> None:
    """
    Empty the interpreter's cache of attributes of types.

    It counts a reference to each name in it: a server that put its own names in the place of those of the imports would write to where those names are.
    """
    clear = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache  # the former from Python 3.13 on
    clear()


class _Forks:
    """Where servers come from."""

    def __init__(self, asker: int, control: socket.socket) -> None:
        self._asker = asker
        self._control = control
        self._spare: tuple[int, int] | None = None
        """Its pid, and the pipe that it waits at: closed with this process, which ends it."""

    def prepare(self) -> None:
        """Have a spare; where that cannot be, servers are forked when they are asked for."""
        if self._spare is None:
            reader, writer = os.pipe()
            try:
                self._spare = _fork(functools.partial(self._wait, reader, writer)), writer
            except OSError:
                os.close(writer)
            os.close(reader)

    def serve(self, request: bytes) -> int:
        """Start a server as a line says; returns its pid. Raises OSError."""
        if self._spare is not None:
            (pid, writer), self._spare = self._spare, None
            try:
                with open(writer, "wb") as orders:  # noqa: PTH123 (a descriptor)
                    orders.write(request)
                return pid
            except BrokenPipeError:
                pass  # somebody has killed it
        return _fork(functools.partial(self._begin, request))

    def _begin(self, request: bytes) -> NoReturn:
        os.close(self._control.fileno())  # by its number: a file over it would keep it open
        _serve(request, self._asker, None)

    def _wait(self, reader: int, writer: int) -> NoReturn:
        try:
            os.close(writer)
            os.close(self._control.fileno())
            _die_with(self._asker)
            runner = server.new_runner()
            _warm()
            runner.run(_rehearse())
            with open(reader, "rb") as orders:
                request = orders.readline()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        if not request:
            os._exit(0)
        _serve(request, self._asker, runner)


async def _rehearse() -> None:
    """Set up gRPC, and ask nobody: that is half of what a server does until it is Ready."""
    # Never undone: else closing the channel would put all of it away again.
    grpc.aio.init_grpc_aio()  # type: ignore[attr-defined]  # not in the stubs
    async with AgonesSDK(_NOBODY_PORT, timeout_s=0.01) as sdk:
        try:
            await sdk.get_game_server()
        except SDKUnavailable:
            pass
    async with WebSocketTransport(_nobody, host="127.0.0.1", port=0):
        pass


def _nobody(connection: Connection) -> NoReturn:
    raise AssertionError("nobody knows of this listener")


def _answer(request: bytes, sources: dict[str, int], forks: _Forks) -> dict[str, Any]:
    for name, changed_ns in sources.items():
        if _changed_ns(name) != changed_ns:
            return {"stale": name}
    try:
        return {"pid": forks.serve(request)}
    except OSError as error:
        return {"error": str(error)}


def _fork(run: Callable[[], NoReturn]) -> int:
    """Fork a process by way of one that ends at once; returns its pid. Raises OSError."""
    reader, writer = os.pipe()
    middle = os.fork()
    if middle == 0:
        try:
            pid = os.fork()
            if pid == 0:
                os.close(reader)
                os.close(writer)
                run()
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


def _serve(request: bytes, asker: int, made: asyncio.Runner | None) -> NoReturn:
    """Be a server, from here to the end of this process."""
    code = 1
    try:
        _settle(json.loads(request), asker)
        if "numpy.random" in sys.modules:
            sys.modules["numpy.random"].seed()  # else all servers of a zygote would roll the same dice
        code = server.main(made)
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
    _die_with(asker)


def _die_with(asker: int) -> None:
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
        return os.stat(name).st_mtime_ns  # noqa: PTH116 (a Path interns its parts, and so writes to pages that servers share)
    except OSError:
        return 0


if __name__ == "__main__":
    main()
