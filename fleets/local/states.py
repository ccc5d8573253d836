"""
Agones' state machine of a GameServer, as a table; and what a GameServer is on this machine.

Pure: time is an argument, nothing here touches a process or a socket. The SDK endpoints (`endpoints.py`) and the supervisor (`agones.py`) call
the methods of `GameServerRecord`; a change is told to its listeners at once. Source: pkg/apis/agones/v1/gameserver.go and pkg/sdkserver of Agones.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from allocator.model import GameServer, ServerState
from gameserver.sessions.model import FleetName, ServerName

S = ServerState


class ServerEvent(StrEnum):
    """What may happen to a GameServer."""

    PORTS_TAKEN = "ports_taken"
    SPAWNED = "spawned"
    SDK_READY = "sdk_ready"
    SDK_ALLOCATE = "sdk_allocate"
    SDK_RESERVE = "sdk_reserve"
    SDK_SHUTDOWN = "sdk_shutdown"
    ALLOCATED = "allocated"
    """The backend gave it to a match."""
    DELETED = "deleted"
    CRASHED = "crashed"
    """The process ended without being asked to."""
    UNHEALTHY = "unhealthy"


_LIVE = (S.SCHEDULED, S.READY, S.ALLOCATED, S.RESERVED)
_BEGINNING = (S.PORT_ALLOCATION, S.CREATING)
TRANSITIONS: dict[tuple[ServerState, ServerEvent], ServerState] = {
    (S.PORT_ALLOCATION, ServerEvent.PORTS_TAKEN): S.CREATING,
    (S.CREATING, ServerEvent.SPAWNED): S.SCHEDULED,
    **{(state, ServerEvent.SDK_READY): S.READY for state in _LIVE},
    **{(state, ServerEvent.SDK_ALLOCATE): S.ALLOCATED for state in _LIVE},
    **{(state, ServerEvent.SDK_RESERVE): S.RESERVED for state in _LIVE},
    (S.READY, ServerEvent.ALLOCATED): S.ALLOCATED,
    **{(state, ServerEvent.CRASHED): S.ERROR for state in _BEGINNING},
    **{(state, event): S.UNHEALTHY for state in _LIVE for event in (ServerEvent.CRASHED, ServerEvent.UNHEALTHY)},
    **{
        (state, event): S.SHUTDOWN
        for state in (*_BEGINNING, *_LIVE, S.UNHEALTHY, S.ERROR)
        for event in (ServerEvent.SDK_SHUTDOWN, ServerEvent.DELETED)
    },
}
"""(state, event) → state; what is not here changes nothing, as in Agones. RequestReady is passed at once: no controller is in between."""

OVER = frozenset({S.SHUTDOWN, S.UNHEALTHY, S.ERROR})
"""States of servers that are to be removed and replaced."""

SDK_PREFIX = "agones.dev/sdk-"
LIST_CAPACITY_MAX = 1000

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


class SDKError(Exception):
    """An SDK call that Agones' sidecar refuses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSpec:
    """When a server counts as unhealthy; Agones' defaults."""

    disabled: bool = False
    period_s: float = 5.0
    failure_threshold: int = 3
    initial_delay_s: float = 5.0


@dataclass(slots=True, kw_only=True)
class CounterStatus:
    """A counter's value."""

    count: int = 0
    capacity: int = 0


