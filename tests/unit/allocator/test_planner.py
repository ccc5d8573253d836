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
    SILENT_S,
    Action,
    Adopt,
    Allocate,
    Drop,
    End,
    Free,
    HandBack,
    Move,
    Remove,
    Retire,
    foreign,
    plan,
    shortage,
)
from allocator.ports import RECYCLE_LABEL, RETIRE_LABEL, SHELF_LABEL, TRACK_LABEL
from allocator.shelf import LostSession, RoomInUse, ShelfEntry, ShelfState
from gameserver.sessions.model import FleetName, ServerMode, ServerName, SessionId, SessionState

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
        self.dead = set(state.dead)
        self.target = state.target
        self.count = 0

    @property
    def state(self) -> ShelfState:
        return ShelfState(
            entries=tuple(self.entries.values()),
            waiters=self.waiters,
            ended=tuple(self.ended),
            lost=tuple(self.lost.values()),
            dead=frozenset(self.dead),
            target=self.target,
        )

    def plan(self) -> tuple[Action, ...]:
        return plan(self.policy, tuple(self.servers.values()), self.state)

    def apply(self, action: Action) -> None:
        match action:
            case Free(session=session) | End(session=session):
                self._free(session)
            case Move(session=session):
                self._move(session)
            case Drop(server=name, dead=dead):
                assert dead or self.servers.get(name, server("x", READY)).state is not ALLOCATED
                self.dead |= {name} if dead else set()
                gone = self.entries.pop(name)
                self.lost |= {r.session: LostSession(session=r.session, epoch=1, age_s=0.0) for r in gone.sessions}
            case Remove(server=name):
                assert name in self.dead
                self.servers.pop(name, None)
            case Retire(server=name):
                self.entries[name] = replace(self.entries[name], draining=True)
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
        max=draw(st.sampled_from([20, 10_000])),
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
            more = {
                "version": draw(versions),
                "draining": draw(st.sampled_from([False, False, True])),
                "silent_s": draw(st.sampled_from([0.0, 0.0, SILENT_S + 1])),
            }
            entries.append(entry(name, *held, rooms=rooms, spent=spent, age_s=draw(ages), **more))
    sessions = [r.session for e in entries for r in e.sessions if r.state is SessionState.ENDED]
    lost = [
        LostSession(session=SessionId(f"arena.l{i}"), epoch=1, age_s=draw(ages)) for i in range(draw(st.integers(0, 3)))
    ]
    ended = tuple(draw(st.sets(st.sampled_from(sessions)))) if sessions else ()
    dead = frozenset(ServerName(name) for name in names if draw(st.integers(0, 5)) == 0)
    more = {"target": draw(st.none() | st.integers(0, 6)), "dead": dead}
    held = shelf(*entries, waiters=draw(st.integers(0, 3)), ended=ended, lost=tuple(lost), **more)
    return Model(policy, servers, held)


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
    wanted = model.policy.shelf if model.target is None else model.target
    assert model.state.free >= wanted + model.waiters
    assert shortage(model.policy, model.state, list(model.servers.values())) == 0
    shelved = {s.name for s in model.servers.values() if s.state is ALLOCATED and s.labels.get(SHELF_LABEL)}
    assert not (shelved - model.entries.keys()) & model.dead
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
        if isinstance(action, Drop) and not action.dead:
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
    assert plan(POLICY, (server("a"),), shelf(entry("a", spent=1))) == (Allocate(count=1), back)
    servers = (server("a"), server("b", READY, version="v2"))
    assert plan(POLICY, servers, shelf(entry("a"))) == (Allocate(count=1), back)
    rollout = (*servers, server("c", READY, version="v1"))
    assert plan(POLICY, rollout, shelf(entry("a"))) == ()


@pytest.mark.parametrize("state", [None, READY, ServerState.UNHEALTHY])
def test_a_server_that_left_is_dropped(state: ServerState | None) -> None:
    """Gone or broken at once; in another state than Allocated only when its entry has settled."""
    servers = [] if state is None else [server("a", state)]
    old, young = entry("a", room("m1")), entry("a", room("m1"), age_s=SETTLE_S)
    assert Drop(server=ServerName("a")) in plan(POLICY, servers, shelf(old))
    assert (Drop(server=ServerName("a")) in plan(POLICY, servers, shelf(young))) is (state is not READY)


def test_a_server_told_to_go_is_left_alone_while_it_speaks() -> None:
    """It hands its matches over first; once its sign of life has expired, it is dropped as if it had died."""
    going = [server("a", ServerState.SHUTDOWN)]
    held = {mode: entry("a", room("m1"), mode=mode) for mode in (ServerMode.MIGRATE, ServerMode.SERVE, None)}
    drop = Drop(server=ServerName("a"))
    assert [drop in plan(POLICY, going, shelf(entry)) for entry in held.values()] == [False, False, True]
    assert drop in plan(replace(POLICY, managed=False), going, shelf(held[ServerMode.SERVE]))


def test_sessions_that_want_to_move_count_as_wanted_rooms() -> None:
    """Even with no shelf to keep, rooms are fetched for them, and the fleet is told to grow."""
    policy = replace(POLICY, shelf=0)
    asks = entry("a", room("m1"), draining=True, mode=ServerMode.MIGRATE)
    retired = entry("a", room("m1"), draining=True, mode=ServerMode.SERVE)
    for wants, held in ((policy, asks), (replace(policy, migrate=True), retired)):
        assert Allocate(count=1) in plan(wants, [server("a")], shelf(held))
        assert shortage(wants, shelf(held), [server("a")]) == 1
    assert plan(policy, [server("a")], shelf(retired)) == ()


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
        End(session=SessionId("arena.m2"), reason="nobody came", only="pending"),
    )


