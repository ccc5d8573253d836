"""How `warmfleet up` and `warmfleet serve` listen: a socket that is bound before anything else starts, and uvicorn without its own signals."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn


class CannotListen(Exception):
    """The address is taken or not this machine's; the message says so, and the mend."""


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: signals are the command's own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


def listen(host: str, port: int, *, mend: str) -> socket.socket:
    """Bind and listen. Raises CannotListen, whose message ends with `mend`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror}. {mend}") from None
    listener.setblocking(False)
    return listener
