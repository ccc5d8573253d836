"""`warmfleet record`: a queue's tickets, from the running system into a trace that names nobody."""

import asyncio
import contextlib
import json
import secrets
import signal
from pathlib import Path
from typing import Annotated

import typer

from fleets.cli.options import DataDir, fail
from fleets.home import Home, NotRunning
from gameserver.sessions.client import connect
from gameserver.sessions.port import StoreUnavailable
from matchmaker.model import QueueName
from matchmaker.recording.recorder import Recorder
from matchmaker.recording.trace import Disguise, TraceError, TraceWriter
from matchmaker.store import TicketStore


def record(
    queue: Annotated[str, typer.Option(help="The queue's name.")],
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    duration: Annotated[float, typer.Option(min=0.1, help="Seconds; by default until Ctrl-C.")] = float("inf"),
    valkey_url: Annotated[
        str,
        typer.Option(
            envvar="WARMFLEET_VALKEY_URL", help="By default that of the `warmfleet up` on the data directory."
        ),
    ] = "",
    data_dir: DataDir = Path(".warmfleet"),
    hash_attribute: Annotated[
        list[str] | None, typer.Option(help="An attribute whose words may name somebody: they are hashed, too.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Record a queue's tickets: arrivals, players' attributes and round trips, cancellations and waits; ids are hashed with a salt that is not kept."""
    try:
        url = valkey_url or Home(data_dir).running().valkey_url
        count, gaps = asyncio.run(_record(url, QueueName(queue), out, duration, hash_attribute or []))
    except (NotRunning, TraceError, OSError) as error:
        fail(str(error))
    except StoreUnavailable as error:
        fail(f"{error}; give --valkey-url, or the --data-dir of a running `warmfleet up`")
    if json_output:
        print(json.dumps({"queue": queue, "file": str(out), "tickets": count, "gaps": gaps}))
    else:
        print(f"{count} tickets of {queue} are in {out}" + (f"; tickets were missed {gaps} times" if gaps else ""))


async def _record(url: str, queue: QueueName, out: Path, duration_s: float, hashed: list[str]) -> tuple[int, int]:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        try:
            client = connect(url)
        except ValueError as error:
            fail(f"--valkey-url: {error}", code=2)
        stack.push_async_callback(client.aclose)
        store = TicketStore(client)
        now_s = await store.now_s(queue)
        writer = stack.enter_context(TraceWriter(out, queue, begun_at_s=now_s))
        recorder = Recorder(store, queue, writer, Disguise(secrets.token_bytes(32), hashed), begun_at_s=now_s)
        if duration_s < float("inf"):
            loop.call_later(duration_s, stop.set)
        await recorder.run(stop)
        return recorder.count, recorder.gaps
