#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/proto/extension.h"

#define PMD "permessage-deflate"
#define BOTH "; server_no_context_takeover; client_no_context_takeover"

static struct extension_deflate deflate;

/* `lines` are whole header lines, each with its CR LF. */
static bool
negotiate_lines(const char *lines)
{
    struct http1_request req = {.scanned = 0};
    char text[HTTP1_HEAD_MAX_BYTES + 1];
    int bytes = snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n", lines);

    assert_int_equal(http1_parse(text, (size_t)bytes, &req), HTTP1_OK);
    memset(&deflate, 0xa5, sizeof(deflate));
    return extension_negotiate(&req, &deflate);
}

static bool
negotiate(const char *value)
{
    char lines[1024];

    snprintf(lines, sizeof(lines), "Sec-WebSocket-Extensions: %s\r\n", value);
    return negotiate_lines(lines);
}

/* The answer as a string; "" if there is none. */
static const char *
answer(void)
{
    static char text[EXTENSION_ANSWER_MAX_BYTES];

    if (!extension_answer(&deflate, text, sizeof(text)))
        text[0] = 0;
    return text;
}

/* An offer and what is answered; "" declines. */
struct row {
    const char *offer, *answer;
};

static void
check_rows(const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!negotiate(rows[i].offer))
            fail_msg("malformed: %s", rows[i].offer);
        if (strcmp(answer(), rows[i].answer) != 0)
            fail_msg("offer %s, answer %s", rows[i].offer, answer());
    }
}

#define CHECK_ROWS(rows) check_rows(rows, sizeof(rows) / sizeof((rows)[0]))

static void
test_extension_an_offer_is_answered_with_what_it_asked_and_no_takeover(void **state)
{
    static const struct row rows[] = {
        {PMD, PMD BOTH},
        {PMD "; client_max_window_bits", PMD BOTH}, /* every browser */
        {PMD "; server_no_context_takeover", PMD BOTH},
        {PMD "; client_no_context_takeover", PMD BOTH},
        {PMD "; client_no_context_takeover; server_no_context_takeover", PMD BOTH},
        {PMD "; server_max_window_bits=9", PMD BOTH "; server_max_window_bits=9"},
        {PMD "; server_max_window_bits=10", PMD BOTH "; server_max_window_bits=10"},
        {PMD "; server_max_window_bits=14", PMD BOTH "; server_max_window_bits=14"},
        {PMD "; server_max_window_bits=15", PMD BOTH "; server_max_window_bits=15"},
        {PMD "; client_max_window_bits=8", PMD BOTH "; client_max_window_bits=8"},
        {PMD "; client_max_window_bits=9", PMD BOTH "; client_max_window_bits=9"},
        {PMD "; client_max_window_bits=15", PMD BOTH "; client_max_window_bits=15"},
        {PMD "; client_max_window_bits; server_max_window_bits=12; server_no_context_takeover",
         PMD BOTH "; server_max_window_bits=12"},
        {PMD "; client_max_window_bits=11; client_no_context_takeover; server_max_window_bits=13;"
             "server_no_context_takeover",
         PMD BOTH "; server_max_window_bits=13; client_max_window_bits=11"},
    };

    (void)state;
    CHECK_ROWS(rows);
}

