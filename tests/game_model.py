"""A game server as the allocator's tests need it: what it has open, at which epochs, how far each match has got. It acts on what the store says alone."""

import random

from gameserver.sessions.model import ServerMode, ServerName, Session, SessionId
from gameserver.sessions.port import SessionGone
from gameserver.sessions.valkey import ValkeySessions


class ModelServer:
    """A game server's side: what it has open, and what it does when it hears something."""

    def __init__(self, name: ServerName, sessions: ValkeySessions) -> None:
        self.name = name
        self.mode = ServerMode.SERVE
        self.open: dict[SessionId, Session] = {}
        self.tick: dict[SessionId, int] = {}
        self.saved: dict[SessionId, int] = {}
        self._store = sessions

    async def hear(self, rng: random.Random, lose: float) -> None:
        """One heartbeat and what follows from it; a lost reply is a beat whose orders are not heard."""
        orders = await self._store.beat(
            self.name, ttl_s=60, mode=self.mode, rooms={session: held.epoch for session, held in self.open.items()}
        )
        if rng.random() < lose:
            return
        for session in orders.fenced:
            self.close(session)
        for placed in orders.placed:
            held = self.open.get(placed.session)
            if held is None:
                await self.take(placed.session, placed.epoch)
            elif placed.reserved:
                await self.hand_over(held, rng, lose)

    async def take(self, session: SessionId, epoch: int) -> None:
        try:
            record, state = await self._store.open(session, server=self.name, epoch=epoch)
        except SessionGone:
            return
        self.open[session] = record
        self.tick[session] = self.saved[session] = int(state or b"0")
        assert self.tick[session] == record.checkpoint_tick

    async def hand_over(self, held: Session, rng: random.Random, lose: float) -> None:
        tick = self.tick[held.id]
        try:
            moved = await self._store.hand_over(held, tick=tick, state=str(tick).encode())
            while rng.random() < lose:  # the reply is lost: it asks again, and hears the same
                again = await self._store.hand_over(held, tick=tick, state=b"never")
                assert (again is None) == (moved is None)
        except SessionGone:
            moved = held
        if moved is not None:
            self.close(held.id)

    async def play(self, session: SessionId, *, save: bool) -> None:
        self.tick[session] += 1
        if save:
            tick = self.tick[session]
            try:
                await self._store.checkpoint(
                    session, epoch=self.open[session].epoch, tick=tick, state=str(tick).encode()
                )
                self.saved[session] = tick
            except SessionGone:
                self.close(session)

    def close(self, session: SessionId) -> None:
        for known in (self.open, self.tick, self.saved):
            known.pop(session, None)
