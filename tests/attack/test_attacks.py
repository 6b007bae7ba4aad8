"""What some clients do costs the others little: the waiting time of innocent clients is bounded in CPU time of the worker."""

import os

import pytest
from attacks import ATTACKS, DEFLATING, LONGEST_DEFLATED, PLAIN, Attack
from siege import Siege

from harness import PATIENCE, SANITIZED, inflate, wait_until
from harness.raw_client import apply_mask

LONG = bool(os.environ.get("CRIER_LONG"))
# Of each innocent, while the attack goes on: the 99th percentile of 600 allows each of four one echo that waited longer.
ECHOES = 20 if SANITIZED else 300 if LONG else 150
# At the beginning an attacker is an ordinary client, which waits and is waited for as such (worker/budget.h).
ECHOES_OF_THE_BEGINNING = ECHOES // 4


def assert_the_innocents_are_safe(siege):
    siege.assert_innocents_were_served()
    if SANITIZED:
        pytest.skip("all but the CPU time was checked, which is that of the real program")
    siege.assert_innocents_did_not_wait()


@pytest.mark.limit(600 if LONG else 120)
@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_innocent_clients_do_not_wait_for_attackers(crier, probe, attack):
    if attack.long and not LONG:
        pytest.skip("CRIER_LONG=1 runs it")
    with Siege(probe if attack.program == "probe" else crier, *attack.server_flags()) as siege:
        with siege.attackers(attack, attack.many if LONG else attack.few) as attackers:
            attackers.clear()
            siege.begin()
            attackers.go()
            siege.wait_rounds(ECHOES_OF_THE_BEGINNING)
            siege.waits.clear()
            siege.wait_rounds(ECHOES)
            # The attackers are served as well, each in its turn.
            wait_until(lambda: attackers.report().rounds + attackers.report().connections > 0,
                       lambda: f"an attacker to be served: {attackers.report()}", 8 * PATIENCE, 0.1)
        assert_the_innocents_are_safe(siege)


@pytest.mark.limit(300 if LONG else 60)
@pytest.mark.parametrize("handler", ["nothing", "compute"])
def test_innocent_clients_do_not_wait_for_many_that_leave_at_once(probe, handler):
    attack = Attack("leaving", 1000, 8000, PLAIN, lambda: b"x")
    with Siege(probe, "--on-disconnect", handler) as siege:
        count = attack.many if LONG else attack.few
        with siege.attackers(attack, count) as attackers:
            siege.begin()
            attackers.reset()
            siege.server.wait_counter("clients_left", count)
            siege.wait_rounds(5)
        assert_the_innocents_are_safe(siege)


# ---- the attacks are what they say ----

def test_the_messages_of_the_attacks_are_valid_and_as_large_as_they_are_meant_to_be():
    sizes = {}
    for attack in ATTACKS:
        if attack.long or not attack.hello.startswith(DEFLATING[:-4]):
            continue
        frame = attack.body()
        head = {126: 4, 127: 10}.get(frame[1] & 0x7f, 2)
        sizes[attack.name] = len(frame), len(inflate(apply_mask(frame[head + 4:], frame[head:head + 4])))
    assert sizes["bombs"][0] < 1100 and sizes["bombs"][1] == 1 << 20
    assert sizes["bombs_with_the_longest_echo_that_is_deflated"][1] == LONGEST_DEFLATED
    assert sizes["echoes_that_are_slow_to_deflate"][1] == LONGEST_DEFLATED
    assert sizes["16_mib_of_empty_blocks"][1] == 0 and 0 < (16 << 20) - sizes["16_mib_of_empty_blocks"][0] < 1000
