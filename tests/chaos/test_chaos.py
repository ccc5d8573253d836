"""A chaos run in its shortest form: it injects, the system recovers, and the journal is whole."""

import json
import subprocess
import sys
from pathlib import Path

import jwt

from bench.chaos.system import told_secrets

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
    assert rows["logs with a secret in them"] == 0
    assert (tmp_path / "kept" / "journal.jsonl").exists()
    assert (tmp_path / "kept" / "matchmaker-0.log").stat().st_size


def test_secrets_in_logs_are_found(tmp_path: Path) -> None:
    """One that was given to a process, or a player's token, in any log of the run."""
    (tmp_path / "pods").mkdir()
    (tmp_path / "pods" / "a.log").write_text("connects to redis://:hunter2@store\n")
    (tmp_path / "b.log").write_text(f"Bearer {jwt.encode({'sub': 'ann'}, 'x' * 32)}\n")
    (tmp_path / "c.log").write_text("all is well\n")
    assert told_secrets(tmp_path, ("hunter2",)) == ["b.log", "pods/a.log"]
