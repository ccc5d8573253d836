"""
What a fleet's keeper should do next: pure, level-triggered, idempotent.

Compares what the backend has with what the shelf holds, in both directions, so that a crash at any point between them is healed: a server
that was allocated and not registered is adopted, an entry whose server is gone is dropped, and so on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from allocator.model import FleetPolicy, GameServer, ServerState
from allocator.ports import SHELF_LABEL
from allocator.shelf import LostSession, ShelfEntry, ShelfState
from gameserver.sessions.model import ServerName, SessionId, SessionState

JOIN_TIMEOUT_S = 60.0
"""A session that nobody has joined by then is ended: seat tokens are long expired."""
LOST_TIMEOUT_S = 120.0
"""A session that found no new server by then is ended: its players have gone."""
SETTLE_S = 2.0
"""An entry younger than this is not dropped for its server's state: a backend's list may lag behind its allocation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Free:
    """Free the room of an ended session."""

    session: SessionId


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """End a session that will not go on."""

    session: SessionId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Move a session off a lost server."""

    session: SessionId
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Forget an entry whose server is gone."""

    server: ServerName


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt:
    """Register a server that was allocated for the shelf."""

    server: GameServer


@dataclass(frozen=True, slots=True, kw_only=True)
class HandBack:
    """Unshelve an empty server; it becomes Ready again, or is replaced."""

    server: ServerName
    replace: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocate:
    """Allocate so many servers for the shelf."""

    count: int


Action = Free | End | Move | Drop | Adopt | HandBack | Allocate


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
        if server is None or (server.state is not ServerState.ALLOCATED and entry.age_s > SETTLE_S):
            actions.append(Drop(server=entry.server))
        else:
            kept.append(entry)
            actions += _overdue(policy, entry)
    known = {entry.server for entry in shelf.entries}
    adopted = [
        s for s in observed if s.state is ServerState.ALLOCATED and s.labels.get(SHELF_LABEL) and s.name not in known
    ]
    actions += [Adopt(server=server) for server in adopted]
    return (*actions, *_size(policy, shelf, kept, len(adopted), version))


def shortage(policy: FleetPolicy, shelf: ShelfState, ready: int) -> int:
    """How many servers more than the Ready ones the shelf and its waiters want: what a fleet should grow by."""
    missing = policy.shelf + shelf.waiters + len(shelf.lost) - shelf.free
    return max(0, math.ceil(missing / policy.rooms) - ready)


def _lost(policy: FleetPolicy, lost: LostSession) -> Action:
    if not policy.managed:
        return End(session=lost.session, reason="its server is gone")
    if lost.age_s > LOST_TIMEOUT_S:
        return End(session=lost.session, reason="its server is gone, and no other was found")
    return Move(session=lost.session, epoch=lost.epoch)


def _overdue(policy: FleetPolicy, entry: ShelfEntry) -> list[Action]:
    """Sessions on a live server that are over without having said so."""
    actions: list[Action] = []
    for room in entry.sessions:
        if room.state in (None, SessionState.ENDED):
            actions.append(Free(session=room.session))
        elif policy.managed and room.state is SessionState.PENDING and room.age_s > JOIN_TIMEOUT_S:
            actions.append(End(session=room.session, reason="nobody came"))
    return actions


def _size(
    policy: FleetPolicy, shelf: ShelfState, kept: Sequence[ShelfEntry], adopted: int, version: str
) -> list[Action]:
    """Fill the shelf up, or hand empty servers back: spent and stale ones always, others while enough rooms are left."""
    actions: list[Action] = []
    wanted = policy.shelf + shelf.waiters + len(shelf.lost)
    free = sum(entry.free for entry in kept if not entry.draining) + adopted * policy.rooms
    for entry in sorted(kept, key=lambda entry: entry.age_s, reverse=True):
        if not entry.empty or entry.draining:
            continue
        spent, stale = entry.spent > 0, bool(version) and entry.version != version
        if spent or stale or free - entry.free >= wanted:
            actions.append(HandBack(server=entry.server, replace=spent or stale or not policy.managed))
            free -= entry.free
    if free < wanted:
        actions.append(Allocate(count=math.ceil((wanted - free) / policy.rooms)))
    return actions


def _newest_version(observed: Sequence[GameServer]) -> str:
    """The version that Ready servers have; "" when they differ or there is none (a rollout is under way)."""
    versions = {server.version for server in observed if server.state is ServerState.READY}
    return versions.pop() if len(versions) == 1 else ""
