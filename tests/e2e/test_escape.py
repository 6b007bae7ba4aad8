"""Nothing from outside reaches an operator's terminal as a control sequence: the log, crier-ring."""

import sys
import unicodedata

from harness import BINARY, CRIER, CRIER_RING, plain_environment, run_crier

SEQUENCES = ["\x1b[2J", "\x1b]0;title\x07", "\x1bP1$r\x1b\\", "\x9b31m", "\x9d0;title\x9c", "\x90q", "a\rb", "a\bb", "\x7f",
             "\x00", "\u202eabc\u202c", "\u2066abc\u2069", "\u200f", "\ufeff", "\u2028", "\U000e0041"]
HIDDEN = ("Cc", "Cf", "Zl", "Zp")  # categories that a terminal acts on, or that change how a line looks


def assert_harmless(text):
    bad = [character for character in text if unicodedata.category(character) in HIDDEN and character != "\n"]
    assert not bad, f"{bad!r} in {text!r}"


def test_arguments_and_file_names_are_escaped_in_complaints():
    text = "/nowhere/\x1b[2J\u202e"
    for program, status in ((CRIER, 2), (CRIER_RING, 1)):
        done = run_crier(text, program=program, env=plain_environment(LC_ALL="C.UTF-8"))
        assert done.returncode == status, done
        assert_harmless(done.stderr)
        assert "/nowhere/\\x1b[2J\\xe2\\x80\\xae" in done.stderr, done


def test_the_name_of_an_image_is_escaped(crier, tmp_path):
    server = crier("--no-welcome", workers=1)
    name = str(tmp_path / "a\x1b[2Jb\u202e")
    for arguments, said in ((["--save", name, str(server.pid)], "saved to "), ([name], "image ")):
        done = run_crier(*arguments, program=CRIER_RING, env=plain_environment(LC_ALL="C.UTF-8"))
        assert done.returncode == 0 and done.stdout.startswith(said), done
        assert_harmless(done.stdout)
        assert "a\\x1b[2Jb\\xe2\\x80\\xae" in done.stdout


def ring(server, last, locale):
    done = run_crier("-n", str(last), str(server.pid), program=CRIER_RING, env=plain_environment(LC_ALL=locale))
    assert done.returncode == 0, done
    return done.stdout


def test_payloads_are_escaped_by_crier_ring(crier):
    server = crier("--no-welcome", "--on-message", "broadcast")
    client = server.connect()
    payloads = [text.encode() for text in (*SEQUENCES, "za\u017c\u00f3\u0142\u0107 \u4f60\u597d")]
    for payload in payloads:
        client.text(payload)
        client.recv_message()
    client.send_frame(BINARY, b"\x9b31m\xff")
    client.recv_message()
    shown = ring(server, len(payloads) + 1, "C.UTF-8")
    assert_harmless(shown)
    for text in ('"\\x1b[2J"', '"\\xc2\\x9b31m"', '"\\xe2\\x80\\xaeabc\\xe2\\x80\\xac"', '"za\u017c\u00f3\u0142\u0107 \u4f60\u597d"',
                 '"\\x9b31m\\xff"'):
        assert text in shown
    assert ring(server, len(payloads) + 1, "C").isascii()


def test_every_character_that_unicode_calls_control_or_format_is_escaped(crier):
    server = crier("--no-welcome", "--on-message", "broadcast")
    client = server.connect()
    hidden = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in HIDDEN]
    lines = ["".join(hidden[at:at + 16]) for at in range(0, len(hidden), 16)]
    for text in lines:
        client.text(text)
        client.recv_message()
    shown = ring(server, len(lines), "C.UTF-8")
    assert_harmless(shown)
    for text in lines:
        assert "".join(f"\\x{byte:02x}" for byte in text.encode()) in shown
