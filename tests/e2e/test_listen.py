"""Where it listens, and what it says when it cannot."""

import os
import re
import signal
import socket
import stat
import subprocess
import tempfile

import pytest

from harness import CRIER, needs_ipv6, run_crier


def echo(client):
    client.text("hello")
    client.expect_texts(["hello"])


def assert_cannot_bind(done, *words):
    assert done.returncode == 3, done
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, f"expected one sentence: {done.stderr}"
    for word in words:
        assert word in done.stderr, f"{word!r} is not named: {done.stderr}"


def test_the_start_line_names_a_url_that_works(crier):
    server = crier("--no-welcome", listen="127.0.0.1:0")
    assert server.address[0] == "127.0.0.1" and server.address[1] > 0
    echo(server.connect())


def test_a_host_name_is_an_address(crier):
    try:
        host = socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        pytest.skip(f"localhost has no address here: {error.strerror}")
    server = crier("--no-welcome", listen="localhost:0")
    with socket.create_connection(("localhost", server.address[1]), timeout=5):
        pass
    echo(server.connect(address=(host, server.address[1])))


@needs_ipv6
def test_an_ipv6_address_stands_in_brackets(crier):
    server = crier("--no-welcome", listen="[::1]:0")
    assert server.address[0] == "::1", f"the URL does not name [::1]: {server.log}"
    echo(server.connect())


@needs_ipv6
def test_a_port_alone_listens_on_ipv4_and_ipv6(crier):
    server = crier("--no-welcome", listen=":0")
    echo(server.connect(address=("127.0.0.1", server.address[1])))
    echo(server.connect(address=("::1", server.address[1])))


def test_a_unix_socket(crier, tmp_path):
    path = str(tmp_path / "socket")
    server = crier("--no-welcome", listen=f"unix:{path}")
    echo(server.connect(address=path))


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
SPARE = 65534  # a user and a group
CAN_CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"


def may_connect(path, *groups):
    """Whether a process of the spare user, in these groups alone, may connect to that socket."""
    done = subprocess.run(["/usr/bin/setpriv", f"--reuid={SPARE}", f"--regid={SPARE - 1}",
                           f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups",
                           "/usr/bin/python3", "-c", CAN_CONNECT, path], stderr=subprocess.PIPE)
    assert done.returncode == 0 or b"PermissionError" in done.stderr, done
    return done.returncode == 0


@pytest.fixture
def open_folder():
    """A folder that every user may search."""
    with tempfile.TemporaryDirectory(prefix="crier-") as folder:
        os.chmod(folder, 0o755)
        yield folder


def permissions(path):
    return oct(stat.S_IMODE(os.lstat(path).st_mode))


@needs_root
def test_a_unix_socket_with_mode_and_group_is_for_that_group_alone(crier, open_folder):
    path = f"{open_folder}/socket"
    server = crier("--no-welcome", listen=f"unix:{path},mode=660,group={SPARE}")
    assert (permissions(path), os.lstat(path).st_gid) == ("0o660", SPARE)
    assert may_connect(path, SPARE) and not may_connect(path)
    echo(server.connect(address=path))
    server.drop_clients()
    assert server.stop() == 0 and not os.path.exists(path)


@needs_root
def test_a_unix_socket_with_a_group_alone_lets_that_group_in(crier, open_folder):
    path = f"{open_folder}/socket"
    crier("--no-welcome", listen=f"unix:{path},group={SPARE}", umask=0o077)
    assert permissions(path) == "0o660"
    assert may_connect(path, SPARE) and not may_connect(path)


@pytest.mark.parametrize("umask, more, mode", [(0o077, "mode=666", "0o666"), (0, "mode=600", "0o600"), (0o027, "", "0o750")])
def test_a_unix_socket_has_the_mode_that_is_asked_for_whatever_the_umask(crier, tmp_path, umask, more, mode):
    path = str(tmp_path / "socket")
    crier("--no-welcome", listen=f"unix:{path},{more}" if more else f"unix:{path}", umask=umask)
    assert permissions(path) == mode


