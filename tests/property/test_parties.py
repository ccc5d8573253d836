"""Whatever players do, in whatever order and at the same moment: one party each, never too large, led by a member, its code its own."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gameserver.sessions.client import StoreClient, connect
from gameserver.sessions.model import PlayerId
from matchmaker.model import QueueName, TicketId
from matchmaker.parties.model import Member, Party, PartyId
from matchmaker.parties.store import PREFIX, PartyStore

SIZE = 3
PLAYERS = [PlayerId(name) for name in ("ann", "bob", "cat", "dan", "eve")]
QUEUE = QueueName("squad")

act = st.tuples(
    st.sampled_from(["create", "join", "leave", "kick", "ready", "queue", "settle"]),
    st.sampled_from(PLAYERS),
    st.integers(0, 7),
)


@dataclass
class World:
    """What was ever made: parties' ids and codes, and tickets noted."""

    store: PartyStore
    parties: dict[PartyId, str] = field(default_factory=dict)
    tickets: list[TicketId] = field(default_factory=list)

    async def do(self, what: str, player: PlayerId, pick: int) -> None:
        parties = list(self.parties)
        party = parties[pick % len(parties)] if parties else PartyId("none")
        match what:
            case "create":
                made = await self.store.create(Member(id=player), size=SIZE)
                if isinstance(made, Party):
                    self.parties[made.id] = made.code
            case "join":
                await self.store.join(self.parties.get(party, "WRONG"), Member(id=player))
            case "leave" | "kick":
                await self.store.leave(party, player, kicked=what == "kick")
            case "ready":
                await self.store.ready(party, Member(id=player, ready=bool(pick % 3)), brings=False)
            case "queue":
                ticket = TicketId(f"{QUEUE}.{len(self.tickets)}-{player}")
                self.tickets.append(ticket)
                await self.store.queue(party, player, QUEUE, ticket)
            case _:
                for ticket in self.tickets[-2:]:
                    await self.store.settle(party, ticket)

    async def check(self, client: StoreClient) -> None:
        found = {party: (await self.store.fetch(party))[0] for party in self.parties}
        alive = {party: state for party, state in found.items() if state is not None}
        members = [member.id for state in alive.values() for member in state.members]
        assert len(members) == len(set(members)), "a player is in two parties"
        for state in alive.values():
            assert 1 <= len(state.members) <= SIZE
            assert state.has(state.leader)
            if state.ticket is not None:
                assert all(member.ready for member in state.members if member.id != state.leader)
        for player in PLAYERS:
            home = await self.store.find(player)
            assert home == next((party for party, state in alive.items() if state.has(player)), None)
        keys: Any = await client.keys(f"{PREFIX}code:*")
        assert {key.decode().rpartition(":")[2] for key in keys} == {state.code for state in alive.values()}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=st.lists(st.lists(act, min_size=1, max_size=6), max_size=14))
def test_parties_stay_whole(valkey_url: str, rounds: list[list[tuple[str, PlayerId, int]]]) -> None:
    """Each round's acts come at the same moment, from two processes' connections."""

    async def run() -> None:
        client, other = connect(valkey_url), connect(valkey_url)
        await client.flushall()
        world = World(PartyStore(client))
        beside = World(PartyStore(other), world.parties, world.tickets)
        for acts in rounds:
            async with asyncio.TaskGroup() as tasks:
                for number, one in enumerate(acts):
                    tasks.create_task((world, beside)[number % 2].do(*one))
            await world.check(client)
        await client.aclose()
        await other.aclose()

    asyncio.run(run())
