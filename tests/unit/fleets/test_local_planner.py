"""The local planner and the state table."""

from hypothesis import given
from hypothesis import strategies as st

from allocator.model import GameServer, ServerState
from fleets.local.planner import LocalFleet, Remove, Start, backoff_s, plan
from fleets.local.states import OVER, TRANSITIONS, GameServerRecord, HealthSpec, ServerEvent
from gameserver.sessions.model import FleetName, ServerName

FLEETS = st.builds(
    lambda low, extra, buffer: LocalFleet(name=FleetName("f"), command=("x",), min=low, max=low + extra, buffer=buffer),
    st.integers(0, 4), st.integers(0, 6), st.integers(0, 4),
)  # fmt: skip
STATES = st.lists(st.sampled_from(list(ServerState)), max_size=14)
TAKEN = (ServerState.ALLOCATED, ServerState.RESERVED)


def servers(states: list[ServerState]) -> list[GameServer]:
    return [GameServer(name=ServerName(f"f-{i}"), fleet=FleetName("f"), state=state) for i, state in enumerate(states)]


@given(FLEETS, STATES)
def test_it_converges_and_spares_the_taken(fleet: LocalFleet, states: list[ServerState]) -> None:
    """One application reaches the wanted number, a second plan is empty, and no Allocated or Reserved server is removed."""
    observed = servers(states)
    kept = [server.state for server in observed if server.state in TAKEN]
    actions = plan(fleet, observed, may_start=True)
    removed = {action.server for action in actions if isinstance(action, Remove)}
    after = [server.state for server in observed if server.name not in removed]
    for action in actions:
        if isinstance(action, Start):
            after += [ServerState.READY] * action.count
    assert [state for state in after if state in TAKEN] == kept
    assert not OVER & set(after)
    assert len(after) <= max(fleet.max, len(kept))
    assert len(after) >= min(fleet.min, fleet.max)
    assert plan(fleet, servers(after), may_start=True) == ()


def test_a_fleet_that_backs_off_starts_nothing() -> None:
    """While it must wait, only removals are planned."""
    fleet = LocalFleet(name=FleetName("f"), command=("x",), buffer=2)
    assert plan(fleet, servers([ServerState.ERROR]), may_start=False) == (Remove(server=ServerName("f-0")),)
    assert [backoff_s(n) for n in (0, 1, 2, 3, 30)] == [0, 0, 0.5, 1, 30]


def test_nothing_leaves_the_end() -> None:
    """No event brings a server back from Shutdown; Unhealthy and Error only lead there."""
    for (state, _), after in TRANSITIONS.items():
        assert state is not ServerState.SHUTDOWN
        if state in OVER:
            assert after is ServerState.SHUTDOWN


def test_health_follows_agones_timing() -> None:
    """Silence counts from the initial delay on, and is borne for threshold periods."""
    record = GameServerRecord(
        name=ServerName("f-a"), fleet=FleetName("f"), version="1", uid="", created_at_s=0,
        health=HealthSpec(period_s=5, failure_threshold=3, initial_delay_s=10), state=ServerState.CREATING,
    )  # fmt: skip
    record.happen(ServerEvent.SPAWNED, 0.0)
    record.clock(25.0)
    assert record.state is ServerState.SCHEDULED
    record.ping(20.0)
    record.clock(35.0)
    assert record.state is ServerState.SCHEDULED
    record.clock(35.1)
    assert record.state is ServerState.UNHEALTHY
    assert not record.happen(ServerEvent.SDK_READY, 36.0)
