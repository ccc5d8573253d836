"""
Requests and answers in Agones' two forms: the messages of allocation.proto and the JSON of GameServerAllocation.

Translates both ways and decides nothing: clients use one half, a server of the same protocol the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from allocator.backends.pb import allocation_pb2 as pb
from allocator.backends.request import (
    SET_LABEL,
    CounterAction,
    CounterChange,
    CounterRange,
    InvalidRequest,
    ListAction,
    ListRange,
    MultiCluster,
    PlayerRange,
    Priority,
    PriorityType,
    Scheduling,
    Selector,
    ServerRequest,
    fleet_of,
)
from allocator.model import GameServer, ServerState
from gameserver.sessions.model import ServerName

LOCAL = "local"
"""The source of a server of the cluster that was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What Agones answers: a server, and what only it says of it."""

    server: GameServer
    node: str = ""
    source: str = LOCAL
    """`local`, or the address of another cluster's allocator that gave it."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Address type to address; the PodIP may be missing."""
    counters: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Name to (count, capacity), after the actions."""
    lists: Mapping[str, tuple[tuple[str, ...], int]] = field(default_factory=dict)
    """Name to (values, capacity), after the actions."""


def to_message(request: ServerRequest, namespace: str) -> pb.AllocationRequest:
    """The gRPC request."""
    distributed = request.scheduling is Scheduling.DISTRIBUTED
    message = pb.AllocationRequest(
        namespace=namespace,
        scheduling=pb.AllocationRequest.Distributed if distributed else pb.AllocationRequest.Packed,
    )
    for selector in request.selectors:
        _add_selector(message.gameServerSelectors.add(), selector)
    for priority in request.priorities:
        message.priorities.add(
            type=pb.Priority.List if priority.type is PriorityType.LIST else pb.Priority.Counter,
            key=priority.key,
            order=pb.Priority.Descending if priority.descending else pb.Priority.Ascending,
        )
    message.metadata.labels.update(request.labels)
    message.metadata.annotations.update(request.annotations)
    for name, action in request.counters.items():
        counter = message.counters[name]
        if action.change is not None and action.amount is not None:
            counter.action.value, counter.amount.value = action.change.value, action.amount
        if action.capacity is not None:
            counter.capacity.value = action.capacity
    for name, act in request.lists.items():
        values = message.lists[name]
        values.addValues.extend(act.add)
        values.deleteValues.extend(act.remove)
        if act.capacity is not None:
            values.capacity.value = act.capacity
    if request.multi_cluster is not None:
        message.multiClusterSetting.enabled = True
        message.multiClusterSetting.policySelector.matchLabels.update(request.multi_cluster.policy_labels)
    return message


def from_message(message: pb.AllocationRequest) -> ServerRequest:
    """A client's gRPC request; the deprecated fields are read as Agones reads them. Raises InvalidRequest."""
    selectors = list(message.gameServerSelectors)
    if not selectors:
        selectors = [*message.preferredGameServerSelectors, message.requiredGameServerSelector]
    patch = message.metadata if message.HasField("metadata") else message.metaPatch
    multi = message.multiClusterSetting
    return ServerRequest(
        selectors=tuple(_selector(selector) for selector in selectors),
        scheduling=Scheduling.DISTRIBUTED if message.scheduling else Scheduling.PACKED,
        priorities=tuple(
            Priority(
                type=PriorityType.LIST if priority.type else PriorityType.COUNTER,
                key=priority.key,
                descending=priority.order == pb.Priority.Descending,
            )
            for priority in message.priorities
        ),
        labels=dict(patch.labels),
        annotations=dict(patch.annotations),
        counters={name: _counter_action(action) for name, action in message.counters.items()},
        lists={
            name: ListAction(
                add=tuple(action.addValues),
                remove=tuple(action.deleteValues),
                capacity=action.capacity.value if action.HasField("capacity") else None,
            )
            for name, action in message.lists.items()
        },
        multi_cluster=MultiCluster(policy_labels=dict(multi.policySelector.matchLabels)) if multi.enabled else None,
    )


def to_object(request: ServerRequest, namespace: str) -> dict[str, Any]:
    """The GameServerAllocation."""
    spec: dict[str, Any] = {
        "selectors": [_selector_object(selector) for selector in request.selectors],
        "scheduling": request.scheduling.value,
        "metadata": {"labels": dict(request.labels), "annotations": dict(request.annotations)},
    }
    if request.priorities:
        spec["priorities"] = [
            {
                "type": priority.type.value,
                "key": priority.key,
                "order": "Descending" if priority.descending else "Ascending",
            }
            for priority in request.priorities
        ]
    if request.counters:
        spec["counters"] = {
            name: _set({"action": action.change, "amount": action.amount, "capacity": action.capacity})
            for name, action in request.counters.items()
        }
    if request.lists:
        spec["lists"] = {
            name: _set({"addValues": list(act.add), "deleteValues": list(act.remove), "capacity": act.capacity})
            for name, act in request.lists.items()
        }
    if request.multi_cluster is not None:
        policy = {"matchLabels": dict(request.multi_cluster.policy_labels)}
        spec["multiClusterSetting"] = {"enabled": True, "policySelector": policy}
    return {
        "apiVersion": "allocation.agones.dev/v1",
        "kind": "GameServerAllocation",
        "metadata": {"namespace": namespace},
        "spec": spec,
    }


