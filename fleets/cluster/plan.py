"""
What applying some objects would do to a cluster, and doing it.

Every step is found by asking: the object as it is, and a dry run of the apply at the API server, with its defaults, webhooks and field ownership.
So a plan is what would happen, not what we think would. Nothing is remembered between runs: a run that was cut short is repeated, and does
what is left. Objects that we applied before and that are wanted no more are found by a label, and a Fleet among them is first scaled to nothing
and deleted once no session runs on it, since deleting it removes Allocated servers too.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby

from fleets.cluster.changes import Change, changes
from fleets.cluster.kinds import FLEETS_STAGE, KINDS, NEVER_PRUNED, kind_of
from fleets.cluster.ports import Cluster, ClusterError, FieldConflict, Held, Ref, Refused, UnknownKind, ref_of
from fleets.render.manifest import Manifest

APPLIED_LABEL = "warmfleet.dev/applied"
"""Its value is the Platform's name: what `apply` put there, and so what `--prune` may take away."""
_AT_ONCE = 8


class Deed(StrEnum):
    """What a step does."""

    CREATE = "create"
    CHANGE = "change"
    KEEP = "keep"
    REMOVE = "remove"
    RETIRE = "retire"
    """A Fleet on which sessions run: no new servers, and removed once they are over."""
    CONFLICT = "conflict"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What happens to one object."""

    deed: Deed
    ref: Ref
    item: Manifest | None = None
    """As it is wanted; None for one that goes."""
    changes: tuple[Change, ...] = ()
    held: tuple[Held, ...] = ()
    message: str = ""
    done: bool = False

    @property
    def stuck(self) -> bool:
        """Whether it cannot be done as it is."""
        return self.deed in (Deed.CONFLICT, Deed.REFUSED)


def marked(items: Sequence[Manifest], owner: str) -> tuple[Manifest, ...]:
    """The objects with the label by which they are found again."""
    made = copy.deepcopy(list(items))
    for item in made:
        item["metadata"].setdefault("labels", {})[APPLIED_LABEL] = owner
    return tuple(made)


def plan(
    cluster: Cluster, items: Sequence[Manifest], *, owner: str, namespace: str, prune: bool, force: bool = False
) -> tuple[Step, ...]:
    """
    What would happen; changes nothing.

    Args: items: as wanted, already `marked`. prune: also what `owner` applied before and wants no more.
    Returns: in the order of doing. Raises: ClusterUnavailable; what the server says of one object is in its step.
    """
    new_namespaces = {item["metadata"]["name"] for item in items if item["kind"] == "Namespace"}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        steps = list(pool.map(lambda item: _step(cluster, item, force, new_namespaces), items))
    steps.sort(key=lambda step: kind_of(step.ref.api_version, step.ref.kind).stage)
    if prune:
        steps += _prune(cluster, {ref_of(item) for item in items}, owner, namespace)
    return tuple(steps)


def _step(cluster: Cluster, item: Manifest, force: bool, new_namespaces: set[str]) -> Step:
    ref = ref_of(item)
    step = Step(deed=Deed.KEEP, ref=ref, item=item)
    try:
        live = cluster.fetch(ref)
        if (
            live is None
            and ref.namespace in new_namespaces
            and cluster.get(f"/api/v1/namespaces/{ref.namespace}") is None
        ):
            return replace(step, deed=Deed.CREATE)  # no dry run can be had in a namespace that is not there yet
        then = cluster.apply(item, dry_run=True, force=force)
    except FieldConflict as error:
        return replace(step, deed=Deed.CONFLICT, held=error.held, message=str(error))
    except (Refused, UnknownKind) as error:
        return replace(step, deed=Deed.REFUSED, message=str(error))
    if live is None:
        return replace(step, deed=Deed.CREATE)
    found = changes(live, then)
    return replace(step, deed=Deed.CHANGE if found else Deed.KEEP, changes=found)


def _prune(cluster: Cluster, wanted: set[Ref], owner: str, namespace: str) -> Iterator[Step]:
    rows = sorted(KINDS.items(), key=lambda row: -row[1].stage)
    for (api_version, kind), row in rows:
        if kind in NEVER_PRUNED:
            continue
        try:
            found = cluster.listed(api_version, kind, namespace if row.namespaced else "", {APPLIED_LABEL: owner})
        except UnknownKind:
            continue  # none of it can be there
        except Refused as error:
            ref = Ref(api_version=api_version, kind=kind, namespace=namespace, name="*")
            yield Step(
                deed=Deed.REFUSED, ref=ref, message=f"cannot be looked through for what is wanted no more: {error}"
            )
            continue
        for item in found:
            if ref_of(item) not in wanted and "deletionTimestamp" not in item["metadata"]:
                busy = kind == "Fleet" and _sessions(item) > 0
                message = f"{_sessions(item)} servers have sessions" if busy else ""
                yield Step(deed=Deed.RETIRE if busy else Deed.REMOVE, ref=ref_of(item), message=message)


def _sessions(fleet: Manifest) -> int:
    status = fleet.get("status") or {}
    return sum(int(status.get(key) or 0) for key in ("allocatedReplicas", "reservedReplicas"))


def carry_out(
    cluster: Cluster,
    steps: Sequence[Step],
    *,
    force: bool,
    tell: Callable[[Step], None],
    before_fleets: Callable[[], None] = lambda: None,
) -> tuple[Step, ...]:
    """
    Do the steps, stage by stage; what is stuck is left out, and once something failed nothing is removed.

    Args: tell: hears of every step that was done or failed. before_fleets: called between what fleets need and the fleets.
    Returns: the steps, `done` or with what the server said. Raises: ClusterUnavailable, after which the same call does what is left.
    """
    finished: list[Step] = []

    def do(step: Step) -> Step:
        try:
            return _do(cluster, step, force)
        except FieldConflict as error:
            return replace(step, deed=Deed.CONFLICT, held=error.held, message=str(error))
        except (Refused, UnknownKind) as error:
            return replace(step, deed=Deed.REFUSED, message=str(error))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for (going, stage), group in groupby(steps, key=_stage):
            if going and any(step.stuck for step in finished):
                finished += [replace(step, message="left: not everything before it was applied") for step in group]
                continue
            if not going and stage == FLEETS_STAGE:
                before_fleets()
            for step in pool.map(do, group):
                tell(step)
                finished.append(step)
    return tuple(finished)


def _stage(step: Step) -> tuple[bool, int]:
    return step.item is None, kind_of(step.ref.api_version, step.ref.kind).stage


def _do(cluster: Cluster, step: Step, force: bool) -> Step:
    match step.deed:
        case Deed.CREATE | Deed.CHANGE:
            assert step.item is not None
            cluster.apply(step.item, dry_run=False, force=force)
        case Deed.REMOVE if step.ref.kind == "Fleet":
            return _remove_fleet(cluster, step)
        case Deed.REMOVE:
            cluster.remove(step.ref)
        case Deed.RETIRE:
            return _remove_fleet(cluster, step)
        case _:
            return step
    return replace(step, done=True)


def _remove_fleet(cluster: Cluster, step: Step) -> Step:
    """Scale to nothing first, look once more, and delete only what nobody plays on; the look and the deletion are not one step, so scale first."""
    cluster.patch(step.ref, {"spec": {"replicas": 0}})
    live = cluster.fetch(step.ref)
    if live is not None and (_sessions(live) > 0 or not _settled(live)):
        busy = f"{_sessions(live)} servers have sessions" if _sessions(live) else "its servers are going"
        return replace(step, deed=Deed.RETIRE, message=busy)
    cluster.remove(step.ref)
    return replace(step, deed=Deed.REMOVE, done=True)


def _settled(fleet: Manifest) -> bool:
    """Whether a Fleet of no replicas has none that could still be allocated."""
    return int((fleet.get("status") or {}).get("readyReplicas") or 0) == 0


def retire(cluster: Cluster, step: Step) -> Step:
    """Try again to end a retiring Fleet. Raises ClusterError."""
    return _remove_fleet(cluster, step)


def counts(steps: Sequence[Step]) -> Mapping[Deed, int]:
    """How many of each."""
    return {deed: sum(step.deed is deed for step in steps) for deed in Deed}


__all__ = ["APPLIED_LABEL", "ClusterError", "Deed", "Step", "carry_out", "counts", "marked", "plan", "retire"]
