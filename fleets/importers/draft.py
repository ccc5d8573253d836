"""
A queue while it is being imported: its YAML so far, and notes of what could not be carried over as it was.

What is carried over is as strict as the original or stricter, never laxer (noted as approximated where it is stricter); what cannot be is left out whole, and
noted as dropped.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class ImportFailed(Exception):
    """The file is no configuration of that kind, or no valid queue can be made of it; says where and why."""


class NoEqual(Exception):
    """Of a rule: nothing here is like it; says why."""


class Kind(StrEnum):
    """How much of something was lost."""

    APPROXIMATED = "approximated"
    """Matches obey the original, and more."""
    DROPPED = "dropped"
    """It has no equal here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One thing that is not as it was."""

    queue: str
    path: str
    """In the original, as rules[FairSkill].maxDistance."""
    kind: Kind
    message: str

    def __str__(self) -> str:
        return f"{self.queue}: {self.path}: {self.kind.value}: {self.message}"


Step = tuple[float, Any]
"""From this age in seconds on, another value."""


@dataclass(slots=True, kw_only=True)
class Draft:
    """One queue."""

    name: str
    spec: dict[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    seats: int = 0
    """Players of a match at most."""
    near: bool = False
    """It has a latency rule, which needs fleets in regions."""

    def __post_init__(self) -> None:
        original, self.name = self.name, slug(self.name)
        if self.name != original:
            self.approximated("name", f"{original!r} is {self.name!r} here")
        self.spec |= {"fleets": [], "teams": [], "rules": []}

    def approximated(self, path: str, message: str) -> None:
        """Note what is stricter now, or elsewhere."""
        self.notes.append(Note(queue=self.name, path=path, kind=Kind.APPROXIMATED, message=message))

    def dropped(self, path: str, message: str) -> None:
        """Note what has no equal."""
        self.notes.append(Note(queue=self.name, path=path, kind=Kind.DROPPED, message=message))

    def rule(self, kind: str, **keys: Any) -> None:
        """Add a rule; keys that are None or empty are left out."""
        rule = {"type": kind, **{key: value for key, value in keys.items() if value not in (None, [], "")}}
        if rule not in self.spec["rules"]:
            self.spec["rules"].append(rule)
        self.near |= kind == "latency"

    def team(self, name: str, most: int, fewest: int, count: int = 1) -> dict[str, Any]:
        """Add a team, or teams alike; returns its mapping."""
        team: dict[str, Any] = {"name": name, "players": most}
        if fewest < most:
            team["min"] = fewest
        if count > 1:
            team["count"] = count
        self.spec["teams"].append(team)
        self.seats += most * count
        return team

    def parties(self, most: int) -> bool:
        """Let parties in, as large as a team at most; returns whether there are any."""
        largest = max((team["players"] for team in self.spec["teams"]), default=1)
        size = max(1, min(most, largest))
        self.spec["party"] = {"max": size}
        return size > 1


def slug(name: str) -> str:
    """A name as Kubernetes has them, of at most 40 characters."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1-\2", name)
    short = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:40].strip("-")
    return short or "imported"


def seconds(value: float) -> str:
    """A duration of the YAML."""
    return f"{plain(value)}s" if value >= 1 or value == 0 else f"{plain(value * 1000)}ms"


def milliseconds(value: float) -> str:
    """A round trip of the YAML."""
    return f"{plain(value)}ms"


def plain(value: float) -> str:
    """A number without exponent."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def expand(steps: list[Step], key: str = "max", show: Any = None) -> list[dict[str, Any]]:
    """Steps as `expand` has them: ascending, one for each age; `show` writes a value."""
    last = dict(sorted(steps, key=lambda step: step[0]))
    return [{"after": seconds(after), key: show(value) if show else value} for after, value in last.items()]


def number(value: Any, path: str, *, least: float = -1e15, most: float = 1e15) -> float:
    """A number, also one that is written as a string. Raises ImportFailed."""
    try:
        found = float(value) if not isinstance(value, bool) else None
    except (TypeError, ValueError):
        found = None
    if found is None or not least <= found <= most:
        raise ImportFailed(f"{path}: {value!r}: a number from {least:g} to {most:g} is wanted")
    return int(found) if found.is_integer() else found


def whole(value: Any, path: str, *, least: int = 0, most: int = 1000) -> int:
    """A whole number. Raises ImportFailed."""
    found = number(value, path, least=least, most=most)
    if found != int(found):
        raise ImportFailed(f"{path}: {value!r}: a whole number is wanted")
    return int(found)


def mapping(value: Any, path: str) -> dict[str, Any]:
    """A JSON object; absent is an empty one. Raises ImportFailed."""
    if not isinstance(value if value is not None else {}, dict):
        raise ImportFailed(f"{path}: an object is wanted")
    return value or {}


def rows(value: Any, path: str) -> list[dict[str, Any]]:
    """A JSON list of objects; absent is an empty one. Raises ImportFailed."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise ImportFailed(f"{path}: a list is wanted")
    return [mapping(row, f"{path}[{index}]") for index, row in enumerate(value)]


def text(value: Any, path: str) -> str:
    """A word that is there. Raises ImportFailed."""
    if not isinstance(value, str) or not value:
        raise ImportFailed(f"{path}: {'is missing' if value is None else f'{value!r}: a string is wanted'}")
    return value


def scalar(value: Any) -> bool:
    """Whether a rule can compare with it."""
    return isinstance(value, str | int | float) and not isinstance(value, bool)
