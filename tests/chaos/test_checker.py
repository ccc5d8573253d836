"""The checker of chaos runs, on forged journals: each promise broken is found, and nothing else is."""

from collections.abc import Callable
from typing import Any

import pytest

from bench.chaos.checker import KINDS, Event, check, rollbacks

Forgery = Callable[[list[Event]], None]


def honest() -> list[Event]:
    """Two players' match on server a, which moves to b when a dies, and ends there."""
    events: list[Event] = []

    def add(t: float, what: str, **fields: Any) -> None:
        events.append({"t": t, "what": what, **fields})

    for player, seat in (("ann", 0), ("bob", 1)):
        ticket, match = f"duel.{player}", {"session": "arena.m1", "epoch": 1, "server": "a"}
        add(0.0, "asked", player=player, key=player)
        add(0.1, "ticket", player=player, key=player, ticket=ticket)
        add(0.2, "state", player=player, ticket=ticket, state="searching", reason="")
        add(0.3, "assigned", player=player, ticket=ticket, **match, seat=seat)
        add(0.4, "seated", player=player, **match, seat=seat, token=f"{player}-1")
        for tick in range(10):
            add(0.5 + tick / 10, "snapshot", player=player, **match, tick=1 + tick)
        match |= {"epoch": 2, "server": "b"}
        add(3.0, "seated", player=player, **match, seat=seat, token=f"{player}-2")
        for tick in range(10):
            add(3.1 + tick / 10, "snapshot", player=player, **match, tick=8 + tick)
        add(5.0, "over", player=player, session="arena.m1", code=0, reason="", results=True)
    add(6.0, "stopped")
    return events


def drop(**fields: Any) -> Forgery:
    def forge(events: list[Event]) -> None:
        events[:] = [e for e in events if any(e.get(key) != value for key, value in fields.items())]

    return forge


def add(t: float, what: str, **fields: Any) -> Forgery:
    return lambda events: events.append({"t": t, "what": what, **fields})


def changed(what: str, player: str, **values: Any) -> Forgery:
    def forge(events: list[Event]) -> None:
        next(e for e in events if e["what"] == what and e["player"] == player).update(values)

    return forge


def crowd(events: list[Event]) -> None:
    """Two more matches on server b, while the first is there: three in two rooms."""
    for session in ("arena.m2", "arena.m3"):
        events.extend(
            {"t": t, "what": "snapshot", "player": session, "session": session, "epoch": 1, "server": "b", "tick": 1}
            for t in (3.2, 3.9)
        )


ANN = {"player": "ann", "session": "arena.m1"}
FORGED = {
    "a ticket that is forgotten": ("ticket lost", add(1, "ticket", player="cho", key="k", ticket="duel.cho")),
    "a ticket that is unknown later": (
        "ticket lost",
        lambda events: [
            add(0.1, "ticket", player="cho", key="k", ticket="duel.cho")(events),
            add(0.2, "gone", player="cho", ticket="duel.cho")(events),
        ],
    ),
    "a ticket that failed": (
        "ticket lost",
        lambda events: [
            add(0.1, "ticket", player="cho", key="k", ticket="duel.cho")(events),
            add(9, "state", player="cho", ticket="duel.cho", state="failed", reason="no room")(events),
            add(9.1, "stopped")(events),
        ],
    ),
    "a ticket with two matches": (
        "double allocation",
        add(0.35, "assigned", player="ann", ticket="duel.ann", session="arena.m9", epoch=1, server="a", seat=0),
    ),
    "more matches than rooms": ("double allocation", crowd),
    "a server without the room": (
        "double allocation",
        changed("over", "ann", code=11, reason="all 2 rooms are taken"),
    ),
    "two players in one seat": ("seat twice", changed("seated", "bob", seat=0)),
    "one token used twice": (
        "seat twice",
        add(3.5, "seated", **ANN, epoch=2, server="b", seat=0, token="ann-1"),
    ),
    "a player in two seats": ("seat twice", add(3.5, "seated", **ANN, epoch=2, server="b", seat=7, token="ann-3")),
    "two servers at one epoch": ("forked session", add(4.0, "snapshot", **ANN, epoch=2, server="c", tick=20)),
    "an old server beyond the fence": (
        "forked session",
        lambda events: [
            add(12.0, "snapshot", **ANN, epoch=1, server="a", tick=99)(events),
            add(12.1, "stopped")(events),
        ],
    ),
    "an end that is never told": ("match not finished", drop(what="over", player="ann")),
    "a match that is not found again": (
        "match not finished",
        changed("over", "ann", code=10, reason="the match was not found again"),
    ),
    "a journal without its end": ("journal cut short", drop(what="stopped")),
}


def test_an_honest_journal_is_clean() -> None:
    """A match that moved and ended breaks nothing; what was played and not kept is counted."""
    assert check(honest(), rooms=2) == []
    assert rollbacks(honest()) == [2, 2]


def test_what_is_within_the_fence_is_no_fork() -> None:
    """The old server may be seen for a moment beside the new one."""
    events = honest()
    add(4.0, "snapshot", **ANN, epoch=1, server="a", tick=40)(events)
    assert check(events, rooms=2) == []


def test_who_leaves_loses_nothing() -> None:
    """A ticket that its player took back, and a match that it left, are no losses."""
    events = honest()
    add(0.1, "ticket", player="cho", key="k", ticket="duel.cho")(events)
    add(0.2, "left", player="cho", ticket="duel.cho")(events)
    add(0.3, "state", player="cho", ticket="duel.cho", state="cancelled", reason="")(events)
    assert check(events, rooms=2) == []


@pytest.mark.parametrize("name", FORGED)
def test_a_broken_promise_is_found(name: str) -> None:
    """Each kind of violation, by itself."""
    kind, forge = FORGED[name]
    events = honest()
    forge(events)
    found = check(events, rooms=2)
    # Who was given a second match, or one without a room, has not heard of its end either.
    assert {violation.kind for violation in found} - {"match not finished"} == {kind} - {"match not finished"}
    assert kind in {violation.kind for violation in found}, list(map(str, found))


def test_every_kind_is_forged() -> None:
    """No kind of violation goes untested."""
    assert {kind for kind, _ in FORGED.values()} == set(KINDS)
