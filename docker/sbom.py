"""Writes what is installed beside this interpreter as a CycloneDX bill of materials: `python sbom.py FILE`."""

import json
import sys
from importlib.metadata import distributions
from pathlib import Path


def bill() -> dict[str, object]:
    """CycloneDX 1.5, components in the order of their names, the same for the same installation."""
    found = {d.metadata["Name"].lower().replace("_", "-"): d for d in distributions()}
    components = [
        {
            "type": "library",
            "name": name,
            "version": d.version,
            "purl": f"pkg:pypi/{name}@{d.version}",
            **(
                {"licenses": [{"expression": d.metadata["License-Expression"]}]}
                if d.metadata["License-Expression"]
                else {}
            ),
        }
        for name, d in sorted(found.items())
    ]
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": components}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(bill(), indent=1), encoding="utf-8")
