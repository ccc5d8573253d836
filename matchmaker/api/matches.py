"""Running matches, for the studio's services and for operators: backfill, requeue; and queues that are closed for a while."""

from http import HTTPStatus

from fastapi import APIRouter

from allocator.api.problems import Problem
from allocator.model import Allocation
from gameserver.sessions.model import MatchId, SessionState, session_id
from gameserver.sessions.port import SessionGone
from matchmaker.api.auth import Role
from matchmaker.api.lean import invalid
from matchmaker.api.schemas import BackfillBody, BackfillRequest, CloseRequest, RequeueBody
from matchmaker.api.services import SIGNED, Authorization, Services
from matchmaker.backfill import Backfill
from matchmaker.model import QueueConfig, QueueName
from matchmaker.records import Closed


class Matches:
    """What the endpoints do."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def find(self, match: str) -> tuple[Allocation, QueueConfig]:
        """A running match, by its id or its session's. Raises Problem 404, 410, 409."""
        if "." in match:
            found: Allocation | None = await self._services.assignments.session(match)
        else:
            found = await self._anywhere(match)
        if found is None:
            raise Problem(HTTPStatus.NOT_FOUND, f"no match {match!r}", kind="not-found")
        if found.session.state is SessionState.ENDED:
            raise Problem(HTTPStatus.GONE, "the match is over", kind="over")
        queue = self._services.queues.get(QueueName(found.session.options.get("queue", "")))
        if queue is None or not queue.backfill or self._services.seats is None:
            raise Problem(HTTPStatus.CONFLICT, "the match's queue has no backfill: enabled", kind="no-backfill")
        return found, queue

    async def put(self, match: str, body: BackfillRequest) -> BackfillBody:
        """Say what a session wants. Raises Problem 404, 409, 410, 422."""
        found, queue = await self.find(match)
        seats, session = self._services.seats, found.session
        assert seats is not None
        places = {team.name: team.players for team in queue.teams}
        for team, wanted in body.teams.items():
            if wanted > places.get(team, 0):
                raise invalid(f"body.teams.{team}: queue {queue.name} has teams {places}")
        now_s = await self._services.store.now_s(queue.name)
        before = {want.session: want for want in await self._services.store.backfills(queue.name)}.get(session.id)
        want = Backfill(
            session=session.id,
            version=body.version + 1,
            teams=body.teams,
            players=tuple(player.to_player() for player in body.players),
            created_at_s=before.created_at_s if before else now_s,
        )
        if before is not None and before.version not in (body.version, body.version + 1):
            raise _conflict(before.version)
        try:
            await seats.open(session.id, epoch=session.epoch, free=sum(body.teams.values()))
        except SessionGone:
            raise Problem(HTTPStatus.GONE, "the match is over, or has moved: ask again", kind="over") from None
        done, version = await self._services.store.put_backfill(queue.name, want)
        if not done:
            raise _conflict(version)
        return BackfillBody(session=session.id, version=version, teams=body.teams)

    async def get(self, match: str) -> BackfillBody:
        """What a session wants. Raises Problem 404, 410."""
        found, queue = await self.find(match)
        for want in await self._services.store.backfills(queue.name):
            if want.session == found.session.id:
                return BackfillBody(session=want.session, version=want.version, teams=dict(want.teams))
        raise Problem(HTTPStatus.NOT_FOUND, "the match wants nobody", kind="not-found")

    async def drop(self, match: str) -> None:
        """The session wants nobody any more. Raises Problem 404, 410."""
        found, queue = await self.find(match)
        await self._services.store.drop_backfill(queue.name, found.session.id)
        try:
            assert self._services.seats is not None
            await self._services.seats.open(found.session.id, epoch=found.session.epoch, free=0)
        except SessionGone:
            pass  # it takes nobody then

    async def requeue(self, match: str) -> RequeueBody:
        """Take a match apart that is proposed or placing: its tickets wait again, as old as they are."""
        for queue in self._services.queues:
            if await self._services.store.give_back(queue, MatchId(match), reason="requeued by an operator"):
                return RequeueBody(requeued=True)
        return RequeueBody(requeued=False)

    async def close(self, queue: str, how: Closed) -> None:
        """Close a queue, or open it. Raises Problem 404."""
        if queue not in self._services.queues:
            raise Problem(HTTPStatus.NOT_FOUND, f"no queue {queue!r}", kind="not-found")
        await self._services.store.close(QueueName(queue), how)

    async def _anywhere(self, match: str) -> Allocation | None:
        for fleet in {fleet: None for queue in self._services.queues.values() for fleet in queue.fleets}:
            try:
                found = await self._services.allocator.find(session_id(fleet, MatchId(match)))
            except ValueError:
                return None
            if found is not None:
                return found
        return None


def router(services: Services) -> APIRouter:
    """The endpoints."""
    api = APIRouter(prefix="/v1", dependencies=SIGNED)
    matches = Matches(services)

    @api.post("/matches/{match}/backfill", tags=["matches"])
    async def request_backfill(match: str, body: BackfillRequest, authorization: Authorization = "") -> BackfillBody:
        """
        A running match wants players; it gets them before new matches are made. For API keys.

        Replaces what it wanted before, whose `version` must be named; 409 says the newest one, also while players are being seated. Ends with the session.
        """
        await services.callers.caller(authorization, role=Role.BACKEND)
        return await matches.put(match, body)

    @api.get("/matches/{match}/backfill", tags=["matches"])
    async def get_backfill(match: str, authorization: Authorization = "") -> BackfillBody:
        """What a running match still wants. For API keys."""
        await services.callers.caller(authorization, role=Role.BACKEND)
        return await matches.get(match)

    @api.delete("/matches/{match}/backfill", status_code=204, tags=["matches"])
    async def drop_backfill(match: str, authorization: Authorization = "") -> None:
        """A running match wants nobody any more. For API keys."""
        await services.callers.caller(authorization, role=Role.BACKEND)
        await matches.drop(match)

    @api.post("/matches/{match}/requeue", tags=["operators"])
    async def requeue_match(match: str, authorization: Authorization = "") -> RequeueBody:
        """Take a match apart that is proposed or placing: its tickets wait again, as old as they are. For operators."""
        await services.callers.caller(authorization, role=Role.OPERATOR)
        return await matches.requeue(match)

    @api.put("/queues/{queue}/closed", status_code=204, tags=["operators"])
    async def close_queue(queue: str, body: CloseRequest, authorization: Authorization = "") -> None:
        """Pause a queue, drain it, or open it again; outlasts restarts. For operators."""
        await services.callers.caller(authorization, role=Role.OPERATOR)
        await matches.close(queue, Closed(body.closed))

    return api


def _conflict(version: int) -> Problem:
    detail = f"version: the newest is {version}, or players are being seated"
    return Problem(HTTPStatus.CONFLICT, detail, kind="version", version=version)
