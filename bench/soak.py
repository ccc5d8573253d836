"""
Soak: half an hour under load, with flat memory, descriptors, threads and keys in Valkey.

`python -m bench.soak [--minutes 30] [--players 24] [--quick] [--json FILE]`. A `warmfleet up` with a Valkey of its own plays match after match; every
process is sampled. What leaks
shows as a slope over the second half of the run, when everything has been used once. At the end every key must expire or be one that its
owner keeps (OWNED), and belong to something that is there; strays are listed by the pattern of their names. Valkey remembers for an hour what is over, so
its memory as a whole grows for so long and is only told; judged is that of the keys which do not expire. Exit code 1 where something grew or strayed.
"""

import argparse
import contextlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis

from bench.report import Report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from up import EXAMPLE, Up
from valkeys import Valkey

SETTLE_S = 12.0
"""After the last match: seats are kept for a while, servers are handed back."""
GROWTH_MIB_PER_HOUR = 20.0
"""Of one process; what allocators take back late is below, a leak of one match's state is far above."""
GROWTH_PER_HOUR = 20.0
"""Of descriptors and threads."""
OWNED = {
    r"wf:\{F\}:(shelf|servers|claims|waiter-seq|target|keeper|dead|lost|ended|open:Q|waiters|waiting|stirred)": "the fleet",
    r"wf:\{F\}:(server|rooms):S": "a server of the fleet",
    r"wf:q:\{Q\}:(pool|log|matches|owners|proposed|deadlines|backfills|closed|lease|idle|offenders|jumped)": "the queue",
    r"wf:q:\{Q\}:player:P": "a live ticket",
    r"wf:(directors|autoscaler.*|\{parties\}.*|events.*)": "the system",
}
"""Keys that stay, by patterns of their names: F fleet, Q queue, S server, P player."""


