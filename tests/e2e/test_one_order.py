"""Every client on every worker sees every broadcast, whole, once, in one order."""

import collections

import pytest

from harness import PATIENCE, Swarm, each_worker_count, transcript_hash, wait_until


def assert_one_transcript(swarm, count, expected_hash=None):
    report = swarm.report()
    transcripts = report["transcripts"]
    assert list(transcripts.values()) == [swarm.clients], f"not one transcript: {report}"
    (value, length), = transcripts
    assert length == count
    if expected_hash:
        assert value == expected_hash, "all saw something, but not what the observer saw"


@each_worker_count
def test_publishers_on_all_workers_and_the_console_make_one_order(crier, workers):
    server = crier("--no-welcome", "--on-message", "broadcast", workers=workers)
    with Swarm(server.address, 40) as swarm:
        observer = server.connect()
        writer = server.feed(b"".join(b"console-%d\n" % number for number in range(500)))
        for publisher in range(8):
            swarm.burst(publisher, 200, f"p{publisher}")
        texts = [observer.recv_text() for _ in range(2100)]
        swarm.expect(2100)
        writer.join()
        check_complete(texts, {**{f"p{publisher}": 200 for publisher in range(8)}, "console": 500})
        assert_one_transcript(swarm, 2100, transcript_hash(texts))


def check_complete(texts, counts):
    """From each source everything, once, in the source's own order."""
    by_source = collections.defaultdict(list)
    for text in texts:
        source, _, number = text.rpartition("-")
        by_source[source].append(int(number))
    assert set(by_source) == set(counts)
    for source, count in counts.items():
        assert by_source[source] == list(range(count)), f"{source}: lost, doubled or out of order"


@pytest.mark.limit(180)
def test_a_thousand_clients_on_four_workers_see_one_order_of_four_publishers_and_the_console(crier):
    server = crier("--no-welcome", "--on-message", "broadcast", "--slow-grace", "10", workers=4)
    with Swarm(server.address, 1000) as swarm:
        observer = server.connect(timeout=4 * PATIENCE)
        writer = server.feed(b"".join(b"console-%d\n" % number for number in range(500)))
        for publisher in range(4):
            swarm.burst(publisher, 500, f"p{publisher}")
        texts = [observer.recv_text() for _ in range(2500)]
        swarm.expect(2500, 120)
        writer.join()
        check_complete(texts, {"p0": 500, "p1": 500, "p2": 500, "p3": 500, "console": 500})
        assert_one_transcript(swarm, 2500, transcript_hash(texts))


def test_the_order_holds_over_many_laps_of_a_small_ring(crier):
    server = crier("--no-welcome", "--on-message", "broadcast", "--max-message", "16k", "--ring", "64k",
                   "--slow-grace", "30", workers=4)
    with Swarm(server.address, 16) as swarm:
        observer = server.connect()
        writer = server.feed(b"".join(b"%s-%d\n" % (b"c" * (number % 1000), number) for number in range(5000)))
        for publisher in range(4):
            swarm.burst(publisher, 5000, "p" * 50 + str(publisher))
        texts = [observer.recv_text() for _ in range(25000)]
        swarm.expect(25000)
        writer.join()
        assert_one_transcript(swarm, 25000, transcript_hash(texts))
        console = [text for text in texts if not text.startswith("p")]
        assert console == ["c" * (number % 1000) + f"-{number}" for number in range(5000)]


def test_a_sweep_over_many_clients_keeps_what_it_sends_in_a_ring_that_is_always_full(crier):
    """A sweep takes several turns of the loop; publishers wait for the room that it holds meanwhile."""
    server = crier("--no-welcome", "--on-message", "broadcast", "--max-message", "1k", "--ring", "4k",
                   "--slow-grace", "60", workers=2)
    with Swarm(server.address, 400) as swarm:
        observer = server.connect(timeout=4 * PATIENCE)
        for publisher in range(8):
            swarm.burst(publisher, 200, f"p{publisher}-{'.' * (50 * publisher)}")
        texts = [observer.recv_text() for _ in range(1600)]
        swarm.expect(1600)
        check_complete(texts, {f"p{publisher}-{'.' * (50 * publisher)}": 200 for publisher in range(8)})
        assert_one_transcript(swarm, 1600, transcript_hash(texts))


def test_a_client_that_pauses_sees_the_same_order_when_it_goes_on(crier):
    server = crier("--no-welcome", "--on-message", "broadcast", "--slow-grace", "60", workers=2)
    with Swarm(server.address, 10, "--rcvbuf", "4096") as swarm:
        swarm.stall(9)
        observer = server.connect()
        for publisher in range(2):
            swarm.burst(publisher, 3000, f"p{publisher}-{'.' * 300}")
        for _ in range(6000):
            observer.recv_text()
        swarm.resume(9)
        swarm.expect(6000)
        assert_one_transcript(swarm, 6000)


def test_messages_published_behind_a_full_ring_are_put_off_and_never_dropped(crier):
    server = crier("--no-welcome", "--on-message", "broadcast", "--max-message", "64k", "--ring", "256k",
                   "--slow-grace", "60", workers=2)
    with Swarm(server.address, 6) as swarm:
        stands = server.connect(receive_buffer=4096)
        for publisher in range(3):
            swarm.burst(publisher, 4000, f"p{publisher}-{'.' * 300}")
        # The ring is full until this one reads; all clients' messages wait in their sockets.
        publishers = set(server.workers())
        wait_until(lambda: any(server.held_up(pid) for pid in publishers), "a publisher to wait for room", 4 * PATIENCE)
        texts = [stands.recv_text() for _ in range(12000)]
        swarm.expect(12000)
        assert_one_transcript(swarm, 12000, transcript_hash(texts))
