"""
A node, from its files: /proc, /sys, the kubelet's and the network plugins' configuration.

Reads below a root folder, so that a test (or a mounted host in a debug pod: `--root /host`) is as good as the machine itself.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fleets.admission.mutation import EPHEMERAL_FROM
from fleets.doctor.model import Check, fail, ok, unknown, warn

_KUBELET = "var/lib/kubelet/config.yaml"
_UDP_BUFFER = 4 << 20
"""Bytes: a tick's inputs of some thousand players, should the process be away for a while."""
_KERNEL = (5, 10)
"""The oldest on which Cilium and Calico replace kube-proxy by eBPF."""
_OVERLAY_BYTES = 50
"""VXLAN's own headers over IPv4."""
_SLOW_CLOCKS = {"hpet", "acpi_pm", "refined-jiffies", "jiffies"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the fleets of this node ask of it."""

    pinning: bool = False
    numa: bool = False
    huge_pages: bool = False
    realtime: bool = False
    game_port_last: int = 8000


class Node:
    """A machine's files below `root`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def text(self, path: str) -> str | None:
        """A file's text without the white space around it; None where it cannot be read."""
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return None

    def number(self, path: str) -> int | None:
        """A file's number."""
        text = self.text(path)
        return int(text) if text is not None and re.fullmatch(r"-?\d+", text) else None

    def each(self, pattern: str) -> list[Path]:
        """Paths below the root, in order."""
        try:
            return sorted(self.root.glob(pattern))
        except OSError:
            return []

    def kubelet(self) -> Mapping[str, Any] | None:
        """Its configuration; None on a machine without one."""
        text = self.text(_KUBELET)
        if text is None:
            return None
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            return {}
        return value if isinstance(value, dict) else {}


def examine(node: Node, wishes: Wishes) -> tuple[Check, ...]:
    """Every check, in the order of docs/operating.md."""
    found: list[Check] = []
    for look in _LOOKS:
        found += look(node, wishes)
    return tuple(found)


def _cpu_manager(node: Node, wishes: Wishes) -> Iterator[Check]:
    kubelet = node.kubelet()
    if kubelet is None:
        yield unknown("cpu-manager", f"/{_KUBELET} cannot be read: no kubelet here, or its file is elsewhere")
        return
    policy = kubelet.get("cpuManagerPolicy", "none")
    mend = (
        f"in /{_KUBELET} set cpuManagerPolicy: static and reservedSystemCPUs: 0-1, drain the node, stop the kubelet, remove "
        "/var/lib/kubelet/cpu_manager_state, start it"
    )
    if policy != "static":
        yield (fail if wishes.pinning else warn)("cpu-manager", f"policy {policy}: no pod gets CPUs of its own", mend)
        return
    state = re.search(r'"policyName":\s*"(\w+)"', node.text("var/lib/kubelet/cpu_manager_state") or "")
    if state is not None and state[1] != "static":
        yield fail(
            "cpu-manager", f"configured static, but running {state[1]}: the kubelet was not restarted cleanly", mend
        )
        return
    reserved = kubelet.get("reservedSystemCPUs")
    if not reserved and not (kubelet.get("kubeReserved") or {}).get("cpu"):
        yield fail("cpu-manager", "static without reserved CPUs: the kubelet does not start so", mend)
    else:
        yield ok("cpu-manager", f"static; reserved: {reserved or kubelet['kubeReserved']['cpu']}")


def _topology(node: Node, wishes: Wishes) -> Iterator[Check]:
    count = len(node.each("sys/devices/system/node/node[0-9]*"))
    if count < 2:
        yield ok("numa", "one NUMA node: nothing to align")
        return
    policy = (node.kubelet() or {}).get("topologyManagerPolicy", "none")
    if policy == "single-numa-node":
        yield ok("numa", f"{count} NUMA nodes, topologyManagerPolicy single-numa-node")
    else:
        yield (fail if wishes.numa else warn)(
            "numa",
            f"{count} NUMA nodes and topologyManagerPolicy {policy}: CPUs and memory of a server may be of different ones",
            f"in /{_KUBELET} set topologyManagerPolicy: single-numa-node and label the node warmfleet.dev/numa=single",
        )


def _huge_pages(node: Node, wishes: Wishes) -> Iterator[Check]:
    pages = {
        size: node.number(f"sys/kernel/mm/hugepages/hugepages-{kb}kB/nr_hugepages") or 0
        for size, kb in (("2Mi", 2048), ("1Gi", 1048576))
    }
    if any(pages.values()):
        yield ok("hugepages", ", ".join(f"{count} of {size}" for size, count in pages.items() if count))
    elif wishes.huge_pages:
        yield fail(
            "hugepages",
            "none are set aside: pods that ask for them stay unscheduled",
            "boot with hugepagesz=2M hugepages=512 (or write vm.nr_hugepages) and restart the kubelet, which counts them once",
        )
    else:
        yield ok("hugepages", "none are set aside, and none are asked for")
    transparent = node.text("sys/kernel/mm/transparent_hugepage/enabled")
    if transparent is not None and "[always]" in transparent:
        yield warn(
            "transparent-hugepages",
            "always: the kernel stops a process to join its pages, for milliseconds",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled, or boot with transparent_hugepage=madvise",
        )
    elif transparent is not None:
        yield ok("transparent-hugepages", transparent)


def _kernel(node: Node, wishes: Wishes) -> Iterator[Check]:
    version = node.text("proc/version") or ""
    found = re.search(r"version (\d+)\.(\d+)", version)
    real = node.text("sys/kernel/realtime") == "1" or "PREEMPT_RT" in version
    if real:
        yield ok("kernel", "real-time (PREEMPT_RT)")
    elif wishes.realtime:
        yield fail(
            "kernel",
            "is not a real-time one",
            "install one (Debian: linux-image-rt-amd64), and label and taint the node warmfleet.dev/kernel=realtime",
        )
    elif found is None:
        yield unknown("kernel", "/proc/version cannot be read")
    else:
        yield ok("kernel", f"{found[1]}.{found[2]}, not real-time, and none is asked for")
    runtime = node.number("proc/sys/kernel/sched_rt_runtime_us")
    if real and runtime == -1:
        yield warn(
            "rt-throttling",
            "is off: a SCHED_FIFO thread that never sleeps takes its CPU for ever",
            "sysctl kernel.sched_rt_runtime_us=950000 unless every such thread has a CPU of its own",
        )
    if found is not None and (int(found[1]), int(found[2])) < _KERNEL:
        yield warn("ebpf", f"kernel {found[1]}.{found[2]} is too old to do without kube-proxy", "use 5.10 or newer")
    elif node.number("proc/sys/net/core/bpf_jit_enable") == 0:
        yield warn("ebpf", "programs are interpreted", "sysctl net.core.bpf_jit_enable=1")
    elif found is not None:
        yield ok("ebpf", "new enough, compiled")


def _processors(node: Node, wishes: Wishes) -> Iterator[Check]:
    governors = {
        path.read_text().strip() for path in node.each("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
    }
    if not governors:
        yield ok("governor", "the hypervisor or firmware chooses the clock rate")
    elif governors == {"performance"}:
        yield ok("governor", "performance")
    else:
        yield warn(
            "governor",
            f"{', '.join(sorted(governors))}: a CPU that slept needs time to speed up, in every tick anew",
            "cpupower frequency-set -g performance, and make it last (tuned profile latency-performance)",
        )
    clock = node.text("sys/devices/system/clocksource/clocksource0/current_clocksource")
    if clock in _SLOW_CLOCKS:
        yield warn(
            "clock", f"{clock}: reading the time is a slow call", "boot with tsc=reliable, or use another instance type"
        )
    elif clock is not None:
        yield ok("clock", clock)
    isolated = node.text("sys/devices/system/cpu/isolated")
    if isolated:
        yield from _interrupts(node, isolated)
    else:
        yield ok("irq-affinity", "no CPU is isolated, so none is to be kept free of interrupts")


def _interrupts(node: Node, isolated: str) -> Iterator[Check]:
    apart = cpus(isolated)
    straying = [
        path.parent.name
        for path in node.each("proc/irq/[0-9]*/effective_affinity_list")
        if cpus(node.text(str(path.relative_to(node.root))) or "") & apart
    ]
    if straying:
        yield warn(
            "irq-affinity",
            f"interrupts {', '.join(straying[:8])} are served on isolated CPUs {isolated}",
            f"set IRQBALANCE_BANNED_CPULIST={isolated} (irqbalance) or write the other CPUs into /proc/irq/*/smp_affinity_list",
        )
    else:
        yield ok("irq-affinity", f"isolated CPUs {isolated} serve no interrupt")


def _memory(node: Node, wishes: Wishes) -> Iterator[Check]:
    swaps = (node.text("proc/swaps") or "").splitlines()[1:]
    if swaps:
        yield warn(
            "swap",
            f"{len(swaps)} in use: a page that was swapped out costs milliseconds",
            "swapoff -a, and out of /etc/fstab",
        )
    else:
        yield ok("swap", "off")
    if (node.root / "sys/fs/cgroup/cgroup.controllers").exists():
        yield ok("cgroups", "version 2")
    else:
        yield warn(
            "cgroups", "version 1", "boot with systemd.unified_cgroup_hierarchy=1: newer Kubernetes wants version 2"
        )


def _network(node: Node, wishes: Wishes) -> Iterator[Check]:
    for name in ("rmem_max", "wmem_max"):
        size = node.number(f"proc/sys/net/core/{name}")
        if size is not None and size < _UDP_BUFFER:
            yield warn(
                "udp-buffers",
                f"net.core.{name} is {size}: a burst of UDP is dropped",
                f"sysctl net.core.{name}={_UDP_BUFFER}",
            )
        elif size is not None:
            yield ok("udp-buffers", f"net.core.{name} is {size}")
    first = (node.text("proc/sys/net/ipv4/ip_local_port_range") or "").split()
    last = max(wishes.game_port_last + 14_000, wishes.game_port_last)
    if first and int(first[0]) <= last:
        yield fail(
            "port-range",
            f"outgoing connections take ports from {first[0]} on, among the game's and the sidecars' (up to {last})",
            f"sysctl net.ipv4.ip_local_port_range='{EPHEMERAL_FROM} 60999'",
        )
    elif first:
        yield ok("port-range", f"outgoing connections from {first[0]} on")
    yield from _conntrack(node)
    yield from _mtu(node)


def _conntrack(node: Node) -> Iterator[Check]:
    most, used = (node.number(f"proc/sys/net/netfilter/nf_conntrack_{name}") for name in ("max", "count"))
    if most is None or used is None:
        return
    if used > most * 0.7:
        yield warn(
            "conntrack",
            f"{used} of {most} flows are tracked: when it is full, new players' packets are dropped",
            f"sysctl net.netfilter.nf_conntrack_max={most * 4}, or a CNI that does not track game ports",
        )
    else:
        yield ok("conntrack", f"{used} of {most} flows")


def _mtu(node: Node) -> Iterator[Check]:
    sizes = {path.parent.name: int(path.read_text()) for path in node.each("sys/class/net/*/mtu")}
    outer = {name: size for name, size in sizes.items() if (node.root / f"sys/class/net/{name}/device").exists()}
    overlays = {
        name: size for name, size in sizes.items() if re.search(r"vxlan|flannel|geneve|wireguard|cilium_wg", name)
    }
    if not outer:
        yield unknown("mtu", "no network device of this machine's own is to be seen")
    elif overlays and max(overlays.values()) + _OVERLAY_BYTES > min(outer.values()):
        name = max(overlays, key=lambda key: overlays[key])
        yield fail(
            "mtu",
            f"{name} has {overlays[name]} and the device below {min(outer.values())}: large packets are cut in two or lost",
            f"set the CNI's MTU to {min(outer.values()) - _OVERLAY_BYTES}, or use native routing",
        )
    elif min(outer.values()) < 1500:
        yield warn(
            "mtu", f"{min(outer.values())} is less than Ethernet's 1500", "raise it, or set the CNI's MTU below it"
        )
    else:
        yield ok("mtu", ", ".join(f"{name} {size}" for name, size in {**outer, **overlays}.items()))


def _plugin(node: Node, wishes: Wishes) -> Iterator[Check]:
    names = " ".join(path.name for path in node.each("etc/cni/net.d/*"))
    if "cilium" in names:
        yield ok("cni", "Cilium")
    elif "calico" in names:
        yield ok("cni", "Calico: its eBPF data plane keeps kube-proxy off the players' path")
    elif names:
        yield warn(
            "cni",
            f"{names}: not known to replace kube-proxy by eBPF",
            "consider Cilium or Calico with eBPF for nodes of game servers",
        )
    else:
        yield unknown("cni", "/etc/cni/net.d has nothing")


def _time(node: Node, wishes: Wishes) -> Iterator[Check]:
    if (
        (node.root / "run/systemd/timesync/synchronized").exists()
        or node.each("run/chrony/*")
        or node.each("var/run/chrony/*")
    ):
        yield ok("time", "is kept by systemd-timesyncd or chrony")
    else:
        yield warn(
            "time",
            "no time service is to be seen: seat tokens and certificates go by the clock",
            "apt-get install chrony",
        )


def cpus(text: str) -> set[int]:
    """0-3,8 as a set; what is no such list is empty."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            found |= set(range(int(first), int(last or first) + 1))
    return found


_Look = Callable[[Node, Wishes], Iterator[Check]]
_LOOKS: tuple[_Look, ...] = (
    _cpu_manager,
    _topology,
    _huge_pages,
    _kernel,
    _processors,
    _memory,
    _network,
    _plugin,
    _time,
)
