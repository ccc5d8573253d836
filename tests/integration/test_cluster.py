"""The store client with a Cluster: functions, plain commands and channels find the primary that has their keys, and find it again when it changes."""

import asyncio
import os
import random
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
from agones_fake import Certificates
from redis.asyncio.connection import SSLConnection
from valkeys import Cluster, Name, Valkey

from gameserver.sessions.client import StoreClient, connect, listen
from gameserver.sessions.cluster import together
from gameserver.sessions.library import FunctionLibrary
from gameserver.sessions.port import StoreUnavailable

ACL = Path(__file__).parents[2] / "docs" / "valkey.acl"
CODE = """#!lua name=probe
redis.register_function('probe_add', function(keys, args)
  redis.call('PUBLISH', keys[1] .. 'news', args[1])
  return redis.call('INCRBY', keys[1] .. 'count', args[1])
end)
"""
PREFIXES = [f"wf:{{{name}}}:" for name in ("a", "b", "c", "d")]
"""All three primaries have some."""


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """For tests that leave its slots where they are."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def shaken(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path / "cluster") as cluster:
        yield cluster


@pytest.fixture
async def client(steady: Cluster) -> AsyncIterator[StoreClient]:
    for node in steady.nodes[:3]:
        node.ask("FLUSHALL")
    async with aclosing(connect(steady.url)) as client:
        yield client


def library_of(client: StoreClient, folder: Path) -> FunctionLibrary:
    path = folder / "probe.lua"
    path.write_text(CODE)
    return FunctionLibrary(client, path)


async def patiently(library: FunctionLibrary, prefix: str, count: int = 1) -> int:
    """Call again until the store answers."""
    async with asyncio.timeout(30):
        while True:
            try:
                return int(await library.call("probe_add", [prefix], count))
            except StoreUnavailable:
                await asyncio.sleep(0.05)


async def test_what_is_asked_goes_where_its_keys_are(steady: Cluster, client: StoreClient, tmp_path: Path) -> None:
    """Functions that write keys not named, plain commands, reads of several primaries in one go, and each primary's own clock."""
    library = library_of(client, tmp_path)
    assert len({steady.holder(prefix).port for prefix in PREFIXES}) == 3
    for at, prefix in enumerate(PREFIXES, 1):
        assert await library.call("probe_add", [prefix], at) == at
        assert await library.call("probe_add", [prefix], at, replicas=1) == 2 * at
        assert steady.holder(prefix).ask("GET", prefix + "count") == str(2 * at).encode()
        assert abs(await client.clock_s(prefix) - steady.holder(prefix).ask("TIME")[0]) < 60
    looks = [("GET", prefix + "count") for prefix in PREFIXES]
    assert await client.fetch_all(looks) == [b"2", b"4", b"6", b"8"]
    await client.xgroup_create("wf:{a}:log", "readers", mkstream=True)
    await client.xadd("wf:{a}:log", {"a": 1})
    rows = await client.xreadgroup("readers", "one", {"wf:{a}:log": ">"}, block=100)
    assert len(rows) == 1
    assert await client.ping()
    assert (await client.info())["connected_slaves"] == 3
    with pytest.raises(NotImplementedError, match="primaries"):
        await client.flushall()


async def test_cancelled_calls_disturb_no_others(steady: Cluster, tmp_path: Path) -> None:
    """Cut off anywhere, also while the map is read: the task ends, and whoever asks next gets its own reply."""
    rng = random.Random(1)
    for _ in range(40):
        async with aclosing(connect(steady.url)) as client:
            library = library_of(client, tmp_path)

            async def work(library: FunctionLibrary = library, client: StoreClient = client) -> None:
                while True:
                    await library.call("probe_add", [PREFIXES[0]], 0)
                    await client.fetch_all([("GET", prefix + "count") for prefix in PREFIXES])

            tasks = [asyncio.create_task(work()) for _ in range(3)]
            await asyncio.sleep(rng.random() * 0.02)
            for task in tasks:
                task.cancel()
            done, _ = await asyncio.wait(tasks, timeout=5)
            assert [task.cancelled() for task in done] == [True] * 3
            for prefix in PREFIXES:
                await client.set(prefix + "own", prefix)
            looks = [("GET", prefix + "own") for prefix in PREFIXES]
            assert await client.fetch_all(looks) == [prefix.encode() for prefix in PREFIXES]


