"""The store's functions against a model: whatever is asked in whatever order, each ticket is in one place and each player in one ticket."""

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from matchmaking import DUEL, FLEET, solo

from gameserver.sessions.client import connect
from gameserver.sessions.model import MatchId, PlayerId
from matchmaker.model import FINAL, Match, TicketId, TicketPlayer, TicketState
from matchmaker.records import Closed, Look, PlayerBusy, QueueClosed, QueueFull, TicketRecord
from matchmaker.store import TicketStore

MOST = 3
TOKEN = "director"
index = st.integers(0, 7)
givers = st.sampled_from(["", TOKEN, TOKEN, "another"])
"""An operator, the director that leads, and one that did."""
steps = st.one_of(
    st.tuples(st.just("create"), st.sets(st.sampled_from("abcde"), min_size=1, max_size=2).map(sorted), st.none()),
    st.tuples(st.just("create"), st.just(["a"]), st.sampled_from(["k", "l"])),
    st.tuples(st.just("cancel"), index),
    st.tuples(
        st.just("commit"), st.sets(index, min_size=1, max_size=2).map(sorted), st.sampled_from([False, False, True])
    ),
    st.tuples(st.just("assign"), index),
    st.tuples(st.just("return"), index, givers),
    st.tuples(st.just("adopt"), index),
    st.tuples(st.just("search"), index),
    st.tuples(st.sampled_from(["expire", "look", "look", "outlast", "lose"])),
    st.tuples(st.just("close"), st.sampled_from([Closed.OPEN, Closed.OPEN, Closed.PAUSED, Closed.DRAINING])),
)
more_matches = st.one_of(
    st.tuples(st.just("commit"), st.sets(index, min_size=1, max_size=2).map(sorted), st.just(False)),
    st.tuples(st.just("propose"), st.sets(index, min_size=1, max_size=2).map(sorted)),
    st.tuples(st.just("accept"), index, st.sampled_from([True, True, True, False])),
    st.tuples(st.just("assign"), index),
    st.tuples(st.just("adopt"), index),
    st.tuples(st.just("return"), index, givers),
)
"""Most random steps make no match: there is nobody to put into one, or the wrong ones."""


@dataclass
class Model:
    """What must be true, in plain Python; answers as the store must."""

    states: dict[TicketId, TicketState] = field(default_factory=dict)
    players: dict[TicketId, list[str]] = field(default_factory=dict)
    keys: dict[str, TicketId] = field(default_factory=dict)
    placing: dict[MatchId, Match] = field(default_factory=dict)
    proposed: dict[MatchId, Match] = field(default_factory=dict)
    accepted: dict[MatchId, set[str]] = field(default_factory=dict)
    owned: set[MatchId] = field(default_factory=set)
    """By the director that leads."""
    offences: dict[str, int] = field(default_factory=dict)
    closed: Closed = Closed.OPEN
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

    def match_of(self, ticket: TicketId) -> Match:
        return next(match for match in self.proposed.values() if ticket in match.tickets)

    def dissolve(self, match: Match, guilty: set[str]) -> None:
        """Tickets with somebody guilty are over, the others wait again."""
        del self.proposed[match.id]
        self.ended.append(match)
        for ticket in match.tickets:
            bad = guilty & set(self.players[ticket])
            for player in bad:
                self.offences[player] = self.offences.get(player, 0) + 1
            self.set(ticket, TicketState.CANCELLED if bad else TicketState.SEARCHING)

    def set(self, ticket: TicketId, state: TicketState) -> None:
        self.states[ticket] = state
        self.events[ticket] += 1


