"""The keeper's plan as a pure function, applied to a model of backend and shelf."""

import random
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from allocator.model import FleetPolicy, GameServer, ServerState
from allocator.planner import (
    JOIN_TIMEOUT_S,
    LOST_TIMEOUT_S,
    SETTLE_S,
    Action,
    Adopt,
    Allocate,
    Drop,
    End,
    Free,
    HandBack,
    Move,
    plan,
    shortage,
)
from allocator.ports import SHELF_LABEL
from allocator.shelf import LostSession, RoomInUse, ShelfEntry, ShelfState
from gameserver.sessions.model import FleetName, ServerName, SessionId, SessionState

FLEET = FleetName("arena")
POLICY = FleetPolicy(name=FLEET, rooms=2, shelf=2)
EMPTY = ShelfState(entries=(), waiters=0, ended=(), lost=())
ALLOCATED, READY = ServerState.ALLOCATED, ServerState.READY


def server(name: str, state: ServerState = ALLOCATED, *, label: str = "yes", version: str = "v1") -> GameServer:
    labels = {SHELF_LABEL: label} if label else {}
    return GameServer(name=ServerName(name), fleet=FLEET, state=state, labels=labels, version=version)


def room(name: str, state: SessionState | None = SessionState.LIVE, age_s: float = 10.0) -> RoomInUse:
    return RoomInUse(session=SessionId(f"arena.{name}"), state=state, age_s=age_s)


def entry(
    name: str, *sessions: RoomInUse, rooms: int = 2, spent: int = 0, age_s: float = 10.0, **more: object
) -> ShelfEntry:
    values = {"version": "v1", "draining": False, **more}
    free = rooms - spent - len(sessions)
    return ShelfEntry(
        server=ServerName(name), rooms=rooms, free=free, spent=spent, age_s=age_s, sessions=sessions, **values  # type: ignore[arg-type]
    )  # fmt: skip


def shelf(*entries: ShelfEntry, **values: object) -> ShelfState:
    return replace(EMPTY, entries=entries, **values)  # type: ignore[arg-type]


