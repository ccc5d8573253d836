"""The doctor, on machines made of files, on this one, and on a cluster in memory."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fleets.cli.main import app
from fleets.cluster.ports import ClusterUnavailable, Refused
from fleets.doctor import cluster as of_cluster
from fleets.doctor.model import Check, Verdict
from fleets.doctor.node import Node, Wishes, cpus, examine
from fleets.spec.fleet import FleetSpec
from fleets.spec.platform import PlatformBody

_ALL = Wishes(pinning=True, numa=True, huge_pages=True, realtime=True)
_TUNED = {
    "var/lib/kubelet/config.yaml": "cpuManagerPolicy: static\nreservedSystemCPUs: 0-1\ntopologyManagerPolicy: single-numa-node\n",
    "var/lib/kubelet/cpu_manager_state": '{"policyName":"static","defaultCpuSet":"0-7"}',
    "sys/devices/system/node/node0/cpulist": "0-3",
    "sys/devices/system/node/node1/cpulist": "4-7",
    "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "512",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
    "sys/kernel/realtime": "1",
    "proc/version": "Linux version 6.12.3-rt (x)",
    "proc/sys/kernel/sched_rt_runtime_us": "950000",
    "proc/sys/net/core/bpf_jit_enable": "1",
    "proc/sys/net/core/rmem_max": "8388608",
    "proc/sys/net/core/wmem_max": "8388608",
    "proc/sys/net/ipv4/ip_local_port_range": "32768\t60999",
    "proc/sys/net/netfilter/nf_conntrack_max": "1000",
    "proc/sys/net/netfilter/nf_conntrack_count": "10",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc",
    "sys/devices/system/cpu/isolated": "2-7",
    "proc/irq/24/effective_affinity_list": "0",
    "proc/swaps": "Filename\tType\n",
    "sys/fs/cgroup/cgroup.controllers": "cpu",
    "sys/class/net/eth0/mtu": "1500",
    "sys/class/net/eth0/device/x": "",
    "sys/class/net/cilium_vxlan/mtu": "1450",
    "etc/cni/net.d/05-cilium.conflist": "{}",
    "run/systemd/timesync/synchronized": "",
}


def machine(folder: Path, **changed: str | None) -> Node:
    """A tuned one, but for some files."""
    for path, text in {**_TUNED, **changed}.items():
        if text is not None:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text + "\n")
    return Node(folder)


def test_a_tuned_node_has_nothing_to_mend(tmp_path: Path) -> None:
    """Every check, whatever is asked of it."""
    found = examine(machine(tmp_path), _ALL)
    assert {check.verdict for check in found} == {Verdict.OK}
    assert len({check.name for check in found}) >= 17


@pytest.mark.parametrize(
    ("path", "text", "name", "verdict", "said"),
    [
        ("var/lib/kubelet/config.yaml", "cpuManagerPolicy: none", "cpu-manager", "fail", "policy none"),
        ("var/lib/kubelet/config.yaml", "a: [", "cpu-manager", "fail", "policy none"),
        ("var/lib/kubelet/config.yaml", "cpuManagerPolicy: static", "cpu-manager", "fail", "without reserved CPUs"),
        ("var/lib/kubelet/config.yaml", None, "cpu-manager", "unknown", "cannot be read"),
        ("var/lib/kubelet/cpu_manager_state", '{"policyName":"none"}', "cpu-manager", "fail", "running none"),
        (
            "var/lib/kubelet/config.yaml",
            "{cpuManagerPolicy: static, reservedSystemCPUs: '0'}",
            "numa",
            "fail",
            "2 NUMA nodes",
        ),
        ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0", "hugepages", "fail", "none are set aside"),
        (
            "sys/kernel/mm/transparent_hugepage/enabled",
            "[always] madvise never",
            "transparent-hugepages",
            "warn",
            "always",
        ),
        ("proc/sys/kernel/sched_rt_runtime_us", "-1", "rt-throttling", "warn", "is off"),
        ("proc/sys/net/core/bpf_jit_enable", "0", "ebpf", "warn", "interpreted"),
        ("proc/version", "Linux version 4.19.0 PREEMPT_RT", "ebpf", "warn", "too old"),
        ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave", "governor", "warn", "powersave"),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet", "clock", "warn", "hpet"),
        ("proc/irq/24/effective_affinity_list", "1,5", "irq-affinity", "warn", "interrupts 24"),
        ("proc/swaps", "Filename\n/dev/sda2 partition", "swap", "warn", "1 in use"),
        ("sys/fs/cgroup/cgroup.controllers", None, "cgroups", "warn", "version 1"),
        ("proc/sys/net/core/rmem_max", "212992", "udp-buffers", "warn", "rmem_max is 212992"),
        ("proc/sys/net/ipv4/ip_local_port_range", "15000 60999", "port-range", "fail", "from 15000 on"),
        ("proc/sys/net/netfilter/nf_conntrack_count", "900", "conntrack", "warn", "900 of 1000"),
        ("sys/class/net/cilium_vxlan/mtu", "1500", "mtu", "fail", "cilium_vxlan has 1500"),
        ("sys/class/net/eth0/mtu", "1400", "mtu", "fail", "1400"),
        ("etc/cni/net.d/05-cilium.conflist", None, "cni", "unknown", "nothing"),
        ("run/systemd/timesync/synchronized", None, "time", "warn", "no time service"),
    ],
)
def test_each_fault_of_a_node_is_found_and_has_its_mend(
    tmp_path: Path, path: str, text: str | None, name: str, verdict: str, said: str
) -> None:
    """And is the only kind of fault."""
    found = [check for check in examine(machine(tmp_path, **{path: text}), _ALL) if check.verdict is not Verdict.OK]
    others = {"numa"} if path.endswith("config.yaml") else set()  # its policy is in the same file
    assert {check.name for check in found} - others <= {name}
    assert any(check.name == name and check.verdict is Verdict(verdict) and said in check.said for check in found), (
        found
    )
    assert all(check.mend or check.verdict is Verdict.UNKNOWN for check in found)
    assert "pw" not in "".join(check.said + check.mend for check in found)


def test_the_parts_that_are_asked_for_want_their_secrets() -> None:
    """The console's tokens, the beacon's key, what events are signed with and Kafka's settings."""
    body = {
        **_PLATFORM,
        "services": {
            "console": {"viewerToken": {"secret": "viewer", "key": "token"}},
            "beacon": {"region": "eu"},
            "events": {
                "webhook": {"url": "https://e.example", "secret": {"secret": "hooks", "key": "secret"}},
                "kafka": {"brokers": ["k:9092"], "config": {"secret": "kafka", "key": "json"}},
            },
        },
    }
    found: Any = of_cluster.examine(whole(), PlatformBody.model_validate(body), [])  # type: ignore[arg-type]
    (said,) = [check.said for check in found if check.name == "secrets"]
    for secret in ("warmfleet-operator", "viewer", "warmfleet-beacon", "hooks", "kafka"):
        assert f"{secret} (key" in said


