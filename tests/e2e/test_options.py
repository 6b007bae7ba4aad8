"""Every option with bad values from every source: one sentence that names the option as it was given, and status 2."""

import os
import re
import socket

import pytest

from harness import BUILD, PROBE, needs_ipv6, plain_environment, run_crier

LONGER = "x" * 1025
SIZES = ["", "k", "1Q", "-1", "1.5M", " 1", "99999999999999999999G"]
SECONDS = ["", "soon", "-1", "1s", "nan", "1e3", "0x10", "0,5", "1000000001"]
NUMBERS = ["", "many", "-1", "1.5", "0x10", "18446744073709551616"]
TYPED_ONLY = ["660", "mode=660,"]  # a variable has several addresses, between commas
FLAG = ["yes", "2", "-1", "true"]

# Each option of the server and of the standard application: its bad values, of a flag those of its variable. Empty
# values are for the command line only, since an empty variable counts as none.
BAD = {
    "listen": ["", "nonsense", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:http", "ws://127.0.0.1:80/", "65536", "-1",
               "::1:80", "[x]:80", "[]:80", "unix:", "unix:@crier", "unix:/" + "x" * 107, "fd:", "fd:2", "fd:x", LONGER, "fd:3,mode=660",
               *("unix:/tmp/crier-none," + more for more in (
                   "mode=", "mode=999", "mode=u+rw", "mode=1777", "mode=660,mode=600", "group=", "group=no such group", "group=-1",
                   "group=4294967295", "group=0,group=0", "mod=660", *TYPED_ONLY))],
    "workers": ["", "0", "256", "many", "1.5", "-1", "auto ", LONGER],
    "stdin": ["", "maybe", "ON", "auto|on"],
    "exit-on-eof": FLAG,
    "wait-clients": NUMBERS,
    "ring": [*SIZES, "1M", "1025M", "2G"],
    "pool": [*SIZES, "1M"],
    "client-buffer": SIZES,
    "max-message": [*SIZES, "0", "256M"],
    "compress": ["", "yes", "On", "1"],
    "compress-min": SIZES,
    "slow": ["", "never", "close|skip", "Close"],
    "max-lag": ["", "far", "s", "-1", "1.5M", "1ms"],
    "slow-grace": SECONDS,
    "handshake-timeout": SECONDS,
    "ping": SECONDS,
    "ping-timeout": SECONDS,
    "start-timeout": [*SECONDS, "0.5"],
    "stuck-timeout": [*SECONDS, "0.999"],
    "origin": ["", "sam", "same,any", "http://", "https://example.org/x", "http://a,", "http://a:b", "http://a:65536", "null",
               "file://", "https://*.example.org", LONGER],
    "subprotocol": ["", ",", "a,", "a,,b", "a, b", "a b", "chat/1", '"chat"', "ch\u00e4t", "a\tb", "x" * 256, "y," + "x" * 256,
                    LONGER],
    "drain": SECONDS,
    "verbose": FLAG,
    "log-broadcasts": ["", "yes", "On"],
    "quiet": FLAG,
    "welcome": ["%x", "100%", "%", "%A", "%%%", "a%\u00e9", LONGER, b"\xff\xfe"],
    "no-welcome": FLAG,
    "goodbye": ["%x", "100%", "%n%z", LONGER, b"caf\xe9"],
    "on-message": ["", "yell", "echo|drop"],
}


def listed_options():
    """Name, one-letter name or None, and whether it takes an argument, from --help."""
    rows = re.findall(r"^  (?:-(\w), |    )--([\w-]+)( \S+)?(?=  |$)", run_crier("--help").stdout, re.M)
    return {name: (short or None, bool(argument)) for short, name, argument in rows if name not in ("help", "version")}


OPTIONS = listed_options()


def variable(name):
    return "CRIER_" + name.upper().replace("-", "_")


def encoded(value):
    return value if isinstance(value, bytes) else os.fsencode(value)


