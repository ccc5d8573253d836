"""
Agones' allocator over the simulated cluster, one for each API as in Agones (extensions and agones-allocator).

Source: pkg/gameserverallocations of Agones: allocator.go (batches, retries), cache.go, find.go, and the validation in pkg/apis/allocation/v1.
"""

import asyncio
import copy
import datetime
import time
from functools import cmp_to_key
from typing import Any

from agones_fake.cluster import Conflict, FakeCluster, NotFound, Object

NONE_FREE = "there is no available GameServer to allocate"
_TRIES = 5
_RETRY_S = 0.01
_REFRESH_AFTER = 100
LAST_ALLOCATED = "agones.dev/last-allocated"


class UpdateConflict(Exception):
    """could not update the selected GameServer: every try lost."""


class InvalidAllocation(Exception):
    """The request does not pass validation."""


class _NoneFree(Exception):
    pass


class _Lost(Exception):
    """The candidate was taken from the cache by someone else."""


class Allocator:
    """Allocates in batches; `run` beside it."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster
        self._pending: asyncio.Queue[tuple[Object, asyncio.Future[Object]]] = asyncio.Queue(100)
        self._cache: dict[tuple[str, str], Object] = {}
        self._cursor = 0
        self._updates: set[asyncio.Task[None]] = set()
        self.count = 0
        """Servers moved to Allocated."""

    async def run(self) -> None:
        """The batch loop, until cancelled."""
        listed: list[Object] | None = None
        order: Any = None
        seen = 0
        while True:
            if self._pending.empty():
                listed, seen = None, 0
                await asyncio.sleep(self._cluster.timing.batch_s)
                continue
            request, answer = self._pending.get_nowait()
            key = (request["spec"].get("priorities"), request["spec"]["scheduling"])
            if listed is None or seen >= _REFRESH_AFTER or key != order:
                listed, order, seen = self._sorted(request), key, 0
            seen += 1
            try:
                found = self._find(request, listed)
                listed.remove(found)
                if self._cache.pop(_key(found), None) is None:
                    raise _Lost
            except (_NoneFree, _Lost) as error:
                if not answer.done():
                    answer.set_exception(error)
                continue
            task = asyncio.create_task(self._update(request, found, answer), name="allocation-update")
            self._updates.add(task)
            task.add_done_callback(self._updates.discard)

    async def allocate(self, request: Object) -> Object:
        """The GameServerAllocation with its status. Raises InvalidAllocation, UpdateConflict."""
        with_defaults(request)
        if problems := validate(request):
            raise InvalidAllocation("; ".join(problems))
        spec = request["spec"]
        if not spec.get("selectors"):
            spec["selectors"] = [*spec.get("preferred", []), spec.get("required", {})]
        error: Exception = UpdateConflict()
        for _ in range(_TRIES):
            answer: asyncio.Future[Object] = asyncio.get_running_loop().create_future()
            await self._pending.put((request, answer))
            try:
                return request | {"status": _status(await answer)}
            except _NoneFree:
                return request | {"status": {"state": "UnAllocated", "gameServerName": "", "source": ""}}
            except (_Lost, UpdateConflict) as lost:
                error = lost
                await asyncio.sleep(_RETRY_S)
        if isinstance(error, _Lost):
            return request | {"status": {"state": "Contention", "gameServerName": "", "source": ""}}
        raise error

    async def _update(self, request: Object, found: Object, answer: "asyncio.Future[Object]") -> None:
        await asyncio.sleep(self._cluster.timing.write_s)
        meta = found["metadata"]

        def change(item: Object) -> None:
            patch = request["spec"].get("metadata", {})
            item["metadata"].setdefault("labels", {}).update(patch.get("labels", {}))
            annotations = item["metadata"].setdefault("annotations", {})
            annotations.update(patch.get("annotations", {}))
            annotations[LAST_ALLOCATED] = datetime.datetime.now(datetime.UTC).isoformat()
            item["status"]["state"] = "Allocated"
            act_on(item["status"], request["spec"])

        try:
            after = self._cluster.update(
                "gameservers", meta["name"], change, namespace=meta["namespace"], version=meta["resourceVersion"]
            )
        except (Conflict, NotFound):
            if not answer.done():
                answer.set_exception(UpdateConflict())
            return
        self.count += 1
        self._cache[_key(after)] = after
        if not answer.done():
            answer.set_result(after)

    def _sorted(self, request: Object) -> list[Object]:
        self._refresh()
        items = list(self._cache.values())
        counts: dict[str, list[int]] = {}
        for item in self._cluster.list("gameservers"):
            tally = counts.setdefault(item["status"]["nodeName"], [0, 0])
            tally[0] += item["status"]["state"] == "Allocated"
            tally[1] += item["status"]["state"] == "Ready"
        priorities = request["spec"].get("priorities", [])

        def compare(a: Object, b: Object) -> int:
            if request["spec"]["scheduling"] == "Packed":
                if a["status"]["state"] != b["status"]["state"]:
                    return -1 if a["status"]["state"] == "Allocated" else 1
                of_a, of_b = counts.get(a["status"]["nodeName"], [0, 0]), counts.get(b["status"]["nodeName"], [0, 0])
                if of_a != of_b:
                    return -1 if of_a > of_b else 1
            return by_priority(priorities, a, b) or (-1 if a["metadata"]["name"] < b["metadata"]["name"] else 1)

        return sorted(items, key=cmp_to_key(compare))

    def _find(self, request: Object, listed: list[Object]) -> Object:
        spec = request["spec"]
        candidates = list(listed)
        if spec["scheduling"] == "Distributed" and not spec.get("priorities"):
            self._cluster.rng.shuffle(candidates)
        for selector in spec["selectors"]:
            for item in candidates:
                if item["metadata"]["namespace"] == request["metadata"]["namespace"] and matches(selector, item):
                    return item
        raise _NoneFree

    def _refresh(self) -> None:
        """Take up what the informer has delivered by now."""
        table, now_s = self._cluster.tables["gameservers"], time.monotonic()
        if self._cursor < table.compacted:  # what was forgotten is listed anew
            self._cache = {_key(item): item for item in table.objects.values() if _allocatable(item)}
            self._cursor = self._cluster.version
        for change in table.history:
            if change.version <= self._cursor:
                continue
            if change.at_s > now_s - self._cluster.timing.cache_lag_s:
                break
            self._cursor, item = change.version, change.object
            held = self._cache.get(_key(item))
            if change.type == "DELETED" or not _allocatable(item):
                self._cache.pop(_key(item), None)
            elif held is None or held["metadata"]["generation"] <= item["metadata"]["generation"]:
                self._cache[_key(item)] = item


def with_defaults(request: Object) -> None:
    """Agones' ApplyDefaults."""
    spec = request.setdefault("spec", {})
    spec["scheduling"] = spec.get("scheduling") or "Packed"
    for priority in spec.get("priorities", []):
        priority["order"] = priority.get("order") or "Ascending"
    for selector in spec.get("selectors") or [spec.setdefault("required", {}), *spec.get("preferred", [])]:
        selector.setdefault("gameServerState", "Ready")