def test_a_foreign_servers_sessions_are_not_moved() -> None:
    """Nothing of ours runs there: a lost session ends, and one that was never opened counts as going on."""
    theirs = replace(POLICY, managed=False)
    lost = LostSession(session=SessionId("arena.l"), epoch=1, age_s=0.0)
    assert isinstance(plan(theirs, (), shelf(lost=(lost,)))[0], End)
    waiting = entry("a", room("m1", SessionState.PENDING, JOIN_TIMEOUT_S + 1), rooms=3)
    assert plan(theirs, (server("a"),), shelf(waiting)) == ()


def test_a_lost_session_is_given_up_in_the_end() -> None:
    """Moved while there is hope, ended afterwards."""
    lost = LostSession(session=SessionId("arena.l"), epoch=2, age_s=LOST_TIMEOUT_S)
    assert plan(POLICY, (), shelf(lost=(lost,)))[0] == Move(session=SessionId("arena.l"), epoch=2)
    late = replace(lost, age_s=LOST_TIMEOUT_S + 1)
    assert isinstance(plan(POLICY, (), shelf(lost=(late,)))[0], End)


def test_a_fleet_grows_by_what_the_shelf_misses() -> None:
    """Rounded up to servers, never negative, within the fleet's min and max; those that are taken are not counted twice."""
    assert shortage(POLICY, shelf(waiters=3), ()) == 3
    assert shortage(POLICY, shelf(waiters=3), (server("a", READY), server("b", ServerState.STARTING))) == 3
    assert shortage(POLICY, shelf(entry("a"), entry("b")), (server("a"), server("b"))) == 0
    assert shortage(replace(POLICY, max=2), shelf(waiters=9), (server("a"),)) == 1
    assert shortage(replace(POLICY, max=1), shelf(waiters=9), (server("a"), server("b"))) == 0
    assert shortage(replace(POLICY, min=4), shelf(entry("a")), (server("a"),)) == 3


def test_the_shelf_keeps_to_the_fleets_max() -> None:
    """No server more than the fleet may have is asked for, however many wait."""
    few = replace(POLICY, max=2)
    assert plan(few, (server("a"),), shelf(entry("a", room("m1"), room("m2")), waiters=9)) == (Allocate(count=1),)
    full = shelf(*(entry(name, room(f"{name}1"), room(f"{name}2")) for name in "ab"), waiters=9)
    assert plan(few, (server("a"), server("b")), full) == ()


def test_a_target_from_outside_takes_the_place_of_the_fleets() -> None:
    """More is allocated, less is handed back."""
    assert plan(POLICY, (), shelf(target=5)) == (Allocate(count=3),)
    assert plan(POLICY, (server("a"),), shelf(entry("a"), target=0)) == (
        HandBack(server=ServerName("a"), replace=False),
    )


def test_an_older_version_gets_no_new_sessions() -> None:
    """Its running ones go on; the rooms it had free are asked for anew, before it is emptied and replaced."""
    servers = (server("a"), server("b", READY, version="v2"))
    retire = Retire(server=ServerName("a"))
    assert plan(POLICY, servers, shelf(entry("a", room("m1")))) == (Allocate(count=1), retire)
    servers, rest = (*servers, server("c", version="v2")), entry("c", version="v2")
    assert plan(POLICY, servers, shelf(entry("a", room("m1"), draining=True), rest)) == ()
    emptied = shelf(entry("a", draining=True), rest)
    assert plan(POLICY, servers, emptied) == (HandBack(server=ServerName("a"), replace=True),)


def test_a_silent_server_is_dropped_then_removed() -> None:
    """Dropped though its backend has it; from then on it is removed there, and not taken for a leaked one."""
    held = entry("a", room("m1"), silent_s=SILENT_S + 0.1)
    assert plan(POLICY, (server("a"),), shelf(held))[0] == Drop(server=ServerName("a"), dead=True)
    dead = shelf(entry("b"), dead=frozenset({ServerName("a")}))
    assert plan(POLICY, (server("a"), server("b")), dead) == (Remove(server=ServerName("a")),)
    theirs = replace(POLICY, managed=False)
    assert not any(isinstance(action, Drop) for action in plan(theirs, (server("a"),), shelf(held)))


def test_foreign_allocations_are_only_counted() -> None:
    """Neither adopted nor handed back; one of ours on its way back to Ready is none."""
    theirs, ours = server("x", label=""), replace(server("y", label=""), labels={RECYCLE_LABEL: "ready"})
    servers = (server("a"), theirs, ours, server("z", READY, label=""))
    assert plan(POLICY, servers, shelf(entry("a"))) == ()
    assert foreign(shelf(entry("a")), servers) == 1


def test_a_canary_makes_nobody_stale_and_is_not_stale_itself() -> None:
    """Two versions stand side by side until one is told to retire; then its empty servers go and its busy ones get nothing new."""
    canary = replace(server("b", version="v2"), labels={SHELF_LABEL: "yes", TRACK_LABEL: "canary"})
    seen = [
        server("a"),
        canary,
        server("r", READY, label=""),
        replace(server("c", READY, version="v2"), labels={TRACK_LABEL: "canary"}),
    ]
    policy = replace(POLICY, shelf=4)
    held = shelf(entry("a"), entry("b", version="v2"))
    assert plan(policy, seen, held) == ()
    seen[1] = replace(canary, labels={**canary.labels, RETIRE_LABEL: "true"})
    assert HandBack(server=ServerName("b"), replace=True) in plan(policy, seen, held)
    busy = shelf(entry("a"), entry("b", room("x"), version="v2"))
    seen[1] = replace(seen[1], labels=seen[1].labels)
    assert Retire(server=ServerName("b")) in plan(policy, seen, busy)
