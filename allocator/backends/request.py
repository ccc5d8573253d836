"""
What may be asked of Agones for one server, in its own terms, and whether it makes sense.

Pure. Agones answers a request that contradicts itself with a code that says nothing (gRPC) or with 422, or finds no server for ever; here it is refused
before it is sent, with the field and the mend. Source: the validation in pkg/apis/allocation/v1 of Agones, and Kubernetes' rules for labels.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from allocator.model import ServerState
from gameserver.sessions.model import FleetName

FLEET_LABEL = "agones.dev/fleet"
OURS_LABEL = "warmfleet.dev/fleet"
"""The fleet as the studio calls it, where it is rendered by us: a canary's servers carry their fleet's name here."""
SET_LABEL = "agones.dev/gameserverset"
"""The GameServerSet a server is of; there is one for each version of a fleet."""

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
MAX_ANNOTATIONS_BYTES = 256 * 1024


class InvalidRequest(ValueError):
    """A request that no server can ever match, or that Agones would refuse; the message names the field and the mend."""


class Scheduling(StrEnum):
    """Agones' strategies: fill nodes up, or spread."""

    PACKED = "Packed"
    DISTRIBUTED = "Distributed"


class PriorityType(StrEnum):
    """What a priority looks at."""

    COUNTER = "Counter"
    LIST = "List"


