"""
Parties over HTTP: made, joined by a code, left; ready, and queued by their leader as one ticket.

A party that waits does not change: a member who leaves takes the party's ticket back first (or declines the match that is proposed to it). A ticket that is
over, however it ended, gives the party back to its members, who say anew that they are ready; whoever looks at the party sees to that.
"""

from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Never

from fastapi import APIRouter, Path, Response
from fastapi.responses import StreamingResponse

from allocator.api.problems import Problem
from gameserver import tracing
from gameserver.sessions.model import PlayerId
from matchmaker.api import streams
from matchmaker.api.auth import Caller, Role
from matchmaker.api.described import EVENT_STREAM, LastEventId
from matchmaker.api.lean import Request, Routes
from matchmaker.api.party_schemas import (
    JoinRequest,
    MemberRequest,
    PartyBody,
    PartyTicketRequest,
    ReadyRequest,
    party_body,
)
from matchmaker.api.party_watch import PartyWatch
from matchmaker.api.schemas import TicketBody
from matchmaker.api.services import SIGNED, Authorization, Services
from matchmaker.api.streams import Followed
from matchmaker.api.tickets import Tickets
from matchmaker.model import TicketId, TicketState
from matchmaker.parties.model import Party, PartyId
from matchmaker.parties.store import (
    InParty,
    JoinRefused,
    Kicked,
    NotLeader,
    NotMember,
    PartyFull,
    PartyQueued,
    PartyStore,
    TooManyGuesses,
    Unready,
    WrongCode,
)
from matchmaker.records import TicketRecord
from matchmaker.store import new_ticket_id

PartyPath = Annotated[str, Path(examples=["5f0e9a1c2b7d4e60"])]
_CREATION_S = 10.0
"""A ticket that a party noted and that is not there after so long was never made: whoever was to make it has died."""


