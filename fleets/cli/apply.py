"""`warmfleet apply`: bring a cluster to what the YAML says, and wait until it is there."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

import typer

from fleets.cli.options import FAILED, MISUSED, Context, Kubeconfig, fail
from fleets.cli.plan import Force, Prune, make_plan, show_steps, step_row
from fleets.cli.wanted import (
    Files,
    Folder,
    JsonOutput,
    PlatformFile,
    Wanted,
    by_cluster,
    connect,
    finding_rows,
    progress,
    show_findings,
    wanted,
)
from fleets.cluster.plan import Deed, Step, carry_out, retire
from fleets.cluster.ports import Cluster, ClusterError, Ref
from fleets.cluster.readiness import wanted_servers
from fleets.cluster.wait import Waiting, still_waiting, why
from fleets.render.manifest import Manifest, manifest

_POLL_S = 1.0


def apply_command(
    files: Files = None,
    platform: PlatformFile = None,
    manifests: Folder = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    prune: Prune = False,
    force: Force = False,
    dry_run: Annotated[
        str, typer.Option("--dry-run", help="server: only ask the API server what would happen.")
    ] = "none",
    create_namespace: Annotated[
        bool, typer.Option("--create-namespace", help="Make the namespace where it is missing.")
    ] = False,
    all_at_once: Annotated[
        bool, typer.Option("--all-at-once", help="A changed fleet of rollout strategy canary too, without its steps.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until everything is ready.")] = True,
    timeout: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait at most.")] = 300.0,
    json_output: JsonOutput = False,
) -> None:
    """Apply fleets and services; repeat it after a failure, and it does what is left. Exit code 1 when not everything is applied and ready."""
    if dry_run not in ("none", "server"):
        fail(
            f"--dry-run {dry_run}: none or server is wanted; without a cluster, `warmfleet render` shows the objects",
            MISUSED,
        )
    what = wanted(files, platform, manifests)
    show_findings(what.findings)
    if what.broken:
        raise typer.Exit(FAILED)
    deadline_s = time.monotonic() + timeout
    done: list[tuple[Wanted, tuple[Step, ...], tuple[Waiting, ...]]] = []
    parts = by_cluster(what, context)
    for part in parts:
        if len(parts) > 1:
            progress(f"in {part.context or 'the current context'}:")
        if create_namespace:
            space = manifest("v1", "Namespace", part.namespace)
            part = replace(part, items=(space, *part.items))
        cluster = connect(kubeconfig, part.context)
        steps = make_plan(cluster, part, prune=prune, force=force)
        if not all_at_once:
            steps = tuple(_left_to_rollout(step, _canaries(part)) for step in steps)
        if not json_output:
            show_steps(steps, fields=False)
        waiting: tuple[Waiting, ...] = ()
        if dry_run == "none":
            try:
                steps = _apply(cluster, steps, part.items, force=force, wait=wait, deadline_s=deadline_s)
                waiting = _wait(cluster, steps, part.items, deadline_s) if wait else ()
            except ClusterError as error:
                fail(f"{error}\nwarmfleet: not everything was applied; the same command does what is left")
        done.append((part, steps, waiting))
    _report(done, finding_rows(what.findings), tried=dry_run != "none", json_output=json_output)


def _report(
    done: Sequence[tuple[Wanted, Sequence[Step], Sequence[Waiting]]],
    findings: Sequence[Mapping[str, str]],
    *,
    tried: bool,
    json_output: bool,
) -> None:
    """What was done in each cluster (only tried); ends the command where it is not everything."""
    if json_output:
        left = [
            {"context": part.context, "object": str(row.ref), "said": row.said, "why": list(row.why)}
            for part, _, waiting in done
            for row in waiting
        ]
        rows = [step_row(step, part.context) for part, steps, _ in done for step in steps]
        print(json.dumps({"steps": rows, "waiting": left, "findings": findings}))
    late = [row for _, _, waiting in done for row in waiting]
    for row in late:
        progress(f"{row.ref}: {row.said}" + "".join(f"\n    {reason}" for reason in row.why))
    stuck = [step for _, steps, _ in done for step in steps if step.stuck]
    if stuck or late:
        fail(f"{len(stuck)} objects not applied, {len(late)} not ready; the same command does what is left")
    if not json_output:
        print("would be applied" if tried else "applied")


def _canaries(what: Wanted) -> set[str]:
    """Fleets whose new versions come in by steps."""
    fleets = what.specs.fleets if what.specs is not None else ()
    return {fleet.metadata.name for fleet in fleets if fleet.spec.rollout.strategy == "canary"}


def _left_to_rollout(step: Step, canaries: set[str]) -> Step:
    """A new version of a fleet that wants steps is not for `apply` to bring in."""
    versioned = any(change.path.startswith("spec.template") for change in step.changes)
    if step.deed is not Deed.CHANGE or step.ref.kind != "Fleet" or step.ref.name not in canaries or not versioned:
        return step
    message = f"its rollout is by steps: `warmfleet rollout start --fleet {step.ref.name}` brings the new version in, --all-at-once does it now"
    return replace(step, deed=Deed.REFUSED, message=message)


def _apply(
    cluster: Cluster, steps: Sequence[Step], items: Sequence[Manifest], *, force: bool, wait: bool, deadline_s: float
) -> tuple[Step, ...]:
    def tell(step: Step) -> None:
        if step.deed is not Deed.KEEP:
            progress(f"{step.deed} {step.ref}: {'done' if step.done else step.message}")

    def settle() -> None:
        """Pods of a Fleet that need the webhook cannot be made before it answers."""
        webhook = [step for step in steps if step.ref.kind == "Deployment" and step.ref.name == "warmfleet-admission"]
        _wait(cluster, webhook, items, deadline_s)

    return carry_out(cluster, steps, force=force, tell=tell, before_fleets=settle if wait else lambda: None)


def _wait(cluster: Cluster, steps: Sequence[Step], items: Sequence[Manifest], deadline_s: float) -> tuple[Waiting, ...]:
    """What is not ready at the deadline, with reasons; empty once everything is."""
    servers = wanted_servers(items)
    said: dict[Ref, str] = {}
    retiring = {step.ref: step for step in steps if step.deed is Deed.RETIRE}
    while True:
        rows = list(still_waiting(cluster, [step for step in steps if step.item is not None], servers))
        for ref, step in list(retiring.items()):
            step = retire(cluster, step)
            if step.done:
                del retiring[ref]
            else:
                rows.append(Waiting(ref=ref, said=f"retires: {step.message}"))
        for row in rows:
            if said.get(row.ref) != row.said:
                said[row.ref] = row.said
                progress(f"waiting for {row.ref}: {row.said}")
        if not rows:
            return ()
        if time.monotonic() >= deadline_s:
            return tuple(why(cluster, row) for row in rows)
        time.sleep(min(_POLL_S, max(0.0, deadline_s - time.monotonic())))
