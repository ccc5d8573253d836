"""Version 1 of every event, frozen: whoever reads these reads what is told from now on."""

import json
import subprocess
import sys
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from matchmaker.events.model import PREFIX, TYPES, check, schema

DATA: dict[str, dict[str, Any]] = {
    "ticket.created": {"state": "queued", "players": ["ann"], "tickets": {"duel.a": 1}},
    "ticket.searching": {
        "state": "searching",
        "reason": "a match was not accepted by everybody",
        "tickets": {"duel.a": 4},
    },
    "ticket.proposed": {
        "state": "proposed",
        "match": "m",
        "accepted": 0,
        "deadline": 1795659495127,
        "tickets": {"duel.a": 2, "duel.b": 2},
    },
    "ticket.placing": {"state": "placing", "match": "m", "tickets": {"duel.a": 2, "duel.b": 2}},
    "ticket.assigned": {
        "state": "assigned",
        "match": "m",
        "assignment": {"session": "arena.m"},
        "tickets": {"duel.a": 3, "duel.b": 3},
    },
    "ticket.cancelled": {"state": "cancelled", "reason": "declined", "tickets": {"duel.a": 2}},
    "ticket.timed_out": {"state": "timed_out", "reason": "no match within the time limit", "tickets": {"duel.a": 2}},
    "ticket.failed": {"state": "failed", "reason": "x", "tickets": {"duel.a": 2}},
    "session.claimed": {
        "session": "arena.m",
        "epoch": 1,
        "server": "arena-1",
        "temperature": "shelf",
        "waitedMs": 0,
        "seats": [[0, "ann", "red"]],
    },
    "session.live": {"session": "arena.m", "epoch": 1, "server": "arena-1"},
    "session.moved": {"session": "arena.m", "epoch": 2, "from": "arena-1", "server": "arena-2", "live": True},
    "session.ended": {"session": "arena.m", "epoch": 2, "results": {"winner": "red"}},
    "server.registered": {"server": "arena-1", "version": "v", "rooms": 4},
    "server.released": {"server": "arena-1"},
    "server.lost": {"server": "arena-1", "sessions": 2},
}


def event(name: str, **more: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": "1",
        "source": "/queues/duel",
        "type": f"{PREFIX}{name}.v1",
        "subject": "m",
        "time": "2026-11-26T02:10:11.120Z",
        "datacontenttype": "application/json",
        "data": DATA[name],
        **more,
    }


def test_every_type_has_its_frozen_event() -> None:
    assert {f"{PREFIX}{name}.v1" for name in DATA} == set(TYPES)


@pytest.mark.parametrize("name", DATA)
def test_version_1_is_read(name: str) -> None:
    """By the model, and by the schema that is published; with fields of a later day, too."""
    for value in (event(name), event(name, data={**DATA[name], "new": 1}, traceparent="00-x")):
        jsonschema.Draft202012Validator(schema()).validate(value)
        check(json.dumps(value).encode())


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": f"{PREFIX}ticket.created.v9"},
        {"source": "/elsewhere"},
        {"specversion": "0.3"},
        {"id": ""},
        {"data": {}},
    ],
)
def test_what_is_no_event_is_refused(wrong: dict[str, Any]) -> None:
    """By both."""
    value = event("ticket.created", **wrong)
    with pytest.raises((ValidationError, KeyError)):
        check(json.dumps(value).encode())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema()).validate(value)


def test_the_schema_is_published() -> None:
    """`warmfleet schema events`; without a word it is still that of the YAML."""
    command = [sys.executable, "-m", "fleets.cli", "schema"]
    assert json.loads(subprocess.run([*command, "events"], capture_output=True, check=True).stdout) == schema()
    assert json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["title"] == "Warmfleet"