@dataclass
class Series:
    """One figure of one process over time."""

    times_s: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, at_s: float, value: float) -> None:
        """Note one sample."""
        self.times_s.append(at_s)
        self.values.append(value)

    def growth_per_hour(self) -> float:
        """The slope of the second half, by the medians of its own halves: a peak is no growth."""
        half = self.values[len(self.values) // 2 :]
        times = self.times_s[len(self.times_s) // 2 :]
        middle = len(half) // 2
        if middle < 2:
            return 0.0
        rise = statistics.median(half[middle:]) - statistics.median(half[:middle])
        return rise / (statistics.median(times[middle:]) - statistics.median(times[:middle])) * 3600


def sample(pids: Mapping[int, str], series: dict[tuple[str, str], Series], at_s: float) -> None:
    """Read each process' memory (MiB), descriptors and threads."""
    for pid, name in pids.items():
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        except (FileNotFoundError, ProcessLookupError):
            continue
        memory = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024 if "VmRSS" in status else 0.0  # type: ignore[index]
        threads = int(re.search(r"Threads:\s+(\d+)", status)[1])  # type: ignore[index]
        for what, value in (("MiB", memory), ("descriptors", float(descriptors)), ("threads", float(threads))):
            series[name, what].add(at_s, value)


def processes(up: Up, valkey: Valkey, known: dict[int, str]) -> dict[int, str]:
    """Every process of the system that lives, by a name that stays with it; `known`: names of those that were seen before."""
    living = {up.process.pid, *up.descendants()}
    for pid in living - known.keys():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        what = (
            "up"
            if pid == up.process.pid
            else " ".join(word for word in command if "gameserver" in word or "fleets" in word)
        )
        known[pid] = f"{what or 'child'} {pid}"
    # Not the others: their numbers may be another program's by now.
    return {pid: known[pid] for pid in living & known.keys()} | {valkey.pid: "valkey"}


def pattern(key: str) -> str:
    """A key's name with what varies replaced by what it is."""
    key = re.sub(r"^wf:q:\{[^}]*\}", "wf:q:{Q}", key)
    key = re.sub(r"^wf:\{(?!parties)[^}]*\}", "wf:{F}", key)
    key = re.sub(r":(server|rooms|beat|inbox):.*", r":\1:S", key)
    key = re.sub(r":(session|checkpoint|party|accepting|ticket|idempotency|playing):.*", r":\1:I", key)
    key = re.sub(r":(player|penalty|offences):.*", r":\1:P", key)
    return re.sub(r":(open|leavers|wants):.*", r":\1:Q", key)


def strays(client: "redis.Redis[str]") -> tuple[Counter[str], dict[str, list[str]]]:
    """Keys by pattern; and those that neither expire nor are owned, or whose owner is gone."""
    counts: Counter[str] = Counter()
    found: dict[str, list[str]] = defaultdict(list)
    for key in client.scan_iter(count=1000):
        name = pattern(key)
        counts[name] += 1
        if client.ttl(key) >= 0:
            continue
        owner = next((owner for owned, owner in OWNED.items() if re.fullmatch(owned, name)), None)
        if owner is None or (owner == "a server of the fleet" and not _registered(client, key)):
            found[name].append(key)
    return counts, found


def lasting_mib(client: "redis.Redis[str]") -> float:
    """Memory of the keys that do not expire."""
    keys = list(client.scan_iter(count=1000))
    with client.pipeline(transaction=False) as asking:
        for key in keys:
            asking.ttl(key)
        keys = [key for key, lasts_s in zip(keys, asking.execute(), strict=True) if lasts_s < 0]
    return sum(client.memory_usage(key, samples=0) or 0 for key in keys) / 2**20


def _registered(client: "redis.Redis[str]", key: str) -> bool:
    prefix, _, server = key.rpartition(":")
    return bool(client.sismember(f"{prefix.rpartition(':')[0]}:servers", server))


def soak(
    folder: Path, minutes: float, players: int, every_s: float
) -> tuple[dict[tuple[str, str], Series], Counter[str], dict[str, list[str]], int]:
    """Run it; returns the series, the keys by pattern, the strays, and how many matches were played."""
    yaml = EXAMPLE.read_text().replace('"120"', '"5"')
    series: dict[tuple[str, str], Series] = defaultdict(Series)
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(Valkey(folder / "valkey"))
        up = stack.enter_context(Up(folder, yaml, "--valkey-url", valkey.url))
        up.until_ready(60)
        command = [sys.executable, "-m", "fleets.cli", "bots", "--url", up.url, "--queue", "duel", "--json"]
        command += ["--players", str(players), "--duration", str(round(minutes * 60))]
        known: dict[int, str] = {}
        weigh_s = 0.0
        client = stack.enter_context(redis.Redis.from_url(valkey.url, decode_responses=True))
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as bots:
            while bots.poll() is None:
                now_s = time.monotonic()
                sample(processes(up, valkey, known), series, now_s)
                if now_s >= weigh_s:
                    series["valkey's keys that stay", "MiB"].add(now_s, lasting_mib(client))
                    weigh_s = now_s + 6 * every_s
                time.sleep(every_s)
        if bots.returncode:
            raise RuntimeError(f"the bots failed: {up.said()[-2000:]}")
        time.sleep(SETTLE_S)
        counts, found = strays(client)
        matches = sum(int(client.get(key) or 0) for key in client.scan_iter("wf:{*}:claims"))
    return series, counts, found, matches


def grown(series: Mapping[tuple[str, str], Series], least_s: float) -> Iterable[tuple[str, str, float]]:
    """(process, figure, growth an hour) of those that were there for most of the run."""
    for (name, what), one in series.items():
        if one.times_s[-1] - one.times_s[0] >= least_s:
            yield name, what, one.growth_per_hour()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="half a minute: keys are judged, growth is only told")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--players", type=int, default=24)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    minutes = options.minutes or (0.5 if options.quick else 30.0)
    every_s = min(5.0, minutes * 60 / 40)
    with tempfile.TemporaryDirectory() as folder:
        series, counts, found, matches = soak(Path(folder), minutes, options.players, every_s)
    report = Report(f"python -m bench.soak{' --quick' if options.quick else f' --minutes {minutes:g}'}")
    report.add("matches claimed", matches, "")
    judged = minutes >= 10
    longest_s = max(one.times_s[-1] - one.times_s[0] for one in series.values())
    for name, what, growth in sorted(grown(series, 0.6 * longest_s)):
        goal = GROWTH_MIB_PER_HOUR if what == "MiB" else GROWTH_PER_HOUR
        last = series[name, what].values[-1]
        told = (name, what) == ("valkey", "MiB")  # what is over is remembered for an hour
        report.add(
            f"{name}: {what}, last {last:.0f}, growth", growth, "1/h", goal=goal if judged and not told else None
        )
    for name, count in sorted(counts.items()):
        report.add(f"keys {name}", count, "")
    report.add("keys that nobody owns and that stay", sum(map(len, found.values())), "", goal=0)
    report.finish(options.json)
    for name, keys in found.items():
        print(f"stray {name}: {len(keys)}, as {keys[0]}")
    return int(any(row["met"] is False for row in report.rows))


if __name__ == "__main__":
    sys.exit(main())