class Model:
    """A backend and a shelf on which plans are carried out at once."""

    def __init__(self, policy: FleetPolicy, servers: list[GameServer], state: ShelfState) -> None:
        self.policy = policy
        self.servers = {s.name: s for s in servers}
        self.entries = {e.server: e for e in state.entries}
        self.ended, self.waiters = set(state.ended), state.waiters
        self.lost = {held.session: held for held in state.lost}
        self.count = 0

    @property
    def state(self) -> ShelfState:
        return ShelfState(
            entries=tuple(self.entries.values()),
            waiters=self.waiters,
            ended=tuple(self.ended),
            lost=tuple(self.lost.values()),
        )

    def plan(self) -> tuple[Action, ...]:
        return plan(self.policy, tuple(self.servers.values()), self.state)

    def apply(self, action: Action) -> None:
        match action:
            case Free(session=session) | End(session=session):
                self._free(session)
            case Move(session=session):
                self._move(session)
            case Drop(server=name):
                assert self.servers.get(name, server("x", READY)).state is not ALLOCATED
                gone = self.entries.pop(name)
                self.lost |= {r.session: LostSession(session=r.session, epoch=1, age_s=0.0) for r in gone.sessions}
            case Adopt(server=adopted):
                self._register(self.servers[adopted.name])
            case HandBack(server=name, replace=replaced):
                if self.entries[name].sessions:
                    return  # an earlier action of the plan moved one there: the shelf refuses
                del self.entries[name]
                if replaced:
                    del self.servers[name]
                else:
                    self.servers[name] = replace(self.servers[name], state=READY, labels={})
            case Allocate(count=count):
                for _ in range(count):
                    self._allocate()

    def _allocate(self) -> None:
        ready = [s for s in self.servers.values() if s.state is READY]
        self.count += 1
        taken = ready[0] if ready else server(f"new-{self.count}", READY)
        self.servers[taken.name] = replace(taken, state=ALLOCATED, labels={SHELF_LABEL: "yes"})
        self._register(self.servers[taken.name])

    def _register(self, taken: GameServer) -> None:
        known = entry(taken.name, rooms=self.policy.rooms, age_s=0.0, version=taken.version)
        self.entries.setdefault(taken.name, known)

    def _free(self, session: SessionId) -> None:
        self.ended.discard(session)
        self.lost.pop(session, None)
        for name, held in self.entries.items():
            rest = tuple(r for r in held.sessions if r.session != session)
            if len(rest) < len(held.sessions):
                kept = {"free": held.free + 1} if self.policy.recycle else {"spent": held.spent + 1}
                self.entries[name] = replace(held, sessions=rest, **kept)

    def _move(self, session: SessionId) -> None:
        for name, held in self.entries.items():
            if held.free and not held.draining and session in self.lost:
                moved = RoomInUse(session=session, state=SessionState.LIVE, age_s=0.0)
                self.entries[name] = replace(held, free=held.free - 1, sessions=(*held.sessions, moved))
                del self.lost[session]


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Any backend with any shelf, whether or not they fit together."""
    policy = FleetPolicy(
        name=FLEET,
        rooms=draw(st.integers(1, 3)),
        shelf=draw(st.integers(0, 5)),
        recycle=draw(st.booleans()),
        managed=draw(st.booleans()),
    )
    names = [f"s{i}" for i in range(draw(st.integers(0, 6)))]
    ages, versions = st.sampled_from([0.0, SETTLE_S + 1, 500.0]), st.sampled_from(["v1", "v2"])
    states = st.sampled_from([READY, ALLOCATED, ALLOCATED, ServerState.UNHEALTHY, ServerState.STARTING])
    servers, entries = [], []
    for name in names:
        if draw(st.integers(0, 4)):
            label = draw(st.sampled_from(["yes", "yes", ""]))
            servers.append(server(name, draw(states), label=label, version=draw(versions)))
        if draw(st.booleans()):
            rooms = draw(st.integers(1, 3))
            used = draw(st.integers(0, rooms))
            held = [room(f"{name}-{i}", draw(st.sampled_from([*SessionState, None])), draw(ages)) for i in range(used)]
            spent = draw(st.integers(0, rooms - used))
            more = {"version": draw(versions), "draining": draw(st.sampled_from([False, False, True]))}
            entries.append(entry(name, *held, rooms=rooms, spent=spent, age_s=draw(ages), **more))
    sessions = [r.session for e in entries for r in e.sessions if r.state is SessionState.ENDED]
    lost = [
        LostSession(session=SessionId(f"arena.l{i}"), epoch=1, age_s=draw(ages)) for i in range(draw(st.integers(0, 3)))
    ]
    ended = tuple(draw(st.sets(st.sampled_from(sessions)))) if sessions else ()
    return Model(policy, servers, shelf(*entries, waiters=draw(st.integers(0, 3)), ended=ended, lost=tuple(lost)))


@given(models())
def test_plans_converge(model: Model) -> None:
    """Carried out again and again, plans become empty; then the shelf is full, and nothing leaks or is forgotten."""
    for _ in range(12):
        for action in (actions := model.plan()):
            model.apply(action)
        for name, held in model.entries.items():
            model.entries[name] = replace(held, age_s=held.age_s + SETTLE_S + 1)
        if not actions:
            break
    else:
        pytest.fail(f"still wants {actions}")
    assert not model.lost
    assert not model.ended
    assert model.state.free >= model.policy.shelf + model.waiters
    assert shortage(model.policy, model.state, 0) == 0
    shelved = {s.name for s in model.servers.values() if s.state is ALLOCATED and s.labels.get(SHELF_LABEL)}
    assert shelved <= model.entries.keys()
    assert all(model.servers[name].state is ALLOCATED for name in model.entries)


@given(models(), st.randoms(use_true_random=False))
def test_the_same_world_gives_the_same_plan(model: Model, rng: random.Random) -> None:
    """A plan depends on what is there, not on the order in which a backend lists it; making it changes nothing."""
    first = model.plan()
    assert model.plan() == first
    servers = list(model.servers.values())
    rng.shuffle(servers)
    again = plan(model.policy, servers, model.state)
    assert sorted(map(repr, again)) == sorted(map(repr, first))


@given(models())
def test_no_server_with_sessions_is_handed_back(model: Model) -> None:
    """Handed back are only servers without a session; dropped only such as are not Allocated; each at most once."""
    actions = model.plan()
    for action in actions:
        if isinstance(action, HandBack):
            assert model.entries[action.server].sessions == ()
        if isinstance(action, Drop):
            assert action.server not in model.servers or model.servers[action.server].state is not ALLOCATED
    gone = [action.server for action in actions if isinstance(action, HandBack | Drop)]
    assert len(gone) == len(set(gone))


@given(models(), st.randoms(use_true_random=False))
def test_a_plan_cut_short_is_taken_up(model: Model, rng: random.Random) -> None:
    """Of each plan only some actions are carried out: it comes to rest all the same."""
    for _ in range(100):
        if not (actions := model.plan()):
            return
        for action in actions:
            if rng.random() < 0.5:
                model.apply(action)
    pytest.fail(f"still wants {actions}")


def test_an_empty_shelf_is_filled() -> None:
    """Servers for the wanted rooms, the waiters and the lost, rounded up; nothing more once they are there."""
    lost = (LostSession(session=SessionId("arena.l"), epoch=3, age_s=1.0),)
    assert plan(POLICY, (), EMPTY) == (Allocate(count=1),)
    assert plan(POLICY, (), shelf(waiters=2, lost=lost)) == (
        Move(session=SessionId("arena.l"), epoch=3),
        Allocate(count=3),
    )
    assert plan(POLICY, (server("a"),), shelf(entry("a"))) == ()


def test_a_leaked_server_is_adopted_and_counted() -> None:
    """Allocated with the shelf's label and not registered: it is taken in instead of another."""
    leaked = server("a")
    assert plan(POLICY, (leaked,), EMPTY) == (Adopt(server=leaked),)
    assert plan(POLICY, (server("a", label=""),), EMPTY) == (Allocate(count=1),)


