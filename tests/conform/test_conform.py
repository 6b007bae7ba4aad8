"""Plays the table: every case of every file, in all the ways of chops.py, and once over TCP.

Cases that need flags of their own share a server for them.
"""

import collections
import os

import cases_close
import cases_deflate
import cases_fragments
import cases_frames
import cases_handshake
import cases_limits
import cases_utf8
import pytest
from chops import TALLY, cuts_of, play

CASES = [one for module in (cases_frames, cases_fragments, cases_utf8, cases_close, cases_limits, cases_handshake,
                                 cases_deflate)
         for one in module.CASES]


@pytest.mark.parametrize("case", CASES, ids=lambda one: one.id)
def test_it_conforms(server_with, case):
    server = server_with(case.flags)
    TALLY["cases"] += 1
    play(case, server.path, cuts_of(case))
    play(case, server.address, [()])


def test_the_readme_has_the_number_of_cases():
    with open(os.path.join(os.path.dirname(__file__), "../../README.md")) as readme:
        assert f"a table of {len(CASES):,} cases" in readme.read()


def test_every_case_has_an_id_of_its_own():
    names = collections.Counter(one.id for one in CASES)
    assert not [name for name, count in names.items() if count > 1]
