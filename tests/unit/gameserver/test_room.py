"""A room, with connections in memory and a clock of the test's."""

import json

import pytest
from prometheus_client import Histogram
from rooms import Stage, Store

from gameserver import metrics
from gameserver.client.session import Ended, Happened, Moving, Seated, WorldSeen
from gameserver.protocol import messages as m
from gameserver.room import FAREWELL_S, INPUTS_PER_TICK, STALL_S
from gameserver.sessions.port import SessionGone, StoreUnavailable


async def test_calls_come_in_order() -> None:
    """Join before input, inputs in order and a few a tick, a step and a snapshot every tick."""
    stage = Stage()
    wire, member = stage.join("ann")
    await stage.tick()
    stage.send(wire, member, *range(INPUTS_PER_TICK + 2))
    await stage.tick(2)
    assert stage.game.log[:3] == ["join ann", "step ", "snapshot "]
    inputs = [line for line in stage.game.log if line.startswith("input")]
    assert inputs == [f"input ann {i}" for i in range(INPUTS_PER_TICK + 2)]
    first = stage.game.log.index(f"input ann {INPUTS_PER_TICK - 1}")
    assert stage.game.log[first + 1] == "step "
    assert wire.client.ack_input == INPUTS_PER_TICK + 2
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_a_player_is_shown_the_world_at_once() -> None:
    """Not a tick later: in a room that runs already the game knows of the player before it is shown anything."""
    stage = Stage()
    await stage.tick()
    wire, _ = stage.join("ann")
    assert stage.game.log[-1] == "join ann"
    assert [type(event) for event in wire.events(object)] == [Seated, Happened, WorldSeen]
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_a_game_that_fails_to_take_a_player_in_ends_its_room() -> None:
    """Also between two ticks."""
    stage = Stage(fail="join")
    await stage.tick()
    wire, _ = stage.join("ann")
    await stage.over()
    assert wire.closed is not None
    assert wire.closed[0] is m.CloseCode.GAME_ERROR


async def test_a_game_looks_back_at_what_a_player_saw() -> None:
    """`rewind` follows the view of the input at hand, not of one that still waits."""
    stage = Stage()
    wire, member = stage.join("ann")
    await stage.tick(20)
    for tick in (12, 15):
        stage.room.take_input(member, wire.client.send_input({"slot": 1}, view=tick << 8))
    assert member.player is not None
    assert stage.room.rewind(member.player, "count")["steps"].tolist() == [stage.game.steps]
    seen: list[list[int]] = []
    stage.game.input = lambda player, data: seen.append(stage.room.rewind(player, "count")["steps"].tolist())  # type: ignore[method-assign]
    await stage.tick()
    assert seen == [[12], [15]]
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_deltas_follow_what_a_client_acknowledged() -> None:
    """Full snapshots until the first acknowledgement, deltas against it afterwards, also across lost ones."""
    stage = Stage()
    wire, member = stage.join("ann")
    await stage.tick(2)
    assert set(wire.baselines) == {0}
    stage.send(wire, member, 1)
    acknowledged = wire.client.tick
    wire.lose = True
    await stage.tick(3)
    wire.lose = False
    await stage.tick()
    assert wire.baselines[-1] == acknowledged
    assert wire.events(WorldSeen)[-1].world.values("count")["steps"][0] == stage.game.steps
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_acknowledgements_that_cannot_be() -> None:
    """One of a tick to come counts as the newest, one of a tick long gone gets a full snapshot; neither hurts."""
    stage = Stage()
    wire, member = stage.join("ann")
    await stage.tick(3)

    def acknowledge(tick: int) -> None:
        zeros = m.Input(ack_tick=tick, ack_event=2**32 - 1, view=2**32 - 1, first_seq=0, count=1, records=b"\0")
        stage.room.take_input(member, m.encode(zeros))

    newest = stage.room.history.tick
    acknowledge(2**32 - 1)
    await stage.tick()
    assert wire.baselines[-1] == newest
    wire.lose = True
    await stage.tick(stage.room.history.size + 2)
    wire.lose = False
    acknowledge(1)  # older than what it has acknowledged: nothing new
    await stage.tick()
    assert wire.baselines[-1] == 0
    assert wire.closed is None
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_a_player_who_does_nothing_acknowledges_too() -> None:
    """It is sent deltas, and each event once; its game is told of no input, and its first one counts."""
    stage = Stage()
    wire, member = stage.join("ann", reliable=False)
    await stage.tick(2)
    acknowledged = wire.client.tick
    for message in wire.client.data_to_send(0.0):
        if message[:1] == b"\x02":
            stage.room.take_input(member, message)
    await stage.tick(2)
    assert wire.baselines[-1] == acknowledged
    assert not member.events
    assert not [line for line in stage.game.log if line.startswith("input")]
    stage.send(wire, member, 7)
    await stage.tick()
    assert [line for line in stage.game.log if line.startswith("input")] == ["input ann 7"]
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_events_are_repeated_until_acknowledged() -> None:
    """Over an unreliable connection a lost event comes again, once; after the acknowledgement no more."""
    stage = Stage()
    wire, member = stage.join("ann", reliable=False)
    wire.lose = True
    await stage.tick()
    wire.lose = False
    await stage.tick(2)
    assert [event.data["player"] for event in wire.events(Happened)] == ["ann"]
    stage.send(wire, member, 1)
    await stage.tick()
    assert not member.events
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