def validate(request: Object) -> list[str]:
    """What Agones refuses with 422."""
    spec, found = request["spec"], []
    if spec["scheduling"] not in ("Packed", "Distributed"):
        found.append(f'spec.scheduling: Unsupported value: "{spec["scheduling"]}"')
    for index, selector in enumerate(spec.get("selectors") or [spec["required"], *spec.get("preferred", [])]):
        where = f"spec.selectors[{index}]"
        if selector["gameServerState"] not in ("Ready", "Allocated"):
            found.append(f"{where}.gameServerState: must be either Allocated or Ready")
        ranges = [(f"{where}.players", selector.get("players") or {}, "Available", False)]
        for kind in ("counters", "lists"):
            for name, limits in (selector.get(kind) or {}).items():
                ranges.append((f"{where}.{kind}[{name}]", limits, "Available", True))
                if kind == "counters":
                    ranges.append((f"{where}.{kind}[{name}]", limits, "Count", True))
        for place, limits, what, zero_is_open in ranges:
            low, high = limits.get(f"min{what}", 0), limits.get(f"max{what}", 0)
            if low < 0 or high < 0:
                found.append(f"{place}: must be greater than or equal to 0")
            if high < low and (high != 0 or not zero_is_open):
                found.append(f"{place}: max{what} must zero or greater than min{what} {low}")
    for priority in spec.get("priorities", []):
        if priority.get("type") not in ("Counter", "List") or not priority.get("key"):
            found.append('spec.priorities: type must be "Counter" or "List", key must not be nil')
    for name, action in (spec.get("counters") or {}).items():
        if (action.get("amount") is None) != (action.get("action") is None):
            found.append(f"spec.counters[{name}]: action and amount belong together")
        if (action.get("amount") or 0) < 0 or (action.get("capacity") or 0) < 0:
            found.append(f"spec.counters[{name}]: must be greater than or equal to 0")
    return found


