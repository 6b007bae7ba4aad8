/*
 * What reaches a terminal, and what does not.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/util/escape.h"

static char out[256];

static const char *
shown(const char *text, size_t bytes, enum escape_style style, bool utf8)
{
    size_t length;

    memset(out, 'Z', sizeof(out));
    length = escape_text_as(out, sizeof(out), text, bytes, style, utf8);
    assert_int_equal(length, strlen(out));
    return out;
}

static const char *
line(const char *text)
{
    return shown(text, strlen(text), ESCAPE_LINE, true);
}

static size_t
encode(uint32_t c, char text[4])
{
    if (c < 0x80) {
        text[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        text[0] = (char)(0xc0 | c >> 6);
        text[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        text[0] = (char)(0xe0 | c >> 12);
        text[1] = (char)(0x80 | (c >> 6 & 0x3f));
        text[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    text[0] = (char)(0xf0 | c >> 18);
    text[1] = (char)(0x80 | (c >> 12 & 0x3f));
    text[2] = (char)(0x80 | (c >> 6 & 0x3f));
    text[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

static void
check_character(uint32_t c, bool is_shown)
{
    char text[4];
    char escaped[17] = "";
    size_t bytes = encode(c, text);

    for (size_t i = 0; i < bytes; i++)
        snprintf(escaped + 4 * i, sizeof(escaped) - 4 * i, "\\x%02x", (unsigned char)text[i]);
    shown(text, bytes, ESCAPE_LINE, true);
    if (is_shown) {
        assert_int_equal(strlen(out), bytes);
        assert_memory_equal(out, text, bytes);
    } else {
        assert_string_equal(out, escaped);
    }
}

static void
check_range(uint32_t first, uint32_t last, bool is_shown)
{
    for (uint32_t c = first; c <= last; c++)
        check_character(c, is_shown);
}

static void
test_escape_no_control_character_is_shown(void **state)
{
    (void)state;
    check_range(0, 0x1f, false);
    check_range(0x7f, 0x9f, false);
    check_range(0x20, 0x7e, true);
    check_range(0xa0, 0xac, true);
}

static void
test_escape_sequences_for_terminals_are_text(void **state)
{
    (void)state;
    assert_string_equal(line("\x1b[2J\x1b]0;title\x07"), "\\x1b[2J\\x1b]0;title\\x07");
    assert_string_equal(line("\xc2\x9b"
                             "31m"),
                        "\\xc2\\x9b31m"); /* CSI in UTF-8 */
    assert_string_equal(line("\x9b"
                             "31m\x9d\x90"),
                        "\\x9b31m\\x9d\\x90"); /* CSI, OSC and DCS as bytes */
    assert_string_equal(line("a\rb\nc\bd\te"), "a\\x0db\\x0ac\\x08d\\x09e");
}

static void
test_escape_no_character_that_changes_the_order_or_is_invisible_is_shown(void **state)
{
    static const uint32_t hidden[] = {0xad,   0x61c,  0x180e, 0x200b,  0x200e,  0x200f,  0x2028,
                                      0x2029, 0x202a, 0x202e, 0x2060,  0x2066,  0x2069,  0xfeff,
                                      0xfff9, 0xfffe, 0xffff, 0xe0001, 0xe007f, 0x1ffff, 0x10fffe};

    (void)state;
    for (size_t i = 0; i < sizeof(hidden) / sizeof(hidden[0]); i++)
        check_character(hidden[i], false);
}

static void
test_escape_text_of_any_language_is_shown(void **state)
{
    (void)state;
    assert_string_equal(line("zażółć 你好 שלום 🙂 e\xcc\x81"),
                        "zażółć 你好 שלום 🙂 e\xcc\x81");
    check_character(0x10fffd, true);
    check_character(0xfffd, true);
}