class Parties:
    """What the endpoints do."""

    def __init__(self, services: Services, tickets: Tickets, watch: PartyWatch) -> None:
        self._services = services
        self._tickets = tickets
        self._store = PartyStore(services.client)
        self._watch = watch
        self._size = max((queue.party_max for queue in services.queues.values()), default=1)

    async def create(self, caller: Caller, brought: MemberRequest) -> Party:
        """Make a party of one; as large as the largest that any queue takes. Raises Problem."""
        made = await self._store.create(brought.to_member(_player(caller)), size=self._size)
        return made if isinstance(made, Party) else _refuse_join(made)

    async def join(self, caller: Caller, body: JoinRequest) -> Party:
        """Come in by a code. Raises Problem."""
        made = await self._store.join(body.code, body.to_member(_player(caller)))
        return made if isinstance(made, Party) else _refuse_join(made)

    async def look(self, party: str, caller: Caller) -> Party:
        """A party of the player's own, settled if its ticket is over. Raises Problem 404."""
        found, now_s = await self._store.fetch(PartyId(party))
        if found is not None and found.ticket is not None:
            record = await self._services.store.fetch(found.ticket)
            late = record is None and now_s - found.queued_at_s > _CREATION_S
            if late or (record is not None and record.over):
                await self._store.settle(found.id, found.ticket)
                found, _ = await self._store.fetch(PartyId(party))
        if found is None or (caller.player is not None and not found.has(caller.player)):
            raise _unknown(party)
        return found

    async def mine(self, caller: Caller) -> Party:
        """The party that the player is in. Raises Problem 404."""
        found = await self._store.find(_player(caller))
        if found is None:
            raise Problem(HTTPStatus.NOT_FOUND, "you are in no party", kind="not-found")
        return await self.look(found, caller)

    async def remove(self, party: str, player: str, caller: Caller) -> None:
        """Leave, or be removed by the leader or an API key; the party's ticket is taken back. Raises Problem 403, 404."""
        found, gone = await self.look(party, caller), PlayerId(player)
        if not found.has(gone):
            raise Problem(HTTPStatus.NOT_FOUND, f"{player!r} is not in this party", kind="not-found")
        if caller.player not in (None, gone, found.leader):
            raise Problem(HTTPStatus.FORBIDDEN, "only the party's leader removes others", kind="not-leader")
        if found.ticket is not None:
            await self._take_back(found.ticket, gone)
        lost = await self._store.leave(found.id, gone, kicked=caller.player != gone)
        if isinstance(lost, str) and lost != found.ticket:
            await self._take_back(TicketId(lost), gone)  # the party was queued at this moment

    async def ready(self, party: str, player: str, body: ReadyRequest, caller: Caller) -> Party:
        """Say that one is ready, or not. Raises Problem 403, 404, 409."""
        if player != _player(caller):
            raise Problem(HTTPStatus.FORBIDDEN, "players say for themselves that they are ready", kind="forbidden")
        found = await self.look(party, caller)
        brought = body.brings or MemberRequest(attributes={}, latencies={})
        member = brought.to_member(PlayerId(player), ready=body.ready)
        made = await self._store.ready(found.id, member, brings=body.brings is not None)
        match made:
            case Party():
                return made
            case PartyQueued():
                raise _queued(found)
            case NotMember():
                raise _unknown(party)

    async def queue(self, party: str, queue_name: str, caller: Caller) -> tuple[TicketRecord, bool]:
        """Queue the party as one ticket; returns it, and whether it is new. Raises Problem."""
        queue, leader = self._tickets.queue(queue_name), _player(caller)
        await self.look(party, caller)
        ticket = new_ticket_id(queue.name)
        made = await self._store.queue(PartyId(party), leader, queue.name, ticket)
        match made:
            case Party():
                return await self._create(made, ticket, caller), True
            case PartyQueued(party=waiting) if waiting is not None and waiting.queue == queue.name:
                assert waiting.ticket is not None
                # The leader asks again, its reply was lost; or whoever was to make the ticket has died meanwhile.
                return await self._create(waiting, waiting.ticket, caller), False
            case PartyQueued(party=waiting):
                raise _queued(waiting)
            case NotLeader():
                raise Problem(HTTPStatus.FORBIDDEN, "only the party's leader queues it", kind="not-leader")
            case Unready(player=player):
                raise Problem(HTTPStatus.CONFLICT, f"{player} is not ready", kind="unready", player=player)
            case NotMember():
                raise _unknown(party)

    def followed(self, party: str, caller: Caller) -> Followed[Party]:
        """For a stream of the party's changes."""

        async def fetch() -> Party:
            found = await self.look(party, caller)
            self._watch.waits(found)
            return found

        async def body(found: Party, fresh: bool) -> dict[str, Any]:
            return party_body(found)

        return Followed(following=partial(self._watch.following, PartyId(party)), fetch=fetch, body=body)

    async def _create(self, party: Party, ticket: TicketId, caller: Caller) -> TicketRecord:
        assert party.queue is not None
        players = [member.to_player() for member in party.members]
        try:
            with tracing.span("party.queue", queue=party.queue):
                record = await self._tickets.create(party.queue, players, caller, ticket=ticket)
        except Problem:
            await self._store.settle(party.id, ticket)
            raise
        now, _ = await self._store.fetch(party.id)
        if not record.over and (
            now is None or now.ticket != ticket
        ):  # somebody left before there was a ticket to cancel
            await self._services.store.cancel(ticket)
            raise Problem(HTTPStatus.CONFLICT, "the party has changed meanwhile: ask again", kind="party-changed")
        return record

    async def _take_back(self, ticket: TicketId, player: PlayerId) -> None:
        """Cancel a party's ticket for a member who goes; of a proposed match it is that member who declines. One that is being placed goes on."""
        store = self._services.store
        record = await store.fetch(ticket)
        if record is not None and record.state is TicketState.PROPOSED:
            await store.accept(ticket, player, accept=False)
        elif record is not None and not record.over:
            await store.cancel(ticket)


def router(services: Services, parties: Parties, tickets: Tickets) -> APIRouter:
    """The endpoints."""
    api = APIRouter(prefix="/v1/parties", tags=["parties"], dependencies=SIGNED)
    callers = services.callers

    @api.post("", status_code=201, response_model=PartyBody, response_model_exclude_none=True)
    async def create_party(body: MemberRequest, response: Response, authorization: Authorization = "") -> Any:
        """Make a party and lead it; 409 when the player is in one."""
        made = await parties.create(await callers.caller(authorization), body)
        response.headers["Location"] = f"/v1/parties/{made.id}"
        return party_body(made)

    @api.post("/join", response_model=PartyBody, response_model_exclude_none=True)
    async def join_party(body: JoinRequest, authorization: Authorization = "") -> Any:
        """Join by code; ten wrong ones within five minutes, and no other is looked at (429). May be repeated."""
        return party_body(await parties.join(await callers.caller(authorization), body))

    @api.get("/mine", response_model=PartyBody, response_model_exclude_none=True)
    async def get_my_party(authorization: Authorization = "") -> Any:
        """The party that the player is in: for a page that was loaded anew."""
        return party_body(await parties.mine(await callers.caller(authorization)))

    @api.get("/{party}", response_model=PartyBody, response_model_exclude_none=True)
    async def get_party(party: PartyPath, authorization: Authorization = "") -> Any:
        """A party, for its members and API keys."""
        return party_body(await parties.look(party, await callers.caller(authorization)))

    @api.put("/{party}/members/{player}", response_model=PartyBody, response_model_exclude_none=True)
    async def set_ready(party: PartyPath, player: str, body: ReadyRequest, authorization: Authorization = "") -> Any:
        """Say that one is ready or not, and what one brings; 409 while the party waits under a ticket."""
        return party_body(await parties.ready(party, player, body, await callers.caller(authorization)))

    @api.delete("/{party}/members/{player}", status_code=204)
    async def leave_party(party: PartyPath, player: str, authorization: Authorization = "") -> None:
        """
        Leave; or, as the leader or with an API key, remove another, who cannot come back.

        A party that waits loses its ticket by it (a match that is proposed is declined by whoever goes; one that is being placed goes on), and its other
        members are no longer ready. When the leader goes, the one who came next leads; when the last one goes, the party is over.
        """
        await parties.remove(party, player, await callers.caller(authorization))

    _add_queueing(api, services, parties, tickets)
    return api


