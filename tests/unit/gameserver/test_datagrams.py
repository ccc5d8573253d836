"""Datagrams in batches and one by one: the same to whoever uses them."""

import select
import socket
from collections.abc import Iterator

import pytest

from gameserver.transports import datagrams
from gameserver.transports.datagrams import MOST_READ, Datagrams, open_datagrams

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


def all_of(side: Datagrams, bound_to: socket.socket, count: int) -> list[tuple[bytes, tuple[object, ...]]]:
    found: list[tuple[bytes, tuple[object, ...]]] = []
    while len(found) < count:
        assert select.select([bound_to], [], [], 10)[0], f"{len(found)} of {count} came"
        found += side.receive()
    return found


@pytest.mark.parametrize("kind", [open_datagrams, Datagrams], ids=["best", "plain"])
@pytest.mark.parametrize("count", [1, 8, 9, 300, 1100])
def test_there_and_back(pair: tuple[socket.socket, socket.socket], kind: type[Datagrams], count: int) -> None:
    """Datagrams of every size arrive whole, in order, with an address that answers reach."""
    here, there = pair
    server, client = kind(here), Datagrams(there)
    sent = [bytes((k % 256,)) * (1 + k % 1200) for k in range(count)]
    for part in range(0, count, 100):
        assert client.send([(here.getsockname(), data) for data in sent[part : part + 100]]) == 0
        got = all_of(server, here, len(sent[part : part + 100]))
        assert [data for data, _ in got] == sent[part : part + 100]
        assert {peer for _, peer in got} == {there.getsockname()}
        assert server.send([(peer, data) for data, peer in got]) == 0
        assert [data for data, _ in all_of(client, there, len(got))] == sent[part : part + 100]
    assert server.receive() == []


@pytest.mark.parametrize("kind", [open_datagrams, Datagrams], ids=["best", "plain"])
def test_a_tick_to_many(kind: type[Datagrams]) -> None:
    """A batch longer than one call goes out whole; a peer that cannot be reached costs its own datagrams alone."""
    here, there = bound(socket.AF_INET), bound(socket.AF_INET)
    nowhere = ("255.255.255.255", 9)  # not allowed without SO_BROADCAST
    out = [(nowhere if k % 50 == 7 else there.getsockname(), k.to_bytes(2, "little")) for k in range(1500)]
    wanted = [data for peer, data in out if peer != nowhere]
    assert kind(here).send(out) == 30
    assert [data for data, _ in all_of(Datagrams(there), there, len(wanted))] == wanted
    here.close()
    there.close()


def test_more_peers_than_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood from forged addresses does not grow what is kept of peers."""
    monkeypatch.setattr(datagrams, "_MOST_PEERS", 16)
    here = bound(socket.AF_INET)
    server = open_datagrams(here)
    strangers = [bound(socket.AF_INET) for _ in range(40)]
    for stranger in strangers:
        stranger.sendto(b"hello", here.getsockname())
    got = all_of(server, here, 40)
    assert {peer for _, peer in got} == {stranger.getsockname() for stranger in strangers}
    assert server.send([(peer, b"you") for _, peer in got]) == 0
    assert {stranger.recv(10) for stranger in strangers} == {b"you"}
    assert len(getattr(server, "_peers", ())) <= 16
    for each in (here, *strangers):
        each.close()


def test_a_look_is_bounded() -> None:
    """At most so many are taken at a time, and what is too long to be valid is cut, not refused."""
    here, there = bound(socket.AF_INET), bound(socket.AF_INET)
    for _ in range(MOST_READ + 5):
        there.sendto(bytes(1500), here.getsockname())
    server = open_datagrams(here)
    first = server.receive()
    assert len(first) == MOST_READ
    assert {1225 < len(data) <= 1500 for data, _ in first} == {True}
    assert len(server.receive()) == 5
    here.close()
    there.close()
