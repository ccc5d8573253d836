"""Looking whether what was applied is ready, and why not. One look a call: whoever waits owns the clock."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fleets.cluster.plan import Step
from fleets.cluster.ports import Cluster, ClusterError, Ref
from fleets.cluster.readiness import pod_reasons, pods_of, readiness
from fleets.render.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An object that is not ready yet."""

    ref: Ref
    said: str
    live: Manifest | None = None
    why: tuple[str, ...] = ()


def still_waiting(cluster: Cluster, steps: Sequence[Step], servers: Mapping[str, int]) -> Iterator[Waiting]:
    """Of the applied objects, those that are not ready. `servers`: by Fleet, as many as its autoscaler keeps. Raises ClusterError."""
    for step in steps:
        if step.stuck or (step.item is not None and readiness(step.item) is None):
            continue
        live = cluster.fetch(step.ref)
        found = readiness(live, at_least=servers.get(step.ref.name, 0) if step.ref.kind == "Fleet" else 0)
        if found is not None and not found.ready:
            yield Waiting(ref=step.ref, said=found.said, live=live)


def why(cluster: Cluster, waiting: Waiting) -> Waiting:
    """The same with what its pods say; nothing more where they cannot be asked."""
    labels = pods_of(waiting.live) if waiting.live is not None else {}
    if not labels:
        return waiting
    try:
        pods = cluster.listed("v1", "Pod", waiting.ref.namespace, labels)
    except ClusterError:
        return waiting
    return replace(waiting, why=pod_reasons(pods) or (() if pods else ("there are no pods yet",)))
