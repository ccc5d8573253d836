"""What this package needs of a cluster, in its own words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fleets.render.manifest import Manifest

MANAGER = "warmfleet"
"""Our name as a field manager: what we apply is ours, what a scaler or a person sets is theirs."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Ref:
    """Which object."""

    api_version: str
    kind: str
    namespace: str
    """Empty for one of the whole cluster."""
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def ref_of(item: Manifest) -> Ref:
    """Of an object."""
    metadata = item["metadata"]
    return Ref(
        api_version=item["apiVersion"],
        kind=item["kind"],
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
    )


class ClusterError(Exception):
    """A call to the cluster did not do what it was to do; the message says why and what helps."""


class ClusterUnavailable(ClusterError):
    """The API server could not be asked: no configuration, no connection, no answer in time."""


class Refused(ClusterError):
    """The API server, or a webhook of it, said no."""


class UnknownKind(ClusterError):
    """The cluster has no such kind: its CustomResourceDefinition is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A field that somebody else manages."""

    field: str
    """As spec.replicas."""
    manager: str


class FieldConflict(ClusterError):
    """Fields that we would set belong to others, with other values; `held` names them."""

    def __init__(self, held: Sequence[Held]) -> None:
        super().__init__("; ".join(f"{row.field} is held by {row.manager}" for row in held))
        self.held = tuple(held)


class Cluster(Protocol):
    """An API server. Every method raises ClusterError."""

    def fetch(self, ref: Ref) -> Manifest | None:
        """An object as it is now; None when it is not there."""

    def listed(self, api_version: str, kind: str, namespace: str, labels: Mapping[str, str]) -> tuple[Manifest, ...]:
        """All of a kind with these labels; `namespace` empty for a kind of the whole cluster."""

    def apply(self, item: Manifest, *, dry_run: bool, force: bool = False) -> Manifest:
        """Server-side apply as `MANAGER`; the object as it is (or would be) then. Raises FieldConflict without `force`."""

    def patch(self, ref: Ref, change: Mapping[str, Any]) -> Manifest:
        """Merge patch (RFC 7386)."""

    def remove(self, ref: Ref) -> None:
        """Delete; one that is gone already is no error."""

    def get(self, path: str) -> Any:
        """What stands at a path of the API, as /version; None when it is not there."""
