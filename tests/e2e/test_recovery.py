"""Matches that survive their servers, as players see it: kills, drains and standstills under bots, on a whole `warmfleet up`."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from up import EXAMPLE, Up

from fleets.home import Home
from gameserver.client.matchmaking import development_player
from gameserver.client.play import Journey, Player

Start = Callable[..., Up]
YAML = EXAMPLE.read_text().replace('duration_s: "120"', 'duration_s: "12"')
MIGRATE = YAML.replace("onDrain: finish", "onDrain: migrate")
assert YAML != EXAMPLE.read_text() != MIGRATE != YAML


class Fleet:
    """What the operator sees of the only fleet."""

    def __init__(self, up: Up) -> None:
        self.up = up
        self._headers = {
            "Authorization": f"Bearer {Home(up.folder / '.warmfleet').running().operator_token}",
        }

    def status(self) -> dict[str, Any]:
        reply = httpx.get(f"{self.up.url}/v1/fleets", headers=self._headers, timeout=10, trust_env=False)
        fleet: dict[str, Any] = reply.json()["fleets"][0]
        return fleet

    def drain(self, server: str) -> int:
        url = f"{self.up.url}/v1/servers/{server}/drain"
        return httpx.post(url, headers=self._headers, timeout=10, trust_env=False).status_code

    def until(self, check: Callable[[dict[str, Any]], Any]) -> Any:
        return self.up.until(lambda: check(self.status()), 60)

    def busy(self) -> tuple[str, int, Path]:
        """Name, process and log of the one server that has a match, by what its log says."""

        def found(status: dict[str, Any]) -> Any:
            for server in status["servers"]:
                log = Path(server["log"])
                said = log.read_text() if server["state"] == "Allocated" else ""
                if said.count('"room_opened"') > said.count('"room_closed"'):
                    return server["name"], server["pid"], log
            return None

        name, pid, log = self.until(found)
        return name, pid, log


@contextmanager
def one_match(fleet: Fleet) -> Iterator[list[Journey]]:
    """Two bots play one match to its end, in a thread; what they saw is in the list once they have."""
    journeys: list[Journey] = []

    async def play() -> None:
        players = [await development_player(fleet.up.url, name) for name in ("ann", "bob")]
        bots = [
            Player(fleet.up.url, "duel", player, token, policy=None, attributes={"rating": 1500})
            for player, token in players
        ]
        journeys.extend(await asyncio.gather(*(bot.play() for bot in bots)))

    playing = threading.Thread(target=lambda: asyncio.run(play()))
    playing.start()
    try:
        fleet.busy()
        time.sleep(1.5)  # past the first checkpoint, most often
        yield journeys
    finally:
        playing.join(180)
    assert len(journeys) == 2
    for journey in journeys:
        assert journey.ended == "over", journey
        assert journey.results is not None
        assert set(journey.results["scores"]) == {other.player for other in journeys}


def test_a_drained_server_hands_its_match_over_live(start: Start) -> None:
    """Players move without losing their connection first and go on where they were; the server ends once it is empty."""
    fleet = Fleet(start(MIGRATE).until_ready())
    with one_match(fleet) as journeys:
        name, _, _ = fleet.busy()
        assert fleet.drain(name) == 202
        fleet.until(lambda status: name not in {server["name"] for server in status["servers"]})
        other, _, _ = fleet.busy()
    for journey in journeys:
        assert (journey.servers, journey.disconnects, journey.moves) == ([name, other], 0, 1)
    assert fleet.drain("nope") == 404
    assert "no server 'nope'" in fleet.up.cli("drain", "nope").stderr
    assert httpx.post(f"{fleet.up.url}/v1/servers/{other}/drain", trust_env=False).status_code == 401


def test_a_server_that_finishes_is_left_in_peace(start: Start) -> None:
    """With `onDrain: finish` a drained server's match is played to its end there, and takes no other."""
    fleet = Fleet(start(YAML).until_ready())
    with one_match(fleet) as journeys:
        name, _, log = fleet.busy()
        assert fleet.drain(name) == 202
        fleet.until(lambda status: name not in {server["name"] for server in status["servers"]})
    assert [(journey.servers, journey.disconnects) for journey in journeys] == [([name], 0)] * 2
    assert log.read_text().count('"room_opened"') == 1


def test_a_server_that_stood_still_is_fenced(start: Start) -> None:
    """Stopped for longer than it may be silent, its match goes on elsewhere; woken up, it shows nobody anything of it."""
    fleet = Fleet(start(MIGRATE).until_ready())
    with one_match(fleet) as journeys:
        name, pid, log = fleet.busy()
        os.kill(pid, signal.SIGSTOP)
        fleet.until(lambda status: status["moved"])
        os.kill(pid, signal.SIGCONT)
        fleet.up.until(lambda: '"room_closed"' in log.read_text(), 60)
        other, _, _ = fleet.busy()
    for journey in journeys:
        assert journey.servers == [name, other]
        assert journey.ticks_lost <= 40  # no more than a checkpoint's interval: nothing of the old room came later