async def test_messages_of_all_primaries_are_heard(client: StoreClient, tmp_path: Path) -> None:
    """By one listener, whichever primary has a channel's keys."""
    library = library_of(client, tmp_path)
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    subscribed = asyncio.Semaphore(0)
    channels = [prefix + "news" for prefix in PREFIXES]
    listening = asyncio.create_task(listen(client, channels, heard.put_nowait, subscribed=subscribed.release))
    async with asyncio.timeout(20):
        await subscribed.acquire()
        for at, prefix in enumerate(PREFIXES):
            await library.call("probe_add", [prefix], at)
            assert await heard.get() == str(at).encode()
        assert await client.publish(channels[0], b"plain") == 1
        assert await heard.get() == b"plain"
    listening.cancel()
    await asyncio.wait([listening])


async def test_a_library_lost_by_one_primary_is_loaded_again(
    steady: Cluster, client: StoreClient, tmp_path: Path
) -> None:
    """By the call that misses it."""
    library = library_of(client, tmp_path)
    assert await library.call("probe_add", [PREFIXES[0]], 1) == 1
    steady.holder(PREFIXES[0]).ask("FUNCTION", "FLUSH")
    assert await library.call("probe_add", [PREFIXES[0]], 1) == 2


async def test_a_slot_that_is_moved_is_followed(shaken: Cluster, tmp_path: Path) -> None:
    """Whole, under calls: each counts once, and whoever keeps what it knows of the store is told that another answers."""
    prefix = PREFIXES[0]
    source = shaken.holder(prefix)
    target = next(node for node in shaken.nodes[:3] if node is not source)
    slot = source.ask("CLUSTER", "KEYSLOT", prefix)
    async with aclosing(connect(shaken.url)) as client:
        library = library_of(client, tmp_path)
        for other in PREFIXES:
            assert await library.call("probe_add", [other], 1) == 1
        before = client.connections
        source.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.ask("CLUSTER", "MYID"))
        count = 1
        async with asyncio.timeout(30):
            while shaken.holder(prefix) is not target or count < 50:
                count += 1
                assert await patiently(library, prefix) == count
        assert await patiently(library, prefix) == count + 1
        assert target.ask("GET", prefix + "count") == str(count + 1).encode()
        assert client.connections != before
        assert await client.get(prefix + "count") == str(count + 1).encode()
        assert await client.fetch_all([("GET", p + "count") for p in PREFIXES[:2]]) == [str(count + 1).encode(), b"1"]


async def test_a_slot_that_is_moved_key_by_key_is_waited_for(shaken: Cluster, tmp_path: Path) -> None:
    """A function sees all of its keys or does not run: half of them are elsewhere."""
    prefix = PREFIXES[0]
    source = shaken.holder(prefix)
    target = next(node for node in shaken.nodes[:3] if node is not source)
    slot = source.ask("CLUSTER", "KEYSLOT", prefix)
    async with aclosing(connect(shaken.url)) as client:
        library = library_of(client, tmp_path)
        assert await library.call("probe_add", [prefix], 1) == 1
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.ask("CLUSTER", "MYID"))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.ask("CLUSTER", "MYID"))
        with pytest.raises(StoreUnavailable, match="key by key"):
            await library.call("probe_add", [prefix], 1)
        source.ask("CLUSTER", "SETSLOT", slot, "STABLE")
        assert await library.call("probe_add", [prefix], 1) == 2


