"""
Live retention and queue health from the event stream, with checkpoints and exactly-once effect; plain Python, to begin from.

    warmfleet serve events fleets.yaml &                       # so that events are kept
    python -m fleets.examples.live_health --valkey-url redis://… --queue ranked --state health.json

Events come at least once. What they change is counted once all the same: the state and the places in the streams that it has seen are one file, written
whole or not at all, and a start goes on from both. So a crash at any moment counts nothing twice and leaves nothing out, as long as it comes back before the
events are trimmed.
"""

import argparse
import itertools
import json
import os
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import redis

_CREATED, _STATE = "dev.warmfleet.ticket.created.v1", "dev.warmfleet.ticket."


class Health:
    """What is known of a queue and its players after some events; the same after the same events."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        state = state or {}
        self.cursors: dict[str, str] = state.get("cursors", {})
        """Stream to the last entry that is counted."""
        self.days: dict[str, dict[str, int]] = state.get("days", {})
        """Day to the players who queued on it, each with how often."""
        self.waiting: dict[str, float] = state.get("waiting", {})
        """Ticket to its creation."""
        self.ended: dict[str, int] = state.get("ended", {})
        """State to tickets."""
        self.waited_s: float = state.get("waited_s", 0.0)

    def apply(self, stream: str, entry: str, event: dict[str, Any]) -> None:
        """Count one event, and that it is counted."""
        kind, data, at_s = event["type"], event["data"], _unix(event["time"])
        if kind == _CREATED:
            day = self.days.setdefault(event["time"][:10], {})
            for player in data["players"]:
                day[player] = day.get(player, 0) + 1
            self.waiting |= dict.fromkeys(data["tickets"], at_s)
        elif kind.startswith(_STATE) and data["state"] in ("assigned", "cancelled", "timed_out", "failed"):
            for ticket in data["tickets"]:
                begun_s = self.waiting.pop(ticket, None)
                self.ended[data["state"]] = self.ended.get(data["state"], 0) + 1
                if begun_s is not None and data["state"] == "assigned":
                    self.waited_s += at_s - begun_s
        self.cursors[stream] = entry

    def report(self) -> dict[str, Any]:
        """Health now, and for each day how many of its players came back on the next one with any."""
        days = sorted(self.days)
        back = {
            day: round(len(self.days[day].keys() & self.days[later].keys()) / len(self.days[day]), 4)
            for day, later in itertools.pairwise(days)
        }
        assigned = self.ended.get("assigned", 0)
        return {
            "waiting": len(self.waiting),
            "ended": dict(sorted(self.ended.items())),
            "meanWaitS": round(self.waited_s / assigned, 3) if assigned else None,
            "players": {day: len(self.days[day]) for day in days},
            "cameBack": back,
        }

    def save(self, path: Path) -> None:
        """State and places in one file, whole or not at all."""
        partial = path.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            json.dump(vars(self), file)
            file.flush()
            os.fsync(file.fileno())  # before it takes the other's place: a machine may stop, too
        partial.replace(path)


def read(
    client: Any, cursors: dict[str, str], streams: Iterable[str], *, block_ms: int
) -> list[tuple[str, str, bytes]]:
    """(stream, entry, event) of what comes after the cursors."""
    found = []
    for stream in streams:
        rows = client.xrange(stream, min=f"({cursors.get(stream, '0')}", count=1000)
        found += [(stream, entry.decode(), fields[b"event"]) for entry, fields in rows]
    if not found:
        time.sleep(block_ms / 1000)
    return found


def main() -> None:
    """Follow the streams, and print a report whenever something has changed."""
    parser = argparse.ArgumentParser(description="Live retention and queue health")
    parser.add_argument("--valkey-url", required=True)
    parser.add_argument("--queue", action="append", required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--once", action="store_true", help="Stop when everything is read.")
    options = parser.parse_args()
    client = redis.Redis.from_url(options.valkey_url)
    health = Health(json.loads(options.state.read_text()) if options.state.exists() else None)
    streams = [f"wf:q:{{{queue}}}:events" for queue in options.queue]
    while True:
        events = read(client, health.cursors, streams, block_ms=0 if options.once else 500)
        for stream, entry, raw in events:
            health.apply(stream, entry, json.loads(raw))
        if events:
            health.save(options.state)
        if events or options.once:
            print(json.dumps(health.report()), flush=True)
        if options.once and not events:
            return


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    main()
