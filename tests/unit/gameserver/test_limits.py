"""How many connections a server takes."""

from gameserver.process import _most_connections
from gameserver.room import MAX_SPECTATORS
from gameserver.sessions.model import FleetName, ServerName
from gameserver.settings import Settings


def test_there_is_room_for_all_who_may_be_here() -> None:
    """Each seat's player, also while it reconnects, and each room's spectators."""
    settings = Settings(
        game="g:G",
        fleet=FleetName("f"),
        server=ServerName("s"),
        agones_grpc_port=1,
        rooms=100,
        seats=50,
        listen_ports={},
    )
    assert _most_connections(settings) == 100 * (50 + 50 + MAX_SPECTATORS)
