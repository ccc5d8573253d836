"""How late the ticks of each game server are: its own metrics, read in turn, so many a second that it costs nobody anything."""

import asyncio
from collections.abc import Callable, Iterable
from typing import NoReturn

import httpx

from fleets.console.quantiles import Recent, buckets_in, quantile

_PER_S = 10
_ROUND_S = 2.0
_UNWATCHED_ROUND_S = 5.0
"""From one reading of a server to the next, at least."""
_TIMEOUT_S = 1.0
_LOOKS = 6
_METRIC = "warmfleet_tick_lateness_seconds"


class Tempo:
    """Keeps a figure for each server; `run` beside it."""

    def __init__(self, servers: Callable[[], Iterable[tuple[str, str, int]]], *, watched: Callable[[], bool]) -> None:
        """
        `servers`: (fleet, server, port) of each that serves `/metrics`.
        `watched`: whether anybody looks; servers are left alone for longer while nobody does.
        """
        self._servers = servers
        self._watched = watched
        self._recent: dict[str, Recent] = {}
        self.late_s: dict[str, float] = {}
        """Server to the 99th percentile of its lateness, over its last few readings."""

    async def run(self) -> NoReturn:
        """Read in turn until cancelled."""
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as http:
            while True:
                servers = [(server, port) for _, server, port in self._servers()]
                self._forget({server for server, _ in servers})
                for server, port in servers:
                    await self._read(http, server, port)
                    await asyncio.sleep(1 / _PER_S)
                await asyncio.sleep(
                    max(0.0, (_ROUND_S if self._watched() else _UNWATCHED_ROUND_S) - len(servers) / _PER_S)
                )

    async def _read(self, http: httpx.AsyncClient, server: str, port: int) -> None:
        try:
            reply = await http.get(f"http://127.0.0.1:{port}/metrics")
        except httpx.HTTPError:
            return  # it is starting, or going
        recent = self._recent.setdefault(server, Recent(_LOOKS))
        late_s = quantile(0.99, recent.note(buckets_in(reply.text.splitlines(), _METRIC)))
        if late_s is None:
            self.late_s.pop(server, None)
        else:
            self.late_s[server] = round(late_s, 5)

    def _forget(self, present: set[str]) -> None:
        for server in self._recent.keys() - present:
            del self._recent[server]
            self.late_s.pop(server, None)
