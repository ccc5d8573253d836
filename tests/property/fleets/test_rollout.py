"""Rollouts against a small Agones, with lost actions, players that come and go, crashes of the new version, and aborts at any time."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleets.rollout.model import (
    OVER,
    TABLE,
    Event,
    Health,
    Limits,
    Observed,
    Phase,
    Promote,
    RemoveCanary,
    Restore,
    SetCanary,
    State,
    Track,
    WrongPhase,
)
from fleets.rollout.planner import abort, plan


@dataclass
class Fleet:
    """As Agones runs one: Allocated servers are never touched, one Ready server at a time is replaced by a new version's."""

    version: str
    wanted: int
    servers: list[list[str]] = field(default_factory=list)
    """[version, state]: Starting, Ready or Allocated."""

    def tick(self) -> None:
        for server in self.servers:
            if server[1] == "Starting":
                server[1] = "Ready"
        starting = any(server[1] == "Starting" for server in self.servers)
        outdated = [server for server in self.servers if server[1] == "Ready" and server[0] != self.version]
        if outdated and not starting:
            self.servers.remove(outdated[0])
        while len(self.servers) < self.wanted:
            self.servers.append([self.version, "Starting"])
        for server in [s for s in self.servers if s[1] != "Allocated"][: max(0, len(self.servers) - self.wanted)]:
            self.servers.remove(server)

    def count(self, state: str) -> int:
        return sum(server[1] == state for server in self.servers)

    def track(self) -> Track:
        ready = [server[0] for server in self.servers if server[1] == "Ready"]
        by_version = {version: ready.count(version) for version in set(ready)}
        return Track(
            version=self.version,
            wanted=self.wanted,
            ready=len(ready),
            busy=self.count("Allocated"),
            ready_by_version=by_version,
        )


@dataclass
class World:
    rng: random.Random
    stable: Fleet
    canary: Fleet | None = None
    failing: float = 0.0
    started: int = 0
    failed: int = 0
    time_s: float = 0.0

    def tick(self, *, players: bool) -> None:
        self.time_s += 10
        for fleet in filter(None, (self.stable, self.canary)):
            fleet.tick()
        self._play(players)
        if self.canary is not None:
            for server in [server for server in self.canary.servers if server[1] != "Starting"]:
                if self.rng.random() < self.failing:
                    self.canary.servers.remove(server)
                    self.failed += 1
            self.started = max(self.started, len(self.canary.servers) + self.failed)

    def _play(self, players: bool) -> None:
        """Matches prefer the canary; they begin and end."""
        for fleet in filter(None, (self.canary, self.stable)):
            for server in fleet.servers:
                if players and server[1] == "Ready" and self.rng.random() < 0.2:
                    server[1] = "Allocated"
                elif server[1] == "Allocated" and (not players or self.rng.random() < 0.3):
                    server[1] = "Ready" if server[0] == fleet.version and self.rng.random() < 0.5 else "Gone"
            fleet.servers[:] = [server for server in fleet.servers if server[1] != "Gone"]

    def seen(self) -> Observed:
        canary = self.canary.track() if self.canary is not None else None
        return Observed(
            stable=self.stable.track(), canary=canary, health=Health(started=self.started, failed=self.failed)
        )


