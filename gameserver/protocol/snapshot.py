"""
Worlds, and the bytes of full and delta snapshots; docs/protocol.md "Tables" is the specification.

A `World` is one tick's state as wire integers: for each table the ids in ascending order and one column per field. `SnapshotHistory` keeps
the recent worlds of a room and encodes each tick once per distinct baseline, so that clients with the same baseline share the same bytes.
Pure; for any loss and reordering, a delta applied to its baseline gives exactly the world it was made of.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gameserver.protocol.messages import MalformedMessage, SharedSnapshot
from gameserver.protocol.schema import Column, Schema, SchemaError, Table, dequantise, quantise

Ids = NDArray[np.uint16]

_ID = np.dtype("<u2")
_UNCHANGED, _SOME, _ALL, _SOME_BY, _ALL_BY = range(5)
"""Modes of a kept column; docs/protocol.md."""


@dataclass(frozen=True, slots=True)
class Rows:
    """One table at one tick: ids ascending and unique, one wire column per field, all of one length."""

    ids: Ids
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class World:
    """Every table at one tick, in the schema's order. Never changed once made."""

    schema: Schema
    tables: tuple[Rows, ...]

    @classmethod
    def of(cls, schema: Schema, state: Mapping[str, Mapping[str, Any]], before: "World | None" = None) -> "World":
        """
        Quantise what `Game.snapshot` returned; copies, so that the game may go on changing its arrays.

        Args:
            before: the world of an earlier tick, of the same schema: ids that are as they were need no second look.
        Raises: SchemaError naming the table and the column: a missing or unknown one, wrong lengths, a repeated id.
        """
        if unknown := state.keys() - schema.tables.keys():
            raise SchemaError(f"snapshot has a table {min(unknown)!r} that the schema lacks")
        known = before.tables if before is not None else (None,) * len(schema.tables)
        tables = zip(schema.tables.items(), known, strict=True)
        return cls(schema, tuple(_rows(name, table, state.get(name), then) for (name, table), then in tables))

    @classmethod
    def empty(cls, schema: Schema) -> "World":
        """No rows in any table."""
        return cls(schema, tuple(_empty(table) for table in schema.tables.values()))

    def values(self, table: str) -> dict[str, Column]:
        """One table as a client sees it: `id` and the dequantised columns."""
        kinds = self.schema.tables[table].types
        rows = self.tables[list(self.schema.tables).index(table)]
        columns = {name: dequantise(kind, wire) for (name, kind), wire in zip(kinds.items(), rows.columns, strict=True)}
        return {"id": rows.ids, **columns}

    def same(self, other: "World") -> bool:
        """Whether both hold the same rows to the bit."""
        return encode_full(self) == encode_full(other)


def encode_full(world: World) -> bytes:
    """Encode every row."""
    parts = []
    for rows in world.tables:
        parts += [len(rows.ids).to_bytes(2, "little"), rows.ids.tobytes(), *(c.tobytes() for c in rows.columns)]
    return b"".join(parts)


def decode_full(schema: Schema, body: bytes) -> World:
    """Read a full snapshot. Raises MalformedMessage."""
    reader = _Body(body)
    tables = tuple(_read_rows(reader, table) for table in schema.tables.values())
    reader.end()
    return World(schema, tables)


def encode_delta(world: World, baseline: World) -> bytes:
    """Encode what differs from `baseline` (of the same schema)."""
    parts: list[bytes] = []
    for now, then in zip(world.tables, baseline.tables, strict=True):
        if now.ids is then.ids or np.array_equal(now.ids, then.ids):
            parts.append(b"\0\0\0\0")
            kept = zip(now.columns, then.columns, strict=True)
        else:
            stays = np.isin(then.ids, now.ids, assume_unique=True)
            known = np.isin(now.ids, then.ids, assume_unique=True)
            removed, new = then.ids[~stays], ~known
            added = now.ids[new]
            parts += [len(removed).to_bytes(2, "little"), removed.tobytes()]
            parts += [len(added).to_bytes(2, "little"), added.tobytes(), *(c[new].tobytes() for c in now.columns)]
            kept = zip((c[known] for c in now.columns), (c[stays] for c in then.columns), strict=True)
        for column, before in kept:
            _encode_column(parts, column, before)
    return b"".join(parts)


