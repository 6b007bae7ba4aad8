"""tests/run.sh: its first line, the reasons of skips, and its last line."""

import os
import pathlib

import pytest
from clone import Clone

PROGRAMS = {
    "unit/test_good": 'echo "[  PASSED  ] 3 test(s)."',
    "unit/test_skips": 'echo "[  REASON  ] test_x_of_y: there is no y here"; echo "[  PASSED  ] 2 test(s)."\n'
                       'echo "[  SKIPPED ] 1 test(s), listed below:"',
    "unit/test_bad": 'echo "test_z: 1 != 2"; echo "[  PASSED  ] 1 test(s)."; echo "[  FAILED  ] 1 test(s), listed below:"; exit 1',
    "torture/good": "exit 0",
    "torture/skips": 'echo "more than the reason"; echo "it needs two processors"; exit 77',
    "torture/bad": "echo it broke; exit 3",
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    clone = Clone(tmp_path_factory.mktemp("a fresh clone"), tmp_path_factory.mktemp("prefix"))
    for name, script in PROGRAMS.items():
        program = pathlib.Path(clone.root, "build/fake/tests", name)
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    pathlib.Path(clone.root, "test_pytest.py").write_text(
        "import pytest\n\n\ndef test_good():\n    pass\n\n\ndef test_skipped():\n    pytest.skip('the moon is full')\n")
    pathlib.Path(clone.root, "tests/conform/test_beside.py").write_text(
        "def test_good_case():\n    pass\n\n\ndef test_bad():\n    assert not 'a case'\n")
    crier = pathlib.Path(clone.root, "build/fake/crier")  # for the conftest.py there
    crier.write_text("#!/bin/sh\n")
    crier.chmod(0o755)
    yield clone
    clone.close()


def run(clone, *names, status=0, more=""):
    return clone.run(" ".join(["tests/run.sh build/fake", *(f"build/fake/tests/{name}" for name in names), more]), status=status)


def test_reasons_of_skips_are_printed_and_all_are_counted(clone):
    lines = run(clone, "unit/test_good", "unit/test_skips", "torture/good", "torture/skips", more="test_pytest.py -- -q")
    assert "       skipped: test_x_of_y: there is no y here" in lines
    assert "       skipped: it needs two processors" in lines
    assert any(line.startswith("SKIPPED") and "the moon is full" in line for line in lines)
    assert lines[-1].startswith("7 passed, 0 failed, 3 skipped in ")


def test_each_pytest_file_has_its_time(clone):
    assert any(line.split()[1:] == ["s", "2", "tests", "test_pytest.py"] for line in run(clone, more="test_pytest.py"))


def test_the_conformance_table_runs_beside_the_other_tests_and_is_summed_up_with_them(clone):
    both = "test_pytest.py tests/conform/test_beside.py --"
    lines = run(clone, more=f"{both} -k 'good or skipped'")
    assert any(line.endswith("tests  tests/conform/test_beside.py") for line in lines), lines
    assert lines[-1].startswith("2 passed, 0 failed, 1 skipped in ")
    assert run(clone, more=both, status=1)[-1].startswith("2 passed, 1 failed, 1 skipped in ")
    assert run(clone, more=f"{both} -k case")[-1].startswith("1 passed, 0 failed in ")
    assert run(clone, more=f"{both} -k none_is_called_so", status=1)[-1].startswith("0 passed, 1 failed in ")


def test_a_stage_that_fails_is_the_last_and_shows_what_was_printed(clone):
    lines = run(clone, "unit/test_bad", "unit/test_good", "torture/good", status=1)
    assert "    test_z: 1 != 2" in lines and not any("torture" in line for line in lines)
    assert lines[-1].startswith("4 passed, 1 failed in ")
    assert "    it broke" in run(clone, "torture/bad", "torture/good", status=1)


def test_make_test_says_first_what_runs_and_how_long_it_takes(clone):
    first = clone.run("make plan")[0]
    assert first.startswith("test: build ") and first.endswith(" minutes on two idle cores")
    assert all(f" {stage} " in first for stage in ("build", "unit", "programs", "pytest"))
    assert clone.run("make plan UNIT=ring FUZZ= TORTURE= E2E=")[0].endswith(", unit (part of it)")
    commands = [line for line in clone.run("make -n test") if line.startswith(("NARROWED", "tools/setup.sh"))]
    assert "--plan" in commands[0], os.linesep.join(commands)
