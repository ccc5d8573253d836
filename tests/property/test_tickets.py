"""The store's functions against a model: whatever is asked in whatever order, each ticket is in one place and each player in one ticket."""

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from matchmaking import DUEL, FLEET, solo

from gameserver.sessions.client import connect
from gameserver.sessions.model import MatchId
from matchmaker.model import FINAL, Match, TicketId, TicketPlayer, TicketState
from matchmaker.store import PlayerBusy, QueueFull, TicketStore

MOST = 3
TOKEN = "director"
index = st.integers(0, 7)
steps = st.one_of(
    st.tuples(st.just("create"), st.sets(st.sampled_from("abcde"), min_size=1, max_size=2).map(sorted), st.none()),
    st.tuples(st.just("create"), st.just(["a"]), st.sampled_from(["k", "l"])),
    st.tuples(st.just("cancel"), index),
    st.tuples(
        st.just("commit"), st.sets(index, min_size=1, max_size=2).map(sorted), st.sampled_from([False, False, True])
    ),
    st.tuples(st.just("assign"), index),
    st.tuples(st.just("return"), index),
    st.tuples(st.just("search"), index),
    st.tuples(st.just("expire")),
)
more_matches = st.one_of(
    st.tuples(st.just("commit"), st.sets(index, min_size=1, max_size=2).map(sorted), st.just(False)),
    st.tuples(st.sampled_from(["assign", "return"]), index),
)
"""Most random steps make no match: there is nobody to put into one, or the wrong ones."""


@dataclass
class Model:
    """What must be true, in plain Python; answers as the store must."""

    states: dict[TicketId, TicketState] = field(default_factory=dict)
    players: dict[TicketId, list[str]] = field(default_factory=dict)
    keys: dict[str, TicketId] = field(default_factory=dict)
    placing: dict[MatchId, Match] = field(default_factory=dict)
    ended: list[Match] = field(default_factory=list)
    events: dict[TicketId, int] = field(default_factory=dict)

    def waits(self, ticket: TicketId) -> bool:
        return self.states[ticket] in (TicketState.QUEUED, TicketState.SEARCHING)

    def waiting(self) -> set[TicketId]:
        return {ticket for ticket in self.states if self.waits(ticket)}

    def live_of(self, player: str) -> TicketId | None:
        live = [t for t, state in self.states.items() if state not in FINAL and player in self.players[t]]
        assert len(live) <= 1
        return live[0] if live else None

    def set(self, ticket: TicketId, state: TicketState) -> None:
        self.states[ticket] = state
        self.events[ticket] += 1


