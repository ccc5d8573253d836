"""A whole rendering: every object of some fleets, in a fixed order, and the folder it lives in."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fleets.render.agones import agones_fleet, fleet_autoscaler
from fleets.render.cluster import disruption_budget, monitor, pre_pull, priority
from fleets.render.manifest import FLEET_LABEL, Manifest, file_name, to_yaml
from fleets.render.network import fleet_policy
from fleets.render.observability import observability
from fleets.render.scaling import recommendations
from fleets.render.services import services
from fleets.render.store import valkey
from fleets.render.webhook import PRIORITY, admission_webhook
from fleets.spec.fleet import FleetSpec
from fleets.spec.platform import PlatformBody

_KUSTOMIZATION = "kustomization.yaml"


class FolderForeign(Exception):
    """The folder has files of these names that no rendering made; the message names one."""


def render(
    fleets: Sequence[FleetSpec], platform: PlatformBody, documents: Sequence[Mapping[str, Any]] = ()
) -> tuple[Manifest, ...]:
    """
    The objects of fleets that passed `checks.check`, and of the platform's own services.

    Args: documents: the fleets and queues as written, for the services to read.
    Returns: what the fleets need before the fleets, which come in the order of their names; the same for the same input in any order.
    """
    ordered = sorted(fleets, key=lambda fleet: fleet.metadata.name)
    levers = [fleet.spec.low_latency for fleet in ordered]
    priorities = {(lever.priority, lever.preemption) for lever in levers if lever.priority is not None}
    if platform.admission:
        priorities.add((PRIORITY, "lower"))
    items: list[Manifest | None] = [priority(value, preemption) for value, preemption in sorted(priorities)]
    items += admission_webhook(platform)
    items += valkey(platform)
    items += services(platform, documents)
    items += observability(platform)
    for fleet in ordered:
        items += [
            disruption_budget(fleet, platform),
            fleet_policy(fleet, platform),
            pre_pull(fleet, platform),
            monitor(fleet, platform),
            agones_fleet(fleet, platform),
            fleet_autoscaler(fleet, platform),
            *recommendations(
                platform,
                fleet.metadata.name,
                {FLEET_LABEL: fleet.metadata.name},
                api_version="agones.dev/v1",
                kind="Fleet",
            ),
        ]
    return tuple(item for item in items if item is not None)


def files(items: Iterable[Manifest]) -> dict[str, str]:
    """Name to content of a kustomize-friendly folder, one object a file."""
    contents = {file_name(item): to_yaml([item]) for item in items}
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": sorted(contents),
    }
    return {**contents, _KUSTOMIZATION: to_yaml([kustomization])}


def write(folder: Path, contents: dict[str, str]) -> None:
    """Make the folder so; removes what an earlier rendering wrote and this one does not. Raises FolderForeign, OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    earlier = _earlier(folder)
    for name in contents:
        if (folder / name).exists() and name not in earlier:
            raise FolderForeign(
                f"{folder / name} was not written by `warmfleet render`: choose another folder, or remove it"
            )
    for name in sorted(earlier - contents.keys()):
        (folder / name).unlink(missing_ok=True)
    # The list of files goes last: cut short, the next run still knows every file of the earlier one.
    for name, content in sorted(contents.items(), key=lambda item: item[0] == _KUSTOMIZATION):
        (folder / name).write_text(content, encoding="utf-8")


def differences(folder: Path, contents: dict[str, str]) -> list[str]:
    """What a folder would have to change to be current, one line each; empty when it is."""
    rows = []
    for name in sorted(contents.keys() | _earlier(folder)):
        path = folder / name
        present = path.read_text(encoding="utf-8") if path.is_file() else None
        if name not in contents:
            rows += [f"{name}: is left over"] if present is not None else []
        elif present is None:
            rows.append(f"{name}: is missing")
        elif present != contents[name]:
            rows.append(f"{name}: differs")
    return rows


def _earlier(folder: Path) -> set[str]:
    """The files that the folder's kustomization lists, and itself: plain names only, whatever somebody wrote into it."""
    path = folder / _KUSTOMIZATION
    if not path.is_file():
        return set()
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return set()
    listed = value.get("resources") if isinstance(value, dict) else None
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    return {name for name in names if Path(name).name == name and name.endswith(".yaml")} | {_KUSTOMIZATION}