static void
test_extension_an_offer_that_cannot_be_kept_is_declined(void **state)
{
    static const struct row rows[] = {
        {"", ""},
        {"x-webkit-deflate-frame", ""},
        {"permessage-deflat", ""},
        {"permessage-deflate2", ""},
        {"x; permessage-deflate", ""},
        /* unknown */
        {PMD "; x", ""},
        {PMD "; mux=3; client_max_window_bits", ""},
        {PMD "; server_max_window_bit=10", ""},
        {PMD "; server_max_window_bitss=10", ""},
        {PMD "; permessage-deflate", ""},
        /* twice */
        {PMD "; server_no_context_takeover; server_no_context_takeover", ""},
        {PMD "; client_no_context_takeover; client_no_context_takeover", ""},
        {PMD "; client_max_window_bits; client_max_window_bits", ""},
        {PMD "; client_max_window_bits; client_max_window_bits=10", ""},
        {PMD "; client_max_window_bits=10; CLIENT_max_window_bits=10", ""},
        {PMD "; server_max_window_bits=10; server_max_window_bits=10", ""},
        /* a value where none may be */
        {PMD "; server_no_context_takeover=1", ""},
        {PMD "; client_no_context_takeover=true", ""},
        {PMD "; client_no_context_takeover=\"\"", ""},
        /* no value where one must be */
        {PMD "; server_max_window_bits", ""},
        /* zlib cannot make it */
        {PMD "; server_max_window_bits=8", ""},
        {PMD "; server_max_window_bits=\"8\"", ""},
    };

    (void)state;
    CHECK_ROWS(rows);
}

static void
test_extension_the_bits_of_a_window_are_a_number_from_8_to_15(void **state)
{
    static const char *const bad[] = {
        "0",       "1",          "7",         "16",         "17",   "19",      "20",
        "25",      "80",         "08",        "09",         "010",  "015",     "00000010",
        "+10",     "-9",         "1e1",       "0xa",        "ten",  "10a",     "a10",
        "1.5",     "100",        "150",       "4294967306", "\"\"", "\" 10\"", "\"10 \"",
        "\"010\"", "\"1\\\\0\"", "\"1\\\"\"", "\"\\\\\"",
    };
    char offer[128];

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(offer, sizeof(offer), PMD "; server_max_window_bits=%s", bad[i]);
        check_rows(&(struct row){offer, ""}, 1);
        snprintf(offer, sizeof(offer), PMD "; client_max_window_bits=%s", bad[i]);
        check_rows(&(struct row){offer, ""}, 1);
    }
}

static void
test_extension_a_quoted_value_is_as_good_as_a_bare_one(void **state)
{
    static const struct row rows[] = {
        {PMD "; server_max_window_bits=\"10\"", PMD BOTH "; server_max_window_bits=10"},
        {PMD "; client_max_window_bits=\"8\"", PMD BOTH "; client_max_window_bits=8"},
        {PMD "; server_max_window_bits=\"\\1\\0\"", PMD BOTH "; server_max_window_bits=10"},
        /* Separators in quotes are none. */
        {"x; y=\"" PMD "; z, " PMD "\", " PMD, PMD BOTH},
        {"x; y=\"\\\", " PMD "\"", ""},
    };

    (void)state;
    CHECK_ROWS(rows);
}

static void
test_extension_white_space_and_empty_elements_mean_nothing(void **state)
{
    static const struct row rows[] = {
        {",", ""},
        {" , ,,\t,", ""},
        {",, ," PMD ",", PMD BOTH},
        {PMD ";server_max_window_bits=10", PMD BOTH "; server_max_window_bits=10"},
        {"\t" PMD " \t;\t server_max_window_bits \t=  10  ",
         PMD BOTH "; server_max_window_bits=10"},
        {PMD " ; server_max_window_bits = \"10\" , x", PMD BOTH "; server_max_window_bits=10"},
    };

    (void)state;
    CHECK_ROWS(rows);
}

static void
test_extension_the_case_of_names_does_not_matter(void **state)
{
    static const struct row rows[] = {
        {"PerMessage-DEFLATE", PMD BOTH},
        {PMD "; Server_Max_Window_Bits=10; CLIENT_MAX_WINDOW_BITS",
         PMD BOTH "; server_max_window_bits=10"},
    };

    (void)state;
    CHECK_ROWS(rows);
    assert_true(negotiate_lines("sec-websocket-EXTENSIONS: " PMD "\r\n"));
    assert_string_equal(answer(), PMD BOTH);
}

