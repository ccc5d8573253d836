"""Who has which seat of a room: those who come back, leave, are kicked, or only watch."""

from rooms import Stage, Store, Wire

from gameserver.client.session import Seated, WorldSeen
from gameserver.protocol import messages as m
from gameserver.room import RECONNECT_WINDOW_S
from gameserver.seats import SeatGrant
from gameserver.sessions.checkpoints import Checkpoint, pack
from gameserver.sessions.model import PlayerId, ServerName, SessionId


async def test_a_returning_player_supersedes_and_keeps_its_seat() -> None:
    """The old connection is closed; the game hears of neither; numbers start anew."""
    stage = Stage()
    old, _ = stage.join("ann")
    await stage.tick()
    new, member = stage.join("ann")
    assert old.closed is not None
    assert old.closed[0] is m.CloseCode.SUPERSEDED
    stage.send(new, member, 7)
    await stage.tick()
    assert [line for line in stage.game.log if "ann" in line] == ["join ann", "input ann 7"]
    assert isinstance(new.events((Seated, WorldSeen))[0], Seated)
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_a_seat_is_of_the_newest_token() -> None:
    """Whoever came too late for it is sent away as its new player comes, and is not let in after that; the game never has two in one seat."""
    stage = Stage()
    late, new = Wire(), Wire()
    stage.room.seat(stage.grant("late", 0, until_s=100), late)
    await stage.tick()
    assert not stage.room.roster.gives(stage.grant("new", 0, until_s=100))
    assert stage.room.roster.gives(stage.grant("new", 0, until_s=101))
    assert stage.room.roster.gives(stage.grant("late", 0, until_s=100))
    stage.room.seat(stage.grant("new", 0, until_s=101), new)
    assert late.closed == (m.CloseCode.FULL, "the seat is another's now")
    assert [line for line in stage.game.log if line[:4] in ("join", "leav")] == ["join late", "leave late", "join new"]
    assert (stage.room.roster.came, stage.room.roster.left) == ({"new"}, {"late"})
    assert not stage.room.roster.gives(stage.grant("late", 0, until_s=101))
    assert stage.room.roster.gives(stage.grant("late", 1, until_s=101))
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_what_a_game_wants_is_told_with_those_who_have_left_before() -> None:
    """Once a change; their seats are kept for them in a match that takes nobody."""
    stage = Stage()
    wire, member = stage.join("ann")
    _, leaver = stage.join("bob")
    await stage.tick()
    stage.room.leave(leaver)
    await stage.tick()
    assert stage.room.roster.left == {"bob"}
    stage.room.roster.left.clear()
    assert stage.room.wanted.untold is None
    stage.send(wire, member, 96)
    await stage.tick()
    assert stage.room.wanted.untold == {"red": 2}
    assert stage.room.roster.left == {"bob"}
    stage.room.wanted.told(stage.room.wanted.untold)
    stage.send(wire, member, 96)
    await stage.tick()
    assert stage.room.wanted.untold is None
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_a_leavers_seat_is_free_at_once() -> None:
    """For another in the same tick, by a token of the same second; who left and is given another seat has that one."""
    stage = Stage()
    gone, new, back = Wire(), Wire(), Wire()
    member = stage.room.seat(stage.grant("ann", 0, until_s=100), gone)
    await stage.tick()
    stage.room.leave(member)
    assert stage.room.roster.gives(stage.grant("bob", 0, until_s=100))
    stage.room.seat(stage.grant("bob", 0, until_s=100), new)
    stage.room.leave(stage.room.seat(stage.grant("ann", 1, until_s=100), back))
    stage.room.seat(stage.grant("ann", 2, until_s=100), back)
    assert [line for line in stage.game.log if line[:4] in ("join", "leav")] == [
        "join ann", "leave ann", "join bob", "join ann", "leave ann", "join ann",
    ]  # fmt: skip
    assert {member.player.seat for member in stage.room.roster.players.values() if member.player} == {0, 2}
    assert new.closed is None
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_a_lost_player_has_a_while_to_come_back() -> None:
    """Within the window nothing happens; after it the game is told, and an empty room ends."""
    store = Store()
    stage = Stage(store)
    wire, member = stage.join("ann")
    await stage.tick()
    stage.room.lose(member, wire)
    stage.now_s += RECONNECT_WINDOW_S - 1
    await stage.tick()
    assert "leave ann" not in stage.game.log
    stage.now_s += 2
    await stage.over()
    assert "leave ann" in stage.game.log
    assert store.ended == [b'{"abandoned": true}']


async def test_a_kicked_player_does_not_come_back() -> None:
    """Its connection is closed with the reason, the game hears `leave`, and the room remembers."""
    stage = Stage()
    wire, member = stage.join("eve")
    stage.join("ann")
    await stage.tick()
    stage.send(wire, member, 99)
    await stage.tick(2)
    assert wire.closed == (m.CloseCode.KICKED, "cheat")
    assert "leave eve" in stage.game.log
    assert stage.room.roster.kicked == {"eve"}
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_a_player_whose_part_is_over_is_excused_when_it_leaves() -> None:
    stage = Stage()
    wire, member = stage.join("eve")
    stage.join("ann")
    await stage.tick()
    stage.send(wire, member, 97)
    await stage.tick(2)
    stage.room.leave(member)
    await stage.tick()
    assert (stage.room.roster.left, stage.room.roster.excused) == ({"eve"}, {"eve"})
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_the_kicked_stay_kicked_elsewhere() -> None:
    """A checkpoint carries who may not come back, beside the game's state."""
    stage = Stage(Store())
    stage.room.restore(pack(Checkpoint(state=b"7", kicked=frozenset({PlayerId("eve")}))))
    assert (stage.game.steps, stage.room.roster.kicked) == (7, {"eve"})
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()


async def test_a_spectator_that_leaves_is_gone() -> None:
    """Spectators hold no seat, send no inputs, and are forgotten when they leave or are lost."""
    stage = Stage()
    _, ann = stage.join("ann")
    grant = SeatGrant(
        player=PlayerId("tv"),
        seat=m.SPECTATOR_SEAT,
        team="",
        session=SessionId("f.m"),
        server=ServerName("f-1"),
        epoch=1,
    )
    wires = [Wire() for _ in range(2)]
    watching = [stage.room.seat(grant, wire, spectator=True) for wire in wires]
    await stage.tick(2)
    stage.send(wires[0], watching[0], 98)
    await stage.tick(2)
    assert len(stage.room.roster.spectators) == 2
    assert [player.player.id for player in stage.room.roster.players.values() if player.player] == ["ann"]
    stage.room.leave(watching[0])
    stage.room.lose(watching[0], wires[0])
    stage.room.lose(watching[1], wires[1])
    assert len(stage.room.roster.spectators) == 0
    assert ann.connection is not None
    stage.room.stop(m.CloseCode.NORMAL, "")
    await stage.over()
