"""
A client's side of the wire protocol, without I/O: bytes in, events out, bytes out.

Owns what a client must keep between messages: the worlds it may be sent deltas of, the inputs not yet acknowledged, the order of events, the
round trip and the server's clock. The transports (`websocket.py`) carry its bytes; time is an argument.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any

from gameserver.protocol import messages as m
from gameserver.protocol.inputs import InputSender
from gameserver.protocol.schema import Fields, Schema, SchemaError, parse_fields, parse_schema
from gameserver.protocol.snapshot import World, apply_delta, decode_full

PING_INTERVAL_S = 1.0
_WORLDS_KEPT = 64
_CODES = frozenset(m.CloseCode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seated:
    """The server has welcomed this client."""

    welcome: m.Welcome


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldSeen:
    """A newer state than any before."""

    tick: int
    world: World


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """A game event, each once, in order."""

    tick: int
    data: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """The session moves to another server."""

    data: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The server said Bye."""

    code: m.CloseCode | int
    reason: str


ClientEvent = Seated | WorldSeen | Happened | Moving | Ended


class ClientSession:
    """One connection's state."""

    def __init__(self, token: str, *, spectator: bool = False, repeat: int = 1) -> None:
        """`repeat`: how many of the newest inputs a message carries; more than 1 over a transport that loses messages."""
        self._hello = m.encode(m.Hello(token=token, spectator=spectator))
        self._repeat = repeat
        self._events: deque[ClientEvent] = deque()
        self._schema: Schema | None = None
        self._worlds: OrderedDict[int, World] = OrderedDict()
        self._inputs: InputSender | None = None
        self._event_seq = 0
        self._early: dict[int, m.Event] = {}
        self._ping_due_s = 0.0
        self.welcome: m.Welcome | None = None
        self.world: World | None = None
        self.tick = 0
        self.ack_input = 0
        """Highest input that the newest world contains."""
        self.rtt_s = 0.0

    @property
    def inputs(self) -> Fields:
        """The fields of the game's inputs. Raises RuntimeError before Welcome."""
        if self._inputs is None:
            raise RuntimeError("the inputs are known after Welcome")
        return self._inputs.fields

    def hello(self) -> bytes:
        """The first message to send."""
        return self._hello

    def receive(self, message: bytes, now_s: float) -> None:
        """Take a message in; its events wait in `next_event`. Raises MalformedMessage."""
        decoded = m.decode_server(message)
        match decoded:
            case m.Welcome():
                self._welcomed(decoded)
            case m.Snapshot():
                self._snapshot(decoded)
            case m.Event():
                self._event(decoded)
            case m.Pong():
                round_trip_s = ((int(now_s * 1000) - decoded.client_ms) & 0xFFFFFFFF) / 1000
                self.rtt_s = round_trip_s if not self.rtt_s else 0.8 * self.rtt_s + 0.2 * round_trip_s
            case m.Migrate(data=data):
                self._events.append(Moving(data=data))
            case m.Bye(code=code, reason=reason):
                known = m.CloseCode(code) if code in _CODES else code
                self._events.append(Ended(code=known, reason=reason))
            case m.Fragment():
                raise m.MalformedMessage("a fragment over a transport that does not split")

    def next_event(self) -> ClientEvent | None:
        """Hand over the oldest event; None when there is none."""
        return self._events.popleft() if self._events else None

    def send_input(self, values: dict[str, Any], *, view: int = 0) -> bytes:
        """Number an input and encode its message. Raises SchemaError for an unknown field, RuntimeError before Welcome."""
        if self._inputs is None:
            raise RuntimeError("inputs are sent after Welcome")
        message = self._inputs.add(values, ack_tick=self.tick, ack_event=self._event_seq, view=view)
        return m.encode(message)

    def data_to_send(self, now_s: float) -> list[bytes]:
        """What is due by the clock: a Ping."""
        if self.welcome is None or now_s < self._ping_due_s:
            return []
        self._ping_due_s = now_s + PING_INTERVAL_S
        return [m.encode(m.Ping(client_ms=int(now_s * 1000) & 0xFFFFFFFF))]

    def next_timer_s(self) -> float | None:
        """When `data_to_send` should be asked next; None for not by the clock."""
        return None if self.welcome is None else self._ping_due_s

    def _welcomed(self, welcome: m.Welcome) -> None:
        if self.welcome is not None:
            return  # repeated: over UDP our Hello may have been
        try:
            self._schema = parse_schema(welcome.room.get("schema"))
            self._inputs = InputSender(parse_fields(welcome.room.get("inputs")), repeat=self._repeat)
        except SchemaError as error:
            raise m.MalformedMessage(str(error)) from error
        self.welcome = welcome
        self._events.append(Seated(welcome=welcome))

    def _snapshot(self, snapshot: m.Snapshot) -> None:
        if self._schema is None or self._inputs is None:
            raise m.MalformedMessage("a snapshot before Welcome")
        if snapshot.tick in self._worlds:
            return
        if snapshot.baseline:
            baseline = self._worlds.get(snapshot.baseline)
            if baseline is None:
                return  # acknowledged long ago and forgotten here: the next one will have a newer baseline
            world = apply_delta(baseline, snapshot.body)
        else:
            world = decode_full(self._schema, snapshot.body)
        self._worlds[snapshot.tick] = world
        if len(self._worlds) > _WORLDS_KEPT:
            self._worlds.popitem(last=False)
        if snapshot.tick > self.tick:
            self.tick, self.world = snapshot.tick, world
            self.ack_input = snapshot.ack_input
            self._inputs.acknowledge(snapshot.ack_input)
            self._events.append(WorldSeen(tick=snapshot.tick, world=world))

    def _event(self, event: m.Event) -> None:
        if event.seq > self._event_seq:
            self._early[event.seq] = event
        while (following := self._early.pop(self._event_seq + 1, None)) is not None:
            self._event_seq += 1
            self._events.append(Happened(tick=following.tick, data=following.data))