class CounterChange(StrEnum):
    """What an allocation does to a counter."""

    INCREMENT = "Increment"
    DECREMENT = "Decrement"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayerRange:
    """Free player places that a server must have (Agones' alpha player tracking)."""

    min_available: int = 0
    max_available: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterRange:
    """What a counter must show; a maximum of 0 is none."""

    min_count: int = 0
    max_count: int = 0
    min_available: int = 0
    max_available: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRange:
    """What a list must have; a maximum of 0 is none."""

    contains: str = ""
    min_available: int = 0
    max_available: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Which servers will do."""

    labels: Mapping[str, str] = field(default_factory=dict)
    state: ServerState = ServerState.READY
    """READY, or ALLOCATED to take an allocated one once more."""
    players: PlayerRange | None = None
    counters: Mapping[str, CounterRange] = field(default_factory=dict)
    lists: Mapping[str, ListRange] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Priority:
    """Which of several servers is taken: by the capacity that a counter or list has left."""

    type: PriorityType
    key: str
    descending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterAction:
    """What to do to a counter in the same step."""

    change: CounterChange | None = None
    amount: int | None = None
    capacity: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListAction:
    """What to do to a list in the same step."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    capacity: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiCluster:
    """Let Agones' own multi-cluster policies choose; with no labels, all policies."""

    policy_labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRequest:
    """One server, please. Raises InvalidRequest when it contradicts itself."""

    selectors: tuple[Selector, ...]
    """In order of preference."""
    scheduling: Scheduling = Scheduling.PACKED
    priorities: tuple[Priority, ...] = ()
    """In descending importance."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Put on the server in the same step."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    counters: Mapping[str, CounterAction] = field(default_factory=dict)
    lists: Mapping[str, ListAction] = field(default_factory=dict)
    multi_cluster: MultiCluster | None = None

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise InvalidRequest(problem)


def canary_of(fleet: FleetName) -> FleetName:
    """The Agones Fleet that runs a new version of `fleet` beside the old one."""
    return FleetName(f"{fleet}-canary")


def fleet_of(labels: Mapping[str, str]) -> FleetName:
    """Whose server it is, by its labels."""
    return FleetName(labels.get(OURS_LABEL) or labels.get(FLEET_LABEL, ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRule:
    """How servers of one fleet are chosen, beyond that they are Ready and of that fleet. Raises InvalidRequest."""

    selectors: tuple[Selector, ...] = (Selector(),)
    """In order of preference; each also wants the fleet."""
    scheduling: Scheduling = Scheduling.PACKED
    priorities: tuple[Priority, ...] = ()
    counters: Mapping[str, CounterAction] = field(default_factory=dict)
    lists: Mapping[str, ListAction] = field(default_factory=dict)
    canary: bool = False
    """Whether a new version may run beside the fleet: its servers are taken first, as many as it was given."""

    def members(self, fleet: FleetName) -> tuple[FleetName, ...]:
        """The Agones Fleets that have its servers, in order of preference."""
        return (canary_of(fleet), fleet) if self.canary else (fleet,)

    def request(self, fleet: FleetName, *, labels: Mapping[str, str], annotations: Mapping[str, str]) -> ServerRequest:
        """The request for a server of `fleet`."""
        wanted: list[Selector] = []
        for index, selector in enumerate(self.selectors):
            if selector.labels.get(FLEET_LABEL, fleet) != fleet:
                raise InvalidRequest(
                    f"selectors[{index}].labels[{FLEET_LABEL}]: {selector.labels[FLEET_LABEL]!r} contradicts the fleet "
                    f"{fleet!r}; leave it out"
                )
            wanted += [
                replace(selector, labels={**selector.labels, FLEET_LABEL: member}) for member in self.members(fleet)
            ]
        return ServerRequest(
            selectors=tuple(wanted),
            scheduling=self.scheduling,
            priorities=self.priorities,
            labels=labels,
            annotations=annotations,
            counters=self.counters,
            lists=self.lists,
        )


def _problems(request: ServerRequest) -> Iterator[str]:
    if not request.selectors:
        yield "selectors: one at least is wanted; an empty one matches every Ready server"
    for index, selector in enumerate(request.selectors):
        yield from _selector_problems(f"selectors[{index}]", selector)
    for index, priority in enumerate(request.priorities):
        if not priority.key:
            yield f"priorities[{index}].key: the name of a {priority.type.value.lower()} is wanted"
    yield from _label_problems("labels", request.labels)
    for key in request.annotations:
        if problem := _key_problem(key):
            yield f"annotations[{key}]: {problem}"
    size = sum(len(key.encode()) + len(value.encode()) for key, value in request.annotations.items())
    if size > MAX_ANNOTATIONS_BYTES:
        yield f"annotations: {size} bytes are more than the {MAX_ANNOTATIONS_BYTES} that Kubernetes takes"
    for name, action in request.counters.items():
        where = f"counters[{name}]"
        if (action.change is None) != (action.amount is None):
            yield f"{where}: change and amount belong together"
        yield from _negative(where, {"amount": action.amount or 0, "capacity": action.capacity or 0})
    for name, act in request.lists.items():
        yield from _negative(f"lists[{name}]", {"capacity": act.capacity or 0})
        if both := set(act.add) & set(act.remove):
            yield f"lists[{name}]: {sorted(both)} would be added and removed; name each once"


def _selector_problems(where: str, selector: Selector) -> Iterator[str]:
    if selector.state not in (ServerState.READY, ServerState.ALLOCATED):
        yield f"{where}.state: {selector.state.value} servers cannot be allocated; Ready or Allocated is wanted"
    yield from _label_problems(f"{where}.labels", selector.labels)
    if selector.players is not None:
        low, high = selector.players.min_available, selector.players.max_available
        yield from _negative(f"{where}.players", {"min_available": low, "max_available": high})
        if low > high:
            yield f"{where}.players: min_available {low} is above max_available {high}: no server can match"
    for name, counter in selector.counters.items():
        place = f"{where}.counters[{name}]"
        yield from _range(place, "count", counter.min_count, counter.max_count)
        yield from _range(place, "available", counter.min_available, counter.max_available)
    for name, values in selector.lists.items():
        yield from _range(f"{where}.lists[{name}]", "available", values.min_available, values.max_available)


def _range(where: str, what: str, low: int, high: int) -> Iterator[str]:
    yield from _negative(where, {f"min_{what}": low, f"max_{what}": high})
    if 0 < high < low:
        yield f"{where}: min_{what} {low} is above max_{what} {high}: no server can match (0 is no maximum)"


def _negative(where: str, values: Mapping[str, int]) -> Iterator[str]:
    for name, value in values.items():
        if value < 0:
            yield f"{where}.{name}: {value} is negative; 0 or more is wanted"


def _label_problems(where: str, labels: Mapping[str, str]) -> Iterator[str]:
    for key, value in labels.items():
        if problem := _key_problem(key):
            yield f"{where}[{key}]: {problem}"
        if value and not _NAME.fullmatch(value):
            yield (
                f"{where}[{key}]: {value!r} is no label value: up to 63 letters, digits, '-', '_' and '.', "
                "beginning and ending with a letter or digit"
            )


def _key_problem(key: str) -> str:
    prefix, slash, name = key.rpartition("/")
    if not _NAME.fullmatch(name) or (slash and not _PREFIX.fullmatch(prefix)):
        return "is no key of Kubernetes': [a DNS name/]up to 63 letters, digits, '-', '_' and '.'"
    return ""
