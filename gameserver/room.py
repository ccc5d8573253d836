"""
One match: the sole owner of its state, its seats and its clock.

A room calls its game from one task and tells its clients what happened. It does no I/O of its own: connections and the session store are
ports. Its life: `seat` players as they come, `run` ticks until the game ends the match, it raises, everyone has gone, or the session is
lost to another server. An exception from the game ends this room alone.
"""

import asyncio
import json
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog

from gameserver import metrics
from gameserver.containment import contained
from gameserver.game import Game, Player
from gameserver.member import EVENTS_UNACKNOWLEDGED, Member
from gameserver.protocol.inputs import InputBuffer
from gameserver.protocol.messages import (
    RESULTS,
    SPECTATOR_SEAT,
    CloseCode,
    Event,
    Migrate,
    Ping,
    Pong,
    Welcome,
    encode,
    input_head,
)
from gameserver.protocol.snapshot import SnapshotHistory, World
from gameserver.rewind import MAX_AGE_S, Seen, seen_at
from gameserver.roster import Roster
from gameserver.seats import SeatGrant
from gameserver.sessions.checkpoints import Checkpoints, unpack
from gameserver.sessions.model import PlayerId, Session
from gameserver.sessions.port import SessionGone, SessionStore, StoreUnavailable
from gameserver.showing import Showing
from gameserver.slow_ticks import SlowTicks
from gameserver.tick import TickClock
from gameserver.transports.port import Connection
from gameserver.wanted import Wanted

log = structlog.get_logger(__name__)

RECONNECT_WINDOW_S = 30.0
"""How long a lost player's seat is kept in the game."""
INPUTS_PER_TICK = 4
"""More wait for the next tick: nobody acts faster by sending faster."""
STALL_S = 1.0
"""A tick so late means that this process stood still: others may have given the match to another server meanwhile."""
FAREWELL_S = 5.0
"""How long a room whose match goes on elsewhere is shown to clients that have not left it yet."""
MAX_SPECTATORS = 64
SLOW_TICK_S = 0.25
"""A tick that takes longer is told in the log: a game that sleeps, waits or computes holds up every room of its process."""
_COMPLAINT_INTERVAL_S = 10.0
_INPUTS_TOLD = 32
"""Players whose inputs are told of a slow tick."""
_PROBE_INTERVAL_S = 1.0
"""Between two measurements of a client's round trip."""
_RESULTS_TOLD_BYTES = 32 * 1024
"""Larger results are stored, and not told."""
_STORE_RETRY_S = 0.5
_LAST_WORDS = 10
"""Repetitions of a match's last events over unreliable connections, until they are acknowledged."""
_LAST_WORDS_INTERVAL_S = 0.05