def matches(selector: Object, item: Object) -> bool:
    """Agones' GameServerSelector.Matches."""
    labels, status = item["metadata"].get("labels", {}), item["status"]
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    if not all(_expression(labels, part) for part in selector.get("matchExpressions") or []):
        return False
    if status["state"] != selector["gameServerState"]:
        return False
    players, held = selector.get("players"), status.get("players")
    if players and held and players.get("maxAvailable"):
        available = held["capacity"] - held["count"]
        if not players.get("minAvailable", 0) <= available <= players["maxAvailable"]:
            return False
    for name, limits in (selector.get("counters") or {}).items():
        counter = (status.get("counters") or {}).get(name)
        if counter is None or not _within(limits, "Count", counter.get("count", 0)):
            return False
        if not _within(limits, "Available", counter.get("capacity", 0) - counter.get("count", 0)):
            return False
    for name, limits in (selector.get("lists") or {}).items():
        values = (status.get("lists") or {}).get(name)
        if values is None or not _within(limits, "Available", values["capacity"] - len(values.get("values") or [])):
            return False
        if limits.get("containsValue") and limits["containsValue"] not in (values.get("values") or []):
            return False
    return True


def act_on(status: Object, spec: Object) -> None:
    """Counter and list actions; those that cannot be done are left out, as in Agones."""
    for name, action in (spec.get("counters") or {}).items():
        counter = (status.get("counters") or {}).get(name)
        if counter is None:
            continue
        if action.get("capacity") is not None:
            counter["capacity"] = action["capacity"]
        if action.get("amount") is not None:
            count = counter.get("count", 0) + action["amount"] * (1 if action["action"] == "Increment" else -1)
            counter["count"] = max(0, min(count, counter["capacity"]))
    for name, action in (spec.get("lists") or {}).items():
        held = (status.get("lists") or {}).get(name)
        if held is None:
            continue
        if action.get("capacity") is not None:
            held["capacity"] = action["capacity"]
        values = list(dict.fromkeys([*(held.get("values") or []), *(action.get("addValues") or [])]))
        held["values"] = [value for value in values if value not in (action.get("deleteValues") or [])]
        del held["values"][held["capacity"] :]


def by_priority(priorities: list[Object], a: Object, b: Object) -> int:
    """Agones' CompareCountAndListPriorities: by capacity left; one that lacks the key comes last."""
    for priority in priorities:
        of_a, of_b = (_room(priority, item["status"]) for item in (a, b))
        if of_a == of_b:
            continue
        if of_a is None or of_b is None:
            return 1 if of_a is None else -1
        ascending = priority["order"] == "Ascending"
        return -1 if (of_a < of_b) == ascending else 1
    return 0


def _room(priority: Object, status: Object) -> int | None:
    if priority["type"] == "Counter":
        counter = (status.get("counters") or {}).get(priority["key"])
        return None if counter is None else counter.get("capacity", 0) - counter.get("count", 0)
    values = (status.get("lists") or {}).get(priority["key"])
    return None if values is None else values["capacity"] - len(values.get("values") or [])


def _expression(labels: dict[str, str], part: Object) -> bool:
    value, values = labels.get(part["key"]), part.get("values") or []
    match part["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case _:
            return value is None


def _within(limits: Object, what: str, value: int) -> bool:
    low, high = limits.get(f"min{what}", 0), limits.get(f"max{what}", 0)
    return value >= low and (high == 0 or value <= high)


def _status(item: Object) -> Object:
    status = item["status"]
    answer = {
        "state": "Allocated",
        "gameServerName": item["metadata"]["name"],
        "ports": status["ports"],
        "address": status["address"],
        "addresses": status["addresses"],
        "nodeName": status["nodeName"],
        "source": "local",
        "metadata": {
            "labels": item["metadata"].get("labels", {}),
            "annotations": item["metadata"].get("annotations", {}),
        },
    }
    return copy.deepcopy(answer | {kind: status[kind] for kind in ("counters", "lists") if status.get(kind)})


def _allocatable(item: Object) -> bool:
    return item["status"]["state"] in ("Ready", "Allocated") and not item["metadata"].get("deletionTimestamp")


def _key(item: Object) -> tuple[str, str]:
    return item["metadata"]["namespace"], item["metadata"]["name"]
