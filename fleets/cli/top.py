"""`warmfleet top`: what the console shows, in a terminal."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fleets.cli.options import DataDir, TokenFile, Url, console_of, fail

_SPARKS = "▁▂▃▄▅▆▇█"
_SPARK_WIDTH = 40
_EVENTS = 6
_COLOURS = {"Ready": "green", "Allocated": "green", "Unhealthy": "red", "Error": "red", "Shutdown": "yellow"}


def top(
    data_dir: DataDir = Path(".warmfleet"),
    url: Url = None,
    token_file: TokenFile = None,
    once: Annotated[
        bool, typer.Option("--once", help="Print one picture and end; so it is without a terminal.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the state once, as JSON.")] = False,
) -> None:
    """Show fleets, servers, queues and what happens, once a second, until Ctrl-C: of the running `warmfleet up`, or of a cluster by its console."""
    console = Console()
    with console_of(url, token_file, data_dir, act=False) as http:
        try:
            with http.stream("GET", "/v1/console/stream") as reply:
                if reply.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
                    fail(f"{http.base_url} does not know this token")
                reply.raise_for_status()
                views = _views(reply.iter_lines())
                if json_output:
                    print(json.dumps(next(views)))
                elif once or not console.is_terminal:
                    console.print(picture(next(views), time.time(), rows=1000))
                else:
                    _follow(console, views)
        except (httpx.HTTPError, StopIteration) as error:
            fail(f"{http.base_url} does not answer: {error}")
        except KeyboardInterrupt:
            pass


def _follow(console: Console, views: Iterator[dict[str, Any]]) -> None:
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for view in views:
            live.update(picture(view, time.time(), rows=max(3, console.height - 24)), refresh=True)


def _views(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The state, events and points after each event of the stream."""
    view: dict[str, Any] = {}
    event = ""
    for line in lines:
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif line.startswith("data: ") and event in ("state", "delta"):
            told = json.loads(line.removeprefix("data: "))
            if event == "state":
                view = told
            else:
                apply(view["state"], told["changed"])
                view["events"] = [*view["events"], *told["events"]][-200:]
                view["points"] = [*view["points"], *([told["point"]] if told["point"] else [])][-600:]
            if view["points"]:
                yield view


def apply(state: dict[str, Any], changed: Mapping[str, Any]) -> None:
    """Change a state by what `fleets.console.state.difference` says."""
    for section, part in changed.items():
        rows = state.setdefault(section, {})
        for key, fields in part.get("set", {}).items():
            rows[key] = {**rows.get(key, {}), **fields}
        for key in part.get("gone", ()):
            rows.pop(key, None)


def picture(view: Mapping[str, Any], now_s: float, *, rows: int) -> Group:
    """One screenful; `rows`: of servers at most."""
    state = view["state"]
    return Group(
        _charts(view["series"], view["points"]),
        _fleets(state["fleets"]),
        _queues(state["queues"], now_s),
        _servers(state["servers"], now_s, rows),
        _events(view["events"]),
    )


def spark(values: list[float | None]) -> str:
    """A line of blocks; nothing where nothing is known."""
    most = max((value for value in values if value), default=0) or 1
    return "".join(" " if v is None else _SPARKS[min(7, int(8 * v / most))] for v in values[-_SPARK_WIDTH:])


def _charts(series: list[str], points: list[list[float | None]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for index, name in enumerate(series, start=1):
        values = [point[index] for point in points]
        newest = values[-1] if values else None
        table.add_row(f"[dim]{name}[/]", "–" if newest is None else f"[bold]{newest:g}[/]", spark(values))
    return table


def _fleets(fleets: Mapping[str, Any]) -> Table:
    table = _table("fleet", "Ready", "Allocated", "shelf", "waiting", "sessions", "recovered", "autoscaler")
    for name, row in sorted(fleets.items()):
        decision = row["decision"]
        told = f"{decision['replicas']} servers: {decision['reasons'][-1]}" if decision else "a fixed buffer"
        told = row["reason"] or (f"old: {told}" if decision and decision["old"] else told)
        numbers = (row["ready"], row["allocated"], f"{row['free']} of {row['wanted']}", row["waiting"])
        table.add_row(
            name, *map(str, numbers), str(row["sessions"]), str(row["moved"]), Text(told, overflow="ellipsis")
        )
    return table


def _queues(queues: Mapping[str, Any], now_s: float) -> Table:
    table = _table("queue", "state", "tickets", "oldest", "wait 95 %", "a minute", "why the oldest waits")
    for name, row in sorted(queues.items()):
        oldest = "–" if row["oldest"] is None else f"{max(0.0, now_s - row['oldest']):.0f} s"
        wait = "–" if row["p95"] is None else f"{row['p95']:.2f} s"
        told = Text(row["why"], overflow="ellipsis")
        table.add_row(name, row["closed"] or "open", str(row["depth"]), oldest, wait, str(row["perMinute"]), told)
    return table


def _servers(servers: Mapping[str, Any], now_s: float, rows: int) -> Table:
    table = _table("server", "state", "for", "rooms", "players", "ticks late", "note")
    shown = sorted(servers.items(), key=lambda item: (-(item[1]["players"] or 0), item[0]))
    for name, row in shown[:rows]:
        late = "–" if row["late"] is None else f"{row['late'] * 1000:.2f} ms"
        counts = ("–" if row[key] is None else str(row[key]) for key in ("rooms", "players"))
        state = Text(row["state"], style=_COLOURS.get(row["state"], ""))
        since = "–" if row["since"] is None else f"{max(0.0, now_s - row['since']):.0f} s"
        table.add_row(name, state, since, *counts, late, row["reason"])
    if len(shown) > rows:
        table.add_row(f"… {len(shown) - rows} more")
    return table


def _events(events: list[dict[str, Any]]) -> Table:
    table = _table("when", "what", "of", "")
    for event in reversed(events[-_EVENTS:]):
        when = time.strftime("%H:%M:%S", time.localtime(event["at"]))
        table.add_row(when, event["kind"], event["what"], Text(event["text"], overflow="ellipsis"))
    return table


def _table(*titles: str) -> Table:
    """The last column takes what is left of the line."""
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    for title in titles[:-1]:
        table.add_column(title, no_wrap=True)
    table.add_column(titles[-1], no_wrap=True, overflow="ellipsis", ratio=1)
    return table