def test_a_variable_takes_several_addresses_one_of_them_with_a_mode(crier, tmp_path):
    paths = [str(tmp_path / name) for name in "abc"]
    group = os.getegid()
    server = crier("--no-welcome", listen=(), url=False, env={
        "CRIER_LISTEN": f"unix:{paths[0]},mode=600,group={group},unix:{paths[1]} unix:{paths[2]},group={group},127.0.0.1:0"})
    server.wait_log("listening on ws://")
    for path, mode in zip(paths, ("0o600", None, "0o660")):
        assert mode in (None, permissions(path))
        echo(server.connect(address=path))


def test_a_unix_socket_is_at_no_moment_more_open_than_asked(crier, tmp_path):
    """By the system calls: without permissions until it has its group, and no connection is accepted before its mode."""
    path, trace = str(tmp_path / "socket"), str(tmp_path / "trace")
    crier("--no-welcome", listen=f"unix:{path},mode=660,group={os.getegid()}", umask=0, prefix=[
        "strace", "-f", "-o", trace, "-e", "trace=umask,bind,listen,fchmod,fchmodat,chmod,fchownat"],
          env={"ASAN_OPTIONS": "detect_leaks=0"})  # which uses ptrace itself
    with open(trace) as lines:
        calls = [line.split(maxsplit=1)[1] for line in lines if re.match(r"\d+ +\w+\(", line)]
    mode, = [i for i, call in enumerate(calls) if re.match(r'chmod\("/proc/self/fd/\d+", 0660\) += 0', call)]
    bind, = [i for i, call in enumerate(calls) if call.startswith("bind(") and path in call]
    socket_fd = re.match(r"bind\((\d+)", calls[bind])[1]
    assert re.match(rf"fchmod\({socket_fd}, 000\) += 0", calls[bind - 1]), calls
    assert calls[bind + 1].startswith("fchownat(") and mode == bind + 2, calls
    assert calls[mode + 1].startswith(f"listen({socket_fd},"), calls
    assert not [call for call in calls if call.startswith("umask(")], calls


@needs_root
def test_a_group_that_the_user_may_not_give_is_one_sentence_and_status_3(for_other_users, open_folder):
    os.chmod(open_folder, 0o777)
    done = run_crier("--listen", f"unix:{open_folder}/socket,group={SPARE}", program=for_other_users(CRIER),
                     user=SPARE, group=SPARE - 1, extra_groups=[])
    assert_cannot_bind(done, f"{open_folder}/socket", f"group {SPARE}")
    assert os.listdir(open_folder) == []


@needs_root
@pytest.mark.parametrize("mode", [0, 0o060, 0o600])
def test_a_file_that_is_left_is_replaced_and_a_live_one_is_not_although_its_owner_may_not_connect(
        crier, for_other_users, open_folder, mode):
    """Mode 0 is what a server leaves that is killed before its file has its mode."""
    path = f"{open_folder}/socket"
    owner = {"program": for_other_users(CRIER), "user": SPARE, "group": SPARE, "extra_groups": []}
    os.chmod(open_folder, 0o777)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    os.chown(path, SPARE, SPARE)
    os.chmod(path, mode)
    server = crier("--no-welcome", listen=f"unix:{path},mode={mode:o}", **owner)
    assert_cannot_bind(run_crier("--listen", f"unix:{path}", **owner), path, "another server listens there")
    assert permissions(path) == oct(mode)
    echo(server.connect(address=path))


def test_a_unix_socket_with_a_relative_path_is_removed_although_the_application_changes_the_directory(probe, tmp_path):
    server = probe("--in-master", "chdir", listen=["unix:socket", "127.0.0.1:0"], cwd=tmp_path)
    echo(server.connect(address=str(tmp_path / "socket")))
    server.drop_clients()
    assert server.stop() == 0
    assert not (tmp_path / "socket").exists()


