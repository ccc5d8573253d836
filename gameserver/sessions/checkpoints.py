"""
A room's checkpoints: taken on the loop between two ticks, packed and written off it, fenced by the session's epoch.

Owns the envelope around a game's saved state, what a game that saves nonsense comes to, and the last checkpoint of all, with which a session is
handed over. A failed save costs this checkpoint and never the match. What paid, by measurement, is in docs/performance.md: an unchanged state is not
sent again, a large one is compressed in a thread; deltas against the previous one made JSON states larger.
"""

import asyncio
import json
import struct
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass

import structlog

from gameserver.sessions import metrics
from gameserver.sessions.model import PlayerId, Session
from gameserver.sessions.port import SessionGone, SessionStore, StoreUnavailable

log = structlog.get_logger(__name__)

MAX_STATE_BYTES = 8 * 1024 * 1024
"""A game's saved state at most: a larger one is refused, since everyone's store would suffer from it."""
COMPRESS_FROM_BYTES = 16 * 1024
"""Below, the 0.2 ms of compressing cost more than the bytes that they save."""
_HEAD = struct.Struct("<4sBI")
_MAGIC = b"WFC1"
_ZLIB = 1


class DamagedCheckpoint(ValueError):
    """These bytes are no checkpoint of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What is kept of a room."""

    state: bytes
    """`Game.save()`."""
    kicked: frozenset[PlayerId] = frozenset()
    """Players who may not come back, on no server."""


def pack(checkpoint: Checkpoint) -> bytes:
    """`WFC1`, `u8` flags (bit 0: the state is zlib), `u32` size of the JSON {kicked} that follows, then the state."""
    meta = json.dumps({"kicked": sorted(checkpoint.kicked)}, separators=(",", ":")).encode()
    flags, state = 0, checkpoint.state
    if len(state) >= COMPRESS_FROM_BYTES:
        flags, state = _ZLIB, zlib.compress(state, 1)
    return _HEAD.pack(_MAGIC, flags, len(meta)) + meta + state


def unpack(data: bytes) -> Checkpoint:
    """Read a checkpoint. Raises DamagedCheckpoint."""
    try:
        magic, flags, size = _HEAD.unpack_from(data)
        if magic != _MAGIC or flags & ~_ZLIB:
            raise DamagedCheckpoint("no checkpoint of this version")
        meta = json.loads(data[_HEAD.size : _HEAD.size + size])
        kicked = frozenset(PlayerId(player) for player in meta["kicked"])
        state = data[_HEAD.size + size :]
        if flags & _ZLIB:
            state = _decompress(state)
    except (struct.error, zlib.error, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpoint(f"the checkpoint is damaged: {error}") from error
    return Checkpoint(state=state, kicked=kicked)


def _decompress(data: bytes) -> bytes:
    """Whole, and no longer than a state may be."""
    inflating = zlib.decompressobj()
    state = inflating.decompress(data, MAX_STATE_BYTES + 1)
    if len(state) > MAX_STATE_BYTES or not inflating.eof:
        raise DamagedCheckpoint("the checkpoint is damaged: its state is cut short, or too long")
    return state


class Checkpoints:
    """
    The checkpoints of one room.

    Calls from the room's task: `in_turn` after each tick; `write` and `hand_over` from its process. Once handed over, or refused, nothing is written.
    """

    def __init__(
        self,
        store: SessionStore | None,
        session: Session,
        *,
        every_ticks: int,
        save: Callable[[], bytes],
        kicked: Collection[PlayerId],
        gone: Callable[[str], None],
    ) -> None:
        """
        Prepare; writes nothing yet.

        Args:
            store: None for a room without one, which is never saved.
            every_ticks: between two checkpoints; 0 for none but the last.
            save: the game's.
            gone: told, once, that the session is another server's now.
        """
        self._store = store
        self._session = session
        self._every_ticks = every_ticks
        self._save = save
        self._kicked = kicked
        self._gone = gone
        self._writing: asyncio.Task[None] | None = None
        self._written: Checkpoint | None = None
        self._complained = False
        self.handed_over = False

    def in_turn(self, tick: int) -> None:
        """Save when it is time to; a write that is still under way is not overtaken: the next turn will do."""
        if self._store is None or not self._every_ticks or tick % self._every_ticks or self.handed_over:
            return
        if self._writing is None or self._writing.done():
            taken = self._take()
            if taken is not None:
                self._writing = asyncio.create_task(self._try(taken, tick), name=f"save-{self._session.id}")

    async def write(self, tick: int) -> None:
        """Save now, and wait until it is stored. Raises SessionGone, StoreUnavailable; a game that cannot save is no error."""
        await self._settle()
        if self._store is not None and tick and not self.handed_over and (taken := self._take()) is not None:
            await self._write(taken, tick)

    async def hand_over(self, tick: int) -> Session | None:
        """
        Save now, and give the session to the room that is reserved for it, in one step of the store.

        Returns: the session as it goes on elsewhere; None when that cannot be (no reservation, a game that does not save): it stays here.
        Raises: SessionGone, StoreUnavailable (ask again: a repeated hand-over returns the same).
        """
        await self._settle()
        if self._store is None or (taken := self._take()) is None:
            return None
        state = await _packed(taken)
        moved = await self._store.hand_over(self._session, tick=tick, state=state)
        self.handed_over = moved is not None
        return moved

    def close(self) -> None:
        """Nothing more is written."""
        if self._writing is not None:
            self._writing.cancel()

    def _take(self) -> Checkpoint | None:
        """Call the game's `save`; None when it raises or returns nonsense, which is logged once and counted each time."""
        try:
            with metrics.CHECKPOINT_SAVE_SECONDS.time():
                state = self._save()
            if not isinstance(state, bytes):
                raise TypeError(f"save() returned {type(state).__name__}, bytes are wanted")
            if len(state) > MAX_STATE_BYTES:
                raise ValueError(f"save() returned {len(state)} bytes, {MAX_STATE_BYTES} are the most")
        except Exception:
            metrics.CHECKPOINTS.labels("game_failed").inc()
            if not self._complained:
                self._complained = True
                log.exception("game_does_not_save", session=self._session.id)
            return None
        return Checkpoint(state=state, kicked=frozenset(self._kicked))

    async def _try(self, taken: Checkpoint, tick: int) -> None:
        try:
            await self._write(taken, tick)
        except SessionGone as error:
            if not self.handed_over:
                self._gone(str(error))
        except StoreUnavailable as error:
            metrics.CHECKPOINTS.labels("store_away").inc()
            log.warning("checkpoint_failed", session=self._session.id, error=str(error))  # the next one will do

    async def _write(self, taken: Checkpoint, tick: int) -> None:
        assert self._store is not None
        # An unchanged state needs no more than its new tick.
        packed = None if taken == self._written else await _packed(taken)
        await self._store.checkpoint(self._session.id, epoch=self._session.epoch, tick=tick, state=packed)
        self._written = taken
        metrics.CHECKPOINTS.labels("unchanged" if packed is None else "written").inc()
        metrics.CHECKPOINT_BYTES.inc(len(packed or b""))

    async def _settle(self) -> None:
        """Let a write that is under way come to its end: it is older than the one that follows."""
        if self._writing is not None:
            await asyncio.wait([self._writing])


async def _packed(taken: Checkpoint) -> bytes:
    return await asyncio.to_thread(pack, taken) if len(taken.state) >= COMPRESS_FROM_BYTES else pack(taken)
