"""A chaos run in its shortest form: it injects, the system recovers, and the journal is whole."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_short_run_keeps_its_promises(tmp_path: Path) -> None:
    """Some faults on a small system without Sentinels; the exit code is the checker's word."""
    out = tmp_path / "rows.json"
    command = [
        sys.executable,
        "-m",
        "bench.chaos",
        "--minutes",
        "0.1",
        "--seed",
        "2",
        "--no-sentinel",
        "--json",
        str(out),
    ]
    command += ["--players", "6", "--servers", "5", "--keep", str(tmp_path / "kept")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = {row["metric"]: row["value"] for row in json.loads(out.read_text())}
    assert rows["faults injected"] >= 4
    assert rows["violations"] == 0
    assert (tmp_path / "kept" / "journal.jsonl").exists()