@dataclass(slots=True, kw_only=True)
class ListStatus:
    """A list's value."""

    values: list[str] = field(default_factory=list)
    capacity: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class GameServerRecord:
    """One GameServer: its state, metadata, health, counters and lists. Times are monotonic seconds."""

    name: ServerName
    fleet: FleetName
    version: str
    uid: str
    created_at_s: float
    """Unix seconds, for `creation_timestamp`."""
    health: HealthSpec
    state: ServerState = S.PORT_ALLOCATION
    since_s: float = 0.0
    host: str = "127.0.0.1"
    ports: dict[str, int] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    counters: dict[str, CounterStatus] = field(default_factory=dict)
    lists: dict[str, ListStatus] = field(default_factory=dict)
    resource_version: int = 1
    reason: str = ""
    """Why it is Unhealthy or in Error."""
    reserved_until_s: float | None = None
    healthy_at_s: float = 0.0
    listeners: list[Callable[[], None]] = field(default_factory=list)

    def happen(self, event: ServerEvent, now_s: float) -> bool:
        """Apply an event; returns whether it changed the state."""
        after = TRANSITIONS.get((self.state, event))
        if after is None:
            return False
        if event is not ServerEvent.SDK_RESERVE:
            self.reserved_until_s = None
        changed = after is not self.state
        if changed:
            self.state, self.since_s = after, now_s
            if after is S.SCHEDULED:
                self.healthy_at_s = now_s + self.health.initial_delay_s
        self.touch()
        return changed

    def touch(self) -> None:
        """Tell the listeners that something changed."""
        self.resource_version += 1
        for listener in tuple(self.listeners):
            listener()

    def reserve(self, seconds: int, now_s: float) -> None:
        """Be Reserved; 0 s is without end."""
        self.happen(ServerEvent.SDK_RESERVE, now_s)
        self.reserved_until_s = now_s + seconds if seconds > 0 else None

    def ping(self, now_s: float) -> None:
        """Take a health ping."""
        self.healthy_at_s = max(self.healthy_at_s, now_s)

    def clock(self, now_s: float) -> None:
        """Let time pass: a reservation ends, missing health pings make it Unhealthy."""
        if self.reserved_until_s is not None and now_s >= self.reserved_until_s:
            self.happen(ServerEvent.SDK_READY, now_s)
        # Agones checks once a period and counts failures up to the threshold.
        silent_s = now_s - self.healthy_at_s
        if (
            self.state in _LIVE
            and not self.health.disabled
            and silent_s > self.health.period_s * self.health.failure_threshold
        ):
            self.reason = f"no health ping for {silent_s:.1f} s"
            self.happen(ServerEvent.UNHEALTHY, now_s)

    def set_label(self, key: str, value: str) -> None:
        """Set a label as the SDK does: prefixed."""
        if not _NAME.fullmatch(key) or (value and not _NAME.fullmatch(value)):
            raise SDKError(f"label {key!r}={value!r}: letters, digits, '-', '_' and '.' are wanted, 63 at most")
        self.labels[SDK_PREFIX + key] = value
        self.touch()

    def set_annotation(self, key: str, value: str) -> None:
        """Set an annotation as the SDK does: prefixed."""
        if not _NAME.fullmatch(key):
            raise SDKError(f"annotation {key!r}: letters, digits, '-', '_' and '.' are wanted, 63 at most")
        self.annotations[SDK_PREFIX + key] = value
        self.touch()

    def counter_named(self, name: str) -> CounterStatus:
        """Find a counter that the fleet declares."""
        if name not in self.counters:
            raise SDKError(f"counter not found: {name}")
        return self.counters[name]

    def update_counter(self, name: str, *, count: int | None, capacity: int | None, add: int) -> CounterStatus:
        """Set the capacity, then the count, then add; the count stays within [0, capacity] or nothing changes."""
        counter = self.counter_named(name)
        new_capacity = counter.capacity if capacity is None else capacity
        new_count = (counter.count if count is None else count) + add
        if new_capacity < 0:
            raise SDKError(f"out of range: capacity {new_capacity} of counter {name} is below 0")
        if (count is not None or add) and not 0 <= new_count <= new_capacity:
            raise SDKError(f"out of range: count {new_count} of counter {name} is not within [0, {new_capacity}]")
        counter.count, counter.capacity = min(new_count, new_capacity), new_capacity
        self.touch()
        return counter

    def list_named(self, name: str) -> ListStatus:
        """Find a list that the fleet declares."""
        if name not in self.lists:
            raise SDKError(f"list not found: {name}")
        return self.lists[name]

    def update_list(self, name: str, *, values: list[str] | None, capacity: int | None) -> ListStatus:
        """Set the capacity or the values (repeated ones once, those beyond the capacity dropped)."""
        status = self.list_named(name)
        if capacity is not None and not 0 <= capacity <= LIST_CAPACITY_MAX:
            raise SDKError(f"out of range: capacity {capacity} of list {name} is not within [0, {LIST_CAPACITY_MAX}]")
        status.capacity = status.capacity if capacity is None else capacity
        wanted = status.values if values is None else list(dict.fromkeys(values))
        status.values = wanted[: status.capacity]
        self.touch()
        return status

    def add_list_value(self, name: str, value: str) -> ListStatus:
        """Append a new value."""
        status = self.list_named(name)
        if len(status.values) >= status.capacity:
            raise SDKError(f"out of range: list {name} is full, its capacity is {status.capacity}")
        if value in status.values:
            raise SDKError(f"already exists: {value!r} in list {name}")
        status.values.append(value)
        self.touch()
        return status

    def remove_list_value(self, name: str, value: str) -> ListStatus:
        """Remove a value."""
        status = self.list_named(name)
        if value not in status.values:
            raise SDKError(f"not found: {value!r} in list {name}")
        status.values.remove(value)
        self.touch()
        return status

    def snapshot(self) -> GameServer:
        """What the allocator sees."""
        return GameServer(
            name=self.name, fleet=self.fleet, state=self.state, host=self.host, ports=dict(self.ports),
            version=self.version, labels=dict(self.labels), annotations=dict(self.annotations),
        )  # fmt: skip
