"""What encryption takes of a UDP server's CPU, and the floor under it: the same datagrams by plain sendmmsg."""

import socket
import statistics
import time
from collections.abc import Callable

from bench.gameserver.load import INPUTS_PER_S
from bench.report import Report
from gameserver.protocol.netcode import packets as p
from gameserver.protocol.netcode.crypto import make_cipher
from gameserver.protocol.netcode.rows import Rows
from gameserver.transports.datagrams import MOST_SENT, open_datagrams

RATE_HZ = 30
_INPUT_BYTES = 26
"""Of an Input that repeats the three before."""
_COUNT = 400


def measure(report: Report, players: int, cpu: float, snapshot_bytes: float) -> None:
    """Add the rows. `cpu`: cores that the server took with so many players; `snapshot_bytes`: of one snapshot."""
    size = min(round(snapshot_bytes), p.MAX_PAYLOAD_BYTES)
    sealed_s, opened_s = _crypto_s(size)
    share = players * (RATE_HZ * sealed_s + INPUTS_PER_S * opened_s) / cpu
    report.add(f"  sealing {size} bytes / opening {_INPUT_BYTES}", f"{sealed_s * 1e6:.2f} / {opened_s * 1e6:.2f}", "µs")
    report.add(f"  encryption's share of UDP's CPU, {players} players", 100 * share, "%")
    floor_s = _sendmmsg_s(players, size + 25)
    report.add(f"  plain sendmmsg of the same datagrams, {players} players", 100 * RATE_HZ * floor_s, "% of a core")


def _crypto_s(size: int) -> tuple[float, float]:
    """Seconds for sealing one of a tick's packets, and for opening one input, as the server does it."""
    cipher, associated = make_cipher(bytes(32)), p.associated_data(1)
    out, snapshot, inputs = Rows(_COUNT), bytes(size), Rows(_COUNT)

    def seal_all() -> None:
        p.seal_rows([(None, p.PAYLOAD, k, b"", snapshot, cipher) for k in range(_COUNT)], out, associated)

    sizes = p.seal_rows(
        [(None, p.PAYLOAD, k, b"", bytes(_INPUT_BYTES), cipher) for k in range(_COUNT)], inputs, associated
    )

    def open_all() -> None:
        opened: list[tuple[p.Reader, bytes]] = []
        readers = (p.Reader(cipher),) * _COUNT
        ignored = list(p.unseal_rows(inputs, sizes, readers, associated, p.SERVER_READS, 0.0, opened.append))
        assert (len(opened), ignored) == (_COUNT, [])

    return _best(seal_all, _COUNT), _best(open_all, _COUNT)


def _best(do: Callable[[], object], count: int) -> float:
    took = []
    for _ in range(9):
        begun_s = time.process_time()
        do()
        took.append(time.process_time() - begun_s)
    return statistics.median(took) / count


def _sendmmsg_s(players: int, size: int) -> float:
    """One tick's datagrams, to as many sockets, which are emptied in between."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(players)]
    try:
        for one in (server, *clients):
            one.setblocking(False)
            one.bind(("127.0.0.1", 0))
        sender = open_datagrams(server)
        peers = []
        for client in clients:
            client.sendto(b"here", server.getsockname())
            peers += sender.receive()[0]
        took = []
        for _ in range(60):
            begun_s = time.process_time()
            for start in range(0, players, MOST_SENT):
                batch = peers[start : start + MOST_SENT]
                sender.send(batch, [size] * len(batch))
            took.append(time.process_time() - begun_s)
            for client in clients:
                client.recv(2048)
        return statistics.median(took)
    finally:
        for one in (server, *clients):
            one.close()