def given_by_message(answer: pb.AllocationResponse) -> Given:
    """The server of a gRPC answer."""
    return Given(
        server=_server(
            answer.gameServerName,
            answer.address,
            {port.name: port.port for port in answer.ports},
            dict(answer.metadata.labels),
            dict(answer.metadata.annotations),
        ),
        node=answer.nodeName,
        source=answer.source or LOCAL,
        addresses={address.type: address.address for address in answer.addresses},
        counters={name: (c.count.value, c.capacity.value) for name, c in answer.counters.items()},
        lists={name: (tuple(held.values), held.capacity.value) for name, held in answer.lists.items()},
    )


def given_by_object(status: Mapping[str, Any]) -> Given:
    """The server of an Allocated GameServerAllocation's status."""
    metadata = status.get("metadata") or {}
    return Given(
        server=_server(
            status["gameServerName"],
            status.get("address") or "",
            {port["name"]: port["port"] for port in status.get("ports") or ()},
            metadata.get("labels") or {},
            metadata.get("annotations") or {},
        ),
        node=status.get("nodeName") or "",
        source=status.get("source") or LOCAL,
        addresses={address["type"]: address["address"] for address in status.get("addresses") or ()},
        counters={
            name: (c.get("count", 0), c.get("capacity", 0)) for name, c in (status.get("counters") or {}).items()
        },
        lists={
            name: (tuple(held.get("values") or ()), held.get("capacity", 0))
            for name, held in (status.get("lists") or {}).items()
        },
    )


def to_answer(given: Given) -> pb.AllocationResponse:
    """The gRPC answer that tells a client of a server."""
    server = given.server
    answer = pb.AllocationResponse(
        gameServerName=server.name, address=server.host, nodeName=given.node, source=given.source
    )
    for name, port in server.ports.items():
        answer.ports.add(name=name, port=port)
    for kind, address in given.addresses.items():
        answer.addresses.add(type=kind, address=address)
    answer.metadata.labels.update(server.labels)
    answer.metadata.annotations.update(server.annotations)
    for name, (count, capacity) in given.counters.items():
        answer.counters[name].count.value, answer.counters[name].capacity.value = count, capacity
    for name, (values, capacity) in given.lists.items():
        answer.lists[name].values.extend(values)
        answer.lists[name].capacity.value = capacity
    return answer


def _server(
    name: str, host: str, ports: Mapping[str, int], labels: Mapping[str, str], annotations: Mapping[str, str]
) -> GameServer:
    return GameServer(
        name=ServerName(name),
        fleet=fleet_of(labels),
        state=ServerState.ALLOCATED,
        host=host,
        ports=ports,
        version=labels.get(SET_LABEL, ""),
        labels=labels,
        annotations=annotations,
    )


def _add_selector(message: pb.GameServerSelector, selector: Selector) -> None:
    message.matchLabels.update(selector.labels)
    allocated = selector.state is ServerState.ALLOCATED
    message.gameServerState = pb.GameServerSelector.ALLOCATED if allocated else pb.GameServerSelector.READY
    if selector.players is not None:
        message.players.minAvailable = selector.players.min_available
        message.players.maxAvailable = selector.players.max_available
    for name, counter in selector.counters.items():
        wanted = message.counters[name]
        wanted.minCount, wanted.maxCount = counter.min_count, counter.max_count
        wanted.minAvailable, wanted.maxAvailable = counter.min_available, counter.max_available
    for name, values in selector.lists.items():
        listed = message.lists[name]
        listed.containsValue = values.contains
        listed.minAvailable, listed.maxAvailable = values.min_available, values.max_available


def _selector(message: pb.GameServerSelector) -> Selector:
    players = None
    if message.HasField("players"):
        players = PlayerRange(min_available=message.players.minAvailable, max_available=message.players.maxAvailable)
    return Selector(
        labels=dict(message.matchLabels),
        state=ServerState.ALLOCATED if message.gameServerState else ServerState.READY,
        players=players,
        counters={
            name: CounterRange(
                min_count=c.minCount,
                max_count=c.maxCount,
                min_available=c.minAvailable,
                max_available=c.maxAvailable,
            )
            for name, c in message.counters.items()
        },
        lists={
            name: ListRange(contains=v.containsValue, min_available=v.minAvailable, max_available=v.maxAvailable)
            for name, v in message.lists.items()
        },
    )


def _selector_object(selector: Selector) -> dict[str, Any]:
    found: dict[str, Any] = {"matchLabels": dict(selector.labels), "gameServerState": selector.state.value}
    if selector.players is not None:
        found["players"] = {
            "minAvailable": selector.players.min_available,
            "maxAvailable": selector.players.max_available,
        }
    if selector.counters:
        found["counters"] = {
            name: {
                "minCount": c.min_count,
                "maxCount": c.max_count,
                "minAvailable": c.min_available,
                "maxAvailable": c.max_available,
            }
            for name, c in selector.counters.items()
        }
    if selector.lists:
        found["lists"] = {
            name: {"containsValue": v.contains, "minAvailable": v.min_available, "maxAvailable": v.max_available}
            for name, v in selector.lists.items()
        }
    return found


def _counter_action(action: pb.CounterAction) -> CounterAction:
    change = action.action.value
    if action.HasField("action") and change not in tuple(CounterChange):
        raise InvalidRequest(f"counters: action {change!r}: {' or '.join(CounterChange)} is wanted")
    return CounterAction(
        change=CounterChange(change) if action.HasField("action") else None,
        amount=action.amount.value if action.HasField("amount") else None,
        capacity=action.capacity.value if action.HasField("capacity") else None,
    )


def _set(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, [])}
