"""
A client's side of the wire protocol, without I/O: bytes in, events out, bytes out.

Owns what a client must keep between messages: the worlds it may be sent deltas of, the inputs not yet acknowledged, the order of events, the
round trip and the server's clock. The transports (`websocket.py`) carry its bytes; time is an argument.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any

from gameserver.client.clock import ServerClock
from gameserver.protocol import messages as m
from gameserver.protocol.inputs import InputSender
from gameserver.protocol.schema import Fields, Schema, SchemaError, parse_fields, parse_schema
from gameserver.protocol.snapshot import World, apply_delta, decode_full

PING_INTERVAL_S = 1.0
ACKNOWLEDGE_INTERVAL_S = 0.1
"""Between acknowledgements of a client that sends no inputs: what it is sent are deltas of a tenth of a second or so."""
_WORLDS_KEPT = 64
_EVENTS_EARLY = 256
"""Events that wait for one before them; a server repeats no more, so that one is not coming."""
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
        self._acknowledge_due_s = 0.0
        self._acknowledged_tick = 0
        self.welcome: m.Welcome | None = None
        self.world: World | None = None
        self.tick = 0
        self.ack_input = 0
        """Highest input that the newest world contains."""
        self.clock: ServerClock | None = None
        """The server's clock; known after Welcome."""
        self.shown_tick: float | None = None
        """The tick that this client shows its player, for whoever interpolates; None: it acts on the newest world."""
        self.results: dict[str, Any] | None = None
        """What the match ended with, once it has."""

    @property
    def rtt_s(self) -> float:
        """Round trip, smoothed; 0 while unknown."""
        return 0.0 if self.clock is None else self.clock.rtt_s

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
            case m.Pong(client_ms=client_ms, server_tick=server_tick):
                if self.clock is None:
                    raise m.MalformedMessage("a pong before Welcome")
                self.clock.pong(client_ms, server_tick, self.tick, now_s)
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

    def send_input(self, values: dict[str, Any], *, view: int | None = None) -> bytes:
        """
        Number an input and encode its message.

        Args:
            view: tick × 256 that the player saw; None for `shown_tick`, or the newest world's.
        Raises: SchemaError for an unknown field, RuntimeError before Welcome.
        """
        if self._inputs is None:
            raise RuntimeError("inputs are sent after Welcome")
        if view is None:
            view = self._view()
        self._acknowledged_tick = self.tick
        message = self._inputs.add(values, ack_tick=self.tick, ack_event=self._event_seq, view=view)
        return m.encode(message)

    def data_to_send(self, now_s: float) -> list[bytes]:
        """What is due by the clock: a Ping, and acknowledgements where no inputs carry them."""
        if self.welcome is None:
            return []
        due = []
        # A clock that was set back puts nothing off.
        self._ping_due_s = min(self._ping_due_s, now_s + PING_INTERVAL_S)
        self._acknowledge_due_s = min(self._acknowledge_due_s, now_s + ACKNOWLEDGE_INTERVAL_S)
        if now_s >= self._ping_due_s:
            self._ping_due_s = now_s + PING_INTERVAL_S
            due.append(m.encode(m.Ping(client_ms=int(now_s * 1000) & 0xFFFFFFFF)))
        if now_s >= self._acknowledge_due_s:
            self._acknowledge_due_s = now_s + ACKNOWLEDGE_INTERVAL_S
            if self.tick != self._acknowledged_tick:
                due += self._acknowledge()
        return due

    def next_timer_s(self) -> float | None:
        """When `data_to_send` should be asked next; None for not by the clock."""
        return None if self.welcome is None else min(self._ping_due_s, self._acknowledge_due_s)

    def _acknowledge(self) -> list[bytes]:
        """Acknowledge without an input: the newest one again, or one that is none."""
        assert self._inputs is not None
        self._acknowledged_tick = self.tick
        return [m.encode(self._inputs.again(ack_tick=self.tick, ack_event=self._event_seq, view=self._view()))]

    def _view(self) -> int:
        return round(256 * max(0.0, self.tick if self.shown_tick is None else self.shown_tick)) & 0xFFFFFFFF

    def _welcomed(self, welcome: m.Welcome) -> None:
        if self.welcome is not None:
            return  # repeated: over UDP our Hello may have been
        if not welcome.tick_rate_hz:
            raise m.MalformedMessage("a tick rate of 0")
        try:
            self._schema = parse_schema(welcome.room.get("schema"))
            self._inputs = InputSender(parse_fields(welcome.room.get("inputs")), repeat=self._repeat)
        except SchemaError as error:
            raise m.MalformedMessage(str(error)) from error
        self.welcome = welcome
        self.clock = ServerClock(welcome.tick_rate_hz)
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
        if len(self._early) > _EVENTS_EARLY:
            self._event_seq = min(self._early) - 1
        while (following := self._early.pop(self._event_seq + 1, None)) is not None:
            self._event_seq += 1
            if following.data.get("name") == m.RESULTS:
                self.results = following.data.get("results")
            self._events.append(Happened(tick=following.tick, data=following.data))
