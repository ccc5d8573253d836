"""
Decides from a journal of what players saw whether the system kept its promises; knows nothing of the product but its ids.

A journal is JSON lines, each with `t` (monotonic s) and `what`:

| what | fields | when |
|---|---|---|
| `asked` | player, key | before a ticket is asked for |
| `ticket` | player, key, ticket | it was acknowledged |
| `state` | player, ticket, state, reason | a state that its events told |
| `gone` | player, ticket | the matchmaker does not know an acknowledged ticket |
| `assigned` | player, ticket, session, epoch, server, seat | it has a match |
| `dial` | player, session, epoch, server, token | a connection is made; `token` stands for the seat token |
| `seated` | player, session, epoch, server, seat, token | the server's Welcome, with what the server says of session, epoch and seat |
| `snapshot` | player, session, epoch, server, tick | of any connection, at most ten a second of each, and its last |
| `over` | player, session, code, reason, results | the match is over for this player |
| `left` | player, session or ticket | it went by itself |
| `stopped` | | the players' process has come to its end |

`python -m bench.chaos.checker JOURNAL [--rooms N]` prints what it finds; exit code 1 where a promise was broken.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Event = dict[str, Any]

FENCE_S = 8.0
"""How long an old server may be seen beside the new one: it shows a match that was handed over on for 5 s, and hears of a move within 1 s."""
OVERLAP_S = 0.5
"""How late a last snapshot may be read by players who are busy."""
NORMAL = 0
"""The close code of a match that ended."""
FULL = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A broken promise."""

    kind: str
    about: str
    """The ticket, session or player."""
    at_s: float
    detail: str

    def __str__(self) -> str:
        return f"{self.at_s:.3f} {self.kind}: {self.about}: {self.detail}"


KINDS = ("ticket lost", "double allocation", "seat twice", "forked session", "match not finished", "journal cut short")


def check(events: Iterable[Event], *, rooms: int, fence_s: float = FENCE_S) -> list[Violation]:
    """
    Judge a journal.

    Args:
        events: in any order.
        rooms: matches that one server may run at a time.
        fence_s: how long an older epoch may be seen after a newer one.
    Returns: what was broken, oldest first.
    """
    ordered = sorted(events, key=lambda event: float(event["t"]))
    found = [
        *_tickets(ordered),
        *_allocations(ordered, rooms),
        *_seats(ordered),
        *_forks(ordered, fence_s),
        *_endings(ordered),
    ]
    if not ordered or ordered[-1]["what"] != "stopped":
        at_s = ordered[-1]["t"] if ordered else 0.0
        found.append(
            Violation(kind="journal cut short", about="players", at_s=at_s, detail="has no `stopped` at its end")
        )
    return sorted(found, key=lambda violation: violation.at_s)


def _of(events: list[Event], *what: str) -> Iterator[Event]:
    return (event for event in events if event["what"] in what)


def _tickets(events: list[Event]) -> Iterator[Violation]:
    """Each acknowledged ticket gets a match, unless its player took it back; none is forgotten."""
    open_tickets: dict[str, Event] = {}
    left: dict[str, Event] = {}
    for event in _of(events, "ticket", "assigned", "state", "gone", "left"):
        ticket = event.get("ticket", "")
        if event["what"] == "ticket":
            open_tickets[ticket] = event
        elif event["what"] == "gone":
            if open_tickets.pop(ticket, None) or left.pop(ticket, None):
                yield _violation("ticket lost", ticket, event, "acknowledged, and unknown later")
        elif event["what"] == "state":
            if event["state"] in ("failed", "timed_out", "cancelled") and open_tickets.pop(ticket, None):
                yield _violation("ticket lost", ticket, event, f"{event['state']}: {event.get('reason', '')}")
        elif (taken := open_tickets.pop(ticket, None)) and event["what"] == "left":
            left[ticket] = taken
    for ticket, event in open_tickets.items():
        yield _violation("ticket lost", ticket, event, "never got a match")


