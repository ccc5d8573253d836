"""
Players that load the matchmaker from a process of their own: each posts a ticket, reads its server-sent events until it is assigned, and posts the next.

A client of its own on bare sockets, since it shares the machine with what it measures: a library's client takes as long as the whole matchmaker.
"""

import asyncio
import re
import time
from multiprocessing.connection import Connection

import orjson

from bench.matchmaker.system import SECRET
from gameserver.sessions.model import PlayerId
from matchmaker.api.auth import PlayerTokens

_LOCATION = re.compile(rb"\r\nlocation: (/v1/tickets/\S+)\r\n")
_ASSIGNED = b'"state":"assigned"'


class Player(asyncio.Protocol):
    """One player and its connection; notes when it posted and for how long it waited."""

    def __init__(self, name: str, queue: str, done: list[tuple[float, float]], failed: list[bytes]) -> None:
        body = orjson.dumps({"queue": queue, "players": [{"id": name, "attributes": {"rating": 1500}}]})
        token = PlayerTokens(SECRET).issue(PlayerId(name))
        self._head = b"host: bench\r\nauthorization: Bearer %b\r\n" % token.encode()
        self._post = b"POST /v1/tickets HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n%b" % (self._head, len(body), body)
        self._done = done
        self._failed = failed
        self._seen = b""
        self._follows = False
        self._posted_s = 0.0
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
        self._seen, self._follows, self._posted_s = b"", False, time.perf_counter()
        self._transport.write(self._post)


async def play(port: int, queue: str, players: int, warm_s: float, counted_s: float, report: Connection) -> None:
    """Play; says `begin` and `end` of what is counted, then the waits in s of those who posted meanwhile, and what failed."""
    done: list[tuple[float, float]] = []
    failed: list[bytes] = []
    loop = asyncio.get_running_loop()
    for number in range(players):
        name = f"{queue}-{number}"
        await loop.create_connection(lambda name=name: Player(name, queue, done, failed), "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.sleep(warm_s)
    begin_s, before = time.perf_counter(), len(done)
    report.send("begin")
    await asyncio.sleep(counted_s)
    took_s, count = time.perf_counter() - begin_s, len(done) - before
    report.send("end")
    report.send((count / took_s, [wait_s for posted_s, wait_s in done if posted_s >= begin_s], failed[:3]))
    await asyncio.sleep(3600)
