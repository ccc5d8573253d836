"""A game that wants whoever leaves to be replaced, for the servers of tests."""

from gameserver.game import Player, RoomContext
from gameserver.games.arena.game import Arena


class Wanting(Arena):
    """The arena, with one player in each of two teams; when `last` leaves it wants nobody any more."""

    def __init__(self, room: RoomContext) -> None:
        super().__init__(room)
        room.want({"red": 1, "blue": 1})

    def leave(self, player: Player) -> None:
        super().leave(player)
        if player.id == "last":
            self.room.want({})
