"""What a command is to bring into a cluster: YAML read, checked and rendered, or a rendered folder read back; and how findings are shown."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from fleets.cli.options import MISUSED, fail
from fleets.cluster.ports import Cluster, ClusterError
from fleets.render.checks import Finding, Severity, check
from fleets.render.manifest import Manifest
from fleets.render.policies import policies
from fleets.render.rendering import render
from fleets.render.schemas import CrdsUnreadable, Schemas, SchemasMissing, read_crds
from fleets.spec.fleet import FleetSpec
from fleets.spec.loader import SpecError, Specs, load
from fleets.spec.platform import PlatformSpec

Files = Annotated[
    list[Path] | None, typer.Argument(metavar="FILES...", help="YAML files of Fleets and Queues, and of the Platform.")
]
PlatformFile = Annotated[Path | None, typer.Option("--platform", help="The cluster's `kind: Platform`.")]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--manifests", help="Instead of FILES: a folder or file of Kubernetes objects, as `render --out` writes it."
    ),
]
Crds = Annotated[
    list[Path] | None,
    typer.Option(
        "--crds",
        help="YAML, or folders, of CustomResourceDefinitions (Agones', KEDA's) to check with; also $WARMFLEET_CRDS.",
    ),
]
KubernetesVersion = Annotated[
    str, typer.Option("--kubernetes", help="Version whose schemas are checked with, as 1.34; absent: the newest.")
]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Objects, and what is to be said of them."""

    owner: str
    """The platform's name."""
    namespace: str
    items: tuple[Manifest, ...]
    findings: tuple[Finding, ...]
    specs: Specs | None = None
    context: str | None = None
    """Of the kubeconfig: the cluster that they belong in; None: the current one."""

    @property
    def broken(self) -> bool:
        """Whether something would go wrong in a cluster."""
        return any(finding.severity is Severity.ERROR for finding in self.findings)


def wanted(files: Sequence[Path] | None, platform: Path | None, manifests: Path | None) -> Wanted:
    """Read and check; a mistake in the YAML ends the command. Objects are empty where a finding is an error."""
    if bool(files) == (manifests is not None):
        fail("give FILES, or --manifests FOLDER", MISUSED)
    if manifests is not None:
        return _of_objects(read_objects(manifests), platform)
    try:
        specs = load([*(files or []), *([platform] if platform is not None else [])])
    except SpecError as error:
        fail(str(error))
    spec = specs.platform or PlatformSpec()
    found = check(specs.fleets, spec.spec)
    broken = any(finding.severity is Severity.ERROR for finding in found)
    items = () if broken else render(specs.fleets, spec.spec, specs.documents)
    return Wanted(owner=spec.metadata.name, namespace=spec.spec.namespace, items=items, findings=found, specs=specs)


def by_cluster(what: Wanted, context: str | None) -> tuple[Wanted, ...]:
    """
    What each cluster is to have: with `clusters` in the Platform each of its regions' fleets in the context of its name, all else in `context`.

    Ends the command when `context` is given for what belongs in several.
    """
    body = (
        what.specs.platform.spec if what.specs is not None and what.specs.platform is not None else PlatformSpec().spec
    )
    if what.specs is None or what.broken or not body.clusters:
        return (dataclasses.replace(what, context=context),)
    fleets: dict[str | None, list[FleetSpec]] = {} if body.services is None else {None: []}
    for fleet in what.specs.fleets:
        fleets.setdefault(body.clusters.get(fleet.metadata.labels.get("region", "")), []).append(fleet)
    if context is not None and len(fleets) > 1:
        places = "; ".join(
            f"{place or 'the current context'}: {', '.join(fleet.metadata.name for fleet in of) or 'our services'}"
            for place, of in fleets.items()
        )
        fail(
            f"--context {context}: these files belong in several clusters (spec.clusters of the Platform), {places}; "
            "leave it out, and each gets its own, or give the files of one",
            MISUSED,
        )
    # Our services, and how players reach them, are in one cluster; its store is known to the others by its URL alone.
    store = body.valkey.model_copy(update={"in_cluster": None})
    away = body.model_copy(update={"services": None, "entry": None, "dashboards": False, "valkey": store})
    return tuple(
        dataclasses.replace(
            what,
            items=render(of, body if place is None else away, what.specs.documents),
            context=context or place,
        )
        for place, of in sorted(fleets.items(), key=lambda item: item[0] or "")
    )


def _of_objects(items: tuple[Manifest, ...], platform: Path | None) -> Wanted:
    try:
        spec = (load([platform]).platform if platform is not None else None) or PlatformSpec()
    except SpecError as error:
        fail(str(error))
    spaces = {item["metadata"].get("namespace") for item in items} - {None}
    namespace = spaces.pop() if len(spaces) == 1 else spec.spec.namespace
    return Wanted(owner=spec.metadata.name, namespace=str(namespace), items=items, findings=policies(items))


def read_objects(path: Path) -> tuple[Manifest, ...]:
    """Kubernetes objects of a file, or of all YAML files of a folder but its kustomization."""
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    items: list[Any] = []
    for file in files:
        try:
            items += [(file, item) for item in yaml.safe_load_all(file.read_text(encoding="utf-8")) if item is not None]
        except OSError as error:
            fail(f"{file}: cannot be read: {error.strerror}")
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            fail(f"{file}: is no YAML: {error}")
    for file, item in items:
        named = isinstance(item, dict) and isinstance(item.get("metadata", {}), dict)
        if not named or not all(isinstance(item.get(key), str) for key in ("apiVersion", "kind")):
            fail(f"{file}: holds no Kubernetes object: apiVersion, kind and metadata.name are wanted")
        if item["kind"] != "Kustomization" and not isinstance(item.get("metadata", {}).get("name"), str):
            fail(f"{file}: a {item['kind']} without metadata.name")
    found = tuple(item for _, item in items if item["kind"] != "Kustomization")
    if not found:
        fail(f"{path}: there are no Kubernetes objects in it")
    return found


def schema_problems(
    items: Sequence[Manifest], crds: Sequence[Path] | None, version: str
) -> tuple[list[str], list[str]]:
    """Problems, and the kinds for which no schema is at hand. Ends the command where no schemas can be had."""
    given = [*(crds or []), *(Path(p) for p in os.environ.get("WARMFLEET_CRDS", "").split(os.pathsep) if p)]
    try:
        schemas = Schemas(version=version, crds=read_crds(given))
    except (SchemasMissing, CrdsUnreadable) as error:
        fail(str(error), MISUSED)
    problems = [
        f"{item['kind']} {item['metadata']['name']}: {text}" for item in items for text in schemas.problems(item)
    ]
    unknown = sorted({item["kind"] for item in items if not schemas.knows(item)})
    return problems, unknown


def show_findings(findings: Sequence[Finding]) -> None:
    """On standard error."""
    for finding in findings:
        typer.secho(str(finding), fg="red" if finding.severity is Severity.ERROR else "yellow", err=True)


def finding_rows(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """For `--json`."""
    return [{"severity": f.severity, "fleet": f.fleet, "path": f.path, "message": f.message} for f in findings]


def connect(kubeconfig: Path | None, context: str | None) -> Cluster:
    """The cluster; ends the command where none can be had."""
    from fleets.cluster.kubernetes import (
        KubernetesCluster,  # half a second to import, which no other command should pay
    )

    try:
        return KubernetesCluster.connect(kubeconfig=kubeconfig, context=context)
    except ClusterError as error:
        fail(str(error))


def progress(line: str) -> None:
    """A line about what goes on, kept out of the way of results."""
    print(line, file=sys.stderr, flush=True)
