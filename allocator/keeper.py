"""
The keeper of one fleet's shelf: observe, plan, apply, again and again.

Events (the backend's watch, the fleet's wake channel) only wake the loop; a lost event costs at most a second. Every action is one function or
one backend call and may be cut short anywhere: the next round sees what is left to do. Several keepers may run: a lease lets one of them work, and
its token fences the others: a keeper that slept through its lease is refused by the store, whatever it was about to do. What such a keeper does
at the backend before it is refused (an allocation, a label) is found by the next one's reconciliation.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterable
from typing import assert_never

import structlog

from allocator import metrics
from allocator.model import Allocation, FleetPolicy
from allocator.planner import (
    Action,
    Adopt,
    Allocate,
    Drop,
    End,
    Free,
    HandBack,
    Move,
    Remove,
    Retire,
    foreign,
    plan,
    plan_blind,
    shortage,
    wanted_rooms,
)
from allocator.ports import RECYCLE_LABEL, SHELF_LABEL, Backend, BackendUnavailable
from allocator.recovery import Recovery
from allocator.shelf import LeaseLost, Shelf, ShelfState
from gameserver.sessions.client import StoreClient, listen
from gameserver.sessions.clock import JUMP_S, StoreClock
from gameserver.sessions.model import ServerName
from gameserver.sessions.port import StoreUnavailable
from gameserver.sessions.valkey import ValkeySessions, wake_channel

log = structlog.get_logger(__name__)

_JUDGING = (Drop, Adopt, Remove)
"""Actions that rest on a server being there or not, and cannot be taken back: the backend's newest word is wanted for them."""
_AT_ONCE = 16
"""Allocations under way; Agones takes up to 100 in a batch."""
_TICK_S = 1.0
LEASE_S = 3.0
_RETRY_S = 0.2