class Run:
    """One sequence of steps on the store and on the model."""

    def __init__(self, store: TicketStore) -> None:
        self.store = store
        self.model = Model()

    def ticket(self, at: int) -> TicketId | None:
        """One of those that wait, for an even number; any one for an odd number."""
        known = [ticket for ticket in self.model.states if at % 2 or self.model.waits(ticket)]
        return known[at % len(known)] if known else None

    def match(self, at: int) -> Match | None:
        known = [*self.model.placing.values(), *(self.model.ended if at % 2 else ())]
        return known[at % len(known)] if known else None

    async def create(self, names: list[str], key: str | None) -> None:
        model = self.model
        players: tuple[TicketPlayer, ...] = sum((solo(name) for name in names), ())
        made = await self.store.create(DUEL.name, players, idempotency=key or "", max_tickets=MOST)
        busy = next((player for player in players if model.live_of(player.id)), None)
        if key in model.keys:
            assert made == model.keys[key or ""]
        elif busy is not None:
            assert made == PlayerBusy(player=busy.id, ticket=model.live_of(busy.id) or TicketId(""))
        elif len(model.waiting()) >= MOST:
            assert made == QueueFull()
        else:
            assert isinstance(made, str)
            assert made not in model.states
            model.players[made], model.events[made] = names, 0
            model.set(made, TicketState.QUEUED)
            if key:
                model.keys[key] = made

    async def cancel(self, at: int) -> None:
        ticket = self.ticket(at)
        if ticket is None:
            assert await self.store.cancel(TicketId("duel.unknown")) is None
            return
        if self.model.waits(ticket):
            self.model.set(ticket, TicketState.CANCELLED)
        assert await self.store.cancel(ticket) is self.model.states[ticket]

    async def commit(self, places: list[int], fenced: bool) -> None:
        tickets = tuple({ticket: None for at in places if (ticket := self.ticket(at))})
        if not tickets:
            return
        number = len(self.model.placing) + len(self.model.ended)
        match = Match(id=MatchId(f"m{number}"), tickets=tickets, seats=(), fleets=(FLEET,))
        possible = not fenced and all(self.model.waits(ticket) for ticket in tickets)
        assert await self.store.commit(DUEL.name, "another" if fenced else TOKEN, match) is possible
        if possible:
            self.model.placing[match.id] = match
            for ticket in tickets:
                self.model.set(ticket, TicketState.PLACING)

    async def end(self, at: int, state: TicketState) -> None:
        """Assign a match, or return its tickets; either happens once."""
        match = self.match(at)
        if match is None:
            return
        if state is TicketState.ASSIGNED:
            done = await self.store.assign(DUEL.name, match, {"session": f"arena.{match.id}"})
        else:
            done = await self.store.give_back(DUEL.name, match, reason="no server")
        assert done is (match.id in self.model.placing)
        if done:
            self.model.ended.append(self.model.placing.pop(match.id))
            for ticket in match.tickets:
                self.model.set(ticket, state)

    async def search(self, at: int) -> None:
        ticket = self.ticket(at)
        if ticket is not None:
            await self.store.searching(DUEL.name, TOKEN, [ticket])
            if self.model.states[ticket] is TicketState.QUEUED:
                self.model.set(ticket, TicketState.SEARCHING)

    async def expire(self) -> None:
        waiting = self.model.waiting()
        assert await self.store.expire(DUEL.name, TOKEN, age_s=-1) == len(waiting)
        for ticket in waiting:
            self.model.set(ticket, TicketState.TIMED_OUT)

    async def compare(self) -> None:
        assert set(await self.store.pool(DUEL.name)) == self.model.waiting()
        assert {match.id: match for match in await self.store.placing(DUEL.name)} == self.model.placing
        for ticket, state in self.model.states.items():
            record = await self.store.fetch(ticket)
            assert record is not None
            assert (record.state, record.event) == (state, self.model.events[ticket])
            assert (record.assignment is not None) == (state is TicketState.ASSIGNED)
            wanted = state in (TicketState.PLACING, TicketState.ASSIGNED)
            assert (record.match is not None) == wanted
            if record.assignment is not None:
                assert record.assignment["session"] == f"arena.{record.match}"


async def run(url: str, sequence: list[tuple[object, ...]]) -> None:
    client = connect(url)
    await client.flushdb()
    run = Run(TicketStore(client))
    assert await run.store.hold_lease(DUEL.name, TOKEN, lease_s=600)
    for step in sequence:
        match step:
            case ("create", list(names), key):
                await run.create(names, key if isinstance(key, str) else None)
            case ("cancel", int(at)):
                await run.cancel(at)
            case ("commit", list(places), bool(fenced)):
                await run.commit(places, fenced)
            case ("assign", int(at)):
                await run.end(at, TicketState.ASSIGNED)
            case ("return", int(at)):
                await run.end(at, TicketState.SEARCHING)
            case ("search", int(at)):
                await run.search(at)
            case ("expire",):
                await run.expire()
            case _:
                raise AssertionError(step)
        await run.compare()
    await client.aclose()


@settings(max_examples=100, deadline=None)
@given(st.lists(steps | more_matches, min_size=12, max_size=40))
def test_the_store_does_as_the_model_does(valkey_url: str, sequence: list[tuple[object, ...]]) -> None:
    asyncio.run(run(valkey_url, sequence))
