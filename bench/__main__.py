"""
Every benchmark that there is, one after another: `python -m bench [--quick] [--json FILE]`.

Each area is a module or a package in this one with its own table and runs as its own process, so that none finds another's leftovers. With
`--json` the rows of all areas are written as one list.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.report import arguments

NOT_AREAS = {"__init__", "__main__", "report"}


def areas(folder: Path) -> list[str]:
    """Modules and packages."""
    packages = {path.parent.name for path in folder.glob("*/__main__.py")}
    return sorted({path.stem for path in folder.glob("*.py")} - NOT_AREAS | packages)


def main() -> None:
    """Run them; the exit code is 1 when one of them failed."""
    options = arguments(__doc__)
    rows, failed = [], []
    with tempfile.TemporaryDirectory() as folder:
        for area in areas(Path(__file__).parent):
            print(f"\n== {area}", flush=True)
            file = Path(folder) / f"{area}.json"
            command = [
                sys.executable,
                "-m",
                f"bench.{area}",
                "--json",
                str(file),
                *(["--quick"] if options.quick else []),
            ]
            if subprocess.run(command, check=False).returncode != 0:
                failed.append(area)
            if file.exists():
                rows += json.loads(file.read_text(encoding="utf-8"))
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