class Room:
    """A match in this process; it is also the `RoomContext` that its game is lent."""

    def __init__(
        self,
        session: Session,
        game: type[Game],
        *,
        seats: int,
        tick_rate_hz: int,
        store: SessionStore | None,
        checkpoint_interval_s: float = 0.0,
        stalled: Callable[[], Awaitable[None]] | None = None,
        now: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        slow: SlowTicks | None = None,
    ) -> None:
        """
        Open a room.

        Args:
            stalled: waited for after the process stood still, before anything of this room is shown: it may have to stop.
            sleep: between ticks; `Metronome.sleep` ends it on time.
            slow: catches ticks that take too long.
        """
        self.record = session
        self.session = session.id
        self.seats = seats
        self.tick_rate_hz = tick_rate_hz
        self.options: Mapping[str, str] = session.options
        self.rng = random.Random(session.id)  # noqa: S311 (a game's dice, repeatable)
        self.history = SnapshotHistory()
        self.roster = Roster(session.kicked)
        self.wanted = Wanted(seats)
        self._tick = session.checkpoint_tick
        self._store = store
        self._now = now
        self._sleep = sleep
        self._slow = slow
        self._applied: tuple[Sequence[Player], Sequence[bytes]] = ((), ())
        """The first input of each player in this tick, for what is told of a slow one."""
        self._stalled = stalled
        self._farewell_s = float("inf")
        """When a room that was handed over is closed, whoever is still there."""
        self._results: bytes | None = None
        self._stopped: tuple[CloseCode, str] | None = None
        self._empty_since_s = now()
        self._complain_at_s = self._probed_at_s = float("-inf")
        self._clock = TickClock(tick_rate_hz, now())
        with contained():
            self._game = game(self)
        self._showing = Showing(self._game, self.history)
        self._checkpoints = Checkpoints(
            store,
            session,
            every_ticks=round(checkpoint_interval_s * tick_rate_hz),
            save=self._save,
            kicked=self.roster.kicked,
            gone=lambda reason: self.stop(CloseCode.FENCED, reason),
        )

    # What the game is lent (RoomContext).

    @property
    def tick(self) -> int:
        """The tick being computed."""
        return self._tick

    def rewind(self, player: Player, table: str) -> Seen:
        """One table as this player saw it when it made its newest applied input."""
        member = self.roster.players.get(player.id)
        view = member.view if member is not None else 0
        return seen_at(self.history, table, view, round(MAX_AGE_S * self.tick_rate_hz))

    def lag_s(self, player: Player) -> float:
        """How long ago the moment was that `rewind` goes back to."""
        member = self.roster.players.get(player.id)
        if member is None or not member.view or not self.history.tick:
            return 0.0
        return min(max(self._tick - member.view / 256, 0.0) / self.tick_rate_hz, MAX_AGE_S)

    def event(self, name: str, *, to: Player | None = None, **data: Any) -> None:
        """Tell everyone, or one player, something that happened."""
        for member in self.roster.audience(to):
            self._send_event(member, {"name": name, **data})

    def kick(self, player: Player, reason: str) -> None:
        """Close a player's connection for good."""
        self.expel(player.id, reason)

    def excuse(self, player: Player) -> None:
        """Let a player leave as if it had stayed to the end."""
        self.roster.excused.add(player.id)

    def want(self, teams: Mapping[str, int]) -> None:
        """Keep teams at so many players from now on."""
        self.wanted.say(teams)
        self.roster.left |= self.roster.gone  # whose seats may still be kept

    def end(self, **results: Any) -> None:
        """End the match after this step."""
        if self._results is None and not self.handed_over:
            self._results = json.dumps(results, allow_nan=False).encode()

    # What the process asks.

    def expel(self, player: PlayerId, reason: str) -> None:
        """Let a player go, and whatever watches in its name, and never let it back in; once."""
        self.roster.expel(player, reason, self._now())

    def restore(self, state: bytes) -> None:
        """Take up a checkpoint, before the first tick. Raises DamagedCheckpoint, and whatever the game raises."""
        checkpoint = unpack(state)
        self.roster.kicked.update(checkpoint.kicked)
        with contained():
            self._game.restore(checkpoint.state)

    def _save(self) -> bytes:
        with contained():
            return self._game.save()

    def seat(self, grant: SeatGrant, connection: Connection, *, spectator: bool = False) -> Member:
        """Welcome a player (again): an older connection of the same player is superseded, its seat kept."""
        player = None if spectator else Player(id=grant.player, seat=grant.seat, team=grant.team)
        if player is not None and (holder := self.roster.holder(grant)) is not None:
            self._evict(holder, CloseCode.FULL, "the seat is another's now")
        member = None if spectator else self.roster.players.get(grant.player)
        if member is not None and member.player != player:  # it has left that seat, and been given another
            self._evict(member, CloseCode.SUPERSEDED, "connected again")
            member = None
        if member is None:
            member = Member(grant.player, player, connection, InputBuffer(self._game.inputs))
            self.roster.add(member)
        else:
            self._drop(member, CloseCode.SUPERSEDED, "connected again")
            member.connection = connection
            member.inputs.reset()
            member.events = None
            member.areas.clear()
            member.ack_tick = member.event_seq = member.view = member.probe_tick = 0
            member.rtt_s = None
        member.granted_until_s = max(member.granted_until_s, grant.expires_at_s)
        try:
            with contained():
                welcome = encode(self._welcome(grant, spectator=spectator))
        except Exception:  # what the game's `info` says is no JSON
            self._fail()
            return member
        connection.send(welcome)
        if self.history.tick:  # else the first tick is about to come
            try:
                with contained():
                    self._join(member)
                    self._showing.show((member,))
            except Exception:
                self._fail()
        return member

    def _evict(self, member: Member, code: CloseCode, reason: str) -> None:
        """It has this seat no more."""
        self._drop(member, code, reason)
        try:
            with contained():
                self._forget(member)
        except Exception:
            self._fail()

    def _forget(self, member: Member) -> None:
        """Let the game know that a player is gone for good."""
        self.roster.remove(member)
        if member.joined and member.player is not None:
            self._game.leave(member.player)

    def answer(self, member: Member, ping: Ping) -> None:
        """Answer a client's Ping with the time of this room."""
        if member.connection is not None:
            server_tick = int((self._tick + self._fraction()) * 256) & 0xFFFFFFFF
            member.connection.send(encode(Pong(client_ms=ping.client_ms, server_tick=server_tick)))

    def take_input(self, member: Member, message: bytes) -> None:
        """Take the bytes of a client's Input. Raises MalformedMessage."""
        if member.player is not None:
            ack_tick, ack_event = member.inputs.receive(message)
        else:
            ack_tick, ack_event, *_ = input_head(message)
        if ack_tick > member.ack_tick:
            member.ack_tick = min(ack_tick, self.history.tick)
            if member.probe_tick and ack_tick >= member.probe_tick:
                self._note_trip(member)
        while member.events and member.events[0][0] <= ack_event:
            member.events.popleft()

    def _note_trip(self, member: Member) -> None:
        rtt_s = self._now() - member.probe_at_s
        metrics.CLIENT_RTT_SECONDS.observe(rtt_s)
        if member.rtt_s is not None:
            metrics.CLIENT_JITTER_SECONDS.observe(abs(rtt_s - member.rtt_s))
        member.rtt_s, member.probe_tick = rtt_s, 0

    def lose(self, member: Member, connection: Connection) -> None:
        """Note that a connection is gone; a superseded one changes nothing."""
        if member.connection is connection:
            member.lost_at_s = max(member.lost_at_s, self._now())
            self.roster.part(member)

    def leave(self, member: Member) -> None:
        """A player said Bye: it does not come back by itself."""
        member.lost_at_s = float("-inf")
        self.roster.part(member)

    def stop(self, code: CloseCode, reason: str) -> None:
        """End the room from outside (drain, fence), without results."""
        self._stopped = self._stopped or (code, reason)

    def migrate(self, data: dict[str, Any]) -> None:
        """Tell every client that the session moves."""
        for member in self.roster.audience():
            if member.connection is not None:
                member.connection.send(encode(Migrate(data=data)))

    @property
    def handed_over(self) -> bool:
        """Whether the match goes on elsewhere: this room only shows it on until its clients have left."""
        return self._checkpoints.handed_over

    async def checkpoint(self) -> None:
        """Save now, and wait until it is stored. Raises SessionGone, StoreUnavailable."""
        await self._checkpoints.write(self._tick)

    async def hand_over(self) -> bool:
        """
        Give the session, as it is now, to the room that is reserved for it, and send the clients after it.

        Returns: False when that cannot be: the match goes on here. Raises SessionGone, StoreUnavailable.
        """
        moved = await self._checkpoints.hand_over(self._tick)
        if moved is None:
            return False
        self._farewell_s = self._now() + FAREWELL_S
        self.migrate({"session": self.session, "reason": "the server goes", "epoch": moved.epoch})
        return True

    async def run(self) -> None:
        """Tick until the match is over; returns when the session store knows of its end."""
        try:
            while not self._over():
                await self._sleep(self._clock.wait_s(self._now()))
                begun_s, dropped = self._now(), self._clock.dropped
                late_s = self._clock.ticked(begun_s)
                metrics.TICK_LATENESS_SECONDS.observe(max(late_s, 0.0))
                if late_s > STALL_S and self._stalled is not None:
                    await self._stalled()
                    self._clock.due_s = self._now()
                    continue
                if self._clock.dropped > dropped:
                    metrics.TICKS_DROPPED.inc(self._clock.dropped - dropped)
                self._tick += 1
                with contained():
                    self._step_watched(self._slow) if self._slow is not None else self._step()
                self._checkpoints.in_turn(self._tick)
                self._note_duration(self._now() - begun_s)
            await self._tell_results()
        except Exception:
            self._fail()
        finally:
            metrics.INPUTS_DROPPED.inc(sum(member.inputs.dropped for member in self.roster.players.values()))
            self._checkpoints.close()
            over = (CloseCode.NORMAL, "the match is over")
            # Cancelled in the middle of a match: it may go on elsewhere.
            code, reason = self._stopped or (
                over if self._results is not None else (CloseCode.GOING_AWAY, "the server goes")
            )
            if self.handed_over:
                code, reason, self._results = CloseCode.GOING_AWAY, "the match goes on elsewhere", None
            metrics.ROOMS_ENDED.labels(self._outcome(code)).inc()
            for member in self.roster.audience():
                self._drop(member, code, reason)
        if self._results is not None and self._store is not None:
            await self._end(self._store, self._results)

    def _outcome(self, code: CloseCode) -> str:
        """How the room ended, as the metrics say it."""
        if self.handed_over or code is CloseCode.FENCED:
            return "moved"
        if code is CloseCode.GAME_ERROR:
            return "failed"
        return "cut_short" if self._results is None else "finished"

    def _fail(self) -> None:
        """The game has raised (the exception at hand), or returned nonsense: its match is over."""
        metrics.GAMES_FAILED.inc()
        log.exception("game_raised", session=self.session, tick=self._tick)
        self._stopped = (CloseCode.GAME_ERROR, "the game failed")
        self._results = json.dumps({"error": "the game failed"}).encode()

    # One tick.

    def _over(self) -> bool:
        if self.handed_over and (not self._watched() or self._now() > self._farewell_s):
            return True
        return self._results is not None or self._stopped is not None

    def _note_duration(self, took_s: float) -> None:
        metrics.TICK_DURATION_SECONDS.observe(took_s)
        if took_s > self._clock.interval_s:
            metrics.TICKS_OVER_BUDGET.inc()
        if took_s > SLOW_TICK_S and self._now() >= self._complain_at_s:
            # Nobody can take the time back from a game that sleeps or waits; all rooms of this process are late by it.
            self._complain_at_s = self._now() + _COMPLAINT_INTERVAL_S
            log.warning("slow_tick", session=self.session, tick=self._tick, took_ms=round(took_s * 1000))

    def _step_watched(self, slow: SlowTicks) -> None:
        begun_s = self._now()
        slow.begin()
        try:
            self._step()
        finally:
            if stack := slow.end():
                players, records = self._applied
                columns = self._game.inputs.decode_many(b"".join(records))
                inputs = {
                    player.id: {name: column[index].item() for name, column in columns.items()}
                    for index, player in enumerate(players[:_INPUTS_TOLD])
                }
                took_ms = round(1000 * (self._now() - begun_s), 1)
                log.warning(
                    "slow_tick_caught",
                    session=self.session,
                    tick=self._tick,
                    took_ms=took_ms,
                    stack=stack,
                    inputs=inputs,
                )

    def _watched(self) -> bool:
        return any(member.connection is not None for member in self.roster.audience())

    def _step(self) -> None:
        now = self._now()
        self._seat_changes(now)
        self._apply_inputs()
        self._game.step(self._clock.interval_s)
        before = self.history.world(self.history.tick)
        self.history.push(self._tick, World.of(self._game.schema, self._game.snapshot(), before))
        self._showing.show(self.roster.audience())
        if now - self._probed_at_s >= _PROBE_INTERVAL_S:
            self._probed_at_s = now
            self._probe(now)

    def _probe(self, now: float) -> None:
        """Note when the newest snapshot went out, for those who will acknowledge it."""
        for member in self.roster.players.values():
            if member.connection is not None:
                member.probe_tick, member.probe_at_s = self.history.tick, now

    def _apply_inputs(self) -> None:
        """Hand the game its inputs: the first of each player, decoded together, then the second of each, and so on."""
        self._applied = (), ()
        acting = [member for member in self.roster.players.values() if member.inputs.waiting and member.joined]
        for turn in range(INPUTS_PER_TICK):
            if not acting:
                break
            players: list[Player] = []
            records: list[bytes] = []
            for member in acting:
                _, member.view, record = member.inputs.take()
                assert member.player is not None
                players.append(member.player)
                records.append(record)
            if not turn:
                self._applied = players, records
            self._game.inputs_of(players, self._game.inputs.decode_many(b"".join(records)))
            acting = [member for member in acting if member.inputs.waiting]

    def _join(self, member: Member) -> None:
        """Let the game know of a player, before it is shown anything: where it looks from is the game's to say."""
        if member.player is not None and not member.joined:
            self.roster.note_join(member)
            self._game.join(member.player)

    def _seat_changes(self, now: float) -> None:
        for member in tuple(self.roster.unsettled.values()):
            assert member.player is not None
            if not member.joined:
                self._join(member)
            elif member.connection is not None:
                del self.roster.unsettled[member.player.id]
            elif now - member.lost_at_s > RECONNECT_WINDOW_S:
                self._forget(member)
        if any(member.connection is not None for member in self.roster.players.values()):
            self._empty_since_s = now
        elif now - self._empty_since_s > RECONNECT_WINDOW_S:
            self.end(abandoned=True)

    def _send_event(self, member: Member, data: dict[str, Any]) -> None:
        if member.connection is None:
            return
        member.event_seq += 1
        message = encode(Event(seq=member.event_seq, tick=self._tick, data=data))
        member.connection.send(message)
        if not member.connection.reliable:
            if member.events is None:
                member.events = deque(maxlen=EVENTS_UNACKNOWLEDGED)
            member.events.append((member.event_seq, message))

    async def _tell_results(self) -> None:
        """The last event of a match that its game ended; repeated for a while where it may be lost, since nothing comes after it."""
        results = self._results
        if results is None or self._stopped is not None or self.handed_over or len(results) > _RESULTS_TOLD_BYTES:
            return
        self.event(RESULTS, results=json.loads(results))
        for _ in range(_LAST_WORDS):
            waiting = [m for m in self.roster.audience() if m.events and m.connection is not None]
            if not waiting:
                return
            await asyncio.sleep(_LAST_WORDS_INTERVAL_S)
            for member in waiting:
                for _, message in member.events or ():
                    if member.connection is not None:
                        member.connection.send(message)

    async def _end(self, store: SessionStore, results: bytes) -> None:
        """Write the results, however long the store is away: they are all that is left of the match."""
        await _until_stored(lambda: store.end(self.session, epoch=self.record.epoch, results=results), self.session)

    def _drop(self, member: Member, code: CloseCode, reason: str) -> None:
        self.roster.drop(member, code, reason, self._now())

    def _welcome(self, grant: SeatGrant, *, spectator: bool) -> Welcome:
        room = {
            "session": self.session,
            "player": grant.player,
            "team": grant.team,
            "game": type(self._game).__name__,
            "schema": self._game.schema.describe(),
            "inputs": self._game.inputs.describe(),
            "info": dict(self._game.info()),
        }
        seat = SPECTATOR_SEAT if spectator else grant.seat
        return Welcome(seat=seat, tick_rate_hz=self.tick_rate_hz, tick=self._tick, epoch=self.record.epoch, room=room)

    def _fraction(self) -> float:
        """How far the present tick has gone, 0 to 1."""
        return min(max(1.0 - self._clock.wait_s(self._now()) / self._clock.interval_s, 0.0), 1.0)


async def _until_stored(write: Callable[[], Awaitable[None]], session: str) -> None:
    while True:
        try:
            await write()
            return
        except SessionGone:
            log.info("session_gone", session=session)  # moved or ended elsewhere: nothing is ours to write
            return
        except StoreUnavailable as error:
            log.warning("results_wait_for_the_store", session=session, error=str(error))
            await asyncio.sleep(_STORE_RETRY_S)