async def test_a_killed_primarys_replica_goes_on(shaken: Cluster, tmp_path: Path) -> None:
    """With what replicas had confirmed; listeners are told that they may have missed something, and hear again."""
    prefix = PREFIXES[0]
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    subscribed = asyncio.Semaphore(0)
    async with aclosing(connect(shaken.url)) as client:
        library = library_of(client, tmp_path)
        channels = [each + "news" for each in PREFIXES]
        listening = asyncio.create_task(listen(client, channels, heard.put_nowait, subscribed=subscribed.release))
        assert await library.call("probe_add", [prefix], 1, replicas=1) == 1
        await subscribed.acquire()
        before, old = client.connections, shaken.holder(prefix)
        replica = shaken.replica_of(old)
        old.kill()
        assert await patiently(library, prefix) == 2
        assert client.connections != before
        assert replica.ask("GET", prefix + "count") == b"2"
        async with asyncio.timeout(20):
            await subscribed.acquire()
            assert await patiently(library, prefix, 5) == 7
            while await heard.get() != b"5":
                pass
        listening.cancel()
        await asyncio.wait([listening])
        old.start()
        Valkey.until(lambda: old.follows(replica))
        assert await patiently(library, prefix) == 8


async def test_a_primary_that_stands_still_is_left(shaken: Cluster, tmp_path: Path) -> None:
    """Its replica takes over, also for listeners; the one that wakes up later is nobody's primary any more."""
    prefix = PREFIXES[0]
    async with aclosing(connect(shaken.url)) as client:
        library = library_of(client, tmp_path)
        old = shaken.holder(prefix)
        replica = shaken.replica_of(old)
        assert await library.call("probe_add", [prefix], 1, replicas=1) == 1
        heard: asyncio.Queue[bytes] = asyncio.Queue()
        subscribed = asyncio.Semaphore(0)
        listening = asyncio.create_task(
            listen(client, [prefix + "news"], heard.put_nowait, subscribed=subscribed.release)
        )
        await subscribed.acquire()
        os.kill(old.pid, signal.SIGSTOP)
        try:
            assert await patiently(library, prefix) == 2
            async with asyncio.timeout(20):
                await subscribed.acquire()
                await client.publish(prefix + "news", "heard")
                while await heard.get() != b"heard":
                    pass
            assert replica.ask("GET", prefix + "count") == b"2"
        finally:
            os.kill(old.pid, signal.SIGCONT)
        Valkey.until(lambda: old.follows(replica))
        assert await patiently(library, prefix) == 3
        assert replica.ask("GET", prefix + "count") == b"3"
        listening.cancel()
        await asyncio.wait([listening])


async def test_a_shard_without_a_server_takes_no_other_with_it(shaken: Cluster, tmp_path: Path) -> None:
    """Its keys wait, everybody else's are served; libraries are loaded on those that are there."""
    lost = PREFIXES[0]
    others = [prefix for prefix in PREFIXES if shaken.holder(prefix) is not shaken.holder(lost)]
    for node in shaken.nodes:
        node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
    primary = shaken.holder(lost)
    replica = shaken.replica_of(primary)
    replica.kill()
    primary.kill()
    async with aclosing(connect(shaken.url)) as client:
        library = library_of(client, tmp_path)
        for prefix in others:
            assert await patiently(library, prefix) == 1
            assert await client.ping()
        with pytest.raises(StoreUnavailable):
            await library.call("probe_add", [lost], 1)
        assert await library.call("probe_add", [others[0]], 1) == 2
        primary.start()
        assert await patiently(library, lost) >= 1


async def test_the_least_access_is_enough(shaken: Cluster, tmp_path: Path) -> None:
    """The user of docs/valkey.acl, by a URL with its password: all that is asked of a Cluster is allowed."""
    (rules,) = (line.split()[2:] for line in ACL.read_text().splitlines() if line.startswith("user warmfleet"))
    for node in shaken.nodes:
        node.ask("ACL", "SETUSER", "warmfleet", *rules)
    url = shaken.url.replace("redis+cluster://", "redis+cluster://warmfleet:change-me@")
    async with aclosing(connect(url)) as client:
        library = library_of(client, tmp_path)
        subscribed = asyncio.Semaphore(0)
        channels = [prefix + "news" for prefix in PREFIXES]
        listening = asyncio.create_task(listen(client, channels, lambda _: None, subscribed=subscribed.release))
        async with asyncio.timeout(20):
            await subscribed.acquire()
        for prefix in PREFIXES:
            assert await library.call("probe_add", [prefix], 1, replicas=1) == 1
            assert await client.clock_s(prefix) > 0
        assert await client.fetch_all([("GET", prefix + "count") for prefix in PREFIXES]) == [b"1"] * len(PREFIXES)
        assert (await client.info())["connected_slaves"] == 3
        listening.cancel()
        await asyncio.wait([listening])
    assert not any(node.ask("ACL", "LOG") for node in shaken.nodes)


