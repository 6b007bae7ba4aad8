"""What `make` installs and leaves: packages by purpose, one set-up at a time, no file of root's in a user's tree.

The machine of a test is a folder of links to the programs of this one, without those that are to be missing, and with
an apt-get that installs by adding links.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest
from clone import Clone

from harness import PATIENCE, procs, wait_until

pytestmark = pytest.mark.limit(120)
MISSING = {"pkg-config", "gcc", "pgrep", "curl", "ip", "node", "valgrind", "strace", "spin", "chromium", "clang", "clang-format",
           "clang-tidy", "cppcheck", "shellcheck", "gnuplot", "npm", "go", "apt-get", "sudo"}
BUILD_PACKAGES = {"gcc", "libc6-dev", "make", "pkg-config", "libevent-dev", "libssl-dev", "zlib1g-dev", "liburcu-dev"}
USER = 65534
WAITING = "setup: waiting for the set-up of another tree"  # another suite on this machine may be in its own

APT_GET = """#!/bin/sh
echo "$*" >>{asked}
i=0; while [ $i -lt 224 ]; do echo "Unpacking, line $i"; i=$((i + 1)); done
case " $* " in *" install "*) {install} ;; esac
"""


class Machine:
    """A PATH without some programs. `install` is what its apt-get does, None: it has none. Its sudo only runs the command."""

    def __init__(self, folder, install, missing=MISSING, sudo=True):
        self.bin = folder / "bin"
        self.asked_in = folder / "asked"
        self.bin.mkdir()
        for place in ("/usr/bin", "/usr/sbin", "/bin"):
            for name in set(os.listdir(place)) - missing - set(os.listdir(self.bin)):
                (self.bin / name).symlink_to(f"{place}/{name}")
        if install is not None:
            (self.bin / "apt-get").write_text(APT_GET.format(asked=self.asked_in, install=install))
            (self.bin / "apt-get").chmod(0o755)
        if sudo:
            (self.bin / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
            (self.bin / "sudo").chmod(0o755)

    def asked(self):
        """The packages that apt-get was told to install."""
        lines = self.asked_in.read_text().splitlines() if self.asked_in.exists() else []
        return {word for line in lines if " install " in line for word in line.split("--no-install-recommends ")[1].split()}

    def run(self, clone, *command, user=None):
        how = {"user": user, "group": user, "extra_groups": []} if user is not None else {}
        done = subprocess.run(command, cwd=clone.root, env=clone.environment(PATH=str(self.bin)), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=PATIENCE * 6, **how)
        return done.returncode, [line for line in (done.stdout + done.stderr).splitlines() if line != WAITING]


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as several users")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return Clone(tmp_path_factory.mktemp("a fresh clone"), tmp_path_factory.mktemp("prefix"))


@pytest.fixture
def tree():
    """A copy in a folder that all users can reach, owned by USER when root runs the tests."""
    folder = tempfile.mkdtemp(prefix="crier of a user ")
    os.chmod(folder, 0o755)
    tree = Clone(pathlib.Path(folder), os.path.join(folder, "prefix"))
    if os.geteuid() == 0:
        for place, folders, files in os.walk(folder):
            for name in [".", *folders, *files]:
                os.lchown(os.path.join(place, name), USER, USER)
    yield tree
    shutil.rmtree(folder)


@pytest.fixture
def place(tree):
    """Where a machine is that the user of the tree can use."""
    place = pathlib.Path(tree.root).parent / "machine"
    place.mkdir()
    return place


def wanted(target, tmp_path, clone):
    machine = Machine(tmp_path, "false")
    status, lines = machine.run(clone, "make", target)
    return status, machine.asked(), lines


@pytest.mark.parametrize("target", ["all", "install", "run"])
def test_building_and_installing_ask_for_build_packages_only(tmp_path, clone, target):
    status, packages, lines = wanted(target, tmp_path, clone)
    assert status != 0 and {"gcc", "pkg-config"} <= packages <= BUILD_PACKAGES, lines


@pytest.mark.parametrize("target", ["help", "clean", "uninstall"])
def test_these_need_no_package_at_all(tmp_path, tree, target):
    assert wanted(target, tmp_path, tree)[:2] == (0, set())


def test_formatting_needs_the_formatter_only(tmp_path, clone):
    assert wanted("format", tmp_path, clone)[1] == {"clang-format"}


@pytest.mark.parametrize("target", ["test", "lint", "check-long", "asan", "tsan", "cov", "fuzz", "bench", "bench-peers"])
def test_no_target_but_interop_asks_for_a_browser(tmp_path, clone, target):
    packages = wanted(target, tmp_path, clone)[1]
    assert "gcc" in packages and "chromium" not in packages


def test_interop_asks_for_a_browser(tmp_path, clone):
    assert "chromium" in wanted("interop", tmp_path, clone)[1]


def test_what_is_built_installs_where_there_is_no_cmocka(place, tree):
    """cmocka's flags are asked for where compile_commands.json is written, which a newer Makefile makes necessary."""
    machine = Machine(place, None, {"pkg-config", "apt-get", "sudo"})
    (machine.bin / "pkg-config").write_text('#!/bin/sh\ncase "$*" in *cmocka*) exit 1 ;; esac\nexec /usr/bin/pkg-config "$@"\n')
    (machine.bin / "pkg-config").chmod(0o755)
    os.utime(os.path.join(tree.root, "Makefile"))
    for command in (["make"], ["make", "install"]):
        status, lines = machine.run(tree, *command)
        assert status == 0, lines
    assert os.access(os.path.join(tree.prefix, "bin/crier-bench"), os.X_OK)


