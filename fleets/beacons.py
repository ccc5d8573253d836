"""The beacons of a laptop: one for each region of its fleets, on this machine, so that measuring and signing can be tried."""

import hashlib
from collections.abc import Sequence
from contextlib import AsyncExitStack

from fleets.home import Home
from fleets.spec.fleet import FleetSpec
from matchmaker.beacons.beacon import Beacon
from matchmaker.beacons.regions import Region
from matchmaker.beacons.serving import udp
from matchmaker.beacons.tokens import LatencySigner


async def local_beacons(
    fleets: Sequence[FleetSpec], home: Home, host: str, url: str, stack: AsyncExitStack
) -> dict[Region, Beacon]:
    """Listen on free ports until `stack` ends; browsers find each at `path_of` of `url`. Raises OSError."""
    found: dict[Region, Beacon] = {}
    for name in sorted({fleet.metadata.labels.get("region", "") for fleet in fleets} - {""}):
        key = hashlib.sha256(home.secret("beacons") + name.encode()).digest()
        signer = LatencySigner(name, key)
        beacon = Beacon(signer)
        port = await stack.enter_async_context(udp(beacon, host, 0))
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        region = Region(region=name, udp=address, http=url + path_of(len(found)), key=signer.public_key)
        found[region] = beacon
    return found


def path_of(index: int) -> str:
    """Where the beacon of a region, by its place, is mounted."""
    return f"/beacons/{index}"