static void
test_escape_what_is_not_utf8_is_shown_byte_by_byte(void **state)
{
    (void)state;
    assert_string_equal(line("\xff\xc3"), "\\xff\\xc3");                   /* cut off */
    assert_string_equal(line("\xc0\xaf\xc1\xbf"), "\\xc0\\xaf\\xc1\\xbf"); /* too long */
    assert_string_equal(line("\xe0\x81\x81|"), "\\xe0\\x81\\x81|");
    assert_string_equal(line("\xf0\x82\x82\x81"), "\\xf0\\x82\\x82\\x81");
    assert_string_equal(line("\xed\xa0\x80"), "\\xed\\xa0\\x80");          /* a surrogate */
    assert_string_equal(line("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80"); /* beyond Unicode */
    assert_string_equal(line("\xe2\x82x"), "\\xe2\\x82x");
    assert_string_equal(shown("\xe2\x82\xac", 2, ESCAPE_LINE, true), "\\xe2\\x82");
    assert_string_equal(shown("a\0b", 3, ESCAPE_LINE, true), "a\\x00b");
}

static void
test_escape_a_terminal_without_utf8_gets_ascii_only(void **state)
{
    (void)state;
    assert_string_equal(shown("\xc5\x9bx", 3, ESCAPE_LINE, false), "\\xc5\\x9bx");
}

static void
test_escape_quoted_text_ends_at_its_quotation_mark(void **state)
{
    static const char text[] = "a\" \\x1b \x1b";

    (void)state;
    assert_string_equal(shown(text, strlen(text), ESCAPE_QUOTED, true), "a\\\" \\\\x1b \\x1b");
    assert_string_equal(line("a\"\\"), "a\"\\");
}

/* In every size of the output: a whole prefix, or all of it. */
static void
test_escape_what_does_not_fit_is_cut_between_characters(void **state)
{
    static const char text[] = "ab\x1b\xe2\x82\xac"
                               "cd";
    static const char whole[] = "ab\\x1b\xe2\x82\xac"
                                "cd";

    (void)state;
    for (size_t room = 4; room <= sizeof(whole) + 1; room++) {
        size_t bytes = escape_text_as(out, room, text, sizeof(text) - 1, ESCAPE_LINE, true);

        assert_int_equal(bytes, strlen(out));
        assert_true(bytes < room);
        if (room > strlen(whole)) {
            assert_string_equal(out, whole);
            continue;
        }
        assert_string_equal(out + bytes - 3, "...");
        bytes -= 3;
        assert_true(bytes == 0 || bytes == 1 || bytes == 2 || bytes == 6 || bytes == 9);
        assert_memory_equal(out, whole, bytes);
        assert_true(bytes + 3 + 4 >= room - 1); /* as much as fits */
    }
}

static int
locale_in_child(const char *all, const char *type, const char *lang)
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        setenv("LC_ALL", all, 1);
        setenv("LC_CTYPE", type, 1);
        setenv("LANG", lang, 1);
        _exit(escape_locale_is_utf8() ? 1 : 0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WEXITSTATUS(status);
}

static void
test_escape_the_locale_of_the_environment_decides(void **state)
{
    (void)state;
    assert_int_equal(locale_in_child("", "", ""), 0);
    assert_int_equal(locale_in_child("C.UTF-8", "C", "C"), 1);
    assert_int_equal(locale_in_child("C", "C.UTF-8", "C.UTF-8"), 0);
    assert_int_equal(locale_in_child("", "de_DE.utf8", "C"), 1);
    assert_int_equal(locale_in_child("", "", "pl_PL.UTF-8"), 1);
    assert_int_equal(locale_in_child("", "", "pl_PL.ISO-8859-2"), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_escape_no_control_character_is_shown),
        cmocka_unit_test(test_escape_sequences_for_terminals_are_text),
        cmocka_unit_test(test_escape_no_character_that_changes_the_order_or_is_invisible_is_shown),
        cmocka_unit_test(test_escape_text_of_any_language_is_shown),
        cmocka_unit_test(test_escape_what_is_not_utf8_is_shown_byte_by_byte),
        cmocka_unit_test(test_escape_a_terminal_without_utf8_gets_ascii_only),
        cmocka_unit_test(test_escape_quoted_text_ends_at_its_quotation_mark),
        cmocka_unit_test(test_escape_what_does_not_fit_is_cut_between_characters),
        cmocka_unit_test(test_escape_the_locale_of_the_environment_decides),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
