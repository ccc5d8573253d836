"""`warmfleet import`, as it is called."""

import json
import subprocess
import sys
from pathlib import Path

RULES = {
    "name": "duel",
    "ruleLanguageVersion": "1.0",
    "playerAttributes": [{"name": "skill", "type": "number", "default": 10}],
    "teams": [{"name": "red", "minPlayers": 1, "maxPlayers": 1}, {"name": "blue", "minPlayers": 1, "maxPlayers": 1}],
    "rules": [{"name": "near", "type": "latency", "maxLatency": 90}],
}


def warmfleet(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fleets.cli", *map(str, args)], capture_output=True, text=True, check=False
    )


def test_what_is_imported_is_valid(tmp_path: Path) -> None:
    """The YAML goes to a file that `warmfleet validate` accepts, the report to standard error."""
    given, made = tmp_path / "rules.json", tmp_path / "duel.yaml"
    given.write_text(json.dumps(RULES))
    done = warmfleet("import", given, "--out", made, "--region", "eu-west", "--region", "us-east")
    assert done.returncode == 0, done.stderr
    assert "duel: playerAttributes[skill].default: dropped" in done.stderr
    assert warmfleet("validate", made).returncode == 0
    answer = json.loads(warmfleet("import", given, "--json", "--fleets", made).stdout)
    assert answer["from"] == "flexmatch"
    assert "kind: Fleet" not in answer["yaml"]


def test_what_is_not_understood_fails(tmp_path: Path) -> None:
    """The exit code is 1, and the reason names the place."""
    given = tmp_path / "rules.json"
    given.write_text(json.dumps({**RULES, "teams": []}))
    done = warmfleet("import", given)
    assert done.returncode == 1
    assert "teams: a rule set has one team at least" in done.stderr
    assert done.stdout == ""
