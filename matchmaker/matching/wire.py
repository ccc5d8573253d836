"""What goes between a director and its matching process: length-prefixed JSON, so that neither side can make the other run anything."""

import dataclasses
import json
import struct
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import TypeAdapter

from gameserver.sessions.model import PlayerId
from matchmaker.model import (
    BatchDistanceRule,
    ComparisonRule,
    DifferenceRule,
    EqualRule,
    InSetRule,
    IntersectionRule,
    LatencyRule,
    QueueConfig,
    Rule,
    TeamBalanceRule,
    TeamSizeRule,
    Ticket,
    TicketId,
    TicketPlayer,
)

PREFIX = struct.Struct("<I")
"""A frame is its length in bytes and so many bytes of JSON."""
MAX_FRAME_BYTES = 1 << 30

_RULES: dict[str, TypeAdapter[Any]] = {
    kind.__name__: TypeAdapter(kind)
    for kind in (
        BatchDistanceRule,
        ComparisonRule,
        DifferenceRule,
        EqualRule,
        InSetRule,
        IntersectionRule,
        LatencyRule,
        TeamBalanceRule,
        TeamSizeRule,
    )
}
_QUEUE = TypeAdapter(QueueConfig)


def frame(message: Any) -> bytes:
    """A message as it goes over the pipe."""
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {len(body)} bytes is too large")
    return PREFIX.pack(len(body)) + body


def read_frame(read: Callable[[int], bytes]) -> Any:
    """The next message; None at the end of the stream. `read` returns as many bytes as asked for, or fewer at the end."""
    prefix = read(PREFIX.size)
    if len(prefix) < PREFIX.size:
        return None
    return json.loads(read(PREFIX.unpack(prefix)[0]))


def encode_queue(queue: QueueConfig) -> dict[str, Any]:
    """A queue as JSON values (infinities among them, as Python's JSON writes them)."""
    plain: dict[str, Any] = _QUEUE.dump_python(dataclasses.replace(queue, rules=()), mode="json")
    rules = [[type(rule).__name__, _RULES[type(rule).__name__].dump_python(rule, mode="json")] for rule in queue.rules]
    return {**plain, "rules": rules}


def decode_queue(value: dict[str, Any]) -> QueueConfig:
    """The queue that was encoded."""
    rules: tuple[Rule, ...] = tuple(_RULES[name].validate_python(body) for name, body in value["rules"])
    queue: QueueConfig = _QUEUE.validate_python({**value, "rules": ()})
    return dataclasses.replace(queue, rules=rules)


def encode_tickets(tickets: Iterable[Ticket]) -> list[Any]:
    """Tickets as JSON values."""
    return [
        [
            ticket.id,
            ticket.created_at_s,
            ticket.priority,
            [
                [player.id, dict(player.attributes), dict(player.latencies_ms), player.blocked, player.avoided]
                for player in ticket.players
            ],
        ]
        for ticket in tickets
    ]


def decode_tickets(rows: Iterable[Any]) -> list[Ticket]:
    """The tickets that were encoded."""
    return [
        Ticket(
            id=TicketId(ticket),
            created_at_s=created_at_s,
            priority=priority,
            players=tuple(
                TicketPlayer(
                    id=PlayerId(player),
                    attributes={key: tuple(v) if isinstance(v, list) else v for key, v in attributes.items()},
                    latencies_ms=latencies,
                    blocked=tuple(blocked),
                    avoided=tuple(avoided),
                )
                for player, attributes, latencies, blocked, avoided in players
            ),
        )
        for ticket, created_at_s, priority, players in rows
    ]
