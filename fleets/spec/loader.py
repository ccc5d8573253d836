"""
From YAML files to checked specs: every error at once, each with its file, line, path and mend.

Owns reading (size, encoding, YAML's own errors, duplicate keys), validation against the models, and the checks across documents.
"""

import difflib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from fleets.spec.convert import to_queue_config
from fleets.spec.fleet import FleetSpec, canary_of
from fleets.spec.platform import PlatformSpec
from fleets.spec.queue import Latency, QueueSpec
from matchmaker.matching.impossible import impossible

MAX_FILE_BYTES = 1 << 20
_MAX_NODES = 100_000
"""Nodes of a file with its aliases followed: a few lines of them can stand for billions."""
Spec = FleetSpec | QueueSpec | PlatformSpec
KINDS: dict[str, type[FleetSpec] | type[QueueSpec] | type[PlatformSpec]] = {
    "Fleet": FleetSpec,
    "Queue": QueueSpec,
    "Platform": PlatformSpec,
}

_Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecProblem:
    """One thing that is wrong."""

    file: str
    line: int
    """From 1."""
    path: str
    """As spec.server.tickRate; empty for the document itself."""
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}"
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


class SpecError(Exception):
    """The files do not describe fleets and queues; `problems` has every reason."""

    def __init__(self, problems: Sequence[SpecProblem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Specs:
    """What a studio declared."""

    fleets: tuple[FleetSpec, ...]
    queues: tuple[QueueSpec, ...]
    shadows: tuple[QueueSpec, ...] = ()
    """Queues that run on another's tickets, and only report; they are not among `queues`."""
    platform: PlatformSpec | None = None
    """The cluster's, where a file has one."""
    documents: tuple[Mapping[str, Any], ...] = ()
    """Fleets and queues as they were written, for those who read them elsewhere."""
    notes: tuple[SpecProblem, ...] = ()
    """What is valid, and worth saying all the same."""


@dataclass(slots=True, kw_only=True)
class _Document:
    file: str
    value: Any
    lines: dict[_Path, int] = field(default_factory=dict)

    def problem(self, path: _Path, message: str) -> SpecProblem:
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        return SpecProblem(file=self.file, line=self.lines.get(known, 1), path=_dotted(path), message=message)


def load(paths: Iterable[Path]) -> Specs:
    """Read and check files. Raises SpecError."""
    problems: list[SpecProblem] = []
    documents: list[_Document] = []
    for path in paths:
        try:
            documents += _read(path)
        except _Unreadable as error:
            problems.append(SpecProblem(file=str(path), line=error.line, path="", message=str(error)))
    valid: list[tuple[_Document, Spec]] = []
    for document in documents:
        spec = _validate(document, problems)
        if spec is not None:
            valid.append((document, spec))
    problems += _across(valid)
    if problems:
        raise SpecError(sorted(problems, key=lambda problem: (problem.file, problem.line)))
    return Specs(
        fleets=tuple(spec for _, spec in valid if isinstance(spec, FleetSpec)),
        queues=tuple(s for _, s in valid if isinstance(s, QueueSpec) and s.spec.shadow is None),
        shadows=tuple(s for _, s in valid if isinstance(s, QueueSpec) and s.spec.shadow is not None),
        platform=next((spec for _, spec in valid if isinstance(spec, PlatformSpec)), None),
        documents=tuple(document.value for document, spec in valid if not isinstance(spec, PlatformSpec)),
    )


class _Unreadable(Exception):
    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.line = line


def _read(path: Path) -> list[_Document]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise _Unreadable(f"larger than {MAX_FILE_BYTES >> 20} MiB: no spec is")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise _Unreadable(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise _Unreadable(f"is no UTF-8 text (byte {error.start}): save it as UTF-8") from None
    try:
        nodes = [node for node in yaml.compose_all(text, Loader=yaml.SafeLoader) if node is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _Unreadable(f"is no YAML: {error.problem}", mark.line + 1 if mark else 1) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise _Unreadable(f"is no YAML: {error}") from None
    documents = []
    for node in nodes:
        document = _Document(file=str(path), value=None)
        document.value = _Builder(document.lines).build(node, ())
        if document.value is not None:
            documents.append(document)
    return documents


class _Builder:
    """Turns YAML nodes into values, and notes the line of every path."""

    def __init__(self, lines: dict[_Path, int]) -> None:
        self._lines = lines
        self._nodes = 0
        self._scalars = yaml.SafeLoader("")

    def build(self, node: yaml.Node, path: _Path) -> Any:
        line = node.start_mark.line + 1
        self._nodes += 1
        if self._nodes > _MAX_NODES or len(path) > 64:
            raise _Unreadable("its aliases stand for too many values", line)
        self._lines.setdefault(path, line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*path, i)) for i, child in enumerate(node.value)]
        try:
            return self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise _Unreadable(f"{node.value!r}: {error}", line) from None

    def _mapping(self, node: yaml.MappingNode, path: _Path) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key_node, child in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise _Unreadable("a key is a word", line)
            if key in value:
                raise _Unreadable(f"key {key!r} is there twice", line)
            self._lines[(*path, key)] = line
            value[key] = self.build(child, (*path, key))
        return value


def _validate(document: _Document, problems: list[SpecProblem]) -> Spec | None:
    value = document.value
    if not isinstance(value, dict):
        problems.append(document.problem((), "a document is a mapping with apiVersion, kind, metadata and spec"))
        return None
    kind = value.get("kind")
    if kind not in KINDS:
        wanted = f"kind: {kind!r} is unknown" if "kind" in value else "kind is missing"
        problems.append(
            document.problem(
                ("kind",) if "kind" in value else (), f"{wanted}; there are: {', '.join(KINDS)}{_nearest(kind, KINDS)}"
            )
        )
        return None
    try:
        return KINDS[kind].model_validate(value)
    except ValidationError as error:
        problems += _problems(document, KINDS[kind], error)
        return None


def _problems(document: _Document, model: type[BaseModel], error: ValidationError) -> Iterator[SpecProblem]:
    seen = set()
    for item in error.errors():
        path = tuple(part for i, part in enumerate(item["loc"]) if _in_yaml(document.value, item["loc"], i))
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            allowed = _allowed(model, item["loc"][:-1])
            message = f"unknown key; allowed here: {', '.join(allowed)}{_nearest(path[-1], allowed)}"
        elif item["type"] == "missing":
            message = "is missing"
        elif item["type"] not in ("value_error", "union_tag_invalid", "union_tag_not_found"):
            given = item["input"]
            message = f"{message}, got {given!r}" if isinstance(given, str | int | float | bool | None) else message
        if (path, message) not in seen:
            seen.add((path, message))
            yield document.problem(path, message)


def _in_yaml(value: Any, loc: Sequence[str | int], index: int) -> bool:
    """Whether a part of pydantic's location is a key or index of the YAML (its locations also name union members)."""
    for part in loc[:index]:
        known = isinstance(value, dict) and part in value
        if known or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
            value = value[part]
    part = loc[index]
    if isinstance(value, list):
        return isinstance(part, int)
    if isinstance(value, dict):
        return isinstance(part, str) and (part in value or index == len(loc) - 1)
    return False


def _allowed(model: Any, loc: Sequence[str | int]) -> list[str]:
    """The keys that a mapping may have, by following a location through the models."""
    for part in loc:
        values = [typing.get_args(m)[1] for m in _members(model) if typing.get_origin(m) is dict]
        if values:  # a mapping of names: what stands under each is of one model
            model = values[0]
            continue
        candidates = [
            candidate
            for candidate in _members(model)
            if isinstance(candidate, type) and issubclass(candidate, BaseModel)
        ]
        for candidate in candidates:
            found = next((f for n, f in candidate.model_fields.items() if (f.alias or n) == part), None)
            if found is not None:
                model = found.annotation
                break
        else:
            tagged = [
                c
                for c in candidates
                if "type" in c.model_fields and part in typing.get_args(c.model_fields["type"].annotation)
            ]
            model = tagged[0] if tagged else model
    models = [m for m in _members(model) if isinstance(m, type) and issubclass(m, BaseModel)]
    return [field.alias or name for m in models for name, field in m.model_fields.items()]


def _members(annotation: Any) -> Iterator[Any]:
    """The types that an annotation may stand for: through Annotated, lists and unions."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _members(typing.get_args(annotation)[0])
    elif origin in (list, typing.Union, types.UnionType):
        for argument in typing.get_args(annotation):
            yield from _members(argument)
    else:
        yield annotation


def _nearest(key: Any, allowed: Iterable[str]) -> str:
    lower = {name.lower(): name for name in allowed}
    near = difflib.get_close_matches(str(key).lower(), lower, n=1, cutoff=0.6)
    return f"; did you mean {lower[near[0]]}?" if near else ""


def _across(valid: Sequence[tuple[_Document, Spec]]) -> Iterator[SpecProblem]:
    """Checks that need several documents."""
    seen: dict[tuple[str, str], _Document] = {}
    fleets = {spec.metadata.name: spec for _, spec in valid if isinstance(spec, FleetSpec)}
    live = [s.metadata.name for _, s in valid if isinstance(s, QueueSpec) and s.spec.shadow is None]
    for document, spec in valid:
        key = (spec.kind, spec.metadata.name)
        if key in seen:
            first = seen[key]
            yield document.problem(
                ("metadata", "name"),
                f"another {spec.kind} is named {key[1]}: {first.file}:{first.lines.get(('metadata',), 1)}",
            )
        seen.setdefault(key, document)
        if isinstance(spec, QueueSpec):
            yield from _check_queue(document, spec, fleets)
            if spec.spec.shadow is not None and spec.spec.shadow.of not in live:
                yield document.problem(
                    ("spec", "shadow", "of"),
                    f"no Queue that takes tickets is named {spec.spec.shadow.of!r} in these files; "
                    f"there are: {', '.join(live) or 'none'}{_nearest(spec.spec.shadow.of, live)}",
                )
        if isinstance(spec, FleetSpec) and spec.spec.rollout.strategy == "canary" and canary_of(key[1]) in fleets:
            yield document.problem(
                ("spec", "rollout", "strategy"),
                f"its canary would be named {canary_of(key[1])}, which is another Fleet's name",
            )
    platforms = [document for document, spec in valid if isinstance(spec, PlatformSpec)]
    for document in platforms[1:]:
        yield document.problem(
            ("kind",),
            f"a cluster has one Platform, and {platforms[0].file}:{platforms[0].lines.get(('kind',), 1)} is one",
        )


def _check_queue(document: _Document, queue: QueueSpec, fleets: dict[str, FleetSpec]) -> Iterator[SpecProblem]:
    players = sum(team.players * team.count for team in queue.spec.teams)
    near_to_players = any(isinstance(rule, Latency) for rule in queue.spec.rules)
    for index, name in enumerate(queue.spec.fleets):
        path = ("spec", "fleets", index)
        fleet = fleets.get(name)
        if fleet is None:
            known = ", ".join(fleets) or "none"
            yield document.problem(
                path, f"no Fleet is named {name!r} in these files; there are: {known}{_nearest(name, fleets)}"
            )
            continue
        if players > fleet.spec.server.seats:
            yield document.problem(
                path, f"a match has {players} players, but fleet {name} has {fleet.spec.server.seats} seats per match"
            )
        if near_to_players and "region" not in fleet.metadata.labels:
            yield document.problem(
                path, f"a latency rule needs to know where fleet {name} is: set its metadata.labels.region"
            )
    for found in impossible(to_queue_config(queue, tuple(fleets.values()))):
        yield document.problem(("spec",) if found.rule is None else ("spec", "rules", found.rule), found.message)


def _dotted(path: _Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