def _allocations(events: list[Event], rooms: int) -> Iterator[Violation]:
    """A ticket has one match; no server is given more matches than it has rooms."""
    session_of: dict[tuple[str, str], str] = {}
    for event in _of(events, "assigned"):
        first = session_of.setdefault((event["ticket"], event["player"]), event["session"])
        if first != event["session"]:
            yield _violation("double allocation", event["ticket"], event, f"{first} and {event['session']}")
    for event in _of(events, "over"):
        if event["code"] == FULL:
            yield _violation("double allocation", event["session"], event, f"no room at its server: {event['reason']}")
    spans: dict[tuple[str, str], list[float]] = {}
    for event in _of(events, "snapshot"):
        spans.setdefault((event["server"], event["session"]), [event["t"], event["t"]])[1] = event["t"]
    by_server: dict[str, list[tuple[float, int, str]]] = defaultdict(list)
    for (server, session), (first_s, last_s) in spans.items():
        if last_s - OVERLAP_S > first_s:
            by_server[server] += [(first_s, 1, session), (last_s - OVERLAP_S, -1, session)]
    for server, changes in by_server.items():
        running: set[str] = set()
        for at_s, change, session in sorted(changes):
            running = running | {session} if change > 0 else running - {session}
            if len(running) > rooms:
                detail = f"{len(running)} matches in {rooms} rooms: {', '.join(sorted(running))}"
                yield Violation(kind="double allocation", about=server, at_s=at_s, detail=detail)
                break


def _seats(events: list[Event]) -> Iterator[Violation]:
    """A seat is one player's, a player has one seat of a match, and a seat token lets in once."""
    holder: dict[tuple[str, int], str] = {}
    seat_of: dict[tuple[str, str], int] = {}
    used: set[str] = set()
    for event in _of(events, "seated"):
        session, seat, player = event["session"], event["seat"], event["player"]
        first = holder.setdefault((session, seat), player)
        if first != player:
            yield _violation("seat twice", session, event, f"seat {seat} is {first}'s and {player}'s")
        before = seat_of.setdefault((session, player), seat)
        if before != seat:
            yield _violation("seat twice", session, event, f"{player} has seats {before} and {seat}")
        if event["token"] in used:
            yield _violation("seat twice", session, event, f"one seat token let {player} in twice")
        used.add(event["token"])


def _forks(events: list[Event], fence_s: float) -> Iterator[Violation]:
    """At one epoch a match has one server; an older epoch is not seen for long once a newer one is."""
    server_of: dict[tuple[str, int], str] = {}
    begun_s: dict[str, dict[int, float]] = defaultdict(dict)
    told: set[tuple[str, int]] = set()
    for event in _of(events, "snapshot"):
        session, epoch = event["session"], event["epoch"]
        first = server_of.setdefault((session, epoch), event["server"])
        if first != event["server"] and (session, epoch) not in told:
            told.add((session, epoch))
            yield _violation("forked session", session, event, f"{first} and {event['server']} at epoch {epoch}")
        begun_s[session].setdefault(epoch, event["t"])
        newer_s = min((t for other, t in begun_s[session].items() if other > epoch), default=None)
        if newer_s is not None and event["t"] - newer_s > fence_s and (session, -1) not in told:
            told.add((session, -1))
            late_s = event["t"] - newer_s
            yield _violation("forked session", session, event, f"epoch {epoch} seen {late_s:.1f} s after a newer one")


def _endings(events: list[Event]) -> Iterator[Violation]:
    """Whoever was given a match hears of its end from the game, or leaves."""
    waiting: dict[tuple[str, str], Event] = {}
    for event in _of(events, "assigned", "seated", "over", "left"):
        key = (event["player"], event.get("session", ""))
        if event["what"] in ("assigned", "seated"):
            waiting[key] = event
        elif waiting.pop(key, None) and event["what"] == "over" and event["code"] != NORMAL:
            yield _violation("match not finished", key[1], event, f"{key[0]}: {event['code']} {event['reason']}")
    for (player, session), event in waiting.items():
        yield _violation("match not finished", session, event, f"{player} never heard of its end")


def _violation(kind: str, about: str, event: Event, detail: str) -> Violation:
    return Violation(kind=kind, about=about, at_s=float(event["t"]), detail=detail)


def rollbacks(events: Iterable[Event]) -> list[int]:
    """How many ticks each player's match went back at each change of epoch: what was played and not kept."""
    last: dict[tuple[str, str], tuple[int, int]] = {}
    lost = []
    for event in sorted(_of(list(events), "snapshot"), key=lambda event: float(event["t"])):
        key = (event["player"], event["session"])
        epoch, tick = last.get(key, (event["epoch"], 0))
        if event["epoch"] > epoch:
            lost.append(max(0, tick - event["tick"]))
        if event["epoch"] >= epoch:
            last[key] = (event["epoch"], event["tick"])
    return lost


def read(journal: Path) -> list[Event]:
    """The events of a journal; a last line that was cut short is left out."""
    with journal.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.endswith("\n")]


def main() -> None:
    """Judge a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("journal", type=Path)
    parser.add_argument("--rooms", type=int, default=2)
    options = parser.parse_args()
    violations = check(read(options.journal), rooms=options.rooms)
    for violation in violations:
        print(violation)
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main()