static void
test_extension_the_first_offer_that_can_be_kept_counts(void **state)
{
    static const struct row rows[] = {
        {PMD "; server_max_window_bits=10, " PMD, PMD BOTH "; server_max_window_bits=10"},
        {PMD ", " PMD "; server_max_window_bits=10", PMD BOTH},
        {PMD "; server_max_window_bits=8, " PMD, PMD BOTH},
        {PMD "; server_max_window_bits=8; client_max_window_bits=9, " PMD
             "; client_max_window_bits=12",
         PMD BOTH "; client_max_window_bits=12"},
        {PMD "; x, " PMD "; client_max_window_bits=7, y; z=1, " PMD
             "; client_max_window_bits=10," PMD,
         PMD BOTH "; client_max_window_bits=10"},
        {PMD "; x, " PMD "; x", ""},
    };

    (void)state;
    CHECK_ROWS(rows);
}

static void
test_extension_several_lines_are_one_list(void **state)
{
    (void)state;
    assert_true(negotiate_lines("Sec-WebSocket-Extensions: x; y=1\r\n"
                                "Upgrade: " PMD "; server_max_window_bits=9\r\n"
                                "Sec-WebSocket-Extensions: " PMD "; server_max_window_bits=8\r\n"
                                "Sec-WebSocket-Extensions:\r\n"
                                "Sec-WebSocket-Extensions: " PMD "; server_max_window_bits=12\r\n"
                                "Sec-WebSocket-Extensions: " PMD "\r\n"));
    assert_string_equal(answer(), PMD BOTH "; server_max_window_bits=12");
    assert_true(negotiate_lines("Upgrade: " PMD "\r\n"));
    assert_string_equal(answer(), "");
}

static void
test_extension_what_is_not_the_grammar_is_reported_and_nothing_is_agreed(void **state)
{
    static const char *const bad[] = {
        ";",
        "=",
        "; " PMD,
        PMD ";",
        PMD ";;server_no_context_takeover",
        PMD "; ,",
        PMD "; =10",
        PMD "; server_max_window_bits=",
        PMD "; server_max_window_bits=,",
        PMD "; server_max_window_bits==10",
        PMD "; server_max_window_bits=10=10",
        PMD "; server_max_window_bits=10 11",
        PMD "; server_max_window_bits=\"10",
        PMD "; server_max_window_bits=\"10\\",
        PMD "; server_max_window_bits=\"10\"0",
        PMD "; server_max_window_bits=\"1\"\"0\"",
        PMD "; server_max_window_bits=1\"0\"",
        PMD "; \"server_max_window_bits\"=10",
        PMD " server_no_context_takeover",
        PMD "=1",
        PMD ", x y",
        PMD ", x/1",
        PMD ", (x)",
        PMD ", x; y=\"",
        PMD ", \xc3\xa4",
        "\"" PMD "\"",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (negotiate(bad[i]))
            fail_msg("let through: %s", bad[i]);
        assert_string_equal(answer(), "");
    }
    /* Also behind an offer on a line of its own. */
    assert_false(negotiate_lines("Sec-WebSocket-Extensions: " PMD "\r\n"
                                 "Sec-WebSocket-Extensions: ;\r\n"));
    assert_string_equal(answer(), "");
}

static void
test_extension_what_was_agreed_says_which_windows(void **state)
{
    (void)state;
    assert_true(negotiate(PMD "; client_max_window_bits"));
    assert_true(deflate.agreed);
    assert_false(deflate.server_bits_asked);
    assert_int_equal(deflate.server_window_bits, 15);
    assert_int_equal(deflate.client_window_bits, 0);
    assert_true(negotiate(PMD "; client_max_window_bits=8; server_max_window_bits=9"));
    assert_true(deflate.server_bits_asked);
    assert_int_equal(deflate.server_window_bits, 9);
    assert_int_equal(deflate.client_window_bits, 8);
    assert_true(negotiate("x"));
    assert_memory_equal(&deflate, &(struct extension_deflate){.agreed = false}, sizeof(deflate));
}