def test_what_nobody_asks_for_does_not_fail(tmp_path: Path) -> None:
    """No pinning, no pages, no real-time kernel: at most a warning."""
    plain = {"var/lib/kubelet/config.yaml": "a: 1", "sys/kernel/realtime": "0", "proc/version": "Linux version 6.1.0"}
    node = machine(tmp_path, **plain, **{"sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "0"})
    assert Verdict.FAIL not in {check.verdict for check in examine(node, Wishes())}
    assert {c.name for c in examine(node, _ALL) if c.verdict is Verdict.FAIL} == {
        "cpu-manager",
        "numa",
        "hugepages",
        "kernel",
    }


def test_this_machine_can_be_looked_at(tmp_path: Path) -> None:
    """Whatever it is; as text and as JSON; an empty one too."""
    result = CliRunner().invoke(app, ["doctor", "node", "--json"])
    assert result.exit_code in (0, 1)
    assert {"cpu-manager", "kernel", "mtu"} <= {check["name"] for check in json.loads(result.stdout)["checks"]}
    text = CliRunner().invoke(app, ["doctor", "node", "--root", str(tmp_path)])
    assert "cpu-manager: /var/lib/kubelet/config.yaml cannot be read" in text.stdout


@given(st.text(alphabet="0123456789,- x", max_size=12))
def test_any_list_of_cpus_is_read(text: str) -> None:
    """Or is empty."""
    assert all(number >= 0 for number in cpus(text)) if len(text) < 9 else True


def test_lists_of_cpus() -> None:
    """As the kernel writes them."""
    assert cpus("0-2,8") == {0, 1, 2, 8}
    assert cpus("") == cpus("x") == set()


class FakeCluster:
    """Answers from a mapping; `forbidden` paths are refused."""

    def __init__(self, **paths: Any) -> None:
        self.paths = paths
        self.forbidden: set[str] = set()
        self.nodes: list[dict[str, Any]] = [
            {
                "metadata": {"name": "n1", "labels": {"warmfleet.dev/pool": "games"}},
                "status": {
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "allocatable": {"hugepages-2Mi": "1Gi"},
                },
            }
        ]

    def get(self, path: str) -> Any:
        if path in self.forbidden:
            raise Refused(f"not allowed: {path}")
        return self.paths.get(path)

    def listed(self, *args: Any) -> tuple[Any, ...]:
        return tuple(self.nodes)

    fetch = apply = patch = remove = get


def deployment(name: str, available: int = 1, **env: str) -> dict[str, Any]:
    container = {"env": [{"name": key, "value": value} for key, value in env.items()]}
    return {
        "metadata": {"name": name},
        "spec": {"template": {"spec": {"containers": [container]}}},
        "status": {"availableReplicas": available},
    }


_SPEC = {
    "server": {"game": "g:G", "image": "i"},
    "lowLatency": {"nodePool": "games", "cpu": 2, "cpuPinning": True, "hugepages2Mi": "4Mi"},
}
_PLATFORM = {
    "namespace": "games",
    "images": {"repository": "r", "tag": "t"},
    "admission": {"issuer": {"name": "x"}},
    "services": {"director": {"autoscale": {"ticketsPerReplica": 9}}},
    "valkey": {"inCluster": {}},
}


def store(url: str) -> dict[str, Any]:
    return {"data": {"url": base64.b64encode(url.encode()).decode()}}


def whole() -> FakeCluster:
    """A cluster in which all is well."""
    space, agones = "/api/v1/namespaces/games", "/apis/apps/v1/namespaces/agones-system/deployments"
    made = [
        deployment("agones-controller", MIN_PORT="7000", MAX_PORT="8000"),
        deployment("agones-extensions", ALLOCATION_BATCH_WAIT_TIME="10ms"),
        deployment("agones-allocator", ALLOCATION_BATCH_WAIT_TIME="10ms"),
    ]
    hooks = [{"clientConfig": {"caBundle": "x"}}]
    return FakeCluster(
        **{
            "/version": {"gitVersion": "v1.36.2"},
            "/apis/agones.dev/v1": {},
            agones: {"items": made},
            space: {},
            f"{space}/serviceaccounts/agones-sdk": {},
            "/apis/metrics.k8s.io/v1beta1": {},
            "/apis/keda.sh/v1alpha1": {},
            "/apis/cert-manager.io/v1": {},
            f"{space}/secrets/warmfleet-valkey": store("redis://:pw@warmfleet-valkey:6379/0"),
            f"{space}/secrets/warmfleet-seat-keys": {"data": {"public": "x", "private": "x"}},
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/warmfleet-admission-games": {
                "webhooks": hooks
            },
            "/apis/apps/v1/namespaces/games/deployments/warmfleet-admission": deployment("warmfleet-admission", 2),
            "/api/v1/nodes/n1/proxy/configz": {"kubeletconfig": {"cpuManagerPolicy": "static"}},
            "/apis/apps/v1/namespaces/kube-system/daemonsets": {"items": [{"metadata": {"name": "cilium"}}]},
        }
    )


def looked(cluster: FakeCluster) -> list[Check]:
    fleet = {"apiVersion": "warmfleet.dev/v1", "kind": "Fleet", "metadata": {"name": "arena"}, "spec": _SPEC}
    found: Any = of_cluster.examine(cluster, PlatformBody.model_validate(_PLATFORM), [FleetSpec.model_validate(fleet)])  # type: ignore[arg-type]
    return [check for check in found if check.verdict is not Verdict.OK]


def test_a_whole_cluster_has_nothing_to_mend() -> None:
    """Agones, kinds, secrets, webhook, nodes, kubelets, network."""
    assert looked(whole()) == []


_SPACE = "/api/v1/namespaces/games"
_HOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/warmfleet-admission-games"
_DEPLOYED = "/apis/apps/v1/namespaces/agones-system/deployments"


@pytest.mark.parametrize(
    ("path", "answer", "name", "verdict", "said"),
    [
        ("/version", {"gitVersion": "v1.27.1"}, "kubernetes", "fail", "too old"),
        ("/version", {}, "kubernetes", "unknown", "no version"),
        ("/apis/agones.dev/v1", None, "agones", "fail", "not installed"),
        (_DEPLOYED, {"items": []}, "agones", "unknown", "not in agones-system"),
        (_DEPLOYED, {"items": [deployment("agones-controller", 0)]}, "agones", "fail", "no pod that is available"),
        (_DEPLOYED, {"items": [deployment("agones-extensions")]}, "allocation-batching", "warn", "waits 500ms"),
        (_DEPLOYED, {"items": [deployment("agones-controller", MIN_PORT="7000", MAX_PORT="9000")]}, "game-ports", "fail", "7000 to 9000"),
        (_SPACE, None, "namespace", "fail", "games is not there"),
        (f"{_SPACE}/serviceaccounts/agones-sdk", None, "namespace", "fail", "agones-sdk"),
        ("/apis/keda.sh/v1alpha1", None, "kinds", "fail", "KEDA is not installed"),
        ("/apis/cert-manager.io/v1", None, "kinds", "fail", "cert-manager"),
        (f"{_SPACE}/secrets/warmfleet-seat-keys", {"data": {"public": "x"}}, "secrets", "fail", "warmfleet-seat-keys (key private)"),
        (f"{_SPACE}/secrets/warmfleet-valkey", store("redis+sentinel://:pw@s:26379/0?service=m"), "valkey", "fail", "mode sentinel"),
        (f"{_SPACE}/secrets/warmfleet-valkey", store("redis+cluster://:pw@c:6379"), "valkey", "fail", "mode cluster"),
        (f"{_SPACE}/secrets/warmfleet-valkey", store("rediss://:pw@v:6379"), "valkey", "fail", "with TLS"),
        (f"{_SPACE}/secrets/warmfleet-valkey", store("http://:pw@v:6379"), "valkey", "fail", "none of redis"),
        (_HOOKS, {"webhooks": [{"clientConfig": {}}]}, "admission", "fail", "no CA"),
        ("/apis/apps/v1/namespaces/games/deployments/warmfleet-admission", deployment("a", 1), "admission", "warn", "1 of its pods"),
        ("/api/v1/nodes/n1/proxy/configz", {"kubeletconfig": {}}, "cpu-manager", "fail", "n1 (none)"),
        ("/apis/apps/v1/namespaces/kube-system/daemonsets", {"items": [{"metadata": {"name": "kube-proxy"}}]}, "cni", "warn", "kube-proxy"),
    ],
)  # fmt: skip
def test_each_fault_of_a_cluster_is_found(path: str, answer: Any, name: str, verdict: str, said: str) -> None:
    """With its mend."""
    cluster = whole()
    cluster.paths[path] = answer
    found = [check for check in looked(cluster) if check.name == name]
    assert any(check.verdict is Verdict(verdict) and said in check.said for check in found), looked(cluster)
    assert all(check.mend or check.verdict is Verdict.UNKNOWN for check in found)


def test_nodes_that_are_missing_or_lack_what_a_fleet_wants() -> None:
    """The label that would help, and the pages."""
    cluster = whole()
    cluster.nodes[0]["metadata"]["labels"] = {}
    assert "kubectl label node NODE warmfleet.dev/pool=games" in [check.mend for check in looked(cluster)]
    cluster = whole()
    cluster.nodes[0]["status"]["allocatable"] = {}
    assert any("huge pages of 2Mi" in check.said for check in looked(cluster))
    cluster.nodes[0]["status"]["conditions"] = []
    assert any("none of 1 is Ready" in check.said for check in looked(cluster))


def test_what_may_not_be_asked_is_unknown_and_the_rest_is_looked_at() -> None:
    """An account of little rights still gets its answers; a server that is away is no answer at all."""
    cluster = whole()
    cluster.forbidden = {f"{_SPACE}/secrets/warmfleet-valkey", "/api/v1/nodes/n1/proxy/configz"}
    assert {(check.name, check.verdict) for check in looked(cluster)} == {
        ("secrets", Verdict.UNKNOWN),
        ("valkey", Verdict.UNKNOWN),
        ("cpu-manager", Verdict.UNKNOWN),
    }

    def away(path: str) -> Any:
        raise ClusterUnavailable("away")

    cluster.get = away  # type: ignore[method-assign]
    with pytest.raises(ClusterUnavailable):
        looked(cluster)