def test_a_unix_socket_that_a_killed_server_has_left_is_replaced(crier, tmp_path):
    path = str(tmp_path / "socket")
    dead = crier("--no-welcome", listen=f"unix:{path}", expected=-signal.SIGKILL)
    dead.connect(address=path)
    dead.send_signal(signal.SIGKILL)
    dead.wait_exit()
    assert os.path.exists(path), "no process was left to remove it"
    server = crier("--no-welcome", listen=[f"unix:{path}", "127.0.0.1:0"])
    echo(server.connect(address=path))


def test_a_unix_socket_of_a_live_server_is_refused_and_goes_on_to_serve(crier, tmp_path):
    path = str(tmp_path / "socket")
    server = crier("--no-welcome", listen=[f"unix:{path}", "127.0.0.1:0"])
    client = server.connect(address=path)
    assert_cannot_bind(run_crier("--listen", f"unix:{path}"), path)
    echo(client)
    echo(server.connect(address=path))


@pytest.mark.parametrize("content", ["file", "directory"])
def test_a_path_that_is_no_socket_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "not a socket"
    path.mkdir() if content == "directory" else path.write_text("precious")
    assert_cannot_bind(run_crier("--listen", f"unix:{path}"), str(path))
    assert path.is_dir() if content == "directory" else path.read_text() == "precious"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_a_socket_that_was_passed_in(crier, tmp_path, family):
    with socket.socket(family) as listener:
        listener.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "socket"))
        listener.listen(16)
        address = listener.getsockname()
        number = listener.fileno()
        server = crier("--no-welcome", listen=f"fd:{number}", url=False, pass_fds=[number], workers=2)
        echo(server.connect(address=address))


def test_several_listeners_serve_together(crier, tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        passed = listener.getsockname()
        server = crier("--no-welcome", listen=["127.0.0.1:0", f"unix:{path}", f"fd:{listener.fileno()}"],
                       pass_fds=[listener.fileno()], workers=2)
    clients = [server.connect(), server.connect(address=path), server.connect(address=passed)]
    server.line("to all")
    for client in clients:
        client.expect_texts(["to all"])


def test_the_short_flag_listens_as_well(crier):
    server = crier("--no-welcome", "-l", "127.0.0.1:0", listen=())
    echo(server.connect())


def test_a_port_in_use_is_one_sentence_and_status_3():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert_cannot_bind(run_crier("--listen", address), address)


def test_an_address_of_another_machine_is_one_sentence_and_status_3():
    assert_cannot_bind(run_crier("--listen", "192.0.2.1:8080"), "192.0.2.1:8080")


def test_a_unix_path_that_cannot_be_made_is_one_sentence_and_status_3(tmp_path):
    path = tmp_path / "not there" / "socket"
    assert_cannot_bind(run_crier("--listen", f"unix:{path}"), str(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user with fewer rights")
def test_a_place_without_permission_is_one_sentence_and_status_3(for_other_users, tmp_path):
    directory = tmp_path / "socket"
    directory.mkdir(mode=0o700)

    def become_nobody():
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)

    done = run_crier("--listen", f"unix:{directory}/socket", program=for_other_users(CRIER), preexec_fn=become_nobody)
    assert_cannot_bind(done, str(directory))


def test_a_descriptor_that_is_no_socket_is_refused():
    done = run_crier("--listen", "fd:0")
    assert done.returncode in (2, 3), done
    assert len(done.stderr.splitlines()) == 1 and "fd:0" in done.stderr, done.stderr


def test_one_listener_that_fails_ends_all(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        path = tmp_path / "socket"
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        assert_cannot_bind(run_crier("--listen", f"unix:{path}", "--listen", taken), taken)


def test_a_stopped_server_frees_its_port_at_once(crier):
    server = crier("--no-welcome")
    client = server.connect()
    address = server.address
    server.send_signal(signal.SIGTERM)
    client.expect_close(1001)
    server.wait_exit()
    again = crier("--no-welcome", listen=f"127.0.0.1:{address[1]}")
    assert again.address == address
    echo(again.connect())
