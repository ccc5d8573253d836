"""Host ports for local game servers, from a range, tried before they are given."""

import random
import socket
from collections.abc import Collection, Iterator

DEFAULT_RANGE = range(7000, 8000)
"""Agones' default range of host ports."""


class NoFreePort(Exception):
    """Every port of the range is taken."""


class PortRange:
    """
    Hands out ports in turn, so that one just freed is not given again at once.

    It begins anywhere in the range: two systems on one machine would else try the same ports at the same moment.
    """

    def __init__(self, ports: range = DEFAULT_RANGE, rng: random.Random | None = None) -> None:
        self._ports = ports
        self._next = (rng or random.SystemRandom()).randrange(len(ports))

    def take(self, names: Collection[str], taken: Collection[int]) -> dict[str, int]:
        """Choose a port for each name, none of `taken`, none in use by another program. Raises NoFreePort."""
        free = self._free(set(taken))
        return {name: next(free) for name in names}

    def _free(self, taken: set[int]) -> Iterator[int]:
        for _ in self._ports:
            port = self._ports[self._next % len(self._ports)]
            self._next += 1
            if port not in taken and _bindable(port):
                yield port
        raise NoFreePort(f"no free port from {self._ports.start} to {self._ports.stop - 1}")


def _bindable(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(kind == socket.SOCK_STREAM))
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
