"""
Players that load the matchmaker from a process of their own: each posts a ticket, reads its server-sent events until it is assigned, and posts the next,
at once or at its next turn.

A client of its own on bare sockets, since it shares the machine with what it measures: a library's client takes as long as the whole matchmaker.
"""

import asyncio
import os
import re
import time
from multiprocessing.connection import Connection

import orjson

from bench.matchmaker.system import SECRET
from fleets.garbage import settle
from gameserver.sessions.model import PlayerId
from matchmaker.api.auth import PlayerTokens

_LOCATION = re.compile(rb"\r\nlocation: (/v1/tickets/\S+)\r\n")
_ASSIGNED = b'"state":"assigned"'


class Player(asyncio.Protocol):
    """
    One player and its connection; notes when it posted and for how long it waited.

    With turns of `every_s`, the first after `first_s`, a wait counts from the turn, whether or not the player could post then: who is late waits longer.
    """

    def __init__(
        self,
        name: str,
        queue: str,
        done: list[tuple[float, float]],
        failed: list[bytes],
        every_s: float,
        first_s: float,
    ) -> None:
        body = orjson.dumps({"queue": queue, "players": [{"id": name, "attributes": {"rating": 1500}}]})
        token = PlayerTokens(SECRET).issue(PlayerId(name))
        self._head = b"host: bench\r\nauthorization: Bearer %b\r\n" % token.encode()
        self._post = b"POST /v1/tickets HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n%b" % (self._head, len(body), body)
        self._done = done
        self._failed = failed
        self._seen = b""
        self._follows = False
        self._every_s = every_s
        self._posted_s = time.perf_counter() + first_s - every_s
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport  # type: ignore[assignment] (uvloop's is one, and says so to nobody)
        self._begin()

    def data_received(self, data: bytes) -> None:
        """An answer to the POST, or events."""
        self._seen += data
        assert self._transport is not None
        if not self._follows:
            head, gap, body = self._seen.partition(b"\r\n\r\n")
            if not gap or len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]):
                return
            found = _LOCATION.search(head + b"\r\n")
            if found is None:
                self._failed.append(self._seen)
                self._transport.close()
                return
            self._transport.write(b"GET %b/events HTTP/1.1\r\n%b\r\n" % (found[1], self._head))
            self._seen, self._follows = b"", True
        elif self._seen.endswith(b"0\r\n\r\n"):
            if _ASSIGNED in self._seen:
                self._done.append((self._posted_s, time.perf_counter() - self._posted_s))
            else:
                self._failed.append(self._seen)
            self._begin()

    def _begin(self) -> None:
        assert self._transport is not None
        self._seen, self._follows, now_s = b"", False, time.perf_counter()
        self._posted_s = self._posted_s + self._every_s if self._every_s else now_s
        if self._posted_s > now_s:
            asyncio.get_running_loop().call_later(self._posted_s - now_s, self._transport.write, self._post)
        else:
            self._transport.write(self._post)


async def play(
    port: int, queue: str, players: int, per_s: float, warm_s: float, counted_s: float, report: Connection
) -> None:
    """
    Play, so many tickets a second (0: as many as are served).

    Says `begin` and `end` of what is counted, then how many were assigned a second, the waits in s of those who posted meanwhile, and what failed.
    """
    done: list[tuple[float, float]] = []
    failed: list[bytes] = []
    loop = asyncio.get_running_loop()
    every_s = players / per_s if per_s else 0.0
    for number in range(players):
        # Names of this process: a ticket that the last load left behind is nobody's here.
        player = Player(f"{queue}-{os.getpid()}-{number}", queue, done, failed, every_s, every_s * number / players)
        await loop.create_connection(lambda player=player: player, "127.0.0.1", port)  # type: ignore[misc]
    settle()
    await asyncio.sleep(warm_s)
    begin_s, before = time.perf_counter(), len(done)
    report.send("begin")
    await asyncio.sleep(counted_s)
    took_s, count = time.perf_counter() - begin_s, len(done) - before
    report.send("end")
    report.send((count / took_s, [wait_s for posted_s, wait_s in done if posted_s >= begin_s], failed[:3]))
    await asyncio.sleep(3600)
