"""What every benchmark shares: its options, and its rows as a table and as JSON."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def arguments(description: str | None, *, parts: Sequence[str] = ()) -> argparse.Namespace:
    """Read `--quick` and `--json FILE`, and which of an area's parts are wanted (none: all of them)."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: to see that it works, not to quote")
    parser.add_argument("--json", type=Path, help="write the rows as a JSON list")
    if parts:
        parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of: {', '.join(parts)}; none: all")
    options = parser.parse_args()
    if unknown := set(getattr(options, "parts", ())) - set(parts):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are: {', '.join(parts)}")
    return options


class Report:
    """Rows of {metric, value, unit, goal, met, command}."""

    def __init__(self, command: str) -> None:
        """`command`: what reproduces the rows."""
        self._command = command
        self.rows: list[dict[str, Any]] = []

    def add(
        self, metric: str, value: float | str, unit: str, *, goal: float | None = None, at_least: bool = False
    ) -> None:
        """Add a row; with `at_least` the goal is a lower bound, else an upper one."""
        met = None
        if goal is not None:
            met = float(value) >= goal if at_least else float(value) <= goal
        row = {"metric": metric, "value": value, "unit": unit, "goal": goal, "met": met, "command": self._command}
        self.rows.append(row)

    def finish(self, path: Path | None) -> None:
        """Print the table; write the JSON where it is wanted."""
        table = Table("metric", "value", "unit", "goal", "met", box=None)
        for row in self.rows:
            value = f"{row['value']:.4g}" if isinstance(row["value"], float) else str(row["value"])
            met = "" if row["met"] is None else "yes" if row["met"] else "no"
            table.add_row(row["metric"], value, row["unit"], "" if row["goal"] is None else f"{row['goal']:g}", met)
        Console(width=140, emoji=False).print(table)
        if path is not None:
            path.write_text(json.dumps(self.rows, indent=1), encoding="utf-8")


def run_parts(area: str, description: str | None, parts: Mapping[str, Callable[[Report, bool], None]]) -> None:
    """The main of an area that has parts: measure those that the command line names, by default all; `(report, quick)` is what a part gets."""
    options = arguments(description, parts=tuple(parts))
    report = Report(" ".join([f"python -m bench.{area}", *options.parts, *(["--quick"] if options.quick else [])]))
    for part in options.parts or parts:
        parts[part](report, options.quick)
    report.finish(options.json)