static void
test_extension_an_answer_that_does_not_fit_is_none(void **state)
{
    static const char longest[] = PMD BOTH "; server_max_window_bits=15; client_max_window_bits=15";
    char out[sizeof(longest)];

    (void)state;
    assert_true(sizeof(longest) <= EXTENSION_ANSWER_MAX_BYTES);
    assert_true(negotiate(PMD "; server_max_window_bits=15; client_max_window_bits=15"));
    assert_int_equal(extension_answer(&deflate, out, sizeof(longest)), sizeof(longest) - 1);
    assert_string_equal(out, longest);
    assert_int_equal(extension_answer(&deflate, out, sizeof(longest) - 1), 0);
}

/* Fills a head up to its limit with copies of `element`, which the last offer stands behind. */
static void
check_flood(const char *element)
{
    char lines[HTTP1_HEAD_MAX_BYTES] = "Sec-WebSocket-Extensions: ";
    size_t at = strlen(lines);

    while (at + strlen(element) + 100 < sizeof(lines))
        at += (size_t)snprintf(lines + at, sizeof(lines) - at, "%s", element);
    snprintf(lines + at, sizeof(lines) - at, PMD "\r\n");
    assert_true(negotiate_lines(lines));
    assert_string_equal(answer(), PMD BOTH);
}

static void
test_extension_a_head_full_of_offers_is_read_to_its_end(void **state)
{
    (void)state;
    check_flood(",");
    check_flood("x,");
    check_flood(" \t , ");
    check_flood(PMD ";x,");
    check_flood(PMD ";server_max_window_bits=8,");
    check_flood("x;y=\"\\\"\\\"\\\"\",");
}

/* A byte behind it would be a crash. */
static void
test_extension_a_value_is_not_read_beyond_its_end(void **state)
{
    static const char *const cut[] = {
        PMD "; x=\"1\\", PMD "; x=\"1", PMD "; x=\"", PMD "; x=", PMD "; x",
        PMD ";",         PMD ",",       PMD,          "",
    };
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)state;
    assert_true(pages != MAP_FAILED);
    assert_int_equal(mprotect(pages + page, page, PROT_NONE), 0);
    for (size_t i = 0; i < sizeof(cut) / sizeof(cut[0]); i++) {
        size_t bytes = strlen(cut[i]);
        struct http1_request req = {.header_count = 1};

        memcpy(pages + page - bytes, cut[i], bytes);
        req.headers[0].name = http1_slice_of("Sec-WebSocket-Extensions");
        req.headers[0].value = (struct http1_slice){pages + page - bytes, bytes};
        (void)extension_negotiate(&req, &deflate);
    }
    assert_int_equal(munmap(pages, 2 * page), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_extension_an_offer_is_answered_with_what_it_asked_and_no_takeover),
        cmocka_unit_test(test_extension_an_offer_that_cannot_be_kept_is_declined),
        cmocka_unit_test(test_extension_the_bits_of_a_window_are_a_number_from_8_to_15),
        cmocka_unit_test(test_extension_a_quoted_value_is_as_good_as_a_bare_one),
        cmocka_unit_test(test_extension_white_space_and_empty_elements_mean_nothing),
        cmocka_unit_test(test_extension_the_case_of_names_does_not_matter),
        cmocka_unit_test(test_extension_the_first_offer_that_can_be_kept_counts),
        cmocka_unit_test(test_extension_several_lines_are_one_list),
        cmocka_unit_test(test_extension_what_is_not_the_grammar_is_reported_and_nothing_is_agreed),
        cmocka_unit_test(test_extension_what_was_agreed_says_which_windows),
        cmocka_unit_test(test_extension_an_answer_that_does_not_fit_is_none),
        cmocka_unit_test(test_extension_a_head_full_of_offers_is_read_to_its_end),
        cmocka_unit_test(test_extension_a_value_is_not_read_beyond_its_end),
    };

    return cmocka_run_group_tests_name("extension", tests, NULL, NULL);
}
