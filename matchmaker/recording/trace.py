"""
A trace: the tickets of one queue over a time, in a Parquet file that holds no player's or ticket's id.

Columns: `ticket`, `at_s` (since the beginning), `size`, `priority`, `party` (JSON as the store has it), `left_after_s` (null: the player did not cancel),
`waited_s` (null: it was not assigned live), `outcome` (the live state in the end, "" for a synthetic ticket). The file's metadata has `warmfleet.queue` and
`warmfleet.begun_at` (Unix seconds). Needs pyarrow (extra `replay`), which is imported when a file is opened.
"""

import hashlib
import hmac
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from gameserver.sessions.model import PlayerId
from matchmaker.model import QueueName, Ticket, TicketId, TicketPlayer
from matchmaker.records import decode_ticket, encode_party

_BATCH = 10_000
_COLUMNS = ("ticket", "at_s", "size", "priority", "party", "left_after_s", "waited_s", "outcome")


class TraceError(Exception):
    """A file is no trace, or pyarrow is missing; says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One ticket of a trace."""

    ticket: Ticket
    """Its `created_at_s` counts from the trace's beginning."""
    left_after_s: float = math.inf
    """The age at which its players gave up, if nobody had matched them."""
    waited_s: float = math.nan
    """What it waited live, from its creation to its assignment."""
    outcome: str = ""
    """How it ended live."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A file's content."""

    queue: QueueName
    begun_at_s: float
    arrivals: tuple[Arrival, ...]
    """By `created_at_s`."""

    @property
    def duration_s(self) -> float:
        """Until the last arrival."""
        return self.arrivals[-1].ticket.created_at_s if self.arrivals else 0.0


class Disguise:
    """Other ids instead of the true ones: the same for the same id within one recording, by a salt that is not kept."""

    def __init__(self, salt: bytes, hashed: Sequence[str] = ()) -> None:
        """`hashed`: attributes whose words are disguised, too."""
        self._salt = salt
        self._hashed = frozenset(hashed)

    def __call__(self, ticket: Ticket) -> Ticket:
        """The same ticket under other names."""
        players = tuple(
            TicketPlayer(
                id=PlayerId(self._name(player.id)),
                attributes={
                    key: self._value(value) if key in self._hashed else value
                    for key, value in player.attributes.items()
                },
                latencies_ms=player.latencies_ms,
                blocked=tuple(PlayerId(self._name(other)) for other in player.blocked),
                avoided=tuple(PlayerId(self._name(other)) for other in player.avoided),
            )
            for player in ticket.players
        )
        return replace(ticket, id=TicketId(self._name(ticket.id)), players=players)

    def _name(self, name: str) -> str:
        return hmac.new(self._salt, name.encode(), hashlib.sha256).hexdigest()[:20]

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._name(value)
        return tuple(map(self._name, value)) if isinstance(value, tuple) else value


class TraceWriter:
    """Writes a trace; complete once it is closed."""

    def __init__(self, path: Path, queue: QueueName, *, begun_at_s: float) -> None:
        """Raises TraceError without pyarrow; OSError."""
        arrow, parquet = _pyarrow()
        floats = [arrow.field(name, arrow.float64()) for name in ("left_after_s", "waited_s")]
        self._schema = arrow.schema(
            [
                arrow.field("ticket", arrow.string()),
                arrow.field("at_s", arrow.float64()),
                arrow.field("size", arrow.int32()),
                arrow.field("priority", arrow.string()),
                arrow.field("party", arrow.string()),
                *floats,
                arrow.field("outcome", arrow.string()),
            ],
            metadata={"warmfleet.queue": queue, "warmfleet.begun_at": repr(begun_at_s)},
        )
        self._arrow = arrow
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, arrival: Arrival) -> None:
        """Add a ticket; in any order."""
        ticket = arrival.ticket
        self._rows.append(
            {
                "ticket": ticket.id,
                "at_s": ticket.created_at_s,
                "size": len(ticket.players),
                "priority": ticket.priority,
                "party": encode_party(ticket.players, ticket.priority).decode(),
                "left_after_s": arrival.left_after_s if math.isfinite(arrival.left_after_s) else None,
                "waited_s": arrival.waited_s if math.isfinite(arrival.waited_s) else None,
                "outcome": arrival.outcome,
            }
        )
        self.count += 1
        if len(self._rows) >= _BATCH:
            self._flush()

    def close(self) -> None:
        """Finish the file."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
            self._rows.clear()


def write_trace(path: Path, queue: QueueName, arrivals: Iterable[Arrival], *, begun_at_s: float = 0.0) -> int:
    """Write a whole trace; returns its number of tickets. Raises TraceError, OSError."""
    with TraceWriter(path, queue, begun_at_s=begun_at_s) as writer:
        for arrival in arrivals:
            writer.write(arrival)
    return writer.count


def read_trace(path: Path) -> Trace:
    """Read a trace. Raises TraceError, OSError."""
    arrow, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            metadata = file.schema_arrow.metadata or {}
            if missing := set(_COLUMNS) - set(file.schema_arrow.names):
                raise TraceError(f"{path}: is no trace: column {min(missing)} is missing")
            arrivals = sorted(_arrivals(file), key=lambda arrival: (arrival.ticket.created_at_s, arrival.ticket.id))
    except arrow.ArrowException as error:
        raise TraceError(f"{path}: is no Parquet file: {error}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise TraceError(f"{path}: is no trace: {error}") from None
    return Trace(
        queue=QueueName(metadata.get(b"warmfleet.queue", b"").decode()),
        begun_at_s=float(metadata.get(b"warmfleet.begun_at", b"0")),
        arrivals=tuple(arrivals),
    )


def _arrivals(file: Any) -> Iterator[Arrival]:
    for batch in file.iter_batches(batch_size=_BATCH, columns=list(_COLUMNS)):
        for row in batch.to_pylist():
            # The store's creation is in whole ms; a trace's is finer.
            ticket = decode_ticket(TicketId(row["ticket"]), row["party"].encode(), b"0")
            yield Arrival(
                ticket=replace(ticket, created_at_s=float(row["at_s"])),
                left_after_s=math.inf if row["left_after_s"] is None else float(row["left_after_s"]),
                waited_s=math.nan if row["waited_s"] is None else float(row["waited_s"]),
                outcome=str(row["outcome"]),
            )


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise TraceError("traces need pyarrow: pip install 'warmfleet[replay]'") from None
    return pyarrow, pyarrow.parquet