@pytest.mark.parametrize("call", ["join", "input", "step", "snapshot", "nonsense"])
async def test_a_game_that_fails_ends_its_room_alone(call: str) -> None:
    """Whatever call raises, or returns nonsense: players are told, the session ends with the error, nothing else is raised."""
    store = Store()
    stage = Stage(store, fail=call, checkpoint_interval_s=0.02)
    wire, member = stage.join("ann")
    if call == "input":
        await stage.tick()
        stage.send(wire, member, 1)
    await stage.over()
    assert stage.task.exception() is None
    assert wire.closed is not None
    assert wire.closed[0] is m.CloseCode.GAME_ERROR
    assert json.loads(store.ended[0]) == {"error": "the game failed"}


async def test_results_wait_out_an_outage() -> None:
    """The match is over at once for its players; its results are written when the store is back."""
    store = Store()
    stage = Stage(store)
    wire, member = stage.join("ann")
    await stage.tick()
    store.errors = [StoreUnavailable("away"), StoreUnavailable("away")]
    stage.send(wire, member, 98)
    await stage.over()
    assert wire.closed == (m.CloseCode.NORMAL, "the match is over")
    assert json.loads(store.ended[0]) == {"winner": "ann"}


async def test_a_failed_checkpoint_is_survived_and_a_refused_one_fences() -> None:
    """An outage costs one checkpoint; a newer epoch elsewhere ends the room at once, without results."""
    store = Store()
    stage = Stage(store, checkpoint_interval_s=0.01)
    wire, _ = stage.join("ann")
    store.errors = [StoreUnavailable("away")]
    await stage.tick(6)
    assert store.checkpoints
    store.errors = [SessionGone("moved")]
    await stage.over()
    assert wire.closed is not None
    assert wire.closed[0] is m.CloseCode.FENCED
    assert not store.ended
    assert not wire.events(Ended)


