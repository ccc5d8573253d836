"""`warmfleet plan` and `warmfleet diff`: what applying would do to a cluster, by object and by field."""

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from fleets.cli.options import FAILED, Context, Kubeconfig, fail
from fleets.cli.wanted import (
    Files,
    Folder,
    JsonOutput,
    PlatformFile,
    Wanted,
    by_cluster,
    connect,
    finding_rows,
    show_findings,
    wanted,
)
from fleets.cluster.plan import Deed, Step, counts, marked, plan
from fleets.cluster.ports import Cluster, ClusterError

Prune = Annotated[bool, typer.Option("--prune", help="Also remove what was applied before and is wanted no more.")]
Force = Annotated[bool, typer.Option("--force-conflicts", help="Take over fields that another manager holds.")]
Check = Annotated[bool, typer.Option("--check", help="Fail when anything would change: for CI.")]

_SIGNS = {
    Deed.CREATE: ("+", "green"),
    Deed.CHANGE: ("~", "yellow"),
    Deed.REMOVE: ("-", "red"),
    Deed.RETIRE: ("-", "red"),
    Deed.CONFLICT: ("!", "red"),
    Deed.REFUSED: ("!", "red"),
    Deed.KEEP: ("=", None),
}


def _command(told: str, *, fields: bool) -> Callable[..., None]:
    """Both commands take the same, and differ in what they show."""

    def command(
        files: Files = None,
        platform: PlatformFile = None,
        manifests: Folder = None,
        kubeconfig: Kubeconfig = None,
        context: Context = None,
        prune: Prune = False,
        force: Force = False,
        check: Check = False,
        json_output: JsonOutput = False,
    ) -> None:
        what = wanted(files, platform, manifests)
        show_findings(what.findings)
        if what.broken:
            raise typer.Exit(FAILED)
        parts = by_cluster(what, context)
        plans = [(part, make_plan(connect(kubeconfig, part.context), part, prune=prune, force=force)) for part in parts]
        if json_output:
            rows = [step_row(step, part.context) for part, steps in plans for step in steps]
            print(json.dumps({"steps": rows, "findings": finding_rows(what.findings)}))
        for part, steps in () if json_output else plans:
            if len(plans) > 1:
                print(f"in {part.context or 'the current context'}:")
            show_steps(steps, fields=fields)
        every = [step for _, steps in plans for step in steps]
        if any(step.stuck for step in every) or (check and any(step.deed is not Deed.KEEP for step in every)):
            raise typer.Exit(FAILED)

    command.__doc__ = told
    return command


plan_command = _command(
    "Show what would be created, changed and removed; changes nothing. "
    "Exit code 1 on conflicts, refusals, or with --check on any change.",
    fields=False,
)
diff_command = _command(
    "Show every field that would change, and who set it where that was not us. Exit codes as `plan`'s.", fields=True
)


def make_plan(cluster: Cluster, what: Wanted, *, prune: bool, force: bool) -> tuple[Step, ...]:
    """Ask the cluster; ends the command where it does not answer."""
    try:
        items = marked(what.items, what.owner)
        return plan(cluster, items, owner=what.owner, namespace=what.namespace, prune=prune, force=force)
    except ClusterError as error:
        fail(str(error))


def show_steps(steps: Sequence[Step], *, fields: bool) -> None:
    """A line an object that is not kept, with its fields where they are wanted, and a line of counts."""
    for step in steps:
        sign, colour = _SIGNS[step.deed]
        if step.deed is Deed.KEEP:
            continue
        note = f": {step.message}" if step.message else ""
        typer.secho(f"{sign} {step.deed} {step.ref}{note}", fg=colour)
        for change in step.changes if fields else ():
            typer.echo(f"    {change}")
        for held in step.held:
            typer.echo(
                f"    {held.field} is held by {held.manager}: leave it to that, or take it over with --force-conflicts"
            )
    found = {deed: count for deed, count in counts(steps).items() if count}
    print(
        ", ".join(f"{count} {deed}" for deed, count in found.items())
        if found
        else "nothing is wanted, nothing is there"
    )


def step_row(step: Step, context: str | None = None) -> dict[str, Any]:
    """For `--json`; `context`: of the cluster, where it was said."""
    return {
        "context": context,
        "deed": step.deed,
        "kind": step.ref.kind,
        "name": step.ref.name,
        "namespace": step.ref.namespace,
        "message": step.message,
        "changes": [
            {"turn": c.turn, "path": c.path, "before": c.before, "after": c.after, "holder": c.holder}
            for c in step.changes
        ],
        "held": [{"field": h.field, "manager": h.manager} for h in step.held],
    }
