"""
A second host: a network namespace joined to this one by a wire that loses, delays or cuts what goes over it.

The wire is two TUN devices whose packets a thread of ours carries: whole IP packets of the kernel's own TCP, lost by a seeded generator, and no
`netem` in the kernel is needed. Wants root.
"""

import contextlib
import fcntl
import heapq
import os
import random
import select
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.chaos.host import run

_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x0001 | 0x1000
_MOST = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a server runs."""

    address: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()
    """Of its command."""


class Wire(threading.Thread):
    """Carries packets both ways; `loss` (0 to 1) and `delay_s` may be set at any time."""

    def __init__(self, ends: tuple[int, int], seed: int) -> None:
        super().__init__(name="wire", daemon=True)
        self._ends = ends
        self._rng = random.Random(seed)
        self._ended = False
        self.loss = 0.0
        self.delay_s = 0.0

    def run(self) -> None:
        """Until `end`."""
        under_way: list[tuple[float, int, int, bytes]] = []
        count = 0
        while not self._ended:
            wait_s = min(0.1, max(0.0, under_way[0][0] - time.monotonic())) if under_way else 0.1
            for end in select.select(self._ends, [], [], wait_s)[0]:
                packet = os.read(end, _MOST)
                if self._rng.random() >= self.loss:
                    count += 1  # in order, unless the delay has just become less
                    other = self._ends[1] if end == self._ends[0] else self._ends[0]
                    heapq.heappush(under_way, (time.monotonic() + self.delay_s, count, other, packet))
            while under_way and under_way[0][0] <= time.monotonic():
                _, _, end, packet = heapq.heappop(under_way)
                with contextlib.suppress(OSError):  # a device that is full drops, as any does
                    os.write(end, packet)

    def end(self) -> None:
        """Carry nothing more."""
        self._ended = True
        self.join()


@contextlib.contextmanager
def second_host(seed: int, skipped: dict[str, str]) -> Iterator[tuple[list[Place], Wire | None]]:
    """This host and another, and the wire between; this one alone and None, and why in `skipped`, where that cannot be."""
    name = f"wf-chaos-{os.getpid()}"
    net = f"10.213.{os.getpid() % 250 + 1}"
    here, there = Place(address=f"{net}.1"), Place(address=f"{net}.2", prefix=("ip", "netns", "exec", name))
    with contextlib.ExitStack() as stack:
        try:
            ends = (_tun(f"wfa{os.getpid() % 10**6}", stack), _tun(f"wfb{os.getpid() % 10**6}", stack))
            _made("ip", "netns", "add", name)
            stack.callback(run, "ip", "netns", "del", name)
            _made("ip", "link", "set", ends[1][0], "netns", name)
            for place, other, device in ((here, there, ends[0][0]), (there, here, ends[1][0])):
                _made(*place.prefix, "ip", "addr", "add", place.address, "peer", other.address, "dev", device)
                _made(*place.prefix, "ip", "link", "set", device, "up")
            _made(*there.prefix, "ip", "link", "set", "lo", "up")
        except OSError as error:
            skipped["network between hosts"] = f"no second host: {error}"
            yield [Place()], None
            return
        wire = Wire((ends[0][1], ends[1][1]), seed)
        wire.start()
        stack.callback(wire.end)
        yield [here, there], wire


def _tun(name: str, stack: contextlib.ExitStack) -> tuple[str, int]:
    end = os.open("/dev/net/tun", os.O_RDWR)
    stack.callback(os.close, end)
    fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN_NO_PI))
    return name, end


def _made(*command: str) -> None:
    if failed := run(*command):
        raise OSError(f"{' '.join(command)}: {failed}")
