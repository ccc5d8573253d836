"""The operator's pages: current, complete, and what they tell to run works."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import yaml

import fleets
from fleets.cli.schema import document_schema
from fleets.doctor.node import _LOOKS
from fleets.serve.settings import ServeSettings
from fleets.spec.fleet import LowLatency
from gameserver.protocol.netcode.tokens import parse_private_key
from gameserver.seats import SeatVerifier

_DOCS = Path(fleets.__file__).parents[1] / "docs"


def test_the_table_of_keys_is_current() -> None:
    """After a change of the models: `python docs/keys.py`."""
    spec = importlib.util.spec_from_file_location("keys", _DOCS / "keys.py")
    assert spec is not None
    assert spec.loader is not None
    keys = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(keys)
    assert (_DOCS / "keys.md").read_text(encoding="utf-8") == keys.page(), "run: python docs/keys.py"


def test_every_lever_is_told() -> None:
    """In the schema that editors show, and in the table."""
    table = (_DOCS / "keys.md").read_text(encoding="utf-8")
    levers = document_schema()["$defs"]["LowLatency"]["properties"]
    assert levers.keys() == {field.alias or name for name, field in LowLatency.model_fields.items()}
    for name in levers:
        row = re.search(rf"^\| `spec\.lowLatency\.{name}` \|.*\|.*\| (.*) \|$", table, re.MULTILINE)
        assert row is not None
        assert len(row[1]) > 10


def test_every_check_of_a_node_has_its_place_in_the_guide() -> None:
    """By its name, in brackets."""
    text = (_DOCS / "operating.md").read_text(encoding="utf-8")
    told = {name.strip() for group in re.findall(r"\[([a-z, -]+)\](?!\()", text) for name in group.split(",")}
    source = Path(sys.modules[_LOOKS[0].__module__].__file__ or "").read_text()
    named = set(re.findall(r'(?:ok|warn|fail|unknown|warn\))\(\s*"([a-z-]+)",', source))
    assert len(named) > 12
    assert named <= told


def test_the_secrets_that_the_guide_makes_are_what_the_parts_take() -> None:
    """Its script is run, and every value read by whoever reads it."""
    text = (_DOCS / "operating.md").read_text(encoding="utf-8")
    script = re.search(r"python - <<'END'.*?\n(.*?)\nEND\n", text, re.DOTALL)
    assert script is not None
    made = subprocess.run([sys.executable, "-c", script[1]], capture_output=True, text=True, check=True).stdout
    secrets = {item["metadata"]["name"]: item["stringData"] for item in yaml.safe_load_all(made) if item}
    assert json.dumps(secrets)
    settings = ServeSettings.read(
        {
            "WARMFLEET_VALKEY_URL": secrets["warmfleet-valkey"]["url"],
            "WARMFLEET_SEAT_SIGNING_KEY": secrets["warmfleet-seat-keys"]["private"],
            "WARMFLEET_PLAYER_KEYS": secrets["warmfleet-players"]["secret"],
            "WARMFLEET_OPERATOR_TOKEN": secrets["warmfleet-operator"]["token"],
        }
    )
    assert settings.url() == secrets["warmfleet-valkey"]["url"]
    assert settings.seat_key() is not None
    assert parse_private_key(secrets["warmfleet-netcode"]["key"])
    assert SeatVerifier([secrets["warmfleet-seat-keys"]["public"]], server="s")  # type: ignore[arg-type]
