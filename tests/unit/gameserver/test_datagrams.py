"""Datagrams in batches and one by one: the same to whoever uses them."""

import select
import socket
from collections.abc import Iterator

import pytest

from gameserver.transports.datagrams import MOST_READ, MOST_SENT, Datagrams, Peer, open_datagrams

LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def bound(family: socket.AddressFamily) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    try:
        made.bind((LOOPBACK[family], 0))
    except OSError:
        made.close()
        pytest.skip("no IPv6 here")
    return made


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = bound(request.param), bound(request.param)
    yield here, there
    here.close()
    there.close()


def taken(side: Datagrams) -> list[tuple[bytes, Peer]]:
    """What has come, as (datagram, peer)."""
    peers, sizes = side.receive()
    return [(side.inbox.get(index, size), peer) for index, (peer, size) in enumerate(zip(peers, sizes, strict=True))]


def sent(side: Datagrams, out: list[tuple[bytes, Peer]]) -> int:
    """Send datagrams; returns how many the kernel did not take."""
    lost = 0
    for begin in range(0, len(out), MOST_SENT):
        batch = out[begin : begin + MOST_SENT]
        for start, (data, _) in zip(side.outbox.starts, batch, strict=False):
            side.outbox.view[start : start + len(data)] = data
        lost += side.send([peer for _, peer in batch], [len(data) for data, _ in batch])
    return lost


def all_of(side: Datagrams, bound_to: socket.socket, count: int) -> list[tuple[bytes, Peer]]:
    found: list[tuple[bytes, Peer]] = []
    while len(found) < count:
        assert select.select([bound_to], [], [], 10)[0], f"{len(found)} of {count} came"
        found += taken(side)
    return found


@pytest.mark.parametrize("kind", [open_datagrams, Datagrams], ids=["best", "plain"])
@pytest.mark.parametrize("count", [1, 8, 9, 300, 1100])
def test_there_and_back(pair: tuple[socket.socket, socket.socket], kind: type[Datagrams], count: int) -> None:
    """Datagrams of every size arrive whole, in order, each with an address that answers reach and that tells its host."""
    here, there = pair
    server, client = kind(here), Datagrams(there)
    said = [bytes((k % 256,)) * (1 + k % 1200) for k in range(count)]
    for part in range(0, count, 100):
        part_of = said[part : part + 100]
        assert sent(client, [(data, here.getsockname()) for data in part_of]) == 0
        got = all_of(server, here, len(part_of))
        assert [data for data, _ in got] == part_of
        assert len({peer for _, peer in got}) == 1
        assert server.host(got[0][1]) == LOOPBACK[there.family]
        assert sent(server, got) == 0
        assert [data for data, _ in all_of(client, there, len(got))] == part_of
    assert taken(server) == []


@pytest.mark.parametrize("kind", [open_datagrams, Datagrams], ids=["best", "plain"])
def test_a_tick_to_many(kind: type[Datagrams]) -> None:
    """A batch longer than one call goes out whole; a peer that cannot be reached costs its own datagrams alone."""
    here, there = bound(socket.AF_INET), bound(socket.AF_INET)
    server = kind(here)
    there.sendto(b"hello", here.getsockname())
    [(_, peer)] = all_of(server, here, 1)
    # Not allowed without SO_BROADCAST.
    nowhere = peer[:2] + b"\0\x09" + b"\xff" * 4 + peer[8:] if isinstance(peer, bytes) else ("255.255.255.255", 9)
    out = [(k.to_bytes(2, "little"), nowhere if k % 50 == 7 else peer) for k in range(1500)]
    wanted = [data for data, to in out if to != nowhere]
    assert sent(server, out) == 30
    assert [data for data, _ in all_of(Datagrams(there), there, len(wanted))] == wanted
    here.close()
    there.close()


@pytest.mark.parametrize("kind", [open_datagrams, Datagrams], ids=["best", "plain"])
def test_peers_are_told_apart(kind: type[Datagrams]) -> None:
    """Datagrams of many sockets read in one go each have their own peer, and each answer finds its own."""
    here = bound(socket.AF_INET)
    server = kind(here)
    strangers = [bound(socket.AF_INET) for _ in range(40)]
    for number, stranger in enumerate(strangers):
        stranger.sendto(bytes((number,)), here.getsockname())
    got = all_of(server, here, 40)
    assert len({peer for _, peer in got}) == 40
    assert sent(server, got) == 0
    assert [stranger.recv(10) for stranger in strangers] == [bytes((number,)) for number in range(40)]
    for each in (here, *strangers):
        each.close()


@pytest.mark.parametrize("kind", [open_datagrams, Datagrams], ids=["best", "plain"])
def test_a_look_is_bounded(kind: type[Datagrams]) -> None:
    """At most so many are taken at a time, and what is too long to be valid is cut, not refused."""
    here, there = bound(socket.AF_INET), bound(socket.AF_INET)
    for _ in range(MOST_READ + 5):
        there.sendto(bytes(1500), here.getsockname())
    server = kind(here)
    first = taken(server)
    assert len(first) == MOST_READ
    assert {1225 < len(data) <= 1500 for data, _ in first} == {True}
    assert len(taken(server)) == 5
    here.close()
    there.close()
