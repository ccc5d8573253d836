"""
What differs between two states of an object, in paths that people read, and who holds each field.

Pure. Items of a list are matched by the key that Kubernetes itself uses (name, key, type, …), else by their place, so that a container added in
front does not show as every container changed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fleets.cluster.ports import MANAGER
from fleets.render.manifest import Manifest

_KEYS = ("name", "key", "mountPath", "topologyKey", "containerPort", "port", "id", "type", "host", "ip")
_NOISE = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink")
_ABSENT = object()


class Turn(StrEnum):
    """What becomes of a field."""

    ADD = "+"
    CHANGE = "~"
    REMOVE = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One field that would change."""

    turn: Turn
    path: str
    """As spec.template.spec.containers[name=game].image."""
    before: Any
    after: Any
    holder: str = ""
    """Who set the value that stands there, where that is not us: a change by hand, or by another tool."""

    def __str__(self) -> str:
        who = f"   (set by {self.holder})" if self.holder else ""
        if self.turn is Turn.CHANGE:
            return f"~ {self.path}: {_shown(self.before)} → {_shown(self.after)}{who}"
        return f"{self.turn} {self.path}: {_shown(self.after if self.turn is Turn.ADD else self.before)}{who}"


_Path = tuple[str, ...]
"""Segments as .spec, [name=game], [a.key/with-dots]."""


def changes(live: Manifest, then: Manifest) -> tuple[Change, ...]:
    """From the object as it is to the object as it would be, in the order of its fields; what the server keeps for itself is left out."""
    holders = dict(_holders(live))
    return tuple(
        Change(
            turn=turn,
            path="".join(path).removeprefix("."),
            before=before,
            after=after,
            holder=next((holders[path[:i]] for i in range(len(path), 0, -1) if path[:i] in holders), ""),
        )
        for turn, path, before, after in _differ(_quiet(live), _quiet(then), ())
    )


def _quiet(item: Manifest) -> dict[str, Any]:
    metadata = {key: value for key, value in item.get("metadata", {}).items() if key not in _NOISE}
    rest = {key: value for key, value in item.items() if key not in ("metadata", "status", "apiVersion", "kind")}
    return {"metadata": metadata, **rest}


def _differ(before: Any, after: Any, path: _Path) -> Iterator[tuple[Turn, _Path, Any, Any]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from _pair(before.get(key, _ABSENT), after.get(key, _ABSENT), (*path, _segment(key)))
    elif isinstance(before, list) and isinstance(after, list):
        olds, news = _named(before, after)
        for label in [*olds, *(label for label in news if label not in olds)]:
            yield from _pair(olds.get(label, _ABSENT), news.get(label, _ABSENT), (*path, f"[{label}]"))
    elif before != after or type(before) is not type(after):
        yield Turn.CHANGE, path, before, after


def _pair(before: Any, after: Any, path: _Path) -> Iterator[tuple[Turn, _Path, Any, Any]]:
    if before is _ABSENT:
        yield Turn.ADD, path, None, after
    elif after is _ABSENT:
        yield Turn.REMOVE, path, before, None
    else:
        yield from _differ(before, after, path)


def _named(before: Sequence[Any], after: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both lists by the first key that tells all their items apart; by place where there is none."""
    for key in _KEYS:
        old, new = (
            [f"{key}={item[key]}" for item in items if isinstance(item, Mapping) and key in item]
            for items in (before, after)
        )
        if len(set(old)) == len(before) and len(set(new)) == len(after):
            return dict(zip(old, before, strict=True)), dict(zip(new, after, strict=True))
    return {str(i): item for i, item in enumerate(before)}, {str(i): item for i, item in enumerate(after)}


def _segment(key: str) -> str:
    return f".{key}" if key.replace("-", "").replace("_", "").isalnum() else f"[{key}]"


def _holders(live: Manifest) -> Iterator[tuple[_Path, str]]:
    """Path and manager of every field that somebody other than us holds. Source: FieldsV1 of Kubernetes' meta/v1."""
    for entry in live.get("metadata", {}).get("managedFields") or []:
        manager = str(entry.get("manager", ""))
        if manager != MANAGER and not entry.get("subresource"):
            for path in _leaves(entry.get("fieldsV1") or {}, ()):
                yield path, manager


def _leaves(fields: Mapping[str, Any], path: _Path) -> Iterator[_Path]:
    for key, inner in fields.items():
        kind, _, rest = key.partition(":")
        if kind == "f":
            here = (*path, _segment(rest))
        elif kind == "k":
            name, value = next(iter(json.loads(rest).items()))
            here = (*path, f"[{name}={value}]")
        else:
            continue
        if any(child != "." for child in inner):
            yield from _leaves(inner, here)
        else:
            yield here


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
    return text if len(text) <= 200 else f"{text[:197]}…"
