"""
Chaos: break a whole system of real processes under players, and let an independent checker decide what was kept.

`python -m bench.chaos [--quick] [--seed N] [--minutes M] [--faults N] [--json FILE] [--keep FOLDER]`

Prints a table by kind of fault and exits with 1 where a promise was broken or a fault was not recovered from. With `--keep` the players' journal, the
faults and all logs stay.
"""

import argparse
import asyncio
import contextlib
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from bench.chaos import limits, store_faults
from bench.chaos.checker import Violation, check, read, rollbacks
from bench.chaos.clocks import Clocks, own_clocks
from bench.chaos.cluster import NODES, Cluster
from bench.chaos.faults import PROCESSES, SERVERS, Maker, clocks_of
from bench.chaos.host import small_disks
from bench.chaos.injector import Injected, Injector
from bench.chaos.network import Place, Wire, second_host
from bench.chaos.store import VALKEYS, Replicated, Store
from bench.chaos.system import FLEET, QUEUES, ROOMS, Players, System, free_port, now_s, told_secrets
from bench.report import Report

FAULTS = 500
BLAME_S = 30.0
"""A violation is put down to the last fault before it, if that was not longer ago."""


def main() -> None:
    """Run it."""
    options = _options()
    skipped: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_folder(options.keep))
        disks = stack.enter_context(small_disks(folder / "disks", NODES if options.cluster else VALKEYS, skipped))
        places, wire = stack.enter_context(second_host(options.seed, skipped))
        clocks = own_clocks(folder / "clocks", skipped)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            injected, told = runner.run(_run(options, folder, disks, places, wire, clocks))
        events = read(folder / "journal.jsonl")
    violations = check(events, rooms=ROOMS)
    _print(injected, violations, skipped)
    for log in told:
        print(f"a secret is in {log}")
    report = _report(options, injected, violations, rollbacks(events))
    report.add("logs with a secret in them", len(told), "", goal=0)
    report.finish(options.json)
    sys.exit(1 if violations or told or not all(fault.recovered for fault in injected) else 0)


async def _run(
    options: argparse.Namespace,
    folder: Path,
    disks: list[Path],
    places: list[Place],
    wire: Wire | None,
    clocks: Clocks | None,
) -> tuple[list[Injected], list[str]]:
    """Returns the faults, and the logs that tell a secret."""
    where: Any = {"disks": disks, "places": places, "clocks": clocks}
    store: Store
    if options.cluster:
        tags = [f"{{{name}}}" for name in (FLEET, *QUEUES)]
        store = Cluster(folder / "store", [free_port() for _ in range(2 * NODES)], tags=tags, **where)
    else:
        ports = [free_port() for _ in range(VALKEYS + 3 if options.sentinel else 1)]
        store = Replicated(folder / "store", ports, **where)
    async with store, System(folder, store, replicas=2, servers=options.servers, seed=options.seed) as system:
        servers, parts = SERVERS | limits.SERVERS, PROCESSES | limits.PROCESSES
        if clocks is not None:
            of_servers, of_parts = clocks_of(clocks)
            servers, parts = servers | of_servers, parts | of_parts
        lanes = [_named(options.only, kinds) for kinds in (servers, servers, parts, store_faults.kinds(store, wire))]
        players = Players(system, folder / "journal.jsonl", players=options.players, finish_s=90.0)
        async with players:
            injector = Injector(system, players, folder / "faults.jsonl")
            await injector.warm_up(4)
            until_s = now_s() + 60.0 * options.minutes
            await injector.run(lanes, seed=options.seed, until_s=until_s, faults=options.faults)
    return injector.done, told_secrets(folder, system.secrets)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute: to see that it works")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="of faults at most; 24, or 1 with --quick")
    parser.add_argument("--faults", type=int, default=FAULTS, help=f"at most; {FAULTS}")
    parser.add_argument("--only", default="", help="inject the kinds that have this in their names, as `clock`")
    parser.add_argument("--players", type=int, default=12)
    parser.add_argument("--servers", type=int, default=8)
    parser.add_argument("--cluster", action="store_true", help="the store is a Cluster of three shards")
    parser.add_argument("--sentinel", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", type=Path, help="write the rows as a JSON list")
    parser.add_argument("--keep", type=Path, help="an empty folder for journal, faults and logs")
    options = parser.parse_args()
    options.minutes = options.minutes or (1.0 if options.quick else 24.0)
    return options


def _named(part: str, kinds: dict[str, Maker]) -> dict[str, Maker]:
    return {name: maker for name, maker in kinds.items() if part in name}


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def blamed(violation: Violation, injected: list[Injected]) -> str:
    """The kind of the last fault before a violation; empty for none near."""
    before = [fault for fault in injected if fault.at_s <= violation.at_s <= fault.at_s + BLAME_S]
    return max(before, key=lambda fault: fault.at_s).kind if before else ""


def _print(injected: list[Injected], violations: list[Violation], skipped: dict[str, str]) -> None:
    table = Table("fault", "injected", "recovered", "p50 s", "p99 s", "violations", box=None)
    blame = Counter(blamed(violation, injected) for violation in violations)
    for kind in sorted({fault.kind for fault in injected}):
        of_kind = [fault for fault in injected if fault.kind == kind]
        took_s = sorted(fault.took_s for fault in of_kind if fault.recovered)
        p50, p99 = (f"{_quantile(took_s, q):.1f}" if took_s else "" for q in (0.5, 0.99))
        table.add_row(kind, str(len(of_kind)), str(len(took_s)), p50, p99, str(blame[kind]))
    for kind, why in skipped.items():
        table.add_row(kind, "skipped", "", "", "", why)
    recovered = sum(fault.recovered for fault in injected)
    table.add_row("all", str(len(injected)), str(recovered), "", "", str(len(violations)))
    console = Console(width=120)
    console.print(table)
    for violation in violations:
        console.print(f"violation: {violation} (after: {blamed(violation, injected) or 'nothing'})", highlight=False)
    for fault in injected:
        if not fault.recovered:
            console.print(f"not recovered: {fault.at_s:.3f} {fault.kind} of {fault.target}: {fault.missing}")


def _report(
    options: argparse.Namespace, injected: list[Injected], violations: list[Violation], lost_ticks: list[int]
) -> Report:
    how = " --quick" if options.quick else f" --minutes {options.minutes:g}"
    command = f"python -m bench.chaos --seed {options.seed}{' --cluster' if options.cluster else ''}{how}"
    report = Report(command)
    goal = None if options.quick else FAULTS
    report.add("faults injected", len(injected), "", goal=goal, at_least=True)
    report.add("faults not recovered from", sum(not fault.recovered for fault in injected), "", goal=0)
    report.add("violations", len(violations), "", goal=0)
    took_s = sorted(fault.took_s for fault in injected if fault.recovered)
    if took_s:
        report.add("time to recover, p50", _quantile(took_s, 0.5), "s")
        report.add("time to recover, p99", _quantile(took_s, 0.99), "s")
    report.add("matches that changed servers, players' views", len(lost_ticks), "")
    report.add("ticks lost at a change, worst (20 a second)", max(lost_ticks, default=0), "ticks")
    return report


def _quantile(ordered: list[float], q: float) -> float:
    return ordered[math.ceil(q * (len(ordered) - 1))]


if __name__ == "__main__":
    main()