async def test_everything_goes_over_tls(shaken: Cluster, tmp_path: Path) -> None:
    """Doors that end TLS stand before the nodes, which tell clients of these: functions, commands and channels go through them alone."""
    certificates = Certificates(tmp_path / "certificates")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server.certificate, certificates.server.key)
    async with AsyncExitStack() as stack:
        doors = [await stack.enter_async_context(Name(node, tls=context).serving()) for node in shaken.nodes]
        for node, door in zip(shaken.nodes, doors, strict=True):
            node.ask("CONFIG", "SET", "cluster-announce-client-port", door.port)
        told = {door.port for door in doors[:3]}
        Valkey.until(lambda: all({row[2][1] for row in node.ask("CLUSTER", "SLOTS")} == told for node in shaken.nodes))
        url = f"rediss+cluster://127.0.0.1:{doors[0].port}?ssl_ca_certs={certificates.ca}"
        client = await stack.enter_async_context(aclosing(connect(url)))
        library = library_of(client, tmp_path)
        heard: asyncio.Queue[bytes] = asyncio.Queue()
        subscribed = asyncio.Semaphore(0)
        channels = [prefix + "news" for prefix in PREFIXES]
        listening = asyncio.create_task(listen(client, channels, heard.put_nowait, subscribed=subscribed.release))
        async with asyncio.timeout(20):
            await subscribed.acquire()
            for at, prefix in enumerate(PREFIXES):
                assert await library.call("probe_add", [prefix], at, replicas=1) == at
                assert await heard.get() == str(at).encode()
        assert await client.fetch_all([("GET", prefix + "count") for prefix in PREFIXES]) == [b"0", b"1", b"2", b"3"]
        listening.cancel()
        await asyncio.wait([listening])


def test_who_has_no_cluster_does_not_load_its_client() -> None:
    """Servers are many."""
    code = "import sys; from gameserver.sessions.client import connect; connect('redis://a'); print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "gameserver.sessions.client" in told.stdout.split()
    assert "gameserver.sessions.cluster" not in told.stdout.split()


def test_what_a_url_says_reaches_the_connections() -> None:
    """Login, TLS, hosts without a port and of IPv6."""
    client = connect("rediss+cluster://app:s%40fe@a,[::1]:7?ssl_ca_certs=ca.pem")
    pool = client.connection_pool
    assert issubclass(pool.connection_class, SSLConnection)
    wanted = {"host": "a", "port": 6379, "username": "app", "password": "s@fe", "ssl_ca_certs": "ca.pem"}
    assert {key: pool.connection_kwargs[key] for key in wanted} == wanted


def test_identifiers_of_digits_are_not_added_up() -> None:
    """An id of a replication may read as a number on one server and not on another."""
    infos = [
        {"used_memory": 1, "id": 12, "role": "master"},
        {"used_memory": 2, "id": "1f"},
        {"used_memory": 3, "id": 7},
    ]
    assert together(infos) == {"used_memory": 6, "id": 7, "role": "master"}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+cluster://:secret@host:port", "no host:port"),
        ("redis+cluster://:secret@", "at least one"),
        ("redis+cluster://:secret@host/3", "database 0"),
    ],
)
def test_a_wrong_url_is_told(url: str, said: str) -> None:
    """With the mend, and without the password."""
    with pytest.raises(ValueError, match=said) as failed:
        connect(url)
    assert "secret" not in str(failed.value)


async def test_a_cluster_by_a_plain_url_says_what_is_wanted(steady: Cluster, tmp_path: Path) -> None:
    """Most of its keys are elsewhere: what the URL must be is in the error."""
    foreign = next(prefix for prefix in PREFIXES if steady.holder(prefix) is not steady.nodes[0])
    async with aclosing(connect(steady.nodes[0].url)) as client:
        with pytest.raises(StoreUnavailable) as failed:
            await library_of(client, tmp_path).call("probe_add", [foreign], 1)
    assert "redis+cluster://" in str(failed.value.why)