def test_surplus_goes_back_oldest_first() -> None:
    """While enough rooms remain, the oldest empty server goes; one with a session stays."""
    entries = (entry("a"), entry("b", age_s=99.0), entry("c", room("m1"), age_s=999.0))
    servers = [server(name) for name in "abc"]
    assert plan(POLICY, servers, shelf(*entries)) == (HandBack(server=ServerName("b"), replace=False),)


def test_spent_and_stale_servers_are_replaced() -> None:
    """A room used up, or another version among the Ready ones: an empty server is deleted, and its rooms asked for anew."""
    back = HandBack(server=ServerName("a"), replace=True)
    assert plan(POLICY, (server("a"),), shelf(entry("a", spent=1))) == (back, Allocate(count=1))
    servers = (server("a"), server("b", READY, version="v2"))
    assert plan(POLICY, servers, shelf(entry("a"))) == (back, Allocate(count=1))
    rollout = (*servers, server("c", READY, version="v1"))
    assert plan(POLICY, rollout, shelf(entry("a"))) == ()


@pytest.mark.parametrize("state", [None, READY, ServerState.UNHEALTHY])
def test_a_server_that_left_is_dropped(state: ServerState | None) -> None:
    """Gone from the backend at once; in another state than Allocated only when its entry has settled."""
    servers = [] if state is None else [server("a", state)]
    old, young = entry("a", room("m1")), entry("a", room("m1"), age_s=SETTLE_S)
    assert Drop(server=ServerName("a")) in plan(POLICY, servers, shelf(old))
    assert (Drop(server=ServerName("a")) in plan(POLICY, servers, shelf(young))) is (state is None)


def test_sessions_that_are_over_are_freed() -> None:
    """Those the game server ended, those whose record is gone, and those that nobody joined in time."""
    held = (
        room("m1", None),
        room("m2", SessionState.PENDING, JOIN_TIMEOUT_S + 1),
        room("m3", SessionState.PENDING, 1.0),
    )
    actions = plan(POLICY, (server("a"),), shelf(entry("a", *held, rooms=5), ended=(SessionId("arena.m4"),)))
    assert actions == (
        Free(session=SessionId("arena.m4")),
        Free(session=SessionId("arena.m1")),
        End(session=SessionId("arena.m2"), reason="nobody came"),
    )


def test_a_foreign_servers_sessions_are_not_moved() -> None:
    """Nothing of ours runs there: a lost session ends, and one that was never opened counts as going on."""
    foreign = replace(POLICY, managed=False)
    lost = LostSession(session=SessionId("arena.l"), epoch=1, age_s=0.0)
    assert isinstance(plan(foreign, (), shelf(lost=(lost,)))[0], End)
    waiting = entry("a", room("m1", SessionState.PENDING, JOIN_TIMEOUT_S + 1), rooms=3)
    assert plan(foreign, (server("a"),), shelf(waiting)) == ()


def test_a_lost_session_is_given_up_in_the_end() -> None:
    """Moved while there is hope, ended afterwards."""
    lost = LostSession(session=SessionId("arena.l"), epoch=2, age_s=LOST_TIMEOUT_S)
    assert plan(POLICY, (), shelf(lost=(lost,)))[0] == Move(session=SessionId("arena.l"), epoch=2)
    late = replace(lost, age_s=LOST_TIMEOUT_S + 1)
    assert isinstance(plan(POLICY, (), shelf(lost=(late,)))[0], End)


def test_a_shortage_is_what_ready_servers_do_not_cover() -> None:
    """Rounded up to servers, less the Ready ones, never negative."""
    assert shortage(POLICY, shelf(waiters=3), 0) == 3
    assert shortage(POLICY, shelf(waiters=3), 2) == 1
    assert shortage(POLICY, shelf(entry("a"), entry("b")), 0) == 0
