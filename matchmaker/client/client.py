"""Every endpoint of the REST API as a method; docs/rest.md says what each means, and which role may call it."""

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence

from pydantic import BaseModel, TypeAdapter

from matchmaker.api.explanations import ExplanationBody
from matchmaker.api.party_schemas import MemberRequest, PartyBody
from matchmaker.api.regions import RegionBody
from matchmaker.api.schemas import (
    AssignmentBody,
    BackfillBody,
    DevelopmentPlayerBody,
    PlayerBody,
    QueueBody,
    RatingBody,
    RequeueBody,
    TicketBody,
)
from matchmaker.api.sessions import SessionBody
from matchmaker.client.calls import Calls
from matchmaker.client.errors import Conflict, NotFound
from matchmaker.model import FINAL

_QUEUES = TypeAdapter(list[QueueBody])
_REGIONS = TypeAdapter(list[RegionBody])
_NOTHING = MemberRequest(attributes={}, latencies={})


class Client(Calls):
    """
    The API for one caller. Every method may raise `ApiError`s; those that the API lets repeat are, while it is away.
    """

    async def create_ticket(
        self, queue: str, players: Sequence[PlayerBody], *, priority: str = "", idempotency_key: str = ""
    ) -> TicketBody:
        """Queue a party; a lost answer never makes a second ticket. Raises Conflict (`live-ticket`), Invalid, Unavailable."""
        body = {"queue": queue, "players": [_plain(player) for player in players]}
        if priority:
            body["priority"] = priority
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return await self._post(TicketBody, "/v1/tickets", body, headers=headers)

    async def ticket(self, ticket: str, *, wait_s: float = 0.0) -> TicketBody:
        """A ticket as it stands; with `wait_s` (60 at most) as soon as it changes."""
        return await self._get(TicketBody, f"/v1/tickets/{ticket}", params={"wait": wait_s}, wait_s=wait_s)

    async def follow_ticket(self, ticket: str) -> AsyncIterator[TicketBody]:
        """A ticket now and at each change, until it is over."""
        final = {state.value for state in FINAL}
        async for found in self._follow(TicketBody, f"/v1/tickets/{ticket}/events"):
            yield found
            if found.state in final:
                return

    async def cancel_ticket(self, ticket: str) -> bool:
        """Leave the queue, or decline the proposed match; False when it was over, or too late."""
        try:
            await self._ask("DELETE", f"/v1/tickets/{ticket}")
        except (NotFound, Conflict):
            return False
        return True

    async def accept(self, ticket: str, *, accept: bool = True, player: str = "") -> TicketBody:
        """A player's word on its proposed match; an API key names the `player`. Raises Conflict when there is none (any more)."""
        body = {"accept": accept, **({"player": player} if player else {})}
        return await self._post(TicketBody, f"/v1/tickets/{ticket}/acceptance", body)

    async def explanation(self, ticket: str) -> ExplanationBody:
        """Why a ticket waits."""
        return await self._get(ExplanationBody, f"/v1/tickets/{ticket}/explanation")

    async def queues(self) -> list[QueueBody]:
        """Every queue, and how it does."""
        return _QUEUES.validate_json((await self._ask("GET", "/v1/queues")).content)

    async def regions(self) -> list[RegionBody]:
        """The regions and their beacons, at which players measure their round trips (`gameserver.client.beacons`)."""
        return _REGIONS.validate_json((await self._ask("GET", "/v1/regions")).content)

    async def rating(self, queue: str, player: str) -> RatingBody:
        """What a player is worth in a queue with ratings."""
        return await self._get(RatingBody, f"/v1/queues/{queue}/ratings/{player}")

    async def close_queue(self, queue: str, closed: str) -> None:
        """Pause a queue (`paused`), drain it (`draining`) or open it (``). For operators."""
        await self._ask("PUT", f"/v1/queues/{queue}/closed", {"closed": closed})

    async def create_party(self, brings: MemberRequest = _NOTHING) -> PartyBody:
        """Make a party and lead it. Raises Conflict (`in-party`), also when an answer was lost: then `my_party` has it."""
        return await self._post(PartyBody, "/v1/parties", _plain(brings), repeat=False)

    async def join_party(self, code: str, brings: MemberRequest = _NOTHING) -> PartyBody:
        """Join by a code. Raises NotFound, Conflict, Forbidden (`kicked`), RateLimited after too many wrong ones."""
        return await self._post(PartyBody, "/v1/parties/join", {"code": code, **_plain(brings)})

    async def my_party(self) -> PartyBody:
        """The party that the player is in. Raises NotFound."""
        return await self._get(PartyBody, "/v1/parties/mine")

    async def party(self, party: str) -> PartyBody:
        """A party as it stands."""
        return await self._get(PartyBody, f"/v1/parties/{party}")

    async def follow_party(self, party: str) -> AsyncIterator[PartyBody]:
        """A party now and at each change, until the player is not in it any more."""
        async for found in self._follow(PartyBody, f"/v1/parties/{party}/events"):
            yield found

    async def set_ready(
        self, party: str, player: str, *, ready: bool = True, brings: MemberRequest | None = None
    ) -> PartyBody:
        """Say that one is ready, or not, and what one brings now. Raises Conflict (`queued`)."""
        body = {"ready": ready, **({} if brings is None else {"brings": _plain(brings)})}
        reply = await self._ask("PUT", f"/v1/parties/{party}/members/{player}", body)
        return PartyBody.model_validate_json(reply.content)

    async def leave_party(self, party: str, player: str) -> None:
        """Leave, or remove another; who is not in it any more is no error."""
        try:
            await self._ask("DELETE", f"/v1/parties/{party}/members/{player}")
        except NotFound:
            pass

    async def queue_party(self, party: str, queue: str) -> TicketBody:
        """Queue the party as one ticket. Raises Conflict (`unready`, with the player; `queued` in another queue), Forbidden (`not-leader`)."""
        return await self._post(TicketBody, f"/v1/parties/{party}/tickets", {"queue": queue})

    async def session(self, session: str) -> SessionBody:
        """How a session stands, and what it ended with."""
        return await self._get(SessionBody, f"/v1/sessions/{session}")

    async def seat(self, session: str, *, player: str = "") -> AssignmentBody:
        """Where a player's match is now, with a fresh token; an API key names the `player`. Raises Gone."""
        return await self._get(
            AssignmentBody, f"/v1/sessions/{session}/seat", params={"player": player} if player else {}
        )

    async def add_spectator(self, session: str, player: str) -> AssignmentBody:
        """A token with which somebody watches. For API keys."""
        return await self._post(AssignmentBody, f"/v1/sessions/{session}/spectators", {"player": player})

    async def report_results(self, session: str, results: Mapping[str, object]) -> None:
        """Say how a match ended, once. Raises Conflict (`reported`) when others were. For API keys."""
        await self._ask("PUT", f"/v1/sessions/{session}/results", {"results": dict(results)})

    async def kick(self, session: str, player: str, *, reason: str = "") -> None:
        """Put a player out of a running session for good. Raises Gone. For API keys."""
        await self._ask("POST", f"/v1/sessions/{session}/players/{player}/kick", {"reason": reason} if reason else {})

    async def request_backfill(
        self, match: str, teams: Mapping[str, int], *, version: int = 0, players: Sequence[PlayerBody] = ()
    ) -> BackfillBody:
        """Ask for players for a running match; `version`: the one that the caller knows. Raises Conflict (`version`). For API keys."""
        body = {"teams": dict(teams), "version": version, "players": [_plain(player) for player in players]}
        return await self._post(BackfillBody, f"/v1/matches/{match}/backfill", body)

    async def backfill(self, match: str) -> BackfillBody:
        """What a running match still wants. Raises NotFound when it wants nobody. For API keys."""
        return await self._get(BackfillBody, f"/v1/matches/{match}/backfill")

    async def drop_backfill(self, match: str) -> None:
        """A running match wants nobody any more. For API keys."""
        await self._ask("DELETE", f"/v1/matches/{match}/backfill")

    async def requeue(self, match: str) -> bool:
        """Take a match apart that is proposed or placing; False when it is neither. For operators."""
        return (await self._post(RequeueBody, f"/v1/matches/{match}/requeue")).requeued

    async def development_player(self, name: str = "") -> DevelopmentPlayerBody:
        """A player and its token, from a `warmfleet up`."""
        return await self._post(DevelopmentPlayerBody, "/v1/dev/players", {"name": name} if name else {}, repeat=False)


def _plain(body: BaseModel) -> dict[str, object]:
    return body.model_dump(mode="json", exclude_defaults=True)