def sources_of(name, value):
    """(how, arguments, environment, the name that the sentence gives)."""
    short, takes_argument = OPTIONS[name]
    long = f"--{name}"
    if takes_argument:
        yield "long", [long, value], {}, long
        yield "joined", [encoded(long) + b"=" + encoded(value)], {}, long
        if short:
            yield "short", [f"-{short}", value], {}, long
    elif value == FLAG[0]:
        yield "joined", [f"{long}={value}"], {}, long
    if value and not (name == "listen" and value.endswith(tuple(f",{rest}" for rest in TYPED_ONLY))):
        yield "environment", [], {variable(name): value}, variable(name)


CASES = [pytest.param(name, arguments, environment, named, id=f"{name}-{index}-{how}")
         for name, values in BAD.items() if name in OPTIONS for index, value in enumerate(values)
         for how, arguments, environment, named in sources_of(name, value)]


def test_every_option_is_in_the_table():
    assert sorted(BAD) == sorted(OPTIONS)


def assert_refused(done, *named):
    assert done.returncode == 2 and done.stdout == "", done
    assert len(done.stderr.splitlines()) == 1, f"expected one sentence: {done.stderr}"
    said = done.stderr.replace("; --help lists them", "")
    for name in named:
        assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", said), f"{name} is not named: {done.stderr}"


def run_anywhere(*arguments, **environment):
    """On a free port, unless the arguments or variables say otherwise."""
    listens = "CRIER_LISTEN" in environment or any(encoded(word).startswith((b"--listen", b"-l")) for word in arguments)
    return run_crier(*([] if listens else ["--listen", "127.0.0.1:0"]), *arguments, env=plain_environment(**environment))


@pytest.mark.parametrize("name, arguments, environment, named", CASES)
def test_a_bad_value_is_one_sentence_that_names_the_option_as_it_was_given_and_status_2(name, arguments, environment, named):
    done = run_anywhere(*arguments, **environment)
    assert_refused(done, named)
    other = variable(name) if named.startswith("--") else f"--{name}"
    assert other not in done.stderr, f"the wrong source is blamed: {done.stderr}"


@pytest.mark.parametrize("arguments, named", [
    (["--bogus"], "--bogus"),
    (["--bogus=1"], "--bogus"),
    (["-Z"], "-Z"),
    (["-vZ"], "-Z"),
    (["--workers"], "--workers"),
    (["-w"], "--workers"),
    (["--no-welcome=yes"], "--no-welcome"),
    (["--help=yes"], "--help"),
    (["--version="], "--version"),
    (["-v", "-Zv"], "-Z"),
    (["--s"], "--s"),
    (["stray"], "stray"),
    (["-E", "--", "stray"], "stray"),
    (["stray\x1b[31m\nline"], "stray"),
])
def test_a_bad_flag_is_one_sentence_that_names_it_and_status_2(arguments, named):
    done = run_anywhere(*arguments)
    assert_refused(done, named)
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("arguments, said", [
    (["--help=yes"], "--help takes no argument"),
    (["--vers=1"], "--version takes no argument"),
    (["--pin", "3"], "--pin may be --ping or --ping-timeout; give the whole name"),
    (["--v=1"], "--v may be --verbose or --version; give the whole name"),
    (["--x"], "--x is not an option; --help lists them"),
    (["--listen", "65536"], "--listen wants a port from 0 to 65535 ("),
    (["--listen", "127.0.0.1"], "--listen wants a port from 0 to 65535 behind a colon ("),
    (["--listen", "127.0.0.1:0,127.0.0.2:0"], "--listen wants one address each time, and mode= or group= only behind unix:PATH ("),
    (["--listen", "ws://127.0.0.1:0/"], "--listen wants an address without :// ("),
    (["--listen", "::1:0"], "--listen wants an IPv6 address in brackets ("),
    (["--origin", "same,http://a"], "--origin wants same, any, or a list of origins such as https://example.org,http://localhost:3000; 'same' is no origin"),
])
def test_the_sentence_says_what_is_wrong_with_an_argument(arguments, said):
    done = run_anywhere(*arguments)
    assert_refused(done)
    assert done.stderr.startswith(f"crier: {said}"), done.stderr


