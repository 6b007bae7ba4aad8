"""What some clients do costs the others little: the waiting time of innocent clients is bounded in CPU time of the worker."""

import os

import pytest
from attacks import ATTACKS, LONGEST_DEFLATED, PLAIN, Attack, slow_to_deflate
from siege import Siege

from harness import PATIENCE, SANITIZED, inflate, wait_until
from harness.raw_client import apply_mask

LONG = bool(os.environ.get("CRIER_LONG"))
ECHOES = 20 if SANITIZED else 300 if LONG else 50  # of each innocent, while the attack goes on


def assert_the_innocents_are_safe(siege):
    siege.assert_innocents_were_served()
    if SANITIZED:
        pytest.skip("all but the CPU time was checked, which is that of the real program")
    siege.assert_innocents_did_not_wait()


@pytest.mark.limit(600 if LONG else 120)
@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_innocent_clients_do_not_wait_for_attackers(crier, attack):
    with Siege(crier) as siege:
        with siege.attackers(attack, attack.many if LONG else attack.few) as attackers:
            attackers.clear()
            siege.innocents.go()
            attackers.go()
            siege.wait_rounds(ECHOES)
            # The attackers are served as well, each in its turn.
            wait_until(lambda: attackers.report().rounds + attackers.report().connections > 0,
                       lambda: f"an attacker to be served: {attackers.report()}", 8 * PATIENCE, 0.1)
        assert_the_innocents_are_safe(siege)


@pytest.mark.limit(300 if LONG else 60)
def test_innocent_clients_do_not_wait_for_many_that_leave_at_once(crier):
    attack = Attack("leaving", 1000, 8000, PLAIN, lambda: b"x")
    with Siege(crier) as siege:
        count = attack.many if LONG else attack.few
        with siege.attackers(attack, count) as attackers:
            siege.innocents.go()
            attackers.reset()
            siege.server.wait_counter("clients_left", count)
            siege.wait_rounds(5)
        assert_the_innocents_are_safe(siege)


# ---- the attacks are what they say ----

def test_the_message_that_is_slow_to_deflate_is_the_longest_that_is_deflated():
    frame = slow_to_deflate()
    assert frame[1] & 0x7f == 126
    assert len(inflate(apply_mask(frame[8:], frame[4:8]))) == LONGEST_DEFLATED
