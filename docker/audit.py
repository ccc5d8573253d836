"""
Looks every pinned dependency up in the advisory database of the Python Packaging Authority, by pip-audit: `make audit`.

Exit code 0: none is known to be vulnerable; 1: some are; 3: the database could not be asked about some or all, so that nothing is known. With `--gate`
(`make check`) the last is said aloud and passes: a gate must not fail for a network.
"""

import json
import subprocess
import sys
from pathlib import Path

PINNED = Path(__file__).parents[1] / "constraints.txt"
VULNERABLE, UNKNOWN = 1, 3


def judge(report: str, errors: str) -> tuple[int, list[str]]:
    """From pip-audit's JSON and its standard error to an exit code and what to tell."""
    try:
        dependencies = json.loads(report)["dependencies"]
    except (ValueError, KeyError):
        last = errors.strip().splitlines()[-1] if errors.strip() else "pip-audit said nothing"
        return UNKNOWN, [f"not audited: {last}"]
    told, code = [], 0
    for dependency in dependencies:
        for found in dependency.get("vulns", ()):
            code = VULNERABLE
            fixed = ", ".join(found["fix_versions"]) or "no release yet"
            told.append(f"{dependency['name']} {dependency['version']}: {found['id']}, fixed in: {fixed}")
    skipped = [dependency["name"] for dependency in dependencies if "skip_reason" in dependency]
    if skipped:
        told.append(
            f"not audited: {len(skipped)} of {len(dependencies)}, the advisory service does not know or cannot be reached: "
            f"{', '.join(skipped[:5])}{', …' if len(skipped) > 5 else ''}"
        )
    told.append(f"{len(dependencies) - len(skipped)} of {len(dependencies)} pinned packages were looked up")
    return code or (UNKNOWN if skipped else 0), told


def gate(code: int) -> tuple[int, str]:
    """What a gate makes of a code, and what it says."""
    if code == UNKNOWN:
        return 0, "AUDIT: NOT KNOWN. The advisory service could not be asked; run `make audit` where it can be."
    return code, "AUDIT: FAILED. Known vulnerabilities." if code else "AUDIT: none is known to be vulnerable."


def main() -> None:
    """Ask, tell, and end with the code."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(PINNED), "--no-deps", "--disable-pip", "-f", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    code, told = judge(done.stdout, done.stderr)
    if "--gate" in sys.argv[1:]:
        code, last = gate(code)
        told.append(last)
    print("\n".join(told))
    sys.exit(code)


if __name__ == "__main__":
    main()
