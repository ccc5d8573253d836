"""Serve a fake Agones for other programs: `PYTHONPATH=tests python -m agones_fake --folder DIR --fleet arena=3`."""

import argparse
import asyncio
from pathlib import Path

from agones_fake import FakeAgones, Timing


async def _main(folder: Path, fleets: list[str], timing: Timing) -> None:
    async with FakeAgones(folder, timing) as fake:
        for fleet in fleets:
            name, _, count = fleet.partition("=")
            await fake.add_fleet(name, int(count or 1))
        print(f"kubeconfig {fake.kubeconfig}")
        print(f"grpc {fake.grpc_address}, certificates in {fake.certificates.folder}", flush=True)
        await asyncio.Event().wait()


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--folder", type=Path, required=True)
parser.add_argument("--fleet", action="append", default=[], metavar="NAME=READY")
parser.add_argument("--real", action="store_true", help="Agones' own waits")
options = parser.parse_args()
try:
    asyncio.run(_main(options.folder, options.fleet, Timing.real() if options.real else Timing()))
except KeyboardInterrupt:
    pass
