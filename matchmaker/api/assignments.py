"""
The way to a seat: where the session is, and a token for it.

The seat token is minted when an assignment is delivered: short-lived, and for the server where the session is at that moment.
"""

import ipaddress
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from allocator.api.problems import Problem
from allocator.model import Allocation
from gameserver.protocol.messages import SPECTATOR_SEAT
from gameserver.seats import SeatGrant, SeatIssuer
from gameserver.sessions.model import FleetName, PlayerId, ServerName, SessionId, SessionState, parse_session_id
from matchmaker.api.connect import ConnectTokens
from matchmaker.ports import Allocator


class Assignments:
    """Makes `AssignmentBody`s, as JSON values."""

    def __init__(
        self,
        allocator: Allocator,
        seats: SeatIssuer,
        connect: ConnectTokens | None,
        secure: Mapping[FleetName, str],
    ) -> None:
        """
        Args:
            connect: None where no server speaks UDP.
            secure: fleets whose WebSockets are TLS, and the domain of their servers' names; "" where clients dial the address.
        """
        self._allocator = allocator
        self._seats = seats
        self._connect = connect
        self._secure = secure

    async def now(self, assigned: Mapping[str, Any], player: PlayerId) -> dict[str, Any] | None:
        """The way to the seat of a ticket that has been assigned (the store's `assignment`); None when the match is over."""
        found = await self._allocator.find(SessionId(assigned["session"]))
        if found is None or found.session.state is SessionState.ENDED:
            return None
        role = assigned.get("roles", {}).get(player)
        if player not in _players(found):
            return await self.fresh(assigned, player)
        return await self._of(found, player, role)

    async def fresh(self, assigned: Mapping[str, Any], player: PlayerId) -> dict[str, Any]:
        """The same of a ticket that has been assigned this moment: the session is still where it was put."""
        index, team = assigned["seats"][player]
        return await self._made(
            player=player,
            seat={"index": index, "team": team},
            role=assigned.get("roles", {}).get(player),
            session=SessionId(assigned["session"]),
            server=ServerName(assigned["server"]),
            epoch=assigned["epoch"],
            host=assigned["host"],
            ports=assigned["ports"],
            temperature=assigned["temperature"],
        )

    async def seat(self, session: str, player: PlayerId) -> dict[str, Any]:
        """Where a player's session is now. Raises Problem 404, 403, 410."""
        found = await self.session(session)
        if player not in _players(found):
            raise Problem(HTTPStatus.FORBIDDEN, "you have no seat in this session", kind="no-seat")
        if found.session.state is SessionState.ENDED:
            raise Problem(HTTPStatus.GONE, "the match is over", kind="over")
        return await self._of(found, player, None)

    async def session(self, session: str) -> Allocation:
        """A session by its id. Raises Problem 404."""
        try:
            session_id = parse_session_id(session)
        except ValueError as error:
            raise Problem(HTTPStatus.NOT_FOUND, str(error), kind="not-found") from None
        found = await self._allocator.find(session_id)
        if found is None:
            raise Problem(HTTPStatus.NOT_FOUND, f"no session {session!r}", kind="not-found")
        return found

    async def seen(self, session: str, player: PlayerId | None) -> Allocation:
        """A session that a player sits in (None: an API key asks). Raises Problem 404."""
        found = await self.session(session)
        if player is not None and player not in _players(found):
            raise Problem(HTTPStatus.NOT_FOUND, f"no session {session!r} of yours", kind="not-found")
        return found

    async def spectator(self, session: str, player: PlayerId) -> dict[str, Any]:
        """The way to watch a session. Raises Problem 404, 409, 410."""
        found = await self.session(session)
        if found.session.state is SessionState.ENDED:
            raise Problem(HTTPStatus.GONE, "the match is over", kind="over")
        if player in _players(found):
            raise Problem(HTTPStatus.CONFLICT, f"player: {player} plays in this session", kind="plays")
        return await self._at(found, player, {"index": SPECTATOR_SEAT, "team": ""}, None)

    async def _of(self, found: Allocation, player: PlayerId, role: str | None) -> dict[str, Any]:
        seat = next(seat for seat in found.session.seats if seat.player == player)
        return await self._at(found, player, {"index": seat.index, "team": seat.team}, role)

    async def _at(self, found: Allocation, player: PlayerId, seat: dict[str, Any], role: str | None) -> dict[str, Any]:
        session = found.session
        return await self._made(
            player=player,
            seat=seat,
            role=role,
            session=session.id,
            server=session.server,
            epoch=session.epoch,
            host=found.host,
            ports=dict(found.ports),
            temperature=found.temperature.value,
        )

    async def _made(
        self,
        *,
        player: PlayerId,
        seat: dict[str, Any],
        role: str | None,
        session: SessionId,
        server: ServerName,
        epoch: int,
        host: str,
        ports: Mapping[str, int],
        temperature: str,
    ) -> dict[str, Any]:
        grant = SeatGrant(
            player=player, seat=seat["index"], team=seat["team"], session=session, server=server, epoch=epoch
        )
        now_s = time.time()
        fleet = FleetName(session.partition(".")[0])
        domain = self._secure.get(fleet)
        body = {
            "session": session,
            "epoch": epoch,
            "server": server,
            "host": _name(host, domain) if domain else host,
            "ports": ports,
            **({} if domain is None else {"secure": True}),
            "seat": seat if role is None else {**seat, "role": role},
            "token": self._seats.issue(grant, now_s),
            "temperature": temperature,
        }
        if self._connect is not None and "udp" in ports:
            connect = await self._connect.issue(fleet, host, ports["udp"], now_s)
            if connect is not None:
                body["connectToken"] = connect
        return body


def _name(host: str, domain: str) -> str:
    """The name of an address below a domain: 203-0-113-7, or all eight groups of an IPv6 address; what is a name already stays."""
    try:
        address = ipaddress.ip_address(host).exploded
    except ValueError:
        return host
    return f"{address.replace('.', '-').replace(':', '-')}.{domain}"


def _players(found: Allocation) -> list[PlayerId]:
    return [seat.player for seat in found.session.seats]
