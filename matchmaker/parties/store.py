"""
Parties in Valkey.

Each method is one function (`parties.lua`). All parties share one hash tag (docs/decisions/0045); `p` below is `wf:{parties}:`. Everything expires an hour
after somebody last looked or did something.

| key | type | owner, and how it goes |
|---|---|---|
| `p party:<id>` | string: the party as JSON | create; the last member's leaving |
| `p code:<code>` | string: party id | with its party |
| `p member:<player>` | string: the party that the player is in | create, join; leave |
| `p guesses:<player>` | number of wrong codes | join; 5 min after the first |
| `p changed` | channel: ids of parties that changed | |
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from gameserver.sessions.client import StoreClient
from gameserver.sessions.library import FunctionLibrary
from gameserver.sessions.model import PlayerId
from matchmaker.model import QueueName, TicketId
from matchmaker.parties.model import Member, Party, PartyId

PREFIX = "wf:{parties}:"
CHANGED = f"{PREFIX}changed"
CODE_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""None that looks or sounds like another."""
CODE_LENGTH = 8
"""10^12 codes: who guesses ten every five minutes finds one of ten thousand parties in a hundred years."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InParty:
    """The player is in a party already."""

    party: PartyId


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongCode:
    """No party has this code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TooManyGuesses:
    """Too many wrong codes."""

    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PartyFull:
    """It has as many members as it may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartyQueued:
    """It waits for a match: nothing about it changes."""

    party: Party | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kicked:
    """The player was removed from it before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotMember:
    """There is no such party, or the player is not in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotLeader:
    """Another player leads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unready:
    """A member is not ready."""

    player: PlayerId


JoinRefused = InParty | WrongCode | TooManyGuesses | PartyFull | PartyQueued | Kicked
QueueRefused = NotMember | NotLeader | PartyQueued | Unready


class PartyStore:
    """All parties. Every method may raise StoreUnavailable; each may be called again then, with the same arguments."""

    def __init__(self, client: StoreClient) -> None:
        self.client = client
        self._functions = FunctionLibrary(client, Path(__file__).with_name("parties.lua"))

    async def create(self, leader: Member, *, size: int) -> Party | InParty:
        """Make a party of one, with a code of its own."""
        party = PartyId(secrets.token_hex(8))
        while True:
            code = "".join(secrets.choice(CODE_LETTERS) for _ in range(CODE_LENGTH))
            reply = await self._call("party_create", party, code, leader.id, _about(leader), size)
            match reply[0]:
                case b"OK":
                    return _decode(party, reply[1])
                case b"IN":
                    return InParty(party=PartyId(reply[1].decode()))
                case _:
                    continue  # the code is taken

    async def join(self, code: str, member: Member) -> Party | JoinRefused:
        """Let a player in; who is in already stays so."""
        reply = await self._call("party_join", code.strip().upper(), member.id, _about(member))
        match reply[0]:
            case b"OK":
                return _decode(PartyId(reply[1].decode()), reply[2])
            case b"IN":
                return InParty(party=PartyId(reply[1].decode()))
            case b"LATER":
                return TooManyGuesses(wait_s=max(0, reply[1]) / 1000)
            case b"WRONG":
                return WrongCode()
            case b"FULL":
                return PartyFull()
            case b"QUEUED":
                return PartyQueued()
            case _:
                return Kicked()

    async def leave(self, party: PartyId, player: PlayerId, *, kicked: bool) -> TicketId | NotMember | None:
        """Take a member out; returns the ticket under which the party waited, and does not wait any more. `kicked`: it may not come back."""
        reply = await self._call("party_leave", party, player, int(kicked))
        return NotMember() if reply[0] == b"NONE" else TicketId(reply[1].decode()) or None

    async def ready(self, party: PartyId, member: Member, *, brings: bool) -> Party | NotMember | PartyQueued:
        """Say whether a member is ready, and with `brings` also what it brings now."""
        about = _about(member) if brings else b""
        reply = await self._call("party_ready", party, member.id, int(member.ready), about)
        match reply[0]:
            case b"OK":
                return _decode(party, reply[1])
            case b"QUEUED":
                return PartyQueued()
            case _:
                return NotMember()

    async def queue(self, party: PartyId, leader: PlayerId, queue: QueueName, ticket: TicketId) -> Party | QueueRefused:
        """Note that the party waits under this ticket, which is to be created next."""
        reply = await self._call("party_queue", party, leader, queue, ticket)
        match reply[0]:
            case b"OK":
                return _decode(party, reply[1])
            case b"QUEUED":
                return PartyQueued(party=_decode(party, reply[1]))
            case b"LEADER":
                return NotLeader()
            case b"UNREADY":
                return Unready(player=PlayerId(reply[1].decode()))
            case _:
                return NotMember()

    async def settle(self, party: PartyId, ticket: TicketId) -> bool:
        """The party's ticket is over: it gathers again. False when it waits under another one, or none."""
        return bool(await self._call("party_settle", party, ticket))

    async def fetch(self, party: PartyId) -> tuple[Party | None, float]:
        """A party as it stands (None when there is none, any more), and the store's time in Unix seconds."""
        now_ms, raw = await self._call("party_fetch", party)
        return (None if raw is None else _decode(party, raw)), now_ms / 1000

    async def find(self, player: PlayerId) -> PartyId | None:
        """The party that a player is in."""
        found = await self._call("party_find", player)
        return None if found is None else PartyId(found.decode())

    async def _call(self, function: str, *args: str | int | bytes) -> Any:
        return await self._functions.call(function, [PREFIX], *args)


def _about(member: Member) -> bytes:
    return orjson.dumps([dict(member.attributes), dict(member.latencies_ms), member.latency_tokens])


def _decode(party: PartyId, raw: bytes) -> Party:
    value: Mapping[str, Any] = orjson.loads(raw)
    return Party(
        id=party,
        code=value["code"],
        leader=PlayerId(value["leader"]),
        size=value["size"],
        event=value["event"],
        members=tuple(_member(each) for each in value["members"]),
        ticket=TicketId(value["ticket"]) if "ticket" in value else None,
        queue=QueueName(value["queue"]) if "queue" in value else None,
        queued_at_s=value.get("queued_ms", 0) / 1000,
        last_ticket=TicketId(value["last"]) if "last" in value else None,
    )


def _member(value: Mapping[str, Any]) -> Member:
    attributes, latencies_ms, *tokens = orjson.loads(value["about"])
    return Member(
        id=PlayerId(value["id"]),
        ready=value["ready"],
        attributes={name: tuple(v) if isinstance(v, list) else v for name, v in attributes.items()},
        latencies_ms=latencies_ms,
        latency_tokens=tuple(tokens[0]) if tokens else (),
    )