class Run:
    """One sequence of steps on the store and on the model."""

    def __init__(self, store: TicketStore) -> None:
        self.store = store
        self.model = Model()
        self.view: set[TicketId] = set()
        """The pool as a director knows it: from looks, and its own commits."""
        self.cursor = ""
        self.to_place: list[MatchId] = []

    def ticket(self, at: int) -> TicketId | None:
        """One of those that wait, for an even number; any one for an odd number."""
        known = [ticket for ticket in self.model.states if at % 2 or self.model.waits(ticket)]
        return known[at % len(known)] if known else None

    def match(self, at: int) -> Match | None:
        known = [*self.model.placing.values(), *self.model.proposed.values(), *(self.model.ended if at % 2 else ())]
        return known[at % len(known)] if known else None

    async def create(self, names: list[str], key: str | None) -> None:
        model = self.model
        players: tuple[TicketPlayer, ...] = sum((solo(name) for name in names), ())
        made = await self.store.create(DUEL.name, players, idempotency=key or "", max_tickets=MOST)
        if isinstance(made, TicketRecord):
            assert made == await self.store.fetch(made.ticket.id)
            made = made.ticket.id
        busy = next((player for player in players if model.live_of(player.id)), None)
        if key in model.keys:
            assert made == model.keys[key or ""]
        elif busy is not None:
            assert made == PlayerBusy(player=busy.id, ticket=model.live_of(busy.id) or TicketId(""))
        elif model.closed:
            assert made == QueueClosed(how=model.closed)
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
        elif self.model.states[ticket] is TicketState.PROPOSED:
            self.model.dissolve(self.model.match_of(ticket), set(self.model.players[ticket]))
        assert await self.store.cancel(ticket) is self.model.states[ticket]

    async def commit(self, places: list[int], fenced: bool, *, accept_s: float = 0.0) -> None:
        tickets = tuple({ticket: None for at in places if (ticket := self.ticket(at))})
        if not tickets:
            return
        model = self.model
        number = len(model.placing) + len(model.proposed) + len(model.ended)
        match = Match(id=MatchId(f"m{number}"), tickets=tickets, seats=(), fleets=(FLEET,))
        possible = not fenced and all(model.waits(ticket) for ticket in tickets)
        token = "another" if fenced else TOKEN
        assert await self.store.commit(DUEL.name, token, [match], accept_s=accept_s) == [possible]
        if not possible:
            return
        await self.look()  # as a director would have
        self.view -= set(tickets)
        (model.proposed if accept_s else model.placing)[match.id] = match
        model.accepted[match.id] = set()
        if not accept_s:
            model.owned.add(match.id)
        for ticket in tickets:
            model.set(ticket, TicketState.PROPOSED if accept_s else TicketState.PLACING)

    async def accept(self, at: int, accept: bool) -> None:
        """The players of proposed matches say yes or no, in any order and more than once."""
        model = self.model
        asked = [(t, player) for match in model.proposed.values() for t in match.tickets for player in model.players[t]]
        if not asked:
            return
        ticket, player = asked[at % len(asked)]
        match = model.match_of(ticket)
        if not accept:
            model.dissolve(match, {player})
        elif player not in model.accepted[match.id]:
            model.accepted[match.id].add(player)
            everybody = {player for t in match.tickets for player in model.players[t]}
            if done := model.accepted[match.id] == everybody:
                model.placing[match.id] = model.proposed.pop(match.id)
                self.to_place.append(match.id)
            for t in match.tickets:
                model.set(t, TicketState.PLACING if done else TicketState.PROPOSED)
        assert await self.store.accept(ticket, PlayerId(player), accept=accept) is model.states[ticket]

    async def look(self, *, ticket_timeout_s: float = 0.0) -> Look:
        """What a director hears keeps its view of the pool whole."""
        look = await self._look(ticket_timeout_s)
        if not look.complete:
            self.cursor = look.cursor
            self.view = set(await self.store.pool(DUEL.name))
            look = await self._look(ticket_timeout_s)
            self.to_place.clear()
        self.cursor = look.cursor
        self.view -= set(look.removed)
        self.view |= {ticket.id for ticket in look.added}
        assert [match for match in self.to_place if match in look.accepted] == list(look.accepted)
        self.to_place.clear()
        assert look.closed is self.model.closed
        for offence in look.offences:
            await self.store.bar(DUEL.name, offence, duration_s=0)
        return look

    async def _look(self, ticket_timeout_s: float) -> Look:
        look = await self.store.look(
            DUEL.name, TOKEN, lease_s=600, cursor=self.cursor, ticket_timeout_s=ticket_timeout_s
        )
        assert look is not None
        return look

    async def outlast(self) -> None:
        """The players who have not answered are out of time."""
        await asyncio.sleep(0.002)
        for match in list(self.model.proposed.values()):
            everybody = {player for ticket in match.tickets for player in self.model.players[ticket]}
            self.model.dissolve(match, everybody - self.model.accepted[match.id])
            await self.store.client.zadd(f"wf:q:{{{DUEL.name}}}:deadlines", {match.id: 0})
        await self.look()

    async def close(self, how: Closed) -> None:
        await self.store.close(DUEL.name, how)
        self.model.closed = how

    async def adopt(self, at: int) -> None:
        match = self.match(at)
        if match is not None:
            placing = match.id in self.model.placing
            assert await self.store.adopt(DUEL.name, TOKEN, [match.id]) == ([match] if placing else [])
            assert await self.store.adopt(DUEL.name, "another", [match.id]) == []
            if placing:
                self.model.owned.add(match.id)

    async def end(self, at: int, state: TicketState, by: str = "") -> None:
        """Assign a match, or return its tickets; either happens once, and only who owns a match (or an operator) returns it."""
        match = self.match(at)
        if match is None:
            return
        if state is TicketState.ASSIGNED:
            held = [self.model.placing]
            possible = match.id in self.model.placing
            session = await self.store.assign(DUEL.name, match, {"session": f"arena.{match.id}"})
            was_assigned = self.model.states[match.tickets[0]] is TicketState.ASSIGNED
            record = await self.store.fetch(match.tickets[0])
            assert record is not None
            here = record.match == match.id and (possible or was_assigned)
            assert session == (f"arena.{match.id}" if here else None)
        else:
            held = [self.model.placing, self.model.proposed]
            possible = any(match.id in matches for matches in held)
            possible &= by == "" or (by == TOKEN and match.id in self.model.owned)
            assert await self.store.give_back(DUEL.name, match.id, reason="no server", token=by) is possible
        if possible:
            self.model.ended.append(next(matches.pop(match.id) for matches in held if match.id in matches))
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
        await asyncio.sleep(0.003)
        await self.look(ticket_timeout_s=0.001)
        for ticket in waiting:
            self.model.set(ticket, TicketState.TIMED_OUT)

    async def compare(self) -> None:
        assert set(await self.store.pool(DUEL.name)) == self.model.waiting()
        if not self.model.proposed:
            await self.look()
            assert self.view == self.model.waiting()
        assert set(await self.store.placing(DUEL.name)) == set(self.model.placing)
        for ticket, state in self.model.states.items():
            record = await self.store.fetch(ticket)
            assert record is not None
            assert (record.state, record.event) == (state, self.model.events[ticket])
            assert (record.assignment is not None) == (state is TicketState.ASSIGNED)
            wanted = state in (TicketState.PROPOSED, TicketState.PLACING, TicketState.ASSIGNED)
            assert (record.match is not None) == wanted or state is TicketState.CANCELLED
            if state is TicketState.PROPOSED:
                assert record.accepted == len(self.model.accepted[self.model.match_of(ticket).id])
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
            case ("return", int(at), str(by)):
                await run.end(at, TicketState.SEARCHING, by)
            case ("adopt", int(at)):
                await run.adopt(at)
            case ("search", int(at)):
                await run.search(at)
            case ("expire",):
                await run.expire()
            case ("look",):
                await run.look()
            case ("lose",):
                run.cursor = ""
            case ("outlast",):
                await run.outlast()
            case ("close", Closed() as how):
                await run.close(how)
            case ("propose", list(places)):
                await run.commit(places, False, accept_s=600)
            case ("accept", int(at), bool(accept)):
                await run.accept(at, accept)
            case _:
                raise AssertionError(step)
        await run.compare()
    await client.aclose()


@settings(max_examples=60, deadline=None)
@given(st.lists(steps | more_matches, min_size=12, max_size=40))
def test_the_store_does_as_the_model_does(valkey_url: str, sequence: list[tuple[object, ...]]) -> None:
    asyncio.run(run(valkey_url, sequence))