def test_a_list_in_a_variable_without_any_value_is_refused():
    assert_refused(run_anywhere(CRIER_LISTEN=" , "), "CRIER_LISTEN")


# Values that are good alone: two names, and the values that do not go together.
PAIRS = [
    ("verbose", None, "quiet", None),
    ("exit-on-eof", None, "stdin", "off"),
    ("max-lag", "10s", "slow", "block"),
]
# The same for sizes, where neither wins: a limit that an operator has set is not exceeded.
BOUNDS = [
    ("ring", "3999k", "max-message", "1000k"),
    ("pool", "63k", "max-message", "1k"),
    ("ring", "4k", "welcome", "x" * 1000),
    ("ring", "4k", "goodbye", "%a" * 16),
]


def given(source, name, value):
    if source == "environment":
        return [], {variable(name): value or "1"}, variable(name)
    return [f"--{name}"] + ([value] if value else []), {}, f"--{name}"


@pytest.mark.parametrize("source", ["environment", "command line"])
@pytest.mark.parametrize("one, value, other, other_value", PAIRS)
def test_options_of_one_source_that_exclude_each_other_are_refused_with_both_names(source, one, value, other, other_value):
    first, first_environment, first_name = given(source, one, value)
    second, second_environment, second_name = given(source, other, other_value)
    assert_refused(run_anywhere(*first, *second, **first_environment, **second_environment), first_name, second_name)


@pytest.mark.parametrize("other_source", ["environment", "command line"])
@pytest.mark.parametrize("source", ["environment", "command line"])
@pytest.mark.parametrize("one, value, other, other_value", BOUNDS)
def test_sizes_that_do_not_fit_together_are_refused_whatever_their_sources(source, other_source, one, value, other, other_value):
    first, first_environment, first_name = given(source, one, value)
    second, second_environment, second_name = given(other_source, other, other_value)
    small = [] if other == "max-message" else ["--max-message", "512"]
    done = run_anywhere(*first, *second, *small, **first_environment, **second_environment)
    if other in ("welcome", "goodbye"):
        assert_refused(done, second_name, "--ring")
    else:
        assert_refused(done, first_name)


def test_quiet_on_the_command_line_wins_over_a_variable_that_asks_for_more(crier):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        server = crier("--quiet", listen=f"fd:{listener.fileno()}", url=False, pass_fds=[listener.fileno()],
                       env={"CRIER_VERBOSE": "1"})
        client = server.connect(address=listener.getsockname())
    client.expect_texts([f"Welcome, {client.name}!"])
    assert server.stop() == 0
    assert [line for line in server.log if line != "(end of stderr)"] == []


def test_verbose_on_the_command_line_wins_over_a_variable_that_asks_for_less(crier):
    server = crier("--verbose", env={"CRIER_QUIET": "1"})
    client = server.connect()
    server.wait_log(rf"{client.name} connected")


def test_the_end_of_input_on_the_command_line_wins_over_a_variable_that_turns_input_off(crier):
    server = crier("--no-welcome", "--exit-on-eof", env={"CRIER_STDIN": "off"})
    client = server.connect()
    server.line("read all the same")
    server.end_input()
    client.expect_texts(["read all the same"])
    client.expect_close(1000)
    assert server.wait_exit() == 0


def test_an_input_that_the_command_line_turns_off_does_not_end_the_server(crier):
    server = crier("--stdin", "off", stdin=None, env={"CRIER_EXIT_ON_EOF": "1"})
    client = server.connect()
    client.expect_texts([f"Welcome, {client.name}!"])
    assert server.stop() == 0