class ShelfKeeper:
    """Keeps one fleet's shelf; `run` until cancelled."""

    def __init__(
        self,
        policy: FleetPolicy,
        shelf: Shelf,
        client: StoreClient,
        backend: Backend,
        *,
        on_shortage: Callable[[int], None] = lambda servers: None,
    ) -> None:
        """`on_shortage`: told how many servers are wanted beyond those that are taken; the laptop's fleet grows by it."""
        self.policy = policy
        self._client = client
        self._backend = backend
        self._on_shortage = on_shortage
        self._wake = asyncio.Event()
        self._shelf = shelf.under(secrets.token_hex(8))
        self._sessions = ValkeySessions(client, policy.name)
        self._clock = StoreClock()
        self.seen: ShelfState | None = None
        """What the newest round saw, for status."""
        self.foreign = 0
        """Servers that somebody else has allocated."""
        self.leading = False
        """Whether this keeper holds the lease, as far as it knows."""
        self._recovery = Recovery(policy, self._shelf, leads=lambda: self.leading)
        self._moved = 0

    @property
    def moved(self) -> int:
        """Sessions that were given another server after theirs was lost."""
        return self._moved + self._recovery.moved

    async def run(self) -> None:
        """Keep the shelf until cancelled."""
        try:
            await self._run()
        finally:
            await self._give_up_lease()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep(), name=f"keep-{self.policy.name}")
            tasks.create_task(self._hold_on(), name=f"lease-{self.policy.name}")
            tasks.create_task(self._watch_backend(), name=f"watch-backend-{self.policy.name}")
            tasks.create_task(self._recovery.run(), name=f"recover-{self.policy.name}")
            channels = [wake_channel(self.policy.name)]
            hearing = listen(self._client, channels, lambda _: self._woken(), subscribed=self._woken)
            tasks.create_task(hearing, name=f"watch-store-{self.policy.name}")

    async def round(self) -> bool:
        """
        Observe, plan and apply once, if the lease is this keeper's; True when something was done.

        Raises: StoreUnavailable, BackendUnavailable.
        """
        if not await self._hold():
            return False
        try:
            return await self._look()
        except LeaseLost as error:
            log.info("lease_lost", fleet=self.policy.name, error=str(error))
            self.leading = False
            return False

    async def _look(self) -> bool:
        # The shelf first: a server that another keeper shelves meanwhile must not look like an entry whose server is gone.
        self.seen = await self._shelf.observe(self.policy.name, self._clock)
        if abs(self.seen.jumped_s) > JUMP_S:
            log.warning("store_clock_jumped", fleet=self.policy.name, seconds=round(self.seen.jumped_s, 1))
        if self.policy.managed:  # any other server does not say who has come
            for session, player in await self._sessions.expire_seats():
                log.info("seat_expired", session=session, player=player)
        try:
            observed = await self._backend.servers(self.policy.name)
            actions = plan(self.policy, observed, self.seen)
            if any(isinstance(action, _JUDGING) for action in actions):
                observed = await self._backend.servers(self.policy.name, fresh=True)
                actions = plan(self.policy, observed, self.seen)
        except BackendUnavailable:
            await self._apply_all(plan_blind(self.policy, self.seen))
            raise
        self.foreign = foreign(self.seen, observed)
        self._measure(self.seen)
        self._on_shortage(shortage(self.policy, self.seen, observed))
        return await self._apply_all(actions)

    async def _apply_all(self, actions: Iterable[Action]) -> bool:
        done = False
        for action in actions:
            if await self._apply(action):
                done = True
                self._recovery.wake()  # a server has come, or one has gone
        return done

    def _measure(self, seen: ShelfState) -> None:
        name = self.policy.name
        in_use = sum(len(entry.sessions) for entry in seen.entries)
        for what, rooms in (("claimable", seen.free), ("wanted", wanted_rooms(self.policy, seen)), ("in-use", in_use)):
            metrics.SHELF_ROOMS.labels(name, what).set(rooms)
        metrics.SHELF_SERVERS.labels(name).set(len(seen.entries))
        metrics.SHELF_WAITERS.labels(name).set(seen.waiters)
        metrics.FOREIGN_SERVERS.labels(name).set(self.foreign)

    def _woken(self) -> None:
        self._wake.set()
        self._recovery.wake()

    async def _keep(self) -> None:
        while True:
            again = False
            try:
                again = await self.round()
            except (StoreUnavailable, BackendUnavailable) as error:
                log.warning("keeper_waits", fleet=self.policy.name, error=str(error))
                await asyncio.sleep(_RETRY_S)
            if not again:
                try:
                    async with asyncio.timeout(_TICK_S):
                        await self._wake.wait()
                except TimeoutError:
                    pass
            self._wake.clear()

    async def _apply(self, action: Action) -> bool:
        """Apply one action; True when it changed something, so that another look is due."""
        fleet, recycle = self.policy.name, self.policy.recycle
        match action:
            case Free(session=session):
                return await self._shelf.release(session, recycle=recycle)
            case End(session=session, reason=reason, only=only):
                log.info("session_ended", session=session, reason=reason)
                return await self._shelf.end(session, reason=reason, recycle=recycle, only=only)
            case Move(session=session, epoch=epoch):
                moved = await self._shelf.move(session, epoch=epoch, strategy=self.policy.strategy)
                if isinstance(moved, Allocation):
                    self._moved += 1
                    metrics.SESSIONS_MOVED.labels("lost").inc()
                    log.info("session_moved", session=session, epoch=moved.session.epoch, server=moved.session.server)
                return isinstance(moved, Allocation)
            case Drop(server=server, dead=dead):
                lost = await self._shelf.drop(fleet, server, dead=dead)
                log.info("server_dropped", server=server, lost=list(lost), silent=dead)
                return True
            case Remove(server=server):
                await self._backend.delete(server)
                return True
            case Retire(server=server):
                return await self._shelf.drain(fleet, server)
            case Adopt(server=server):
                return await self._shelf.register(server, rooms=self.policy.rooms)
            case HandBack(server=server, replace=replace):
                return await self._hand_back(server, replace=replace)
            case Allocate(count=count):
                return await self._allocate(count)
            case _:
                assert_never(action)

    async def _hand_back(self, server: ServerName, *, replace: bool) -> bool:
        if not await self._shelf.unshelve(self.policy.name, server):
            return False
        # After a crash right here the server still has the shelf label: the next round adopts it, and hands it back again.
        if replace:
            await self._backend.delete(server)
        else:
            await self._backend.label(server, {SHELF_LABEL: "", RECYCLE_LABEL: "ready"})
        return True

    async def _allocate(self, count: int) -> bool:
        """Several at once: a cluster answers a batch of allocations as fast as one. Raises what the first that failed did, once all have ended."""
        done = False
        while count > 0:
            asked = min(count, _AT_ONCE)
            answers = await asyncio.gather(*(self._allocate_one() for _ in range(asked)), return_exceptions=True)
            if failed := [answer for answer in answers if isinstance(answer, BaseException)]:
                raise failed[0]
            done |= True in answers
            if False in answers:
                break  # none is Ready any more
            count -= asked
        return done

    async def _allocate_one(self) -> bool:
        labels = {SHELF_LABEL: "yes", RECYCLE_LABEL: ""}
        server = await self._backend.allocate(self.policy.name, labels=labels, annotations={})
        if server is not None:
            await self._shelf.register(server, rooms=self.policy.rooms)
        return server is not None

    async def _hold(self) -> bool:
        self.leading = await self._shelf.hold(self.policy.name, lease_s=LEASE_S)
        metrics.KEEPER_LEADS.labels(self.policy.name).set(self.leading)
        return self.leading

    async def _hold_on(self) -> None:
        """
        Hold on to the lease through a round that takes long.

        Never take it here: a round that slept through it would go on under the same token, with what it saw before another keeper worked.
        """
        while True:
            await asyncio.sleep(LEASE_S / 3)
            if self.leading:
                try:
                    self.leading = await self._shelf.hold(self.policy.name, lease_s=LEASE_S, take=False)
                except StoreUnavailable as error:
                    log.warning("lease_waits", fleet=self.policy.name, error=str(error))

    async def _give_up_lease(self) -> None:
        """So that the next keeper need not wait for its end."""
        try:
            await self._shelf.give_up(self.policy.name)
        except StoreUnavailable:
            pass  # it expires by itself

    async def _watch_backend(self) -> None:
        while True:
            try:
                async for _ in self._backend.watch(self.policy.name):
                    self._wake.set()
            except BackendUnavailable as error:
                log.warning("watch_broke", fleet=self.policy.name, error=str(error))
            await asyncio.sleep(_RETRY_S)
