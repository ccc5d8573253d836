"""
Reads many sockets in one go: an epoll of its own behind the event loop's.

What players send takes effect at the next tick, so there is no use in waking the loop for each message: the first one after a quiet moment wakes it at
once, and from then on sockets are looked at every few milliseconds for as long as something comes (as network cards moderate their interrupts), and
all of them right before each tick, so that nothing waits for the next one. The more comes, the longer the pauses: a look at 200 players' sockets finds
thirty messages instead of one, for one wake-up; and however much comes, ticks have their turn between two looks.
"""

import asyncio
import select
from collections.abc import Callable
from typing import Protocol

SHORTEST_S = 0.002
"""Between looks while something comes. Inputs do not wait for it, but Pong does."""
LONGEST_S = 0.008
_EACH_S = 0.0005
"""Added for each message that was there: four players are answered within 3 ms, four hundred within 8."""
_EVENTS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
"""By edges: by level, each look would ask once more about every socket that the one before has read, a fifteenth of what reading costs."""
_MOST_AT_ONCE = 256
"""Sockets that are read in one look by the clock; the others have their turn in the next one."""


class Readable(Protocol):
    """Whoever has a socket to read."""

    def readable(self, events: int) -> int:
        """
        Something has come, or the other side is gone. Must not raise.

        Reads until there is nothing more, or asks to be called `again`: what it leaves is not told of a second time.

        Args:
            events: of epoll; more than EPOLLIN when no more will come than is there.
        Returns: how much was there: a message's worth, or several.
        """


class Pump:
    """The sockets of one transport."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin without sockets; `close` in the end."""
        self._loop = loop
        self._epoll = select.epoll()
        self._readable: dict[int, Callable[[int], int]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._found = 0
        """Messages, or about as many, since the last look by the clock."""
        self._await()

    def add(self, fd: int, reader: Readable) -> None:
        """Watch a socket."""
        self._readable[fd] = reader.readable
        self._epoll.register(fd, _EVENTS)

    def again(self, fd: int) -> None:
        """Have the next look find this socket, if there is something to read, though nothing new has come."""
        self._epoll.modify(fd, _EVENTS)

    def remove(self, fd: int) -> None:
        """Watch it no longer; before it is closed."""
        if self._readable.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def look(self) -> None:
        """Read what has come by now, from everyone."""
        self._read(len(self._readable) + 1)

    def _read(self, most: int) -> bool:
        """Read `most` sockets; returns whether there may be more of them."""
        readable, ready = self._readable, self._epoll.poll(0, most)
        for fd, events in ready:
            read = readable.get(fd)
            if read is not None:  # else an earlier one of this look has closed it
                self._found += read(events)
        return len(ready) == most

    def close(self) -> None:
        """Watch nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        else:
            self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _await(self) -> None:
        """Have the loop wake us when something comes."""
        self._timer = None
        self._loop.add_reader(self._epoll.fileno(), self._woken)

    def _woken(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._look_on()

    def _look_on(self) -> None:
        more = self._read(_MOST_AT_ONCE)
        if self._found:
            # Where there is more everything else has its turn, and then the rest.
            delay_s = 0.0 if more else min(SHORTEST_S + _EACH_S * self._found, LONGEST_S)
            self._timer = self._loop.call_later(delay_s, self._look_on)
            self._found = 0
        else:
            self._await()
