"""
What the console shows, as rows in sections; how two moments differ, and what must have happened between them. Pure.

A row's values change only when something happens: times are moments (Unix seconds), never ages, so that a system at rest costs a viewer nothing.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Row = Mapping[str, Any]
State = Mapping[str, Mapping[str, Row]]
"""Section (fleets, servers, queues, sessions, tickets) → id → row."""


def difference(before: State, after: State) -> dict[str, Any]:
    """What must be told to whoever has `before`: {section: {"set": {id: changed fields}, "gone": [ids]}}, empty when nothing has changed."""
    found: dict[str, Any] = {}
    for section, rows in after.items():
        old = before.get(section, {})
        changed = {}
        for key, row in rows.items():
            known = old.get(key)
            if known is None:
                changed[key] = row
            elif known is not row and known != row:
                changed[key] = {name: value for name, value in row.items() if known.get(name, ...) != value}
        gone = [key for key in old if key not in rows]
        part = ({"set": changed} if changed else {}) | ({"gone": gone} if gone else {})
        if part:
            found[section] = part
    return found


def happenings(before: State, after: State) -> Iterator[dict[str, Any]]:
    """What an operator would want to have noticed, as {kind, what, text}; nothing for what is new since the start."""
    yield from _fleets(before.get("fleets", {}), after.get("fleets", {}))
    yield from _servers(before.get("servers", {}), after.get("servers", {}))
    yield from _sessions(before.get("sessions", {}), after.get("sessions", {}))
    for name, queue in after.get("queues", {}).items():
        known = before.get("queues", {}).get(name)
        if known is not None and known["closed"] != queue["closed"]:
            yield {"kind": "queue", "what": name, "text": f"is {queue['closed'] or 'open again'}"}


def _fleets(before: Mapping[str, Row], after: Mapping[str, Row]) -> Iterator[dict[str, Any]]:
    for name, fleet in after.items():
        known, decision = before.get(name), fleet.get("decision")
        if known is None:
            continue
        earlier = known.get("decision")
        if decision is not None and earlier is not None and decision["replicas"] != earlier["replicas"]:
            text = f"{earlier['replicas']} → {decision['replicas']} servers: {'; '.join(decision['reasons'])}"
            yield {"kind": "autoscaler", "what": name, "text": text}
        if fleet["failures"] > known["failures"]:
            yield {"kind": "failure", "what": name, "text": fleet["reason"]}


def _servers(before: Mapping[str, Row], after: Mapping[str, Row]) -> Iterator[dict[str, Any]]:
    for name, server in after.items():
        known = before.get(name)
        if known is not None and known["state"] != server["state"] and server["state"] in ("Unhealthy", "Error"):
            yield {
                "kind": "failure",
                "what": name,
                "text": f"is {server['state']}: {server['reason'] or 'no reason given'}",
            }
        if known is not None and server["draining"] and not known["draining"]:
            yield {"kind": "drain", "what": name, "text": "drains"}


def _sessions(before: Mapping[str, Row], after: Mapping[str, Row]) -> Iterator[dict[str, Any]]:
    for name, session in after.items():
        known = before.get(name)
        if known is None or known["server"] == session["server"]:
            continue
        if session["server"]:
            text = f"moved from {known['server'] or 'its lost server'} to {session['server']}"
        else:
            text = f"has lost its server {known['server']}, and waits for another"
        yield {"kind": "recovery", "what": name, "text": text}