def test_set_up_prints_one_line_per_step_and_logs_the_rest(tmp_path, clone):
    machine = Machine(tmp_path, f"ln -s /usr/bin/pkg-config {tmp_path}/bin/", {"pkg-config", "apt-get", "sudo"})
    pathlib.Path(clone.root, "build/setup.log").unlink(missing_ok=True)
    status, lines = machine.run(clone, "tools/setup.sh", "build")
    assert status == 0 and len(lines) == 3 and lines[1].startswith("setup: installing pkg-config"), lines
    with open(os.path.join(clone.root, "build/setup.log")) as log:
        assert log.read().count("Unpacking") == 448
    assert machine.run(clone, "tools/setup.sh", "build") == (0, [])


def test_a_set_up_that_fails_names_its_log_and_shows_its_end(tmp_path, clone):
    status, lines = Machine(tmp_path, "echo 'E: the disk is full'; exit 100").run(clone, "tools/setup.sh", "build")
    assert status == 1 and len(lines) < 16
    assert any("could not install" in line and "build/setup.log" in line for line in lines), lines
    assert "    E: the disk is full" in lines


def test_without_apt_one_sentence_names_the_packages(tmp_path, clone):
    status, lines = Machine(tmp_path, None).run(clone, "make")
    assert status == 2 and len(lines) == 2, lines  # the other line is make's own
    assert "missing, by their Debian names: gcc pkg-config" in lines[0] and "package manager" in lines[0]


@as_root
def test_without_root_one_sentence_says_what_root_is_to_do(place, tree):
    status, lines = Machine(place, "true", sudo=False).run(tree, "make", user=USER)
    assert status == 2 and len(lines) == 2, lines
    assert "Run as root: apt-get install --no-install-recommends gcc pkg-config" in lines[0]


def start_set_up(clone, machine):
    return subprocess.Popen(["tools/setup.sh", "build"], env=clone.environment(PATH=str(machine.bin)), cwd=clone.root,
                            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def waits_for_a_lock(pid):
    with open("/proc/locks") as locks:
        blocked = [line.split() for line in locks if "->" in line]
    return any(str(child) in line for child in procs.children(pid) for line in blocked)


def test_one_set_up_waits_for_another(tmp_path, clone):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    without = {"pkg-config", "apt-get", "sudo"}
    first, second = Machine(tmp_path / "a", f"read x <{gate}", without), Machine(tmp_path / "b", "true", without)
    a = start_set_up(clone, first)
    b = None
    try:
        assert "package lists" in next(line for line in a.stderr if line.rstrip() != WAITING)
        assert "installing" in a.stderr.readline()
        b = start_set_up(clone, second)
        assert b.stderr.readline().rstrip() == WAITING
        wait_until(lambda: waits_for_a_lock(b.pid), "the second set-up at the lock")
        for machine in (first, second):
            (machine.bin / "pkg-config").symlink_to("/usr/bin/pkg-config")
        gate.write_text("go\n")
        assert (a.wait(PATIENCE * 2), b.wait(PATIENCE * 2)) == (0, 0)
    finally:
        for one in filter(None, (a, b)):
            one.kill()
            one.communicate()
    assert second.asked() == set()  # what was missing is there now


@as_root
def test_root_builds_as_the_owner_of_the_tree(tree):
    """As `sudo make install` does, after the user's `make`, with a source that changed since."""
    os.utime(os.path.join(tree.root, "shm/ring.c"))
    shutil.rmtree(os.path.join(tree.root, "build/release/worker/http"))  # one object, in a folder of its own
    assert tree.run("make install")
    for place, folders, files in os.walk(os.path.join(tree.root, "build")):
        for name in [*folders, *files]:
            assert os.lstat(os.path.join(place, name)).st_uid == USER, f"{place}/{name}"
    assert os.stat(os.path.join(tree.prefix, "bin/crier")).st_uid == 0


@as_root
def test_set_up_as_root_leaves_a_log_that_the_user_can_write(place, tree):
    shutil.rmtree(os.path.join(tree.root, "build"))
    Machine(place, "false").run(tree, "make")
    assert os.stat(os.path.join(tree.root, "build/setup.log")).st_uid == USER
