"""What a backend is told of its cluster; apart from the clients, which take a second to import."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """Which cluster, and who we are there."""

    namespace: str = ""
    """Of the game servers; empty: the kubeconfig's, or the pod's own."""
    kubeconfig: Path | None = None
    """None: the pod's service account where there is one, else KUBECONFIG or ~/.kube/config."""
    context: str = ""
