"""
What a game's state and inputs look like on the wire: typed, ranged, quantised fields.

A game declares a `Schema` (the tables of its snapshots) and `Fields` (one input) once; encoder, decoder and the browser SDK are driven by
their description. Pure; docs/protocol.md "Schema" is the specification.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_T = TypeVar("_T")
_N = TypeVar("_N", "Fields", "Table", "Schema")
Column = NDArray[Any]
"""A column of wire values: one dtype of `_DTYPES`."""

_DTYPES: Mapping[str, str] = {
    "u8": "<u1", "u16": "<u2", "u32": "<u4", "i8": "<i1", "i16": "<i2", "i32": "<i4", "bool": "<u1", "f32": "<f4",
}  # fmt: skip
_STRUCT: Mapping[str, str] = {"u1": "B", "u2": "H", "u4": "I", "i1": "b", "i2": "h", "i4": "i", "f4": "f"}


class SchemaError(ValueError):
    """A schema that a game or a peer declares makes no sense; the message names the field."""


@dataclass(frozen=True, slots=True)
class FieldType:
    """One field's type; made by `UInt`, `Int`, `Bool`, `Float` and `F32`."""

    kind: str
    min: float = 0.0
    max: float = 0.0
    precision: float = 0.0

    @property
    def steps(self) -> int:
        """Highest wire value of a `float`."""
        return round((self.max - self.min) / self.precision)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The wire's element type."""
        if self.kind == "float":
            return np.dtype("<u1" if self.steps < 1 << 8 else "<u2" if self.steps < 1 << 16 else "<u4")
        return np.dtype(_DTYPES[self.kind])

    def describe(self) -> dict[str, Any]:
        """The field as JSON, without its name."""
        if self.kind == "float":
            return {"type": "float", "min": self.min, "max": self.max, "precision": self.precision}
        return {"type": self.kind}


def UInt(bits: int) -> FieldType:  # noqa: N802 (reads as a type in a game's schema)
    """Make an unsigned integer of 8, 16 or 32 bits; values outside are clamped."""
    if bits not in (8, 16, 32):
        raise SchemaError(f"UInt({bits}): 8, 16 or 32 bits are wanted")
    return FieldType(f"u{bits}")


def Int(bits: int) -> FieldType:  # noqa: N802
    """Make a signed integer of 8, 16 or 32 bits; values outside are clamped."""
    if bits not in (8, 16, 32):
        raise SchemaError(f"Int({bits}): 8, 16 or 32 bits are wanted")
    return FieldType(f"i{bits}")


def Bool() -> FieldType:  # noqa: N802
    """Make a truth value, one byte."""
    return FieldType("bool")


def F32() -> FieldType:  # noqa: N802
    """Make an unquantised IEEE 754 single."""
    return FieldType("f32")


def Float(min: float, max: float, precision: float) -> FieldType:  # noqa: A002, N802
    """Make a number from `min` to `max` in steps of `precision`, in the fewest bytes; values outside are clamped."""
    if not all(map(math.isfinite, (min, max, precision))) or not min < max or precision <= 0:
        raise SchemaError(f"Float({min}, {max}, {precision}): finite min < max and precision > 0 are wanted")
    if (max - min) / precision >= 1 << 32:
        raise SchemaError(f"Float({min}, {max}, {precision}): more than 32 bits; choose a coarser precision")
    return FieldType("float", float(min), float(max), float(precision))


def quantise(kind: FieldType, values: Any) -> Column:
    """Turn a column of values into wire values; clamps, and NaN becomes `min` (0 for integers). Returns a new array. Raises SchemaError if not numbers."""
    dtype = kind.dtype
    array = np.asarray(values)
    if array.dtype == dtype and kind.kind not in ("float", "bool"):
        return array.copy()
    if array.dtype.kind not in "biuf":
        raise SchemaError(f"wanted numbers, got {array.dtype}")
    if kind.kind == "f32":
        return np.asarray(array, dtype)
    if kind.kind == "bool":
        return np.asarray(array != 0, dtype)
    if kind.kind == "float":
        # fmax and fmin take the number where the other is NaN. In place: this is done for every column in every tick.
        scaled = np.fmax(np.asarray(array, np.float64), kind.min)
        np.fmin(scaled, kind.max, out=scaled)
        scaled -= kind.min
        scaled /= kind.precision
        return np.rint(scaled, out=scaled).astype(dtype)
    low, high = _limits(dtype)
    if array.dtype.kind == "f":
        array = np.nan_to_num(np.rint(array), nan=0.0)
    return np.asarray(np.clip(array, low, high), dtype)


@lru_cache
def _limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def dequantise(kind: FieldType, wire: Column) -> Column:
    """Turn a column of wire values back into values: float64 for `float`, bool for `bool`, else the wire's own type."""
    if kind.kind == "float":
        return np.asarray(kind.min + np.minimum(wire, kind.steps) * kind.precision)
    return np.asarray(wire != 0) if kind.kind == "bool" else wire


def _finite(column: Column) -> Column:
    """What a client sends as an F32 may be no number: 0 then."""
    return np.where(np.isfinite(column), column, 0) if column.dtype.kind == "f" else column


