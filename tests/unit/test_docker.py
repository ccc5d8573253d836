"""The images' files: clean, complete, and as the docs and the rendered Deployments say. Building them is docker/prove.py's."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import yaml

_ROOT = Path(__file__).parents[2]
_DOCKER = _ROOT / "docker"
_DISTRIBUTIONS = {"nacl": "PyNaCl", "grpc": "grpcio", "google": "protobuf", "prometheus_client": "prometheus-client"}
_OPTIONAL = {"httpx", "opentelemetry"}
"""Of the client, which no server runs; of the extra `tracing`, which an image may add."""


def test_the_dockerfile_is_clean() -> None:
    """By hadolint, every rule."""
    hadolint = Path(sys.executable).parent / "hadolint"
    result = subprocess.run([hadolint, _DOCKER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_there_is_a_target_for_every_part() -> None:
    """Each runs what its Deployment runs, as a user that is not root."""
    from fleets.spec.platform import PARTS

    text = (_DOCKER / "Dockerfile").read_text()
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE))
    assert {*PARTS, "admission", "gameserver", "up"} <= targets
    for part in PARTS:
        command = re.search(rf"AS {part}\n(?:EXPOSE [^\n]*\n)?CMD (\[.*\])", text)
        assert command is not None
        assert json.loads(command[1])[:2] == ["serve", part]
    assert "USER 65532:65532" in text
    assert "latest" not in text


def test_the_services_image_has_what_a_cluster_may_ask_of_them() -> None:
    """The extras that the served parts name when they lack them; checking schemas, drawing and fuzzing are not theirs."""
    extras = re.search(r"'\.\[([a-z,]+)\]'", (_DOCKER / "Dockerfile").read_text())
    assert extras is not None
    assert set(extras[1].split(",")) == {"kafka", "kubernetes", "ratings", "tracing"}


def test_a_game_servers_image_has_what_it_imports_and_no_more() -> None:
    """The list beside the Dockerfile against the imports of gameserver/."""
    imported = set()
    for path in (_ROOT / "gameserver").rglob("*.py"):
        if "/client/" in str(path):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            imported |= {name.partition(".")[0] for name in names}
    third_party = {_DISTRIBUTIONS.get(n, n) for n in imported - sys.stdlib_module_names - _OPTIONAL - {"gameserver"}}
    listed = {
        line for line in (_DOCKER / "gameserver.txt").read_text().split("\n") if line and not line.startswith("#")
    }
    assert listed == third_party


def test_compose_runs_the_whole_system_without_privileges() -> None:
    """On the loopback address, read-only, its data on volumes."""
    services = yaml.safe_load((_DOCKER / "compose.yaml").read_text())["services"]
    assert set(services) == {"valkey", "warmfleet"}
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in services["valkey"]["ports"])


def test_the_bill_of_materials_names_what_is_installed() -> None:
    """With versions, in order."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("sbom", _DOCKER / "sbom.py")
    assert spec is not None
    assert spec.loader is not None
    sbom = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sbom)
    bill = sbom.bill()
    names = [component["name"] for component in bill["components"]]
    assert names == sorted(names)
    assert {"pydantic", "pynacl", "warmfleet"} <= set(names)
