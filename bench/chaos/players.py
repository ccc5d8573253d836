"""
The players of a chaos run, a process of its own: bots that know the public API alone and write down what they see (`checker.py` has the format).

`python -m bench.chaos.players --url URL… --queue Q… --players N --journal FILE`; players' tokens are signed with CHAOS_PLAYER_SECRET. On SIGTERM they
queue no more and
finish their matches, for as long as `--finish` says.
"""

import argparse
import asyncio
import hashlib
import json
import os
import random
import signal
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import jwt
import uvloop

from gameserver.client.link import Assignment, Dial, GameConnection, Link, Over, dialer
from gameserver.client.matchmaking import Matchmaking, MatchmakingFailed
from gameserver.client.play import fumble
from gameserver.client.session import ClientEvent, ClientSession, Seated, WorldSeen

INPUT_S = 0.1
SNAPSHOT_S = 0.1
"""Of one connection at most one snapshot in so long is written down."""
TICKET_PATIENCE_S = 150.0


class Journal:
    """An append-only file of what was seen."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, what: str, **fields: Any) -> None:
        """Note something now."""
        self._file.write(json.dumps({"t": time.monotonic(), "what": what, **fields}, separators=(",", ":")) + "\n")


class _Watched:
    """A game connection that notes all that comes over it, also what `Link` passes over."""

    def __init__(
        self, journal: Journal, player: str, there: Assignment, inner: AbstractAsyncContextManager[GameConnection]
    ):
        self._journal, self._inner = journal, inner
        self._seen = {"player": player, "session": there["session"], "epoch": there["epoch"], "server": there["server"]}
        self._token = hashlib.sha256(there["token"].encode()).hexdigest()[:24]
        journal.write("dial", **self._seen, token=self._token)

    async def __aenter__(self) -> "_Watched":
        self._client = await self._inner.__aenter__()
        self.session: ClientSession = self._client.session
        self.send_input, self.leave = self._client.send_input, self._client.leave
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._inner.__aexit__(kind, error, trace)

    async def events(self) -> AsyncIterator[ClientEvent]:
        noted_s, unnoted = 0.0, 0
        try:
            async for event in self._client.events():
                match event:
                    case Seated(welcome=welcome):
                        self._seen |= {"session": welcome.room["session"], "epoch": welcome.epoch}
                        self._journal.write("seated", **self._seen, seat=welcome.seat, token=self._token)
                    case WorldSeen(tick=tick):
                        now_s, unnoted = time.monotonic(), tick
                        if now_s - noted_s >= SNAPSHOT_S:
                            noted_s, unnoted = now_s, 0
                            self._journal.write("snapshot", **self._seen, tick=tick)
                yield event
        finally:
            if unnoted:
                self._journal.write("snapshot", **self._seen, tick=unnoted)


class Player:
    """Plays match after match."""

    def __init__(self, name: str, urls: list[str], queue: str, secret: str, transport: str, journal: Journal):
        self._name, self._urls, self._queue, self._journal = name, urls, queue, journal
        self._token = jwt.encode({"sub": name, "exp": int(time.time()) + 86400}, secret, algorithm="HS256")
        self._dial = dialer(transport)
        self._rng = random.Random(name)

    async def play(self, stop: asyncio.Event) -> None:
        """Until `stop`, then the match that is on."""
        while not stop.is_set():
            async with Matchmaking(self._rng.choice(self._urls), self._token) as matchmaking:
                ticket = await self._ticket(matchmaking, stop)
                if ticket is None:
                    continue
                there = await self._assigned(matchmaking, ticket, stop)
                if there is not None:
                    await self._match(matchmaking, there)

    async def _ticket(self, matchmaking: Matchmaking, stop: asyncio.Event) -> str | None:
        key = uuid.uuid4().hex
        self._journal.write("asked", player=self._name, key=key)
        while not stop.is_set():
            try:
                made = await matchmaking.create_ticket(self._queue, [{"id": self._name}], idempotency_key=key)
            except MatchmakingFailed as error:
                self._journal.write("refused", player=self._name, key=key, status=error.status, reason=str(error))
                await asyncio.sleep(max(0.3, error.retry_after_s))
                continue
            self._journal.write("ticket", player=self._name, key=key, ticket=made["id"])
            return str(made["id"])
        return None

    async def _assigned(self, matchmaking: Matchmaking, ticket: str, stop: asyncio.Event) -> Assignment | None:
        leaving = asyncio.create_task(self._leave_late(matchmaking, ticket, stop), name=f"leave-{ticket}")
        try:
            async with asyncio.timeout(TICKET_PATIENCE_S):
                while True:
                    try:
                        async for state in matchmaking.ticket_states(ticket):
                            if (there := self._noted(ticket, state)) is not None:
                                return there
                            if state["state"] in ("assigned", "cancelled", "timed_out", "failed"):
                                return None
                    except MatchmakingFailed as error:
                        if error.status == 404:
                            self._journal.write("gone", player=self._name, ticket=ticket, reason=str(error))
                            return None
                    await asyncio.sleep(0.2)
        except TimeoutError:
            return None
        finally:
            leaving.cancel()

    def _noted(self, ticket: str, state: dict[str, Any]) -> Assignment | None:
        about = {"player": self._name, "ticket": ticket}
        if "assignment" not in state:
            reason = state.get("reason", "")
            self._journal.write("state", **about, state=state["state"], reason=reason)
            if state["state"] == "assigned":  # its match was over before anybody told
                self._journal.write("left", **about)
            return None
        there: Assignment = state["assignment"]
        where = {key: there[key] for key in ("session", "epoch", "server")}
        self._journal.write("assigned", **about, **where, seat=there["seat"]["index"])
        return there

    async def _leave_late(self, matchmaking: Matchmaking, ticket: str, stop: asyncio.Event) -> None:
        """At the end of the run there may be nobody left to be matched with."""
        await stop.wait()
        while True:
            await asyncio.sleep(6.0)
            self._journal.write("left", player=self._name, ticket=ticket)  # before its end is told
            try:
                await matchmaking._call("DELETE", f"/v1/tickets/{ticket}")  # not `cancel_ticket`, which hides a 404
            except MatchmakingFailed as error:
                if error.status == 404:
                    self._journal.write("gone", player=self._name, ticket=ticket, reason=str(error))
                self._journal.write("refused", player=self._name, ticket=ticket, status=error.status, reason=str(error))

    async def _match(self, matchmaking: Matchmaking, there: Assignment) -> None:
        async def ask(session: str) -> Assignment:
            return await matchmaking.seat(session, patience_s=0.0)

        dial: Dial = lambda where: _Watched(self._journal, self._name, where, self._dial(where))  # noqa: E731
        async with Link(there, ask, dial) as link:
            acting = asyncio.create_task(self._act(link), name=f"act-{self._name}")
            try:
                async for event in link.events():
                    if isinstance(event, Over):
                        about = {"player": self._name, "session": there["session"]}
                        results = event.results is not None
                        self._journal.write("over", **about, code=int(event.code), reason=event.reason, results=results)
            finally:
                acting.cancel()

    async def _act(self, link: Link) -> None:
        while True:
            await asyncio.sleep(INPUT_S)
            if (connection := link.connection) is not None and connection.session.welcome is not None:
                await link.send_input(**fumble(connection.session.inputs, self._rng))


async def _main(options: argparse.Namespace, journal: Journal) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    secret = os.environ["CHAOS_PLAYER_SECRET"]
    players = []
    for number in range(options.players):
        transport = "udp" if number % 4 == 3 and options.udp else "websocket"
        queue = options.queue[-1] if number % 3 == 0 else options.queue[0]
        player = Player(f"p{number}", options.url, queue, secret, transport, journal)
        players.append(asyncio.create_task(player.play(stop), name=f"p{number}"))
    stopping = asyncio.create_task(stop.wait(), name="stop")
    done, _ = await asyncio.wait([stopping, *players], return_when=asyncio.FIRST_COMPLETED)
    for task in done - {stopping}:
        task.result()  # a player that ends by itself is a mistake of ours
    await asyncio.wait(players, timeout=options.finish)
    journal.write("stopped")
    failed = [task for task in players if task.done() and not task.cancelled() and task.exception()]
    for task in failed:
        task.result()


def main() -> None:
    """Play."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", action="append", required=True)
    parser.add_argument("--queue", action="append", required=True, help="a third of the players is in the second")
    parser.add_argument("--players", type=int, default=12)
    parser.add_argument("--udp", action="store_true", help="every fourth by UDP")
    parser.add_argument("--finish", type=float, default=60.0)
    parser.add_argument("--journal", type=Path, required=True)
    options = parser.parse_args()
    with (
        options.journal.open("a", encoding="utf-8", buffering=1) as file,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_main(options, Journal(file)))


if __name__ == "__main__":
    main()
