"""A whole service by regions, and the commands of docs/scale.md in small."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from fleets.cli.main import app
from fleets.simulate.scenario import Scenario, ScenarioError, read_scenario, shapes
from fleets.simulate.trace import busy

_ROOT = Path(__file__).parents[4]
_MILLION = _ROOT / "fleets/examples/scale/million.yaml"


def small(path: Path, to: Path) -> Path:
    """A five-hundredth of the players, for an hour or two."""
    spec: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    spec |= {"players": spec["players"] // 500, "days": 0.1, "learnedDays": 0.5}
    to.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return to


def changed(tmp_path: Path, **values: Any) -> Path:
    spec: dict[str, Any] = yaml.safe_load(_MILLION.read_text(encoding="utf-8")) | values
    path = tmp_path / "scenario.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path


def test_the_commands_of_the_plan_run(tmp_path: Path) -> None:
    """Each `warmfleet simulate` of docs/scale.md, as it stands there but for the number of players."""
    text = (_ROOT / "docs/scale.md").read_text(encoding="utf-8")
    commands = re.findall(r"^warmfleet (simulate [^#\n]*)", text, re.MULTILINE)
    assert len(commands) >= 2
    for number, command in enumerate(commands):
        arguments = shlex.split(command)
        at = arguments.index("--scenario") + 1
        arguments[at] = str(small(_ROOT / arguments[at], tmp_path / f"{number}.yaml"))
        result = CliRunner().invoke(app, [*arguments, "--json"])
        assert result.exit_code == 0, result.output
        told = json.loads(result.stdout)
        assert told["total"]["matches"] == sum(row["matches"] for row in told["regions"]) > 0
        assert all(row["servers_peak"] * 8 >= row["live_peak"] for row in told["regions"])
        assert told["total"]["checkpoints_per_s"] == told["total"]["live_peak"]


def test_the_plans_numbers_have_a_place(tmp_path: Path) -> None:
    """A line for each region and their sums."""
    path = small(_MILLION, tmp_path / "s.yaml")
    shown = CliRunner().invoke(app, ["simulate", "--scenario", str(path)]).stdout
    for name in (*read_scenario(path).regions, "together"):
        assert re.search(rf"^ {name} ", shown, re.MULTILINE)


def test_the_worlds_busiest_minute_has_the_scenarios_players() -> None:
    """Though every region peaks at another hour, with more than its share of that minute."""
    scenario = read_scenario(_MILLION)
    made = shapes(scenario)
    matches_per_s = np.sum([shape.matches_per_s * busy(shape) for shape in made.values()], axis=0)
    playing = matches_per_s.max() * scenario.match_length * scenario.players_per_match
    assert playing == pytest.approx(scenario.players)
    own = sum(shape.matches_per_s * busy(shape).max() for shape in made.values())
    assert own * scenario.match_length * scenario.players_per_match > 1.1 * scenario.players


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"players": 0}, "players: "),
        ({"player": 1}, "player: "),
        ({"matchLength": 20}, "matchLength: "),
        ({"regions": {"eu": {"share": "50%", "peakHour": 1, "shelf": 1}}}, "50.0% together"),
        ({"regions": {"eu": {"share": "100%", "peakHour": 24, "shelf": 1}}}, "regions.eu.peakHour: "),
    ],
)
def test_a_wrong_scenario_is_refused(tmp_path: Path, values: dict[str, Any], says: str) -> None:
    """With the file, the key and what is wanted."""
    path = changed(tmp_path, **values)
    with pytest.raises(ScenarioError, match=re.escape(says)):
        read_scenario(path)
    result = CliRunner().invoke(app, ["simulate", "--scenario", str(path)])
    assert result.exit_code == 1
    assert str(path) in result.stderr


def test_what_is_no_scenario_at_all_is_refused(tmp_path: Path) -> None:
    """No YAML, a list, nothing."""
    for text in ("{", "- 1", ""):
        path = tmp_path / "x.yaml"
        path.write_text(text)
        with pytest.raises(ScenarioError):
            read_scenario(path)
    assert CliRunner().invoke(app, ["simulate", "--scenario", str(tmp_path / "none.yaml")]).exit_code == 1
    assert isinstance(Scenario.model_json_schema(), dict)