def test_a_policy_on_the_command_line_wins_over_a_lag_of_a_variable(crier):
    server = crier("--slow", "block", env={"CRIER_MAX_LAG": "1"})
    client = server.connect()
    client.expect_texts([f"Welcome, {client.name}!"])


def test_a_lag_on_the_command_line_wins_over_a_policy_of_a_variable(crier):
    server = crier("--max-lag", "1", env={"CRIER_SLOW": "block"})
    client = server.connect()
    client.expect_texts([f"Welcome, {client.name}!"])


@pytest.mark.parametrize("flags, environment, welcomes", [
    (["--welcome", "Hello!"], {"CRIER_WELCOME": "Bye!"}, ["Hello!"]),
    (["--welcome", "Hello!"], {"CRIER_NO_WELCOME": "1"}, ["Hello!"]),
    (["--welcome", "Hello!"], {"CRIER_WELCOME": "%x"}, ["Hello!"]),
    (["--no-welcome"], {"CRIER_WELCOME": "Bye!"}, []),
    (["--no-welcome"], {"CRIER_WELCOME": "%x"}, []),
    ([], {"CRIER_NO_WELCOME": "1"}, []),
    ([], {"CRIER_NO_WELCOME": "0"}, ["Welcome, {}!"]),
    (["--no-welcome", "--welcome", "100 %%"], {}, ["100 %"]),
])
def test_the_welcome_of_the_command_line_wins(crier, flags, environment, welcomes):
    server = crier(*flags, env=environment)
    client = server.connect()
    server.line("the end")
    assert client.texts_until("the end") == [text.format(client.name) for text in welcomes]


@pytest.mark.parametrize("name", sorted(name for name, (_, argument) in OPTIONS.items() if argument and name != "listen"))
def test_a_bad_variable_that_the_command_line_overrules_is_no_error(crier, name):
    good = {"workers": "1", "ring": "4M", "pool": "4M", "max-message": "1M", "max-lag": "5", "origin": "any", "welcome": "hi",
            "goodbye": "bye", "on-message": "echo", "stdin": "auto", "slow": "close", "compress": "off", "wait-clients": "1",
            "start-timeout": "60", "stuck-timeout": "60", "drain": "10", "slow-grace": "1", "ping": "25", "ping-timeout": "10",
            "handshake-timeout": "60", "client-buffer": "256k", "compress-min": "1", "subprotocol": "any",
            "log-broadcasts": "on"}[name]
    bad = next(value for value in BAD[name] if value)
    server = crier(f"--{name}", good, env={variable(name): bad}, workers=None if name == "workers" else 1)
    server.connect()


# ---- variables that are no options ----

def test_variables_that_name_no_option_are_named_in_one_warning(crier):
    server = crier(env={"CRIER_PORT": "tcp://10.0.0.1:80", "CRIER_MAX_MESAGE": "4M", "CRIER_EMPTY": "", "CRIER_DRAIN": "10",
                         "CRIERX": "1", "crier_low": "1", "XCRIER_A": "1"})
    named = server.wait_log("variables that name no option are ignored: ").partition("ignored: ")[2].split(", ")
    assert sorted(named) == ["CRIER_MAX_MESAGE", "CRIER_PORT"]
    assert server.stop() == 0
    assert len([line for line in server.log if "CRIER_" in line]) == 1, server.log


def test_many_variables_and_long_ones_are_one_line_that_says_that_there_are_more(crier):
    server = crier(env={**{f"CRIER_{number}_{'X' * 60}": "1" for number in range(20)}, "CRIER_" + "Y" * 5000: "1",
                        "CRIER_\x1b[31m": "1"})
    line = server.wait_log("variables that name no option are ignored: ")
    assert line.endswith(", ...") and len(line) < 700 and "\x1b" not in line, line


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_answer_whatever_the_environment_holds(flag):
    done = run_crier(flag, env=plain_environment(CRIER_RING="junk", CRIER_BOGUS="1"))
    assert done.returncode == 0 and done.stdout and done.stderr == "", done


# ---- addresses ----

