"""`warmfleet rollout`: bring a new version of a fleet in by steps, watch it, take it back."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Annotated

import typer

from fleets.cli.options import FAILED, MISUSED, Context, Kubeconfig, fail
from fleets.cli.wanted import JsonOutput, PlatformFile, connect, progress, show_findings, wanted
from fleets.cluster.plan import marked
from fleets.cluster.ports import ClusterError, ClusterUnavailable
from fleets.rollout.model import OVER, Limits, Observed, Phase, State, WrongPhase
from fleets.rollout.planner import abort, plan, wanted_canary
from fleets.rollout.ports import StateChanged
from fleets.rollout.prometheus import PrometheusHealth
from fleets.rollout.tracks import ClusterTracks
from fleets.spec.fleet import FleetSpec
from fleets.spec.platform import PlatformSpec

_AWAY_S = 300.0
"""How long an API server may be away before the command gives up; the rollout stays where it is, and `continue` goes on."""

app = typer.Typer(help="Bring a new version of a fleet in by steps, watch it, take it back.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="FLEET")]
Namespace = Annotated[str, typer.Option("--namespace", "-n")]
Every = Annotated[float, typer.Option("--every", min=0.01, help="Seconds between two looks.")]
Prometheus = Annotated[
    str, typer.Option("--prometheus", help="URL, for the limits on ticks and matches; absent: the Platform's.")
]
Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Until it is over; else another run's `continue` goes on.")
]


@app.command()
def start(
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="The YAML with the new version.")],
    fleet: Annotated[str, typer.Option("--fleet", help="Which of its fleets.")],
    platform: PlatformFile = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    prometheus: Prometheus = "",
    every: Every = 5.0,
    wait: Wait = True,
) -> None:
    """Begin, or take up, a rollout, and see it through. Exit code 1 when it was aborted."""
    what = wanted(files, platform, None)
    show_findings(what.findings)
    if what.broken or what.specs is None:
        raise typer.Exit(FAILED)
    spec = next((found for found in what.specs.fleets if found.metadata.name == fleet), None)
    if spec is None:
        known = ", ".join(found.metadata.name for found in what.specs.fleets)
        fail(f"--fleet {fleet}: is not in these files; there are: {known or 'none'}", MISUSED)
    new = next(i for i in marked(what.items, what.owner) if i["kind"] == "Fleet" and i["metadata"]["name"] == fleet)
    body = (what.specs.platform or PlatformSpec()).spec
    limits = _limits(spec, prometheus or body.prometheus or "")
    context = context or body.clusters.get(spec.metadata.labels.get("region", ""))
    tracks = ClusterTracks(connect(kubeconfig, context), what.namespace, fleet, PrometheusHealth)
    try:
        state = tracks.begin(new, limits, time.time())
    except ClusterError as error:
        fail(str(error))
    progress(f"{fleet}: {state.old} → {state.new}, {state.phase}")
    _see_through(tracks, state, every if wait else None)


@app.command("continue")
def continue_(
    fleet: Name,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    every: Every = 5.0,
) -> None:
    """Go on with a rollout whose command was cut short, under the limits that it began with."""
    tracks = ClusterTracks(connect(kubeconfig, context), namespace, fleet, PrometheusHealth)
    _see_through(tracks, _loaded(tracks), every)


@app.command("abort")
def abort_(
    fleet: Name,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    every: Every = 5.0,
    wait: Wait = True,
) -> None:
    """Take a rollout that is under way back: the old version everywhere; sessions on the new one end as they would."""
    tracks = ClusterTracks(connect(kubeconfig, context), namespace, fleet)
    while True:
        try:
            state = abort(_loaded(tracks), time.time(), "a person aborted it")
            tracks.save(state)
            break
        except StateChanged:
            continue  # another run wrote meanwhile: read again
        except (WrongPhase, ClusterError) as error:
            fail(str(error))
    _see_through(tracks, state, every if wait else None, aborted_is_done=True)


@app.command()
def undo(
    fleet: Name,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    every: Every = 5.0,
    wait: Wait = True,
) -> None:
    """Bring the version before back: aborts a rollout that is under way, reverses one that is done."""
    tracks = ClusterTracks(connect(kubeconfig, context), namespace, fleet)
    if _loaded(tracks).phase not in OVER:
        abort_(fleet, namespace, kubeconfig, context, every, wait)
        return
    try:
        state = tracks.turn_back(time.time())
    except ClusterError as error:
        fail(str(error))
    _see_through(tracks, state, every if wait else None)


@app.command()
def status(
    fleet: Name,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    json_output: JsonOutput = False,
) -> None:
    """Show where a rollout is, and what its two fleets have."""
    tracks = ClusterTracks(connect(kubeconfig, context), namespace, fleet)
    state = _loaded(tracks)
    try:
        seen = tracks.observe(state)
    except ClusterError as error:
        fail(str(error))
    if json_output:
        print(json.dumps({"state": dataclasses.asdict(state), "seen": dataclasses.asdict(seen)}))
    else:
        print(_told(tracks.limits, state, seen))


def _see_through(tracks: ClusterTracks, state: State, every_s: float | None, *, aborted_is_done: bool = False) -> None:
    """Look, remember, act, until it is over; once only where `every_s` is None."""
    said, away_since_s = "", None
    while True:
        try:
            seen = tracks.observe(state)
            now, actions = plan(tracks.limits, state, seen, time.time())
            if now != state:
                tracks.save(now)
                state = now
            for action in actions:
                tracks.act(action)
            away_since_s = None
        except StateChanged:
            state = _loaded(tracks)
            continue
        except ClusterUnavailable as error:
            away_since_s = away_since_s or time.monotonic()
            if every_s is None or time.monotonic() - away_since_s > _AWAY_S:
                fail(
                    f"{error}\nwarmfleet: the rollout stays where it is; `warmfleet rollout continue {tracks.fleet}` goes on"
                )
            progress(f"{tracks.fleet}: {error}")
            time.sleep(every_s)
            continue
        except ClusterError as error:
            fail(
                f"{error}\nwarmfleet: the rollout stays where it is; `warmfleet rollout continue {tracks.fleet}` goes on"
            )
        told = _told(tracks.limits, state, seen)
        if told != said:
            said = told
            progress(told)
        if state.phase in OVER or every_s is None:
            break
        time.sleep(every_s)
    print(f"{tracks.fleet}: {state.phase}" + (f": {state.reason}" if state.reason else ""))
    if state.phase is Phase.ABORTED and not aborted_is_done:
        raise typer.Exit(FAILED)


def _loaded(tracks: ClusterTracks) -> State:
    try:
        state = tracks.load()
    except ClusterError as error:
        fail(str(error))
    if state is None:
        fail(f"there is no rollout of {tracks.fleet}: `warmfleet rollout start` begins one")
    return state


def _told(limits: Limits, state: State, seen: Observed) -> str:
    canary = seen.canary
    lines = f"{state.phase}, {state.old} → {state.new}"
    if state.phase is Phase.STEPPING:
        share = limits.steps[min(state.step, len(limits.steps) - 1)]
        lines += f", step {state.step + 1} of {len(limits.steps)} ({share:.0%}: {wanted_canary(limits, state, seen)} servers)"
    lines += f"; stable {seen.stable.ready} ready, {seen.stable.busy} busy"
    if canary is not None:
        lines += (
            f"; canary {canary.ready} ready, {canary.busy} busy, {seen.health.failed} of {seen.health.started} failed"
        )
    if seen.health.unknown:
        lines += f"; ticks and matches are not known: {seen.health.unknown}"
    return lines


def _limits(spec: FleetSpec, prometheus: str) -> Limits:
    rollout, stops = spec.spec.rollout, spec.spec.rollout.abort_on
    for key, limit in (("tickJitter", stops.tick_jitter), ("matchCompletion", stops.match_completion)):
        if limit is not None and not prometheus:
            fail(
                f"rollout.abortOn.{key}: only Prometheus knows that: give --prometheus URL, or the Platform's prometheus",
                MISUSED,
            )
    return Limits(
        steps=tuple(rollout.steps) or (1.0,),
        pause_s=rollout.pause,
        ready_within_s=rollout.ready_within,
        unhealthy_rate=stops.unhealthy_rate,
        tick_jitter_s=stops.tick_jitter,
        match_completion=stops.match_completion,
        min_servers=stops.min_servers,
        max_servers=spec.spec.warm.max,
        prometheus=prometheus,
    )
