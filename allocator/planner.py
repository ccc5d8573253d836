"""
What a fleet's keeper should do next: pure, level-triggered, idempotent.

Compares what the backend has with what the shelf holds, in both directions, so that a crash at any point between them is healed: a server
that was allocated and not registered is adopted, an entry whose server is gone is dropped, and so on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from allocator.model import FleetPolicy, GameServer, ServerState
from allocator.ports import RECYCLE_LABEL, RETIRE_LABEL, SHELF_LABEL, TRACK_LABEL
from allocator.shelf import LostSession, ShelfEntry, ShelfState
from gameserver.sessions.model import ServerMode, ServerName, SessionId, SessionState

JOIN_TIMEOUT_S = 60.0
"""A session that nobody has joined by then is ended: seat tokens are long expired."""
LOST_TIMEOUT_S = 120.0
"""A session that found no new server by then is ended: its players have gone."""
SETTLE_S = 2.0
"""An entry younger than this is not dropped for its server's state: a backend's list may lag behind its allocation."""
SILENT_S = 2.0
"""A server whose sign of life expired so long ago is taken for dead, whatever its backend says: with the sign's own 3 s, four or five missed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Free:
    """Free the room of an ended session."""

    session: SessionId


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """End a session that will not go on, if it still is as it was seen."""

    session: SessionId
    reason: str
    only: Literal["pending", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Move a session off a lost server."""

    session: SessionId
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Forget an entry whose server is gone."""

    server: ServerName
    dead: bool = False
    """Its backend still has it, but it gives no sign of life: it is to be removed, and never adopted again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """Remove a server that is taken for dead from its backend."""

    server: ServerName


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt:
    """Register a server that was allocated for the shelf."""

    server: GameServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Retire:
    """Give a server of an older version no new sessions; those on it go on."""

    server: ServerName


@dataclass(frozen=True, slots=True, kw_only=True)
class HandBack:
    """Unshelve an empty server; it becomes Ready again, or is replaced."""

    server: ServerName
    replace: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocate:
    """Allocate so many servers for the shelf."""

    count: int


Action = Free | End | Move | Drop | Remove | Adopt | Retire | HandBack | Allocate


def plan(policy: FleetPolicy, observed: Sequence[GameServer], shelf: ShelfState) -> tuple[Action, ...]:
    """
    Decide the next step; does no I/O.

    Args:
        observed: every live server of the fleet in its backend, any order.
    Returns: actions in the order in which they should be applied; empty once the shelf is as it should be.
    """
    servers = {server.name: server for server in observed}
    version = _newest_version(observed)
    actions: list[Action] = [Free(session=session) for session in shelf.ended]
    actions += [_lost(policy, lost) for lost in shelf.lost]
    kept: list[ShelfEntry] = []
    for entry in shelf.entries:
        server = servers.get(entry.server)
        if _gone(policy, entry, server):
            actions.append(Drop(server=entry.server))
        elif policy.managed and entry.silent_s > SILENT_S:
            actions.append(Drop(server=entry.server, dead=True))
        else:
            kept.append(entry)
            actions += _overdue(policy, entry)
    known = {entry.server for entry in shelf.entries}
    leaked = [
        s for s in observed if s.state is ServerState.ALLOCATED and s.labels.get(SHELF_LABEL) and s.name not in known
    ]
    actions += [Remove(server=server.name) for server in leaked if server.name in shelf.dead]
    adopted = [server for server in leaked if server.name not in shelf.dead]
    actions += [Adopt(server=server) for server in adopted]
    stale = frozenset(entry.server for entry in kept if _stale(entry, servers.get(entry.server), version))
    return (*actions, *_size(policy, shelf, kept, len(adopted), stale))


def plan_blind(policy: FleetPolicy, shelf: ShelfState) -> tuple[Action, ...]:
    """What can be decided while the backend is away: what the store alone says of sessions, and of servers that are silent."""
    actions: list[Action] = [Free(session=session) for session in shelf.ended]
    actions += [_lost(policy, lost) for lost in shelf.lost]
    for entry in shelf.entries:
        if policy.managed and entry.silent_s > SILENT_S:
            actions.append(Drop(server=entry.server, dead=True))
        else:
            actions += _overdue(policy, entry)
    return tuple(actions)


def wanted_rooms(policy: FleetPolicy, shelf: ShelfState) -> int:
    """Rooms that should be claimable: the shelf's target, one for each waiter and for each session that lost its server or is to leave it."""
    target = policy.shelf if shelf.target is None else shelf.target
    leaving = sum(len(entry.sessions) for entry in shelf.entries if _migrates(policy, entry))
    return target + shelf.waiters + len(shelf.lost) + leaving


def _migrates(policy: FleetPolicy, entry: ShelfEntry) -> bool:
    """Whether a server's sessions are to be handed over."""
    return entry.mode is ServerMode.MIGRATE or (policy.migrate and entry.draining and entry.mode is ServerMode.SERVE)


def shortage(policy: FleetPolicy, shelf: ShelfState, observed: Sequence[GameServer]) -> int:
    """
    How many servers the fleet should have beyond those that are taken: what the shelf and its waiters miss, within the fleet's min and max.

    Those that are not Ready yet count towards it: whoever grows the fleet by this must not start them twice, nor stop them.
    """
    taken = sum(server.state in (ServerState.ALLOCATED, ServerState.RESERVED) for server in observed)
    wanted = math.ceil(max(0, wanted_rooms(policy, shelf) - shelf.free) / policy.rooms)
    return max(0, min(max(wanted, policy.min - taken), policy.max - taken))


def foreign(shelf: ShelfState, observed: Sequence[GameServer]) -> int:
    """How many servers of the fleet somebody else has allocated: they are left alone, and only counted."""
    known = {entry.server for entry in shelf.entries}
    return sum(
        server.state is ServerState.ALLOCATED
        and server.name not in known
        and not server.labels.get(SHELF_LABEL)
        and not server.labels.get(RECYCLE_LABEL)  # ours, on its way back to Ready
        for server in observed
    )


def _lost(policy: FleetPolicy, lost: LostSession) -> Action:
    if not policy.managed:
        return End(session=lost.session, reason="its server is gone", only="lost")
    if lost.age_s > LOST_TIMEOUT_S:
        return End(session=lost.session, reason="its server is gone, and no other was found", only="lost")
    return Move(session=lost.session, epoch=lost.epoch)


def _gone(policy: FleetPolicy, entry: ShelfEntry, server: GameServer | None) -> bool:
    """Whether an entry's server has left; one that is told to go and still says that it lives hands its matches over first."""
    if server is None or server.state in (ServerState.UNHEALTHY, ServerState.ERROR):
        return True
    if server.state is ServerState.SHUTDOWN:
        return not policy.managed or entry.mode is None
    return server.state is not ServerState.ALLOCATED and not 0 <= entry.age_s <= SETTLE_S  # the store's clock may jump


def _overdue(policy: FleetPolicy, entry: ShelfEntry) -> list[Action]:
    """Sessions on a live server that are over without having said so."""
    actions: list[Action] = []
    for room in entry.sessions:
        if room.state in (None, SessionState.ENDED):
            actions.append(Free(session=room.session))
        elif policy.managed and room.state is SessionState.PENDING and room.age_s > JOIN_TIMEOUT_S:
            actions.append(End(session=room.session, reason="nobody came", only="pending"))
    return actions


def _size(
    policy: FleetPolicy, shelf: ShelfState, kept: Sequence[ShelfEntry], adopted: int, outdated: frozenset[ServerName]
) -> list[Action]:
    """
    Fill the shelf up, or hand empty servers back: spent, draining and stale ones always, others while enough rooms are left.

    What is new comes before what is handed back, so that the shelf is never emptier than it must be.
    """
    away: list[Action] = []
    wanted = wanted_rooms(policy, shelf)
    servers = len(kept) + adopted
    free = sum(entry.free for entry in kept if not entry.draining) + adopted * policy.rooms
    for entry in sorted(kept, key=lambda entry: entry.age_s, reverse=True):
        claimable = 0 if entry.draining else entry.free
        worn, stale = entry.spent > 0 or entry.draining, entry.server in outdated
        if entry.empty and (worn or stale or free - claimable >= wanted):
            away.append(HandBack(server=entry.server, replace=worn or stale or not policy.managed))
            servers -= 1
        elif stale and not entry.draining:
            away.append(Retire(server=entry.server))
        else:
            continue
        free -= claimable
    lacking = min(math.ceil(max(0, wanted - free) / policy.rooms), max(0, policy.max - servers))
    return [*([Allocate(count=lacking)] if lacking else []), *away]


def _stale(entry: ShelfEntry, server: GameServer | None, version: str) -> bool:
    """Whether a server is to get no new sessions: told so, or of another version than the Ready ones of its own kind."""
    labels = server.labels if server is not None else {}
    if labels.get(RETIRE_LABEL) == "true":
        return True
    return labels.get(TRACK_LABEL) != "canary" and bool(version) and entry.version != version


def _newest_version(observed: Sequence[GameServer]) -> str:
    """The version that Ready servers have, canaries aside; "" when they differ or there is none (an update is under way)."""
    ready = [server for server in observed if server.state is ServerState.READY]
    versions = {server.version for server in ready if server.labels.get(TRACK_LABEL) != "canary"}
    return versions.pop() if len(versions) == 1 else ""
