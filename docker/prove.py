"""
Runs the Dockerfile's steps without a container engine: each stage in a Debian root of its own, made by debootstrap.

`sudo python3 docker/prove.py [--keep DIR] [TARGET …]`. Needs root, `debootstrap`, and a Debian mirror and package index as this machine has them configured.
What it proves: that every COPY finds its files, that every RUN ends well, and that the program of each target starts as the image's user. What it does
not: the base image itself (a Debian with Python stands for it), and what only an engine checks. Exit code 77 where it cannot run at all.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGETS = (
    "gameserver",
    "matchmaker",
    "director",
    "allocator",
    "autoscaler",
    "events",
    "console",
    "beacon",
    "admission",
    "up",
)
CANNOT = 77
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
PACKAGES = "python3,python3-venv,python3-pip,ca-certificates,util-linux"


@dataclass
class Stage:
    """One FROM and what follows it."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)


def parse(text: str) -> dict[str, Stage]:
    """Instructions by stage; continued lines joined, comments dropped."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    stages: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    current: Stage | None = None
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, rest = line.split(None, 1)
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            current = stages[name] = Stage(name, arguments.get(base.strip("${}"), base))
        elif current is None:
            name, _, value = rest.partition("=")
            arguments[name] = value
        else:
            current.steps.append((word, rest))
    return stages


class Prover:
    """Builds stages, each once."""

    def __init__(self, context: Path, work: Path) -> None:
        self.context, self.work = context, work
        self.stages = parse((HERE / "Dockerfile").read_text(encoding="utf-8"))
        self.built: dict[str, Built] = {}
        self.environment = pip_settings()

    def build(self, name: str) -> "Built":
        """A stage and those before it."""
        if name in self.built:
            return self.built[name]
        stage = self.stages.get(name)
        if stage is None:  # the base image
            built = Built(self.debian(), {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"})
        else:
            below = self.build(stage.base)
            root = self.work / name
            shutil.rmtree(root, ignore_errors=True)
            subprocess.run(["cp", "-a", "--reflink=auto", below.root, root], check=True)
            built = Built(
                root, dict(below.environment), below.directory, below.user, list(below.entrypoint), list(below.command)
            )
            for word, rest in stage.steps:
                print(f"  {name}: {word} {rest[:110]}", flush=True)
                self.step(built, word, rest)
        self.built[name] = built
        return built

    def debian(self) -> Path:
        """A Debian with Python where the official image has one: `python` on the path."""
        root = self.work / "debian"
        if (root / "usr/local/bin/python").exists():
            return root  # of an earlier run with --keep
        print("  debootstrap", flush=True)
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root), *mirror()]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        (root / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink(missing_ok=True)
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        shutil.copy("/etc/hosts", root / "etc/hosts")
        if AUTHORITIES.is_file():  # with those of a proxy that this machine trusts
            shutil.copyfile(AUTHORITIES, root / str(AUTHORITIES).lstrip("/"))
        return root

    def step(self, built: "Built", word: str, rest: str) -> None:
        match word:
            case "ENV":
                for part in shlex.split(rest):
                    name, _, value = part.partition("=")
                    built.environment[name] = re.sub(r"\$(\w+)", lambda m: built.environment.get(m[1], ""), value)
            case "WORKDIR":
                built.directory = rest
                (built.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "USER":
                built.user = rest
            case "COPY":
                self.copy(built, rest)
            case "RUN":
                built.run(["sh", "-c", rest], self.environment)
            case "CMD":
                built.command = json.loads(rest)
            case "ENTRYPOINT":
                built.entrypoint, built.command = json.loads(rest), []
            case "ARG" | "LABEL" | "EXPOSE" | "VOLUME":
                pass
            case _:
                raise SystemExit(f"{word}: this prover does not know that instruction")

    def copy(self, built: "Built", rest: str) -> None:
        parts = shlex.split(rest)
        source = self.context
        if parts[0].startswith("--from="):
            source = self.build(parts.pop(0).removeprefix("--from=")).root
        *names, to = parts
        target = built.root / (to if to.startswith("/") else f"{built.directory}/{to}").lstrip("/")
        for name in names:
            origin = source / name.lstrip("/")
            if not origin.exists():
                raise SystemExit(f"COPY {name}: is not there")
            if origin.is_dir():
                shutil.copytree(
                    origin, target, dirs_exist_ok=True, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
                )
            else:
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy2(origin, target / origin.name)


@dataclass
class Built:
    """A stage's root and how programs run in it."""

    root: Path
    environment: dict[str, str]
    directory: str = "/"
    user: str = ""
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def run(
        self, command: list[str], extra: dict[str, str] | None = None, *, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """In its root, as its user, in its folder."""
        uid, _, gid = self.user.partition(":")
        drop = ["setpriv", f"--reuid={uid}", f"--regid={gid or uid}", "--clear-groups", "--no-new-privs"] if uid else []
        inner = f"cd {shlex.quote(self.directory)} && exec {shlex.join(command)}"
        whole = ["chroot", str(self.root), *drop, "sh", "-c", inner]
        return subprocess.run(
            whole, env={**self.environment, **(extra or {})}, check=check, text=True, capture_output=not check
        )


def smoke(target: str, built: Built) -> Iterator[str]:
    """What is wrong with a finished target."""
    if not built.user or built.user.startswith("0"):
        yield "runs as root"
    if target == "gameserver":
        found = built.run(["python", "-c", "import gameserver.process, gameserver.games.arena"], check=False)
        if found.returncode:
            yield f"does not start: {found.stderr[-400:]}"
        for unwanted in ("fastapi", "kubernetes", "pydantic", "fleets"):
            if built.run(["python", "-c", f"import {unwanted}"], check=False).returncode == 0:
                yield f"has {unwanted}, which a game server does not need"
        silent = built.run(built.command, check=False)
        if silent.returncode == 0 or "WARMFLEET_GAME" not in silent.stderr + silent.stdout:
            yield f"does not say what it lacks: {silent.stderr[-400:]}"
    else:
        verb = built.command[0]
        found = built.run([*built.entrypoint, verb, "--help"], check=False)
        if found.returncode:
            yield f"does not start: {found.stderr[-400:]}"
    bill = json.loads((built.root / "opt/warmfleet/sbom.cdx.json").read_text(encoding="utf-8"))
    if len(bill["components"]) < 8:
        yield "its bill of materials is empty"


def pip_settings() -> dict[str, str]:
    """This machine's package index, for pip inside."""
    found = subprocess.run([sys.executable, "-m", "pip", "config", "list"], text=True, capture_output=True, check=False)
    settings = {}
    for line in found.stdout.splitlines():
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2].upper().replace("-", "_")
        if name in ("INDEX_URL", "EXTRA_INDEX_URL", "TRUSTED_HOST", "PROXY", "CERT"):
            settings[f"PIP_{name}"] = value.strip("'\"")
    return settings | {
        key: value for key, value in os.environ.items() if key.startswith("PIP_") or key.lower().endswith("_proxy")
    }


def mirror() -> list[str]:
    """The Debian mirror that apt uses here."""
    found = subprocess.run(["apt-cache", "policy"], text=True, capture_output=True, check=False)
    addresses = re.findall(r"\s(https?://\S+) bookworm/main", found.stdout)
    return addresses[:1]


def main() -> None:
    """Build and try the targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", default=list(TARGETS))
    parser.add_argument("--keep", type=Path, help="work here and leave the roots")
    options = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        print("cannot run here: root and debootstrap (apt-get install debootstrap) are wanted", file=sys.stderr)
        sys.exit(CANNOT)
    work = options.keep or Path(tempfile.mkdtemp(prefix="warmfleet-prove-"))
    work.mkdir(parents=True, exist_ok=True)
    problems = []
    try:
        prover = Prover(HERE.parent, work)
        for target in options.targets:
            print(f"{target}:", flush=True)
            problems += [f"{target}: {problem}" for problem in smoke(target, prover.build(target))]
    finally:
        if options.keep is None:
            shutil.rmtree(work, ignore_errors=True)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(options.targets)} targets, {len(problems)} problems")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
