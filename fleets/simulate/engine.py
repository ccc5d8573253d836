"""
One fleet, simulated event by event: matches claim rooms, servers boot on nodes, nodes come and go, servers fail.

Mirrors what the real parts do: the keeper fills the shelf from Ready servers and hands empty ones back, matches go to the fullest server that
has a room, waiting ones are served in order, Allocated servers are never removed. Pure: the trace, the settings and the random generator decide
everything.
"""

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fleets.autoscaler.leadtime import LeadTimes
from fleets.autoscaler.policy import FleetAim, Observed
from fleets.simulate.model import Outcome, World
from fleets.simulate.supply import Supply
from fleets.simulate.trace import Trace

_END, _READY, _NODE, _DECIDE, _CRASH, _NODE_IDLE = range(6)


@dataclass(slots=True, eq=False)
class _Server:
    node: "_Node"
    free: int
    ordered_s: float
    allocated: bool = False
    ready: bool = False
    sessions: int = 0
    gone: bool = False


@dataclass(slots=True, eq=False)
class _Node:
    free: int
    up: bool = False
    gone: bool = False
    idle_mark: int = 0
    """Grows with each change: an idle timer that finds another value is void."""


class _PerMinute:
    """Counts within the current minute."""

    def __init__(self) -> None:
        self._minute, self._count = -1, 0

    def add(self, at_s: float) -> int:
        """One more; returns how many in this minute."""
        minute = int(at_s // 60)
        if minute != self._minute:
            self._minute, self._count = minute, 0
        self._count += 1
        return self._count


def simulate(trace: Trace, aim: FleetAim, world: World, supply: Supply, rng: np.random.Generator) -> Outcome:
    """Run the trace through the fleet until its last match has begun and a while longer."""
    return _Simulation(trace, aim, world, supply, rng).run()


class _Simulation:
    def __init__(self, trace: Trace, aim: FleetAim, world: World, supply: Supply, rng: np.random.Generator) -> None:
        self._trace, self._aim, self._world, self._supply = trace, aim, world, supply
        self._rng = rng
        self.outcome = Outcome()
        self._heap: list[tuple[float, int, int, Any]] = []
        self._order = itertools.count()
        self._by_free: list[dict[_Server, None]] = [{} for _ in range(aim.rooms + 1)]
        """Allocated servers by their free rooms, oldest first."""
        self._ready: dict[_Server, None] = {}
        self._booting: dict[_Server, None] = {}
        self._nodes: list[dict[_Node, None]] = [{} for _ in range(world.servers_per_node + 1)]
        """Nodes by their free places."""
        self._waiting: deque[tuple[float, float]] = deque()
        """(begin, length) of matches without a room."""
        self._allocated = self._free_rooms = self._live = self._node_count = 0
        self._came = 0
        self._ends = self._exposure_s = 0.0
        self._now = float(trace.begins_s[0]) if len(trace) else 0.0
        self._counted_from_s = self._now + world.warm_up_s
        self._boots = self._draws()
        self._lead_times = LeadTimes()
        self._orders, self._allocations = _PerMinute(), _PerMinute()

    def run(self) -> Outcome:
        """Merge the trace with the events, in order of time."""
        begins, lengths = self._trace.begins_s.tolist(), self._trace.lengths_s.tolist()
        if not begins:
            return self.outcome
        handlers: tuple[Callable[[Any], None], ...]
        handlers = (self._end, self._booted, self._node_up, self._decide, self._crash, self._node_idle)
        self._push(begins[0], _DECIDE, None)
        # The fleet stands before its first player: what it would have been told to have.
        self._scale(max(self._aim.min, math.ceil(self._aim.shelf / self._aim.rooms)))
        heap, index, count = self._heap, 0, len(begins)
        end_s = begins[-1] + self._world.interval_s
        while index < count or (heap and heap[0][0] <= end_s):
            if index < count and begins[index] <= heap[0][0]:
                self._advance(begins[index])
                self._arrive(lengths[index])
                index += 1
            else:
                at_s, _, kind, what = heapq.heappop(heap)
                self._advance(at_s)
                handlers[kind](what)
            self.outcome.events += 1
        self.outcome.unserved = len(self._waiting)
        return self.outcome

    # Time.

    def _advance(self, at_s: float) -> None:
        if self._now < self._counted_from_s <= at_s:
            # What was before is not counted; what is there now is.
            self.outcome = Outcome(
                events=self.outcome.events,
                live_peak=self._live,
                servers_peak=self._replicas(),
                nodes_peak=self._node_count,
            )
        passed_s = at_s - self._now
        outcome = self.outcome
        outcome.node_hours += self._node_count * passed_s / 3600
        outcome.server_hours += self._replicas() * passed_s / 3600
        outcome.ready_hours += len(self._ready) * passed_s / 3600
        outcome.hours += passed_s / 3600
        self._exposure_s += self._live * passed_s
        self._now = at_s

    def _push(self, at_s: float, kind: int, what: Any) -> None:
        heapq.heappush(self._heap, (at_s, next(self._order), kind, what))

    def _draws(self) -> "itertools.cycle[float]":
        """Boot times, drawn ahead in one go."""
        spread = math.sqrt(math.log1p(self._world.boot_deviation**2))
        return itertools.cycle((self._world.boot_s * self._rng.lognormal(0, spread, 4096)).tolist())

    # Matches.

    def _arrive(self, length_s: float) -> None:
        self._came += 1
        self.outcome.matches += 1
        if self._free_rooms and not self._waiting:
            self.outcome.shelf += 1
            self._begin(self._fullest(), length_s)
        elif self._ready and not self._waiting:
            self.outcome.buffer += 1
            self._begin(self._allocate(), length_s)
        else:
            self.outcome.cold += 1
            self._waiting.append((self._now, length_s))

    def _begin(self, server: _Server, length_s: float) -> None:
        self._set_free(server, server.free - 1)
        server.sessions += 1
        self._live += 1
        self.outcome.live_peak = max(self.outcome.live_peak, self._live)
        self._push(self._now + length_s, _END, server)
        self._fill_shelf()

    def _end(self, server: _Server) -> None:
        if server.gone:
            return  # it failed, and its sessions have gone elsewhere
        self._live -= 1
        self._ends += 1
        server.sessions -= 1
        if self._aim.recycle:
            self._set_free(server, server.free + 1)
        elif not server.sessions:
            self._remove(server)
        self._serve_waiting()
        self._hand_back(server)

    def _serve_waiting(self) -> None:
        while self._waiting and (self._free_rooms or self._ready):
            since_s, length_s = self._waiting.popleft()
            if since_s >= self._counted_from_s:
                self.outcome.waits_s.append(self._now - since_s)
            self._begin(self._fullest() if self._free_rooms else self._allocate(), length_s)

    # The shelf.

    def _fullest(self) -> _Server:
        for servers in self._by_free[1:]:
            if servers:
                return next(iter(servers))
        raise AssertionError("no free room is left")

    def _set_free(self, server: _Server, free: int) -> None:
        del self._by_free[server.free][server]
        self._free_rooms += free - server.free
        server.free = free
        self._by_free[free][server] = None

    def _allocate(self) -> _Server:
        self.outcome.allocated_peak = max(self.outcome.allocated_peak, self._allocations.add(self._now))
        server = next(iter(self._ready))
        del self._ready[server]
        server.ready, server.allocated = False, True
        server.free = self._aim.rooms
        self._by_free[server.free][server] = None
        self._allocated += 1
        self._free_rooms += server.free
        return server

    def _fill_shelf(self) -> None:
        while self._free_rooms < self._aim.shelf and self._ready:
            self._allocate()

    def _hand_back(self, server: _Server) -> None:
        """An empty server that the shelf does not need becomes Ready again."""
        if server.gone or server.sessions or self._free_rooms - server.free < self._aim.shelf:
            return
        del self._by_free[server.free][server]
        self._free_rooms -= server.free
        self._allocated -= 1
        server.allocated, server.ready = False, True
        self._ready[server] = None

    # Servers and nodes.

    def _replicas(self) -> int:
        return self._allocated + len(self._ready) + len(self._booting)

    def _decide(self, _: None) -> None:
        seen = Observed(
            at_s=self._now,
            replicas=self._replicas(),
            ready=len(self._ready),
            allocated=self._allocated,
            free_rooms=self._free_rooms,
            waiting=len(self._waiting),
            live=self._live,
            ends_per_s=self._ends / self._exposure_s if self._exposure_s else 0.0,
            lead_s=self._lead_times.reckon(self._world.node_boot_s + self._world.boot_s),
        )
        self._scale(self._supply.replicas(seen, self._came))
        self._came = 0
        # What is remembered of ended sessions halves in about half an hour.
        fade = 0.5 ** (self._world.interval_s / 1800.0)
        self._ends, self._exposure_s = self._ends * fade, self._exposure_s * fade
        self._push(self._now + self._world.interval_s, _DECIDE, None)

    def _scale(self, replicas: int) -> None:
        for _ in range(replicas - self._replicas()):
            self._order_server()
        for server in itertools.islice([*self._booting, *self._ready], max(0, self._replicas() - replicas)):
            self._remove(server)
        self.outcome.servers_peak = max(self.outcome.servers_peak, self._replicas())

    def _order_server(self) -> None:
        node = self._node_with_room()
        if node is None:
            return
        self.outcome.ordered_peak = max(self.outcome.ordered_peak, self._orders.add(self._now))
        self._place(node, node.free - 1)
        server = _Server(node, self._aim.rooms, self._now)
        self._booting[server] = None
        if node.up:
            self._push(self._now + next(self._boots), _READY, server)
        if self._world.crash_per_server_h:
            self._push(self._now + self._rng.exponential(3600 / self._world.crash_per_server_h), _CRASH, server)

    def _node_with_room(self) -> _Node | None:
        """The fullest one that has a place, so that others can empty; else a new one."""
        for nodes in self._nodes[1:]:
            if nodes:
                return next(iter(nodes))
        if self._node_count >= self._world.nodes_max:
            return None
        node = _Node(self._world.servers_per_node)
        self._nodes[node.free][node] = None
        self._node_count += 1
        self.outcome.nodes_peak = max(self.outcome.nodes_peak, self._node_count)
        self._push(self._now + self._world.node_boot_s, _NODE, node)
        return node

    def _place(self, node: _Node, free: int) -> None:
        del self._nodes[node.free][node]
        node.free = free
        node.idle_mark += 1
        self._nodes[free][node] = None
        if free == self._world.servers_per_node:
            self._push(self._now + self._world.node_idle_s, _NODE_IDLE, (node, node.idle_mark))

    def _node_up(self, node: _Node) -> None:
        node.up = True
        for server in self._booting:
            if server.node is node:
                self._push(self._now + next(self._boots), _READY, server)

    def _node_idle(self, what: tuple[_Node, int]) -> None:
        node, mark = what
        if not node.gone and node.idle_mark == mark:
            node.gone = True
            del self._nodes[node.free][node]
            self._node_count -= 1

    def _booted(self, server: _Server) -> None:
        if server.gone:
            return
        del self._booting[server]
        self._lead_times.note(self._now, self._now - server.ordered_s)
        server.ready = True
        self._ready[server] = None
        self._serve_waiting()
        self._fill_shelf()

    def _remove(self, server: _Server) -> None:
        server.gone = True
        if server.ready:
            del self._ready[server]
        elif server.allocated:
            del self._by_free[server.free][server]
            self._free_rooms -= server.free
            self._allocated -= 1
        else:
            del self._booting[server]
        self._place(server.node, server.node.free + 1)

    def _crash(self, server: _Server) -> None:
        if server.gone:
            return
        lost = server.sessions
        self._remove(server)
        self._live -= lost
        self.outcome.recovered += lost
        for _ in range(lost):
            # Moved sessions go first; what they have left to play is, on average, half a match.
            self._waiting.appendleft((self._now, float(self._trace.lengths_s.mean()) / 2))
        self._serve_waiting()
