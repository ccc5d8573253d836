"""The kinds that we render: their paths at the API server, and in which order they are applied."""

from dataclasses import dataclass

from fleets.cluster.ports import Ref, UnknownKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How a kind is reached."""

    plural: str
    stage: int
    """Applied in ascending order, removed in descending order: what others need comes first."""
    namespaced: bool = True


KINDS: dict[tuple[str, str], Kind] = {
    ("v1", "Namespace"): Kind(plural="namespaces", stage=0, namespaced=False),
    ("scheduling.k8s.io/v1", "PriorityClass"): Kind(plural="priorityclasses", stage=0, namespaced=False),
    ("v1", "ServiceAccount"): Kind(plural="serviceaccounts", stage=1),
    ("rbac.authorization.k8s.io/v1", "Role"): Kind(plural="roles", stage=1),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): Kind(plural="rolebindings", stage=1),
    ("v1", "ConfigMap"): Kind(plural="configmaps", stage=1),
    ("networking.k8s.io/v1", "NetworkPolicy"): Kind(plural="networkpolicies", stage=1),
    ("cilium.io/v2", "CiliumNetworkPolicy"): Kind(plural="ciliumnetworkpolicies", stage=1),
    ("projectcalico.org/v3", "NetworkPolicy"): Kind(plural="networkpolicies", stage=1),
    ("policy/v1", "PodDisruptionBudget"): Kind(plural="poddisruptionbudgets", stage=1),
    ("cert-manager.io/v1", "Certificate"): Kind(plural="certificates", stage=1),
    ("keda.sh/v1alpha1", "TriggerAuthentication"): Kind(plural="triggerauthentications", stage=1),
    ("v1", "Service"): Kind(plural="services", stage=2),
    ("apps/v1", "Deployment"): Kind(plural="deployments", stage=2),
    ("apps/v1", "StatefulSet"): Kind(plural="statefulsets", stage=2),
    ("apps/v1", "DaemonSet"): Kind(plural="daemonsets", stage=2),
    ("monitoring.coreos.com/v1", "ServiceMonitor"): Kind(plural="servicemonitors", stage=2),
    ("monitoring.coreos.com/v1", "PodMonitor"): Kind(plural="podmonitors", stage=2),
    ("monitoring.coreos.com/v1", "PrometheusRule"): Kind(plural="prometheusrules", stage=2),
    ("networking.k8s.io/v1", "Ingress"): Kind(plural="ingresses", stage=3),
    ("gateway.networking.k8s.io/v1", "Gateway"): Kind(plural="gateways", stage=3),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): Kind(plural="httproutes", stage=3),
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"): Kind(
        plural="mutatingwebhookconfigurations", stage=3, namespaced=False
    ),
    ("agones.dev/v1", "Fleet"): Kind(plural="fleets", stage=4),
    ("autoscaling.agones.dev/v1", "FleetAutoscaler"): Kind(plural="fleetautoscalers", stage=5),
    ("autoscaling/v2", "HorizontalPodAutoscaler"): Kind(plural="horizontalpodautoscalers", stage=5),
    ("keda.sh/v1alpha1", "ScaledObject"): Kind(plural="scaledobjects", stage=5),
    ("autoscaling.k8s.io/v1", "VerticalPodAutoscaler"): Kind(plural="verticalpodautoscalers", stage=5),
    # Not rendered, only looked at.
    ("agones.dev/v1", "GameServer"): Kind(plural="gameservers", stage=9),
    ("v1", "Pod"): Kind(plural="pods", stage=9),
    ("v1", "Node"): Kind(plural="nodes", stage=9, namespaced=False),
}
FLEETS_STAGE = 4
NEVER_PRUNED = {"Namespace", "GameServer", "Pod", "Node"}


def kind_of(api_version: str, kind: str) -> Kind:
    """Raises UnknownKind for one that we never render."""
    found = KINDS.get((api_version, kind))
    if found is None:
        raise UnknownKind(f"{kind} of {api_version} is no kind that Warmfleet renders: apply it with kubectl")
    return found


def collection(api_version: str, kind: str, namespace: str) -> str:
    """The path of all objects of a kind."""
    base = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    row = kind_of(api_version, kind)
    return f"{base}/namespaces/{namespace}/{row.plural}" if row.namespaced else f"{base}/{row.plural}"


def path_of(ref: Ref) -> str:
    """The path of one object."""
    return f"{collection(ref.api_version, ref.kind, ref.namespace)}/{ref.name}"
