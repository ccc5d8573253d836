"""What the injector of faults reads from the players' journal."""

import json
from pathlib import Path
from typing import Any

from bench.chaos.observer import Observer


def write(journal: Path, *events: dict[str, Any], cut: int = 0) -> None:
    text = "".join(json.dumps(event) + "\n" for event in events)
    with journal.open("a") as file:
        file.write(text[: len(text) - cut])


def seen(t: float, server: str, player: str = "ann", session: str = "arena.m1") -> dict[str, Any]:
    return {"t": t, "what": "snapshot", "player": player, "session": session, "server": server}


def test_who_is_on_a_server_is_known(tmp_path: Path) -> None:
    """By the newest snapshots; a line that is not whole yet waits."""
    observer = Observer(tmp_path / "journal")
    observer.read()
    write(observer.journal, seen(1.0, "a"), seen(1.1, "b", "bob"))
    write(observer.journal, seen(1.2, "a", "cho"), cut=5)
    observer.read()
    assert observer.on(frozenset({"a"})) == ["ann"]
    write(observer.journal, seen(9.0, "b", "bob"))
    assert observer.on(frozenset({"a"})) == ["ann"]  # not read yet


def test_a_match_that_is_over_has_no_server(tmp_path: Path) -> None:
    """Though its last snapshot is noted after its end; the next match counts again."""
    observer = Observer(tmp_path / "journal")
    over = {"t": 2.0, "what": "over", "player": "ann", "session": "arena.m1", "code": 0, "reason": ""}
    write(observer.journal, seen(1.0, "a"), over, seen(2.1, "a"))
    observer.read()
    assert observer.on(frozenset({"a"})) == []
    write(observer.journal, seen(3.0, "a", session="arena.m2"))
    observer.read()
    assert observer.on(frozenset({"a"})) == ["ann"]


def test_the_newest_ticket_that_was_placed_is_known(tmp_path: Path) -> None:
    """By when it was asked for, not by when it got its match."""
    observer = Observer(tmp_path / "journal")
    for at_s, what, player in ((1, "asked", "ann"), (2, "asked", "bob"), (3, "assigned", "ann")):
        write(observer.journal, {"t": at_s, "what": what, "player": player})
    observer.read()
    assert observer.placed_asked_s == 1
    write(observer.journal, {"t": 4, "what": "assigned", "player": "bob"})
    observer.read()
    assert observer.placed_asked_s == 2