def _add_queueing(api: APIRouter, services: Services, parties: Parties, tickets: Tickets) -> None:
    """A party's way to a match, and how it is followed."""
    callers = services.callers

    @api.post(
        "/{party}/tickets",
        status_code=201,
        response_model=TicketBody,
        response_model_exclude_none=True,
        responses={200: {"model": TicketBody, "description": "It waits there already."}},
    )
    async def queue_party(
        party: PartyPath, body: PartyTicketRequest, response: Response, authorization: Authorization = ""
    ) -> Any:
        """
        Queue the party as one ticket, which every member can follow: by its leader, once everybody else is ready (409 names who is not).

        May be repeated: the same ticket, then with 200. To leave the queue, any member cancels the ticket.
        """
        caller = await callers.caller(authorization)
        record, new = await parties.queue(party, body.queue, caller)
        response.headers["Location"] = f"/v1/tickets/{record.ticket.id}"
        response.status_code = HTTPStatus.CREATED if new else HTTPStatus.OK
        return await tickets.body(record, caller)

    @api.get("/{party}/events", response_class=StreamingResponse, responses=EVENT_STREAM)
    async def party_events(party: PartyPath, last_event_id: LastEventId = "") -> StreamingResponse:
        """
        Server-sent events named `party`: the party now and at each change, until the player is not in it any more; resumable by Last-Event-ID.

        Answered by `lean` (`routes`, below).
        """
        raise NotImplementedError


def routes(services: Services, parties: Parties) -> Routes:
    """The streams, for `Lean`."""

    async def events(request: Request) -> None:
        caller = await services.callers.caller(request.header(b"authorization"))
        await streams.events(request, parties.followed(request.id, caller), name=b"party")

    return Routes(http={"{id}/events": {"GET": events}})


def _player(caller: Caller) -> PlayerId:
    if caller.role is not Role.PLAYER or caller.player is None:
        raise Problem(
            HTTPStatus.FORBIDDEN, "a player's token is wanted: API keys only look at parties", kind="forbidden"
        )
    return caller.player


def _unknown(party: str) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, f"no party {party!r} of yours", kind="not-found")


def _queued(party: Party | None) -> Problem:
    ticket = None if party is None else party.ticket
    return Problem(
        HTTPStatus.CONFLICT,
        f"the party waits for a match: cancel its ticket first ({ticket})",
        kind="queued",
        ticket=ticket,
    )


def _refuse_join(refused: JoinRefused) -> Never:
    match refused:
        case InParty(party=party):
            raise Problem(
                HTTPStatus.CONFLICT, f"you are in party {party}: leave it first", kind="in-party", party=party
            )
        case WrongCode():
            raise Problem(HTTPStatus.NOT_FOUND, "code: no party has this code", kind="not-found")
        case TooManyGuesses(wait_s=wait_s):
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                "code: too many wrong ones",
                kind="rate-limit",
                headers={"Retry-After": str(max(1, round(wait_s + 0.5)))},
            )
        case PartyFull():
            raise Problem(HTTPStatus.CONFLICT, "the party is full", kind="party-full")
        case PartyQueued():
            raise Problem(
                HTTPStatus.CONFLICT, "the party waits for a match now: ask its members to come back", kind="queued"
            )
        case Kicked():
            raise Problem(HTTPStatus.FORBIDDEN, "you were removed from this party", kind="kicked")