def run(world: World, limits: Limits, *, lose: float, abort_at: int | None, ticks: int = 400) -> State:
    """Until it is over; checks what must hold at every action."""
    state = State(phase=Phase.STEPPING, old="v1", new="v2")
    for tick in range(ticks):
        if abort_at == tick and state.phase not in OVER:
            state = abort(state, world.time_s, "by hand")
        seen = world.seen()
        after, actions = plan(limits, state, seen, world.time_s)
        if world.rng.random() < lose / 2:  # the runner died before it wrote; another reads the old state
            world.tick(players=tick < ticks // 2)
            continue
        state = after
        for action in actions:
            if world.rng.random() < lose:
                continue
            act(world, state, action)
        if state.phase in OVER:
            return state
        world.tick(players=tick < ticks // 2)
    return state


def act(world: World, state: State, action: object) -> None:
    before = world.stable.wanted
    match action:
        case SetCanary(replicas=count):
            now = world.canary.wanted if world.canary is not None else 0
            if count < now:
                assert state.phase in (Phase.RETIRING, Phase.ABORTING)
                final = state.new if state.phase is Phase.RETIRING else state.old
                assert world.stable.version == final
                other = state.old if final == state.new else state.new
                assert not [s for s in world.stable.servers if s[1] == "Ready" and s[0] == other]
            if world.canary is None:
                world.canary = Fleet(version="v2", wanted=count)
            world.canary.wanted = count
        case Promote():
            assert world.canary is not None
            assert world.canary.wanted > 0
            world.stable.version = "v2"
        case Restore():
            world.stable.version = "v1"
        case RemoveCanary():
            assert world.canary is not None
            assert world.canary.count("Allocated") == 0
            assert world.canary.wanted == 0
            world.canary = None
    assert world.stable.wanted == before


_LIMITS = st.builds(
    Limits,
    steps=st.lists(st.sampled_from([0.05, 0.25, 0.5, 1.0]), min_size=1, max_size=3, unique=True).map(sorted).map(tuple),
    pause_s=st.sampled_from([0.0, 20.0]),
    ready_within_s=st.just(200.0),
    unhealthy_rate=st.just(0.3),
    max_servers=st.integers(1, 20),
)


def world_of(seed: int, wanted: int, failing: float = 0.0) -> World:
    stable = Fleet(version="v1", wanted=wanted, servers=[["v1", "Ready"] for _ in range(wanted)])
    return World(rng=random.Random(seed), stable=stable, failing=failing)


@given(st.integers(0, 1 << 30), st.integers(1, 12), _LIMITS, st.sampled_from([0.0, 0.5]))
@settings(max_examples=80, deadline=None)
def test_a_healthy_version_comes_in_everywhere(seed: int, wanted: int, limits: Limits, lose: float) -> None:
    """Whatever is lost; the canary is gone, no old server is Ready, and nobody's session was ended."""
    world = world_of(seed, wanted)
    state = run(world, limits, lose=lose, abort_at=None)
    assert state.phase is Phase.DONE
    assert world.canary is None
    assert world.stable.version == "v2"
    assert not [server for server in world.stable.servers if server == ["v1", "Ready"]]


@given(st.integers(0, 1 << 30), st.integers(1, 12), _LIMITS, st.sampled_from([0.0, 0.5]))
@settings(max_examples=80, deadline=None)
def test_a_failing_version_is_taken_back(seed: int, wanted: int, limits: Limits, lose: float) -> None:
    """With the reason, and without the old fleet ever having been touched."""
    world = world_of(seed, wanted, failing=1.0)
    state = run(world, limits, lose=lose, abort_at=None)
    assert state.phase is Phase.ABORTED
    assert state.reason
    assert world.canary is None
    assert {server[0] for server in world.stable.servers} <= {"v1"}


@given(st.integers(0, 1 << 30), st.integers(1, 12), _LIMITS, st.sampled_from([0.0, 0.5]), st.integers(0, 60))
@settings(max_examples=100, deadline=None)
def test_an_abort_at_any_time_ends_in_the_old_version(
    seed: int, wanted: int, limits: Limits, lose: float, at: int
) -> None:
    """Or, when it came too late, in the new one."""
    world = world_of(seed, wanted)
    state = run(world, limits, lose=lose, abort_at=at)
    assert state.phase in OVER
    assert world.canary is None
    final = "v1" if state.phase is Phase.ABORTED else "v2"
    assert world.stable.version == final


@given(st.integers(0, 1 << 30), st.integers(2, 12), _LIMITS)
@settings(max_examples=50, deadline=None)
def test_there_are_never_fewer_servers_than_before(seed: int, wanted: int, limits: Limits) -> None:
    """With players and without: the fleets together have what the old one had, but for the one that Agones replaces at a time."""
    world = world_of(seed, wanted)
    state = State(phase=Phase.STEPPING, old="v1", new="v2")
    for tick in range(400):
        state, actions = plan(limits, state, world.seen(), world.time_s)
        for action in actions:
            act(world, state, action)
        if state.phase in OVER:
            break
        world.tick(players=False)
        alive = sum(f.count("Ready") + f.count("Allocated") for f in (world.stable, world.canary) if f is not None)
        assert alive >= wanted - 1, (tick, state)
    assert state.phase is Phase.DONE


def test_the_table_is_whole() -> None:
    """Every phase but the last ones goes on; nothing leads out of the last ones; an abort is possible until it is done."""
    for phase in Phase:
        onward = {event for (known, event) in TABLE if known is phase}
        assert bool(onward) is (phase not in OVER)
        if phase in OVER:
            with pytest.raises(WrongPhase):
                abort(State(phase=phase, old="a", new="b"), 0.0, "x")
        else:
            assert phase is Phase.ABORTING or Event.ABORT in onward


@pytest.mark.parametrize(
    ("health", "reason"),
    [
        (Health(started=10, failed=1), "1 of 10 servers failed, more than 5.0%"),
        (Health(tick_jitter_s=0.02), "late by 20.0 ms"),
        (Health(match_completion=0.8), "80.0% of the matches end as they should"),
    ],
)
def test_each_limit_aborts_with_its_number(health: Health, reason: str) -> None:
    """While a step is watched; with too few servers a rate says nothing."""
    limits = Limits(
        steps=(0.5,),
        pause_s=60,
        ready_within_s=60,
        unhealthy_rate=0.05,
        tick_jitter_s=0.005,
        match_completion=0.9,
        min_servers=3,
    )
    state = State(phase=Phase.STEPPING, old="a", new="b")
    seen = Observed(
        stable=Track(version="a", wanted=2, ready=2), canary=Track(version="b", wanted=1, ready=1), health=health
    )
    after, _ = plan(limits, state, seen, 1.0)
    assert after.phase is Phase.ABORTING
    assert reason in after.reason
    few, _ = plan(
        limits, state, Observed(stable=seen.stable, canary=seen.canary, health=Health(started=2, failed=2)), 1.0
    )
    assert few.phase is Phase.STEPPING
