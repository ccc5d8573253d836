"""
What goes wrong with objects that every schema takes: after an overlay, a hand's edit or another tool had them.

Pure, and about objects, where `checks` is about the studio's YAML: what `render` makes passes, and what stands in a folder or a cluster is
asked again, since a kustomization may have changed a grace period that followed from a drain.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fleets.render.checks import Finding, Severity
from fleets.render.manifest import FLEET_LABEL, Manifest
from fleets.render.placement import NETWORK_LABEL
from fleets.render.pod import ADMISSION_LABEL

_DRAIN = "WARMFLEET_DRAIN_TIMEOUT_S"


def policies(items: Sequence[Manifest]) -> tuple[Finding, ...]:
    """Everything that is wrong with some objects, in their order."""
    found: list[Finding] = []
    fleets = [item for item in items if item["kind"] == "Fleet" and item["apiVersion"] == "agones.dev/v1"]
    webhook = any(_guards(item) for item in items)
    for fleet in fleets:
        found += [
            Finding(severity=severity, fleet=fleet["metadata"]["name"], path=path, message=message)
            for severity, path, message in [*_network(fleet, webhook), *_resources(fleet), *_grace(fleet)]
        ]
    for item in items:
        if item["kind"] == "PodDisruptionBudget":
            found += [
                Finding(severity=severity, fleet=item["metadata"]["name"], path=path, message=message)
                for severity, path, message in _budget(item, fleets)
            ]
        if item["kind"] == "FleetAutoscaler":
            found += [
                Finding(severity=severity, fleet=item["metadata"]["name"], path=path, message=message)
                for severity, path, message in _autoscaler(item, fleets)
            ]
    return tuple(found)


_Rows = Iterator[tuple[Severity, str, str]]


def _guards(item: Manifest) -> bool:
    return item["kind"] == "MutatingWebhookConfiguration" and any(
        ADMISSION_LABEL in hook.get("objectSelector", {}).get("matchLabels", {}) for hook in item.get("webhooks") or []
    )


def _game_server(fleet: Manifest) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]:
    """Its GameServer's spec, its pod's metadata and its pod's spec."""
    server = fleet.get("spec", {}).get("template", {}).get("spec", {})
    pod = server.get("template", {})
    return server, pod.get("metadata", {}), pod.get("spec", {})


def _network(fleet: Manifest, webhook: bool) -> _Rows:
    server, metadata, pod = _game_server(fleet)
    if pod.get("hostNetwork") is not True:
        return
    for index, port in enumerate(server.get("ports") or []):
        policy = port.get("portPolicy", "Dynamic")
        if policy != "Passthrough" and not (policy == "Static" and port.get("hostPort") == port.get("containerPort")):
            yield (
                Severity.ERROR,
                f"spec.template.spec.ports[{index}].portPolicy",
                f"{policy} in the host network gives pods that the API server refuses: use Passthrough",
            )
    labels = metadata.get("labels") or {}
    terms = (
        pod.get("affinity", {}).get("podAntiAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution") or []
    )
    alone = any(
        term.get("topologyKey") == "kubernetes.io/hostname"
        and term.get("labelSelector", {}).get("matchLabels") == {NETWORK_LABEL: "host"}
        for term in terms
    )
    guarded = labels.get(ADMISSION_LABEL) == "required"
    if not alone and not guarded:
        yield (
            Severity.ERROR,
            "spec.template.spec.template.spec.hostNetwork",
            (
                "would be cross-wired: two pods of a node share one set of sidecar ports. Wanted is the label "
                f"{ADMISSION_LABEL}=required with the webhook, or the required anti-affinity on {NETWORK_LABEL}=host"
            ),
        )
    elif guarded and not webhook:
        yield (
            Severity.WARNING,
            "spec.template.spec.template.metadata.labels",
            "counts on the admission webhook, which is not among these objects: see that the cluster has it",
        )


def _resources(fleet: Manifest) -> _Rows:
    _, metadata, pod = _game_server(fleet)
    pinned = (metadata.get("labels") or {}).get(ADMISSION_LABEL) == "required" and pod.get("hostNetwork") is not True
    for index, container in enumerate(pod.get("containers") or []):
        where = f"spec.template.spec.template.spec.containers[{index}].resources"
        resources = container.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        unequal = sorted(key for key in ("cpu", "memory") if requests.get(key) != limits.get(key) or key not in limits)
        if unequal:
            yield (
                Severity.ERROR if pinned else Severity.WARNING,
                where,
                (
                    f"requests and limits of {' and '.join(unequal)} differ: the pod is Burstable, so its CPUs are shared and it is evicted "
                    "before Guaranteed ones; set them equal"
                ),
            )
        for size in ("2Mi", "1Gi"):
            name = f"hugepages-{size}"
            if name in limits and requests.get(name, limits[name]) != limits[name]:
                yield Severity.ERROR, where, f"{name}: requests and limits must be equal"


def _grace(fleet: Manifest) -> _Rows:
    _, _, pod = _game_server(fleet)
    grace = pod.get("terminationGracePeriodSeconds", 30)
    for container in pod.get("containers") or []:
        for entry in container.get("env") or []:
            if entry.get("name") == _DRAIN and (drain := _number(entry.get("value"))) is not None and grace <= drain:
                yield (
                    Severity.ERROR,
                    "spec.template.spec.template.spec.terminationGracePeriodSeconds",
                    f"{grace} s end before the drain's {drain:g} s: matches would be killed while they are finished or moved",
                )


def _budget(budget: Manifest, fleets: Sequence[Manifest]) -> _Rows:
    spec = budget.get("spec") or {}
    if not _blocks(spec):
        selector = (spec.get("selector") or {}).get("matchLabels") or {}
        for fleet in fleets:
            server, metadata, _ = _game_server(fleet)
            ours = selector.get(FLEET_LABEL) == (metadata.get("labels") or {}).get(FLEET_LABEL) is not None
            if ours and (server.get("eviction") or {}).get("safe", "Never") == "Never":
                yield (
                    Severity.ERROR,
                    "spec.selector",
                    "these pods are under Agones' own budget too (eviction.safe: Never), and a pod under two budgets is never evicted: remove it",
                )
        return
    yield (
        Severity.ERROR,
        "spec",
        "allows no pod to go, so that a drain of a node hangs for ever: set maxUnavailable to 1 or more",
    )


def _blocks(spec: Mapping[str, Any]) -> bool:
    return spec.get("maxUnavailable") in (0, "0", "0%") or spec.get("minAvailable") == "100%"


def _autoscaler(scaler: Manifest, fleets: Sequence[Manifest]) -> _Rows:
    spec = scaler.get("spec") or {}
    policy = spec.get("policy") or {}
    if fleets and spec.get("fleetName") not in {fleet["metadata"]["name"] for fleet in fleets}:
        yield Severity.WARNING, "spec.fleetName", f"{spec.get('fleetName')!r} is no Fleet among these objects"
    for index, entry in enumerate([policy, *(policy.get("chain") or [])]):
        buffer = entry.get("buffer") or {}
        where = "spec.policy.buffer" if index == 0 else f"spec.policy.chain[{index - 1}].buffer"
        size, least, most = buffer.get("bufferSize"), buffer.get("minReplicas") or 0, buffer.get("maxReplicas")
        if not isinstance(size, int) or not isinstance(most, int):
            continue
        if size > most:
            yield Severity.ERROR, where, f"bufferSize {size} is above maxReplicas {most}: Agones refuses it"
        if least and size > least:
            yield Severity.ERROR, where, f"minReplicas {least} is below bufferSize {size}: Agones refuses it"


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
