"""
Backfill: players for sessions that run already.

Owns what a session wants, and who of the waiting fits; pure. One want a session, with a version: whoever changes it names the one it knows, and while
players are being seated nothing else happens to it. The store keeps it, the director fills it before it makes new matches, and it ends with the session.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from gameserver.sessions.model import MatchId, PlayerId, SessionId, fleet_of
from matchmaker.matching.rules import agree, regions_of
from matchmaker.model import QueueConfig, Ticket, TicketId, TicketPlayer

_MOST_LOOKED_AT = 2000
"""Of the waiting, the oldest: a want that nobody of them fits waits for the next cycle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill:
    """What a session wants."""

    session: SessionId
    version: int
    """1 at first; the want after this one is the next."""
    teams: Mapping[str, int]
    """Team → open places, none of them 0."""
    players: tuple[TicketPlayer, ...] = ()
    """Who plays: the rules hold for them and the newcomers together."""
    never: tuple[PlayerId, ...] = ()
    """Who is not sent there: they have left it, or were removed."""
    created_at_s: float = 0.0
    """The store's clock: limits relax with the want's age, as with a ticket's."""
    busy: MatchId | None = None
    """The match that is being seated."""


def choose(
    queue: QueueConfig, backfill: Backfill, waiting: Iterable[Ticket], now_s: float
) -> dict[str, tuple[Ticket, ...]]:
    """
    Who joins which team: the longest wait first, parties whole.

    Every rule that can be asked of players regardless of their team holds among the newcomers and those who play; teams need not become full.

    Args:
        waiting: any order.
    Returns: team → tickets; empty when nobody fits.
    """
    here = [Ticket(id=TicketId(""), players=backfill.players, created_at_s=backfill.created_at_s)]
    chosen: list[Ticket] = here if backfill.players else []
    region = queue.regions.get(fleet_of(backfill.session), "")
    left, joined = dict(backfill.teams), dict[str, tuple[Ticket, ...]]()
    barred = {*backfill.never, *(player.id for player in backfill.players)}
    for ticket in sorted(waiting, key=lambda ticket: (ticket.created_at_s, ticket.id))[:_MOST_LOOKED_AT]:
        size = len(ticket.players)
        team = max(left, key=lambda name: left[name])
        if size > left[team]:
            if left[team] == 0:
                break
            continue
        # The fullest team that the party fits into, so that larger parties still find room in the others.
        team = min((name for name in left if left[name] >= size), key=lambda name: left[name])
        together = [*chosen, ticket]
        if barred & {player.id for player in ticket.players} or not agree(queue, together, now_s):
            continue
        regions = regions_of(queue, together, now_s)
        if regions is not None and region not in regions:
            continue
        chosen, left[team] = together, left[team] - size
        joined[team] = (*joined.get(team, ()), ticket)
    return joined


def after(backfill: Backfill, joined: Mapping[str, tuple[Ticket, ...]], match: MatchId) -> Backfill | None:
    """What the session wants once these have joined; None when it wants nobody."""
    left = {
        team: places - sum(len(ticket.players) for ticket in joined.get(team, ()))
        for team, places in backfill.teams.items()
    }
    open_places = {team: places for team, places in left.items() if places > 0}
    if not open_places:
        return None
    newcomers = tuple(player for tickets in joined.values() for ticket in tickets for player in ticket.players)
    return replace(
        backfill,
        version=backfill.version + 1,
        teams=open_places,
        players=(*backfill.players, *newcomers),
        busy=match,
    )


def encode_backfill(backfill: Backfill) -> bytes:
    """As the store keeps it."""
    value: dict[str, Any] = {
        "version": backfill.version,
        "teams": dict(backfill.teams),
        "created_at_s": backfill.created_at_s,
        "players": [[p.id, dict(p.attributes), dict(p.latencies_ms), p.blocked, p.avoided] for p in backfill.players],
    }
    if backfill.never:
        value["never"] = backfill.never
    if backfill.busy is not None:
        value["busy"] = backfill.busy
    return orjson.dumps(value)


def decode_backfill(session: SessionId, raw: bytes) -> Backfill:
    """The want that was encoded."""
    value = orjson.loads(raw)
    return Backfill(
        session=session,
        version=value["version"],
        teams=value["teams"],
        created_at_s=value["created_at_s"],
        players=tuple(
            TicketPlayer(
                id=PlayerId(player),
                attributes={key: tuple(v) if isinstance(v, list) else v for key, v in attributes.items()},
                latencies_ms=latencies,
                blocked=tuple(blocked),
                avoided=tuple(avoided),
            )
            for player, attributes, latencies, blocked, avoided in map(_whole, value["players"])
        ),
        never=tuple(map(PlayerId, value.get("never", ()))),
        busy=MatchId(value["busy"]) if "busy" in value else None,
    )


def _whole(row: list[Any]) -> list[Any]:
    """A want of an older release lacks whom its players block and avoid."""
    return [*row, [], []][:5]
