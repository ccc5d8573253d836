"""The matchmaker as processes: API, director, and players that load them, around one Valkey and a filled shelf of real rooms."""

import asyncio
import multiprocessing
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from allocator.model import FleetPolicy, GameServer, ServerState
from allocator.service import Allocator
from allocator.shelf import Shelf
from fleets.garbage import settle
from gameserver.seats import SeatIssuer
from gameserver.sessions.client import StoreClient, connect
from gameserver.sessions.model import ServerName
from matchmaker.api.app import create_app
from matchmaker.api.auth import PlayerTokens
from matchmaker.director import Director
from matchmaker.model import DifferenceRule, Limit, QueueConfig, QueueName, Step, Team
from matchmaker.replicas import Replicas
from matchmaker.store import TicketStore

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from fakes import FakeBackend
from matchmaking import FLEET

SECRET = bytes(32)
_RATING = DifferenceRule(attribute="rating", limit=Limit(value=100, expand=(Step(after_s=30, limit=500),)))
_ROOMS = 500
"""Of each of the shelf's servers."""


def queue(team: int) -> QueueConfig:
    """Two teams of so many players, named after them."""
    teams = (Team(name="red", players=team), Team(name="blue", players=team))
    return QueueConfig(name=QueueName(f"of{team}"), fleets=(FLEET,), teams=teams, rules=(_RATING,))


QUEUES = (queue(1), queue(5))


def allocator_of(client: StoreClient) -> Allocator:
    """The real allocator; its backend is never asked, since every room is on the shelf."""
    return Allocator(Shelf(client), client, [FleetPolicy(name=FLEET)], FakeBackend(FLEET))


async def fill_shelf(url: str, rooms: int) -> None:
    """Register servers with so many rooms in all."""
    client = connect(url)
    for number in range(-(-rooms // _ROOMS)):
        server = GameServer(
            name=ServerName(f"{FLEET}-{number}"),
            fleet=FLEET,
            state=ServerState.ALLOCATED,
            host="127.0.0.1",
            ports={"websocket": 7000},
        )
        await Shelf(client).register(server, rooms=_ROOMS)
    await client.aclose()


async def _serve_api(url: str, ready: Connection) -> None:
    client = connect(url)
    app, beside = create_app(
        client=client,
        queues=QUEUES,
        allocator=allocator_of(client),
        seats=SeatIssuer(bytes(32)),
        players=PlayerTokens(SECRET),
        requests_per_s=1e6,
    )
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(beside.run())
        tasks.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 (uvicorn tells it no other way)
            await asyncio.sleep(0.01)
        settle()
        ready.send(server.servers[0].sockets[0].getsockname()[1])


async def serve_director(url: str, ready: Connection) -> None:
    """Direct all queues; says whether it leads the first one, whenever that changes."""
    client = connect(url)
    store, allocator = TicketStore(client), allocator_of(client)
    replicas = Replicas(store)
    directors = [Director(queue, store, allocator, supply=allocator, replicas=replicas) for queue in QUEUES]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(replicas.run())
        for director in directors:
            tasks.create_task(director.run())
        settle()
        leads = False
        while True:
            if directors[0].leading != leads:
                leads = not leads
                ready.send(leads)
            await asyncio.sleep(0.01)


def _run(serve: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
    """Each calls `settle` once it is wired, as the served parts do."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(*args))


@contextmanager
def process(serve: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> Iterator[tuple[int, Connection]]:
    """`await serve(*args, connection)` in a process of its own; gives its id and the other end of the connection."""
    processes = multiprocessing.get_context("spawn")
    mine, theirs = processes.Pipe()
    child = processes.Process(target=_run, args=(serve, *args, theirs), daemon=True)
    child.start()
    try:
        assert child.pid is not None
        yield child.pid, mine
    finally:
        child.kill()
        child.join()


def heard(connection: Connection, patience_s: float = 30.0) -> Any:
    """What a process says next. Raises RuntimeError."""
    if not connection.poll(patience_s):
        raise RuntimeError("a process of the benchmark does not answer")
    return connection.recv()


@contextmanager
def serving(valkey_url: str) -> Iterator[tuple[int, dict[str, int]]]:
    """API and director; gives the API's port, and the process ids by name."""
    with process(_serve_api, valkey_url) as (api, from_api), process(serve_director, valkey_url) as (lead, from_lead):
        port = heard(from_api)
        heard(from_lead)
        yield port, {"API": api, "director": lead}


def cpu_s(pid: int) -> float:
    """What a process has used, in user and kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