@pytest.mark.parametrize("how", ["raises", "nonsense"])
async def test_a_game_that_does_not_save_plays_on(how: str) -> None:
    """A save that raises or returns no bytes costs the checkpoint, and a hand-over, but not the match."""
    store = Store()
    stage = Stage(store, fail="save" if how == "raises" else "", checkpoint_interval_s=0.01)
    if how == "nonsense":
        stage.room._checkpoints._save = lambda: {"no": "bytes"}  # type: ignore[assignment, return-value]
    wire, _ = stage.join("ann")
    store.reserved = True
    await stage.tick(4)
    assert not await stage.room.hand_over()
    await stage.room.checkpoint()
    await stage.tick(2)
    assert (store.checkpoints, wire.closed, stage.task.done()) == ([], None, False)
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_a_room_that_is_handed_over_is_shown_until_its_clients_have_left() -> None:
    """Clients are told to move and see the old room on; nothing more of it is written, and its end is not the match's."""
    store = Store()
    stage = Stage(store, checkpoint_interval_s=0.01)
    wires = [stage.join(name)[0] for name in ("ann", "bob")]
    await stage.tick(2)
    assert not await stage.room.hand_over()
    store.reserved = True
    assert await stage.room.hand_over()
    written = len(store.checkpoints)
    assert [event.data["epoch"] for wire in wires for event in wire.events(Moving)] == [2, 2]
    before = wires[0].client.tick
    stage.room.end(winner="nobody")
    await stage.tick(3)
    assert wires[0].client.tick > before
    for member, wire in zip(tuple(stage.room.roster.players.values()), wires, strict=True):
        assert not stage.task.done()
        stage.room.lose(member, wire)
    await stage.over()
    assert (len(store.checkpoints), store.ended) == (written, [])


async def test_a_client_that_does_not_leave_is_sent_away() -> None:
    """A room that was handed over is closed after a while, with a code that makes clients ask where the match is."""
    store = Store()
    store.reserved = True
    stage = Stage(store)
    wire, _ = stage.join("ann")
    await stage.tick(2)
    assert await stage.room.hand_over()
    stage.now_s += FAREWELL_S
    await stage.over()
    assert wire.closed is not None
    assert wire.closed[0] is m.CloseCode.GOING_AWAY


async def test_after_a_standstill_nothing_is_shown_before_the_room_is_known_to_be_ours() -> None:
    """One that is still ours goes on; one that has moved meanwhile shows no tick more."""
    stage = Stage()
    wire, _ = stage.join("ann")
    await stage.tick(2)
    stage.now_s += STALL_S + 0.1
    await stage.tick(2)
    assert stage.stalls == 1
    seen = wire.client.tick
    stage.moved = True
    stage.now_s += STALL_S + 0.1
    await stage.over()
    assert (stage.stalls, wire.client.tick) == (2, seen)
    assert wire.closed == (m.CloseCode.FENCED, "moved")


async def test_results_are_told_before_the_end() -> None:
    """Everyone's last event is the results, over a path that loses messages too; players and spectators alike."""
    stage = Stage()
    wire, member = stage.join("ann")
    lossy, _ = stage.join("bob", reliable=False)
    said: list[bytes] = []
    lossy.send = lambda message: said.append(message)  # type: ignore[method-assign]
    await stage.tick()
    stage.send(wire, member, 98)
    await stage.over()
    assert wire.events(Happened)[-1].data == {"name": "results", "results": {"winner": "ann"}}
    assert wire.client.results == {"winner": "ann"}
    told = [message for message in said if b'"results"' in message]
    assert len(told) > 3, "each copy may be the one that arrives"


async def test_round_trips_are_measured_once_a_second() -> None:
    """From a snapshot to the first input that acknowledges it, however many inputs there are."""
    stage = Stage()
    wire, member = stage.join("ann")
    rtt, jitter = metrics.CLIENT_RTT_SECONDS, metrics.CLIENT_JITTER_SECONDS
    before, before_jitter = count_of(rtt), count_of(jitter)
    for _ in range(3):
        await stage.tick(2)
        stage.send(wire, member, 1, 1, 1)
        stage.now_s += 0.99
    assert count_of(rtt) - before == 3
    assert count_of(jitter) - before_jitter == 2
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


def count_of(histogram: Histogram) -> float:
    return next(s.value for family in histogram.collect() for s in family.samples if s.name.endswith("_count"))