class Fields:
    """Named fields in order: one row of a table, or one input. Inputs are packed records of `size_bytes`."""

    def __init__(self, **fields: FieldType) -> None:
        for name, kind in fields.items():
            if not isinstance(kind, FieldType):
                raise SchemaError(f"{name}: wanted UInt, Int, Bool, Float or F32, got {kind!r}")
            if name == "id":
                raise SchemaError("a field cannot be named id: every row has one already")
        self.types: Mapping[str, FieldType] = fields
        self.names = tuple(fields)
        self.kinds = tuple(fields.values())
        self.dtypes = tuple(kind.dtype for kind in self.kinds)
        self._record = struct.Struct("<" + "".join(_STRUCT[dtype.str[1:]] for dtype in self.dtypes))
        self._records = np.dtype(list(zip(self.names, self.dtypes, strict=True)))
        self.size_bytes = self._record.size

    def describe(self) -> dict[str, Any]:
        """The fields as JSON."""
        return {"fields": [{"name": name, **kind.describe()} for name, kind in self.types.items()]}

    def encode(self, values: Mapping[str, Any]) -> bytes:
        """Pack one record; a missing field is its zero (clamped into range), an unknown one a SchemaError."""
        if unknown := values.keys() - self.types.keys():
            raise SchemaError(f"unknown input field {min(unknown)!r}; there are: {', '.join(self.names)}")
        return self._record.pack(*(_to_wire(kind, values.get(name, 0)) for name, kind in self.types.items()))

    def decode(self, record: bytes | memoryview, offset: int = 0) -> dict[str, Any]:
        """Unpack the record at `offset`; every value is within its range, whatever the bytes are."""
        wire = self._record.unpack_from(record, offset)
        return {name: _from_wire(kind, value) for name, kind, value in zip(self.names, self.kinds, wire, strict=True)}

    def decode_many(self, records: bytes) -> dict[str, Column]:
        """Unpack records that stand one after another: a column of values per field, with the values that `decode` gives."""
        if not self.names:
            return {}
        wire = np.frombuffer(records, self._records)
        return {name: _finite(dequantise(kind, wire[name].copy())) for name, kind in self.types.items()}


class Table(Fields):
    """One table of a snapshot: rows with an `id` and these fields."""


class Schema:
    """The tables of a game's snapshots, in order."""

    def __init__(self, **tables: Table) -> None:
        for name, table in tables.items():
            if not isinstance(table, Table):
                raise SchemaError(f"{name}: wanted a Table, got {table!r}")
        if not tables:
            raise SchemaError("a schema has at least one table")
        self.tables: Mapping[str, Table] = tables

    def describe(self) -> dict[str, Any]:
        """The schema as JSON, as Welcome carries it."""
        return {"tables": [{"name": name, **table.describe()} for name, table in self.tables.items()]}


def parse_fields(description: Any) -> Fields:
    """Read `Fields.describe()` back. Raises SchemaError for anything else."""
    return _made(Fields, _parse_types(description))


def parse_schema(description: Any) -> Schema:
    """Read `Schema.describe()` back. Raises SchemaError for anything else."""
    try:
        tables = [(str(table["name"]), _made(Table, _parse_types(table))) for table in description["tables"]]
    except (KeyError, TypeError) as error:
        raise SchemaError(f"no schema: {error!r}") from error
    return _made(Schema, _unique(tables))


def _made(kind: type[_N], named: Mapping[str, Any]) -> _N:
    try:
        return kind(**named)
    except TypeError as error:
        raise SchemaError(f"a name that is taken: {error}") from error  # "self"


def _parse_types(description: Any) -> dict[str, FieldType]:
    try:
        return _unique([(str(field["name"]), _parse_type(field)) for field in description["fields"]])
    except SchemaError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise SchemaError(f"no fields: {error!r}") from error


def _unique(named: list[tuple[str, _T]]) -> dict[str, _T]:
    unique = dict(named)
    if len(unique) < len(named):
        raise SchemaError("a name is there twice")
    return unique


def _parse_type(field: Mapping[str, Any]) -> FieldType:
    kind = field["type"]
    if kind == "float":
        return Float(float(field["min"]), float(field["max"]), float(field["precision"]))
    if kind not in _DTYPES:
        raise SchemaError(f"unknown field type {kind!r}")
    return FieldType(kind)


def _to_wire(kind: FieldType, value: Any) -> Any:
    if kind.kind == "f32":
        return float(value)
    if kind.kind == "bool":
        return 1 if value else 0
    if kind.kind == "float":
        number = float(value)
        return 0 if number != number else round((min(max(number, kind.min), kind.max) - kind.min) / kind.precision)
    limits = np.iinfo(kind.dtype)
    return min(max(round(value), int(limits.min)), int(limits.max))


def _from_wire(kind: FieldType, wire: Any) -> Any:
    if kind.kind == "float":
        return kind.min + min(wire, kind.steps) * kind.precision
    if kind.kind == "bool":
        return wire != 0
    if kind.kind == "f32":
        return wire if math.isfinite(wire) else 0.0
    return wire