def apply_delta(baseline: World, body: bytes) -> World:
    """Read a delta snapshot made against `baseline`. Raises MalformedMessage."""
    reader = _Body(body)
    tables = []
    for table, then in zip(baseline.schema.tables.values(), baseline.tables, strict=True):
        removed = _read_ids(reader)
        added = _read_rows(reader, table)
        if len(removed):
            stays = ~np.isin(then.ids, removed, assume_unique=True)
            ids, columns = then.ids[stays], [column[stays] for column in then.columns]
        else:
            ids, columns = then.ids, list(then.columns)
        columns = [_read_column(reader, column, table.kinds[i].kind) for i, column in enumerate(columns)]
        if len(added.ids):
            ids = np.concatenate((ids, added.ids))
            order = np.argsort(ids, kind="stable")
            ids = ids[order]
            if np.any(ids[1:] == ids[:-1]):
                raise MalformedMessage("a row was added that is there already")
            columns = [np.concatenate(pair)[order] for pair in zip(columns, added.columns, strict=True)]
        tables.append(Rows(ids, tuple(columns)))
    reader.end()
    return World(baseline.schema, tuple(tables))


class SnapshotHistory:
    """The recent worlds of one room, and the encoded newest one, once per distinct baseline."""

    def __init__(self, size: int = 64) -> None:
        """Keep `size` ticks: clients whose last acknowledgement is older get a full snapshot."""
        self.size = size
        self._worlds: OrderedDict[int, World] = OrderedDict()
        self._shared: dict[int, SharedSnapshot] = {}
        """The newest world by baseline."""
        self._values: dict[tuple[int, str], dict[str, Column]] = {}
        """Dequantised tables that were asked for this tick: several players look back at the same moments."""
        self.tick = 0

    def push(self, tick: int, world: World) -> None:
        """Make `world` the newest; ticks grow."""
        self._worlds[tick] = world
        self._shared.clear()
        self._values.clear()
        self.tick = tick
        if len(self._worlds) > self.size:
            self._worlds.popitem(last=False)

    @property
    def oldest(self) -> int:
        """The first tick that is still kept; 0 before the first push."""
        return next(iter(self._worlds), 0)

    def world(self, tick: int) -> World | None:
        """The world at a tick that is still kept."""
        return self._worlds.get(tick)

    def values(self, tick: int, table: str) -> dict[str, Column] | None:
        """One table at a tick that is still kept, as clients see it (`World.values`); not to be changed. None for a tick that is not kept."""
        found = self._values.get((tick, table))
        if found is None and (world := self._worlds.get(tick)) is not None:
            found = self._values[tick, table] = world.values(table)
        return found

    def table(self, name: str) -> Table:
        """The fields of a table. Raises KeyError."""
        return self._worlds[self.tick].schema.tables[name]

    def snapshot(self, acknowledged: int) -> SharedSnapshot:
        """The newest world for clients that have acknowledged a tick (0: none); all of it where that tick is not kept any more."""
        baseline = acknowledged if acknowledged in self._worlds and acknowledged != self.tick else 0
        shared = self._shared.get(baseline)
        if shared is None:
            newest = self._worlds[self.tick]
            body = encode_delta(newest, self._worlds[baseline]) if baseline else encode_full(newest)
            shared = self._shared[baseline] = SharedSnapshot(self.tick, baseline, body)
        return shared


def _empty(table: Table) -> Rows:
    return Rows(np.empty(0, _ID), tuple(np.empty(0, dtype) for dtype in table.dtypes))


def _rows(name: str, table: Table, state: Mapping[str, Any] | None, then: Rows | None) -> Rows:
    if state is None:
        return _empty(table)
    if state.keys() != {"id", *table.types}:
        missing, unknown = {"id", *table.types} - state.keys(), state.keys() - {"id", *table.types}
        raise SchemaError(f"snapshot table {name}: missing {sorted(missing)}, unknown {sorted(unknown)}")
    ids = np.asarray(state["id"])
    if then is not None and ids.dtype.kind in "iu" and np.array_equal(ids, then.ids):
        ids, in_order = then.ids, True
    else:
        if ids.ndim != 1 or (ids.size and (ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() > 0xFFFF)):
            raise SchemaError(f"snapshot table {name}: ids are integers from 0 to 65535")
        ids = ids.astype(_ID)
        in_order = bool(np.all(ids[1:] > ids[:-1]))
    columns = []
    for field, kind in table.types.items():
        try:
            column = quantise(kind, state[field])
        except (SchemaError, TypeError, ValueError) as error:
            raise SchemaError(f"snapshot table {name}, column {field}: {error}") from None
        if column.shape != ids.shape:
            raise SchemaError(f"snapshot table {name}, column {field}: shape {column.shape}, but {len(ids)} ids")
        columns.append(column)
    if in_order:
        return Rows(ids, tuple(columns))
    order = np.argsort(ids)
    ids = ids[order]
    if np.any(ids[1:] == ids[:-1]):
        raise SchemaError(f"snapshot table {name}: an id is there twice")
    return Rows(ids, tuple(column[order] for column in columns))