def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_a_port_alone_is_one_of_127_0_0_1(crier):
    server = crier(listen="0")
    assert server.wait_log("listening on ws://127.0.0.1:")
    server.connect()


TWICE = "leave one of the two out"


@needs_ipv6
@pytest.mark.parametrize("first, second", [
    ("{0}", "{0}"), ("{0}", "127.0.0.1:{0}"), ("127.0.0.1:{0}", "localhost:{0}"), (":{0}", "127.0.0.1:{0}"),
    ("127.0.0.1:{0}", ":{0}"), ("0.0.0.0:{0}", "127.0.0.1:{0}"), ("[::1]:{0}", "[::1]:{0}"), (":{0}", "[::1]:{0}"),
    ("[::]:{0}", "[::1]:{0}"), ("[::1]:{0}", ":{0}"), ("unix:{1}/a", "unix:{1}/a"), ("unix:{1}/a", "unix:{1}/./a"),
])
@pytest.mark.parametrize("source", ["command line", "environment"])
def test_an_address_that_is_given_twice_has_a_sentence_of_its_own(tmp_path, source, first, second):
    port = free_port()
    first, second = first.format(port, tmp_path), second.format(port, tmp_path)
    done = run_anywhere("--listen", first, "--listen", second) if source == "command line" else \
        run_anywhere(CRIER_LISTEN=f"{first},{second}")
    assert_refused(done)
    assert TWICE in done.stderr and second in done.stderr and "another program" not in done.stderr, done
    assert os.listdir(tmp_path) == []


def test_a_descriptor_that_is_given_twice_has_a_sentence_of_its_own():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        address = f"fd:{listener.fileno()}"
        done = run_crier("-l", address, "-l", address, pass_fds=[listener.fileno()])
    assert_refused(done)
    assert TWICE in done.stderr and address in done.stderr, done


@needs_ipv6
@pytest.mark.parametrize("first, second", [("[::]:{0}", "0.0.0.0:{0}"), ("127.0.0.1:{0}", "127.0.0.2:{0}"), ("127.0.0.1:0", "0")])
def test_addresses_that_differ_are_listened_on_side_by_side(crier, first, second):
    port = free_port()
    server = crier(listen=[first.format(port), second.format(port)])
    server.connect()


def test_an_address_of_another_program_is_status_3():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        done = run_crier("--listen", "127.0.0.1:%d" % listener.getsockname()[1])
    assert done.returncode == 3 and "another program listens there" in done.stderr, done


# ---- the manual ----

def test_the_manual_has_every_option_with_its_argument_and_default_and_what_help_says():
    with open(os.path.join(BUILD, "crier.1")) as page:
        section = re.search(r"^\.Sh OPTIONS\n(.*?)^\.Sh ", page.read(), re.M | re.S)[1]
    items = re.findall(r"^\.It (?:Fl (\w) , )?Fl -([\w-]+)(.*)\n((?:(?!\.It Fl).*\n)*)", section, re.M)
    assert sorted((name, (short or None, bool(argument))) for short, name, argument, _ in items
                  if name not in ("help", "version")) == sorted(OPTIONS.items())
    shown = " ".join(run_crier("--help").stdout.split())
    for _, name, _, text in items:
        text, _, default = text.partition("The default is\n.Ql ")
        default = default.partition(" .\n")[0].removesuffix("\\&")
        first = text.splitlines()[0][1:].rstrip(".")
        assert name in ("help", "version") or first in shown, f"--{name}: {first}"
        assert not default or f"(default: {default})" in shown, f"--{name}: {default}"


# ---- the application's options ----

def test_an_application_refuses_an_option_by_the_name_that_it_was_given_by():
    done = run_crier("--listen", "127.0.0.1:0", program=PROBE, env=plain_environment(CRIER_CLOSE_CODE="17"))
    assert done.returncode == 2 and done.stderr == "probe_app: CRIER_CLOSE_CODE wants 3000 to 4999\n", done
