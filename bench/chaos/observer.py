"""What the players see, as it happens: reads their journal while they write it, for the one who injects faults to know when all is well again."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SEEN_S = 1.0
"""Who has seen a snapshot of a server this recently is on it."""


@dataclass(slots=True, kw_only=True)
class Sight:
    """What one player saw last."""

    at_s: float
    session: str
    server: str
    """Empty once its match is over."""


@dataclass
class Observer:
    """The newest of everything; `read` takes in what was written since."""

    journal: Path
    sights: dict[str, Sight] = field(default_factory=dict)
    asked_s: dict[str, float] = field(default_factory=dict)
    """Player to when it asked for the ticket that it waits with."""
    placed_asked_s: float = 0.0
    """The latest time at which a ticket was asked for that has been assigned."""
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _at: int = 0

    def read(self) -> None:
        """Take in whole lines."""
        if not self.journal.exists():
            return
        with self.journal.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        for line in whole.splitlines():
            self._take(json.loads(line))

    def on(self, servers: frozenset[str]) -> list[str]:
        """Players who are on these servers now."""
        newest_s = max((sight.at_s for sight in self.sights.values()), default=0.0)
        near = [p for p, sight in self.sights.items() if sight.server in servers and sight.at_s > newest_s - SEEN_S]
        return sorted(near)

    def _take(self, event: dict[str, Any]) -> None:
        self.counts[event["what"]] += 1
        match event["what"]:
            case "snapshot":
                before = self.sights.get(event["player"])
                if before is not None and not before.server and before.session == event["session"]:
                    return  # the last one is noted when its connection ends, after the end
                self._see(event, event["server"])
            case "over":
                self._see(event, "")
            case "asked":
                self.asked_s[event["player"]] = event["t"]
            case "assigned":
                asked_s = self.asked_s.pop(event["player"], 0.0)
                self.placed_asked_s = max(self.placed_asked_s, asked_s)

    def _see(self, event: dict[str, Any], server: str) -> None:
        self.sights[event["player"]] = Sight(at_s=event["t"], session=event["session"], server=server)