def _encode_column(parts: list[bytes], now: Column, then: Column) -> None:
    """Append the shortest mode's bytes, the lowest number among equals."""
    # Few calls: on the columns of a room most of numpy's time is spent in getting there.
    small = now.dtype.kind != "f" and now.itemsize > 1
    width = f"<u{now.itemsize}"
    difference = now.view(width) - then.view(width)  # of the bits: NaN equals itself
    count = int(np.count_nonzero(difference))
    if not count:
        parts.append(b"\0")
        return
    bitmap_size = (len(now) + 7) // 8
    sizes = {_SOME: bitmap_size + count * now.itemsize, _ALL: now.nbytes}
    if small and (difference + 128).max() < 256:  # from -128 to 127, modulo the width
        sizes |= {_SOME_BY: bitmap_size + count, _ALL_BY: len(now)}
    mode = min(sizes, key=lambda m: (sizes[m], m))
    values = now if mode in (_SOME, _ALL) else difference.astype("<i1")
    parts.append(bytes((mode,)))
    if mode in (_SOME, _SOME_BY):
        changed = difference != 0
        parts += [np.packbits(changed, bitorder="little").tobytes(), values[changed].tobytes()]
    else:
        parts.append(values.tobytes())


def _read_column(reader: "_Body", then: Column, kind: str) -> Column:
    n = len(then)
    mode = reader.byte()
    if mode == _UNCHANGED:
        return then
    if mode not in (_SOME, _ALL, _SOME_BY, _ALL_BY) or (mode in (_SOME_BY, _ALL_BY) and kind == "f32"):
        raise MalformedMessage(f"column mode {mode}")
    dtype = then.dtype if mode in (_SOME, _ALL) else np.dtype("<i1")
    if mode in (_ALL, _ALL_BY):
        values = reader.array(dtype, n)
        return values if mode == _ALL else _add(then, values)
    bits = np.unpackbits(reader.array(np.dtype("u1"), (n + 7) // 8), bitorder="little")
    if np.any(bits[n:]):
        raise MalformedMessage("padding bits are set")
    changed = bits[:n].astype(bool)
    values = reader.array(dtype, int(np.count_nonzero(changed)))
    column = then.copy()
    column[changed] = values if mode == _SOME else _add(then[changed], values)
    return column


def _add(then: Column, difference: Column) -> Column:
    return then + difference.astype(f"<i{then.itemsize}").view(then.dtype)


def _read_ids(reader: "_Body") -> Ids:
    ids = reader.array(_ID, reader.short())
    if np.any(ids[1:] <= ids[:-1]):
        raise MalformedMessage("ids are not ascending")
    return ids


def _read_rows(reader: "_Body", table: Table) -> Rows:
    ids = _read_ids(reader)
    return Rows(ids, tuple(reader.array(dtype, len(ids)) for dtype in table.dtypes))


class _Body:
    """Reads arrays off a snapshot body; never past its end, never more than is there."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def byte(self) -> int:
        return int(self.array(np.dtype("u1"), 1)[0])

    def short(self) -> int:
        return int(self.array(_ID, 1)[0])

    def array(self, dtype: np.dtype[Any], count: int) -> Column:
        end = self._at + count * dtype.itemsize
        if end > len(self._body):
            raise MalformedMessage(f"{len(self._body)} bytes of snapshot are too few")
        values: Column = np.frombuffer(self._body, dtype, count, self._at)
        self._at = end
        return values

    def end(self) -> None:
        if self._at != len(self._body):
            raise MalformedMessage(f"{len(self._body) - self._at} bytes left over in a snapshot")


def columns_of(rows: Sequence[Mapping[str, Any]], table: Table) -> dict[str, list[Any]]:
    """Turn a list of rows (each with `id` and the table's fields) into columns, for games that keep objects."""
    return {name: [row[name] for row in rows] for name in ("id", *table.types)}
