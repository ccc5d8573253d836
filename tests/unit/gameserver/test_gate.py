"""The way in: time limits, rates, and who gets a room."""

import asyncio

import pytest

from gameserver.gate import HELLO_TIMEOUT_S, SILENCE_TIMEOUT_S, Gate, NoRoom
from gameserver.protocol import messages as m
from gameserver.seats import SeatGrant, SeatIssuer, SeatVerifier
from gameserver.sessions.model import PlayerId, ServerName, SessionId

ISSUER = SeatIssuer(bytes(range(32)))
SERVER = ServerName("f-1")


class Connection:
    """Remembers how it was closed."""

    peer = "test"
    reliable = True

    def __init__(self) -> None:
        self.closed: list[m.CloseCode] = []

    def send(self, message: bytes) -> None:
        pass

    def send_snapshot(self, snapshot: m.SharedSnapshot, ack_input: int) -> bool:
        return True

    def close(self, code: m.CloseCode, reason: str = "") -> None:
        self.closed.append(code)


class Stage:
    """A gate with a clock of the test's, whose rooms are all refused."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.asked: list[SeatGrant] = []
        self.gate = Gate(
            SeatVerifier([ISSUER.public_key], SERVER), self.find, now=lambda: self.now_s, wall=lambda: self.now_s
        )
        self.connection = Connection()
        self.visitor = self.gate.accept(self.connection)

    async def find(self, grant: SeatGrant) -> None:  # type: ignore[override]
        self.asked.append(grant)
        raise NoRoom(m.CloseCode.FULL, "no room")

    def hello(self, version: int = m.VERSION) -> bytes:
        grant = SeatGrant(player=PlayerId("ann"), seat=0, team="", session=SessionId("f.m"), server=SERVER, epoch=1)
        return m.encode(m.Hello(token=ISSUER.issue(grant, self.now_s), version=version))


async def test_whoever_says_nothing_is_closed() -> None:
    """Before Hello sooner than after it; a sign of life starts the time anew."""
    stage = Stage()
    stage.now_s += HELLO_TIMEOUT_S
    stage.visitor.check_silence(stage.now_s)
    assert not stage.connection.closed
    stage.visitor.check_silence(stage.now_s + 0.1)
    assert stage.connection.closed == [m.CloseCode.TIMEOUT]

    stage = Stage()
    stage.visitor.received(stage.hello())
    stage.visitor.check_silence(stage.now_s)
    stage.visitor.check_silence(stage.now_s + HELLO_TIMEOUT_S + 0.1)
    assert not stage.connection.closed
    stage.visitor.check_silence(stage.now_s + SILENCE_TIMEOUT_S + 0.1)
    assert stage.connection.closed == [m.CloseCode.TIMEOUT]


async def test_a_flood_is_closed_and_a_burst_is_not() -> None:
    """Two seconds' worth at once is borne; what goes on at that rate is not."""
    stage = Stage()
    stage.visitor.received(stage.hello())
    ping = m.encode(m.Ping(client_ms=1))
    for _ in range(200):
        stage.visitor.received(ping)
    assert not stage.connection.closed
    for _ in range(200):
        stage.now_s += 0.001
        stage.visitor.received(ping)
    assert m.CloseCode.FLOOD in stage.connection.closed


@pytest.mark.sources
async def test_who_says_bye_while_its_room_is_looked_for_takes_no_seat() -> None:
    """Else its seat would be kept for a player who has said that it goes."""
    taken: list[str] = []
    opened = asyncio.Event()

    class Roster:
        kicked: tuple[str, ...] = ()
        spectators: tuple[str, ...] = ()

        def gives(self, grant: SeatGrant) -> bool:
            return True

    class Hall:
        roster = Roster()
        take_input = None
        record = type("Record", (), {"options": {}})

        def seat(self, grant: SeatGrant, connection: Connection, *, spectator: bool) -> None:
            taken.append(grant.player)

    async def find(_: SeatGrant) -> Hall:
        await opened.wait()
        return Hall()

    async def come(*messages: bytes) -> None:
        gate = Gate(SeatVerifier([ISSUER.public_key], SERVER), find, wall=lambda: 1000.0)  # type: ignore[arg-type]
        visitor = gate.accept(Connection())  # type: ignore[arg-type]
        for message in messages:
            visitor.received(message)
        opened.set()
        await asyncio.sleep(0.01)
        opened.clear()

    hello = Stage().hello()
    await come(hello, m.encode_client_bye(m.CloseCode.NORMAL))
    assert taken == []
    await come(hello)
    assert taken == ["ann"]


async def test_a_repeated_hello_asks_once() -> None:
    """Over UDP a client repeats its Hello; its token is spent and its room looked for once."""
    stage = Stage()
    hello = stage.hello()
    stage.visitor.received(hello)
    stage.visitor.received(hello)
    await asyncio.sleep(0.01)
    assert [grant.player for grant in stage.asked] == ["ann"]
    assert stage.connection.closed == [m.CloseCode.FULL]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", m.CloseCode.MALFORMED),
        (b"\x01\x09\x00\x00\x00", m.CloseCode.VERSION),
        (m.encode(m.Hello(token="nonsense")), m.CloseCode.UNAUTHORIZED),
        (m.encode(m.Ping(client_ms=1)), m.CloseCode.UNAUTHORIZED),
        (m.encode_client_bye(0), m.CloseCode.NORMAL),
    ],
)
async def test_a_wrong_first_message_is_answered_with_its_code(message: bytes, code: m.CloseCode) -> None:
    """Each wrong beginning has its code, and none looks for a room."""
    stage = Stage()
    stage.visitor.received(message)
    assert stage.connection.closed == [code]
    assert not stage.asked
