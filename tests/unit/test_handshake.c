#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "worker/proto/handshake.h"

/* RFC 6455 section 1.3. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

#define LINES_UPGRADE "Upgrade: websocket\r\nConnection: Upgrade\r\n"
#define LINE_KEY "Sec-WebSocket-Key: " KEY "\r\n"
#define LINE_VERSION "Sec-WebSocket-Version: 13\r\n"
#define LINE_OFFER(params) "Sec-WebSocket-Extensions: permessage-deflate" params "\r\n"
#define LINES_ALL LINES_UPGRADE LINE_KEY LINE_VERSION

static const struct handshake_policy same = {.origin = HANDSHAKE_ORIGIN_SAME};
static const struct handshake_policy any = {.origin = HANDSHAKE_ORIGIN_ANY};
static const struct handshake_policy compress = {.origin = HANDSHAKE_ORIGIN_SAME, .deflate = true};

static struct handshake_verdict verdict;

static int
check_request(const char *method, const char *target, const char *host, const char *lines,
              const struct handshake_policy *policy)
{
    static char text[1024]; /* the verdict has a slice of it */
    struct http1_request req = {.scanned = 0};
    int bytes = snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", method, target,
                         host, lines);

    assert_int_equal(http1_parse(text, (size_t)bytes, &req), HTTP1_OK);
    memset(&verdict, 0xa5, sizeof(verdict));
    handshake_check(&req, policy, &verdict);
    assert_true(verdict.status == 101 || verdict.sentence);
    return verdict.status;
}

static int
check_lines(const char *lines)
{
    return check_request("GET", "/", "a.example", lines, &same);
}

static int
check_origin(const char *origin, const char *host, const struct handshake_policy *policy)
{
    char lines[512];

    snprintf(lines, sizeof(lines), LINES_ALL "Origin: %s\r\n", origin);
    return check_request("GET", "/", host, lines, policy);
}

static void
test_handshake_the_example_of_the_rfc_is_accepted(void **state)
{
    (void)state;
    assert_int_equal(check_lines(LINES_ALL), 101);
    assert_string_equal(verdict.accept, ACCEPT);
}

static void
test_handshake_the_101_answer_is_exactly_this(void **state)
{
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\n"
                                 "Upgrade: websocket\r\n"
                                 "Connection: Upgrade\r\n"
                                 "Sec-WebSocket-Accept: " ACCEPT "\r\n"
                                 "\r\n";
    char out[HANDSHAKE_ANSWER_MAX_BYTES];

    (void)state;
    assert_int_equal(check_lines(LINES_ALL), 101);
    assert_int_equal(handshake_answer_101(&verdict, out, sizeof(out)), sizeof(answer) - 1);
    assert_memory_equal(out, answer, sizeof(answer) - 1);
    assert_int_equal(handshake_answer_101(&verdict, out, sizeof(answer) - 2), 0);
    assert_int_equal(handshake_answer_101(&verdict, out, sizeof(answer) - 1), sizeof(answer) - 1);
}

static void
test_handshake_a_method_other_than_get_is_405(void **state)
{
    static const char *const methods[] = {"POST", "HEAD", "get", "GETS", "OPTIONS"};

    (void)state;
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
        assert_int_equal(check_request(methods[i], "/", "a", LINES_ALL, &any), 405);
}

static void
test_handshake_the_method_is_judged_before_a_body(void **state)
{
    (void)state;
    assert_int_equal(check_request("POST", "/", "a", LINES_ALL "Content-Length: 3\r\n", &any), 405);
    assert_int_equal(check_request("GET", "/", "a", LINES_ALL "Content-Length: 3\r\n", &any), 400);
}

static void
test_handshake_a_request_that_is_no_upgrade_is_told_what_this_is_with_426(void **state)
{
    static const char *const rows[] = {
        "",
        "Upgrade: websocket\r\n",
        "Connection: Upgrade\r\n",
        "Upgrade: h2c\r\nConnection: Upgrade\r\n",
        "Upgrade: websockets\r\nConnection: Upgrade\r\n",
        "Upgrade: websocket\r\nConnection: keep-alive\r\n",
        "Upgrade: websocket\r\nConnection: keep-alive Upgrade\r\n",
    };
    char lines[256];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        snprintf(lines, sizeof(lines), "%s" LINE_KEY LINE_VERSION, rows[i]);
        assert_int_equal(check_lines(lines), 426);
        assert_non_null(strstr(verdict.sentence, "WebSocket server"));
    }
}

static void
test_handshake_upgrade_and_connection_are_lists_over_several_lines(void **state)
{
    static const char *const rows[] = {
        "upgrade: WebSocket\r\nCONNECTION: upgrade\r\n",
        "Upgrade: h2c, websocket\r\nConnection: keep-alive, Upgrade\r\n",
        "Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: keep-alive\r\nConnection: UPGRADE\r\n",
        "Upgrade:websocket\r\nConnection:,\tUpgrade\t,\r\n",
    };
    char lines[256];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        snprintf(lines, sizeof(lines), "%s" LINE_KEY LINE_VERSION, rows[i]);
        assert_int_equal(check_lines(lines), 101);
    }
}

static void
test_handshake_the_version_is_13_once(void **state)
{
    (void)state;
    assert_int_equal(check_lines(LINES_UPGRADE LINE_KEY), 400);
    assert_int_equal(check_lines(LINES_UPGRADE LINE_KEY LINE_VERSION LINE_VERSION), 400);
    assert_int_equal(check_lines(LINES_UPGRADE LINE_KEY "Sec-WebSocket-Version: 8\r\n"), 426);
    assert_int_equal(check_lines(LINES_UPGRADE LINE_KEY "Sec-WebSocket-Version: 13, 8\r\n"), 426);
    assert_int_equal(check_lines(LINES_UPGRADE LINE_KEY "Sec-WebSocket-Version: 130\r\n"), 426);
    assert_int_equal(check_lines(LINES_UPGRADE LINE_KEY "Sec-WebSocket-Version:\r\n"), 426);
}

static void
test_handshake_the_key_is_16_bytes_in_base64_once(void **state)
{
    static const char *const bad[] = {
        "",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhlIHNhbXBsZSBub25jZQA=",
        "dGhlIHNhbXBsZSBub25jZQ=A",
        "dGhlIHNhbXBsZSBub25j====",
        "dGhlIHNhbXBsZSBub25jZ-==",
        "dGhlIHNhbXBsZSBub25jZ_==",
        "dGhl HNhbXBsZSBub25jZQ==",
        "dGhlIHNhbXBsZSBub25jZQAA",
        "dGhlIHNhbXBsZSBub25jZQAAAA==",
        "=GhlIHNhbXBsZSBub25jZQ==",
    };
    char lines[256];

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(lines, sizeof(lines), LINES_UPGRADE LINE_VERSION "Sec-WebSocket-Key: %s\r\n",
                 bad[i]);
        assert_int_equal(check_lines(lines), 400);
    }
    assert_int_equal(check_lines(LINES_UPGRADE LINE_VERSION), 400);
    assert_int_equal(check_lines(LINES_ALL LINE_KEY), 400);
    /* Trailing bits that are not zero, and both odd digits. */
    assert_int_equal(check_lines(LINES_UPGRADE LINE_VERSION
                                 "Sec-WebSocket-Key:  dGhlIHNhbXBsZSBub25j+/==  \r\n"),
                     101);
}

static void
test_handshake_without_an_origin_everybody_is_let_in(void **state)
{
    static const struct handshake_policy nobody = {.origin = HANDSHAKE_ORIGIN_LIST,
                                                   .origin_list = ""};

    (void)state;
    assert_int_equal(check_request("GET", "/", "a", LINES_ALL, &same), 101);
    assert_int_equal(check_request("GET", "/", "a", LINES_ALL, &nobody), 101);
}

static void
test_handshake_the_same_origin_is_the_same_host_and_port(void **state)
{
    static const struct {
        const char *origin, *host;
        int status;
    } rows[] = {
        {"http://a.example", "a.example", 101},
        {"https://a.example", "a.example", 101},
        {"HTTP://A.example", "a.EXAMPLE", 101},
        {"http://a.example:80", "a.example", 101},
        {"http://a.example", "a.example:80", 101},
        {"https://a.example", "a.example:443", 101},
        {"wss://a.example:443", "a.example", 101},
        {"ws://a.example", "a.example:80", 101},
        {"http://a.example:8080", "a.example:8080", 101},
        {"http://[::1]:8080", "[::1]:8080", 101},
        {"http://a.example:08080", "a.example:8080", 101},
        {"https://a.example", "a.example:80", 403},
        {"http://a.example", "a.example:443", 403},
        {"http://a.example:8080", "a.example", 403},
        {"http://a.example", "a.example:8080", 403},
        {"http://b.example", "a.example", 403},
        {"http://a.example.evil", "a.example", 403},
        {"http://xa.example", "a.example", 403},
        {"http://a.example@evil", "a.example", 403},
        {"http://a.example/", "a.example", 403},
        {"ftp://a.example", "a.example", 403},
        {"file://", "a.example", 403},
        {"a.example", "a.example", 403},
        {"null", "null", 403},
        {"", "a.example", 403},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (check_origin(rows[i].origin, rows[i].host, &same) != rows[i].status)
            fail_msg("%d for origin %s, host %s", verdict.status, rows[i].origin, rows[i].host);
}

static void
test_handshake_a_list_lets_in_exactly_what_it_names(void **state)
{
    static const struct handshake_policy list = {.origin = HANDSHAKE_ORIGIN_LIST,
                                                 .origin_list = "https://a.example, http://B:8080"};
    static const struct handshake_policy null = {.origin = HANDSHAKE_ORIGIN_LIST,
                                                 .origin_list = "null"};

    (void)state;
    assert_int_equal(check_origin("https://a.example", "x", &list), 101);
    assert_int_equal(check_origin("HTTPS://A.Example", "x", &list), 101);
    assert_int_equal(check_origin("http://b:8080", "x", &list), 101);
    assert_int_equal(check_origin("http://a.example", "x", &list), 403);
    assert_int_equal(check_origin("https://a.example:8080", "x", &list), 403);
    assert_int_equal(check_origin("https://a.exampl", "x", &list), 403);
    assert_int_equal(check_origin("http://x", "x", &list), 403);
    assert_int_equal(check_origin("null", "x", &list), 403);
    assert_int_equal(check_origin("", "x", &list), 403);
    assert_int_equal(check_origin("null", "x", &null), 101);
}

static void
test_handshake_any_lets_every_page_in(void **state)
{
    (void)state;
    assert_int_equal(check_origin("http://b.example", "a", &any), 101);
    assert_int_equal(check_origin("null", "a", &any), 101);
}

static void
test_handshake_a_refused_page_is_told_of_the_option(void **state)
{
    (void)state;
    assert_int_equal(check_origin("http://b", "a", &same), 403);
    assert_non_null(strstr(verdict.sentence, "--origin"));
}

static void
test_handshake_more_than_one_origin_is_refused_whatever_the_policy(void **state)
{
    (void)state;
    assert_int_equal(check_origin("http://a\r\nOrigin: http://a", "a", &any), 400);
    assert_int_equal(check_origin("http://a\r\nOrigin: http://b", "a", &same), 400);
}

static void
test_handshake_an_absolute_target_names_the_own_host(void **state)
{
    (void)state;
    assert_int_equal(
        check_request("GET", "http://b/", "a", LINES_ALL "Origin: http://b\r\n", &same), 101);
    assert_int_equal(
        check_request("GET", "http://b/", "a", LINES_ALL "Origin: http://a\r\n", &same), 403);
}

static void
test_handshake_the_policy_is_asked_last(void **state)
{
    (void)state;
    assert_int_equal(check_lines("Origin: http://evil\r\n"), 426);
    assert_int_equal(check_lines(LINES_UPGRADE LINE_KEY "Origin: http://evil\r\n"), 400);
    assert_int_equal(check_lines(LINES_UPGRADE LINE_VERSION "Origin: http://evil\r\n"), 400);
    assert_int_equal(check_lines(LINES_ALL "Origin: http://evil\r\n"), 403);
}

static void
test_handshake_an_error_is_a_whole_response_with_the_sentence_as_its_body(void **state)
{
    static const char answer[] = "HTTP/1.1 400 Bad Request\r\n"
                                 "Content-Type: text/plain; charset=utf-8\r\n"
                                 "Content-Length: 4\r\n"
                                 "Connection: close\r\n"
                                 "\r\n"
                                 "No.\n";
    char out[HANDSHAKE_ANSWER_MAX_BYTES];

    (void)state;
    assert_int_equal(handshake_answer_error(400, "No.", out, sizeof(out)), sizeof(answer) - 1);
    assert_memory_equal(out, answer, sizeof(answer) - 1);
    assert_int_equal(handshake_answer_error(400, "No.", out, sizeof(answer) - 1), 0);
}

static void
test_handshake_every_status_has_its_phrase_and_headers_and_fits(void **state)
{
    static const struct {
        int status;
        const char *expected;
    } rows[] = {
        {400, "400 Bad Request\r\n"},
        {403, "403 Forbidden\r\n"},
        {404, "404 Not Found\r\n"},
        {405, "\r\nAllow: GET\r\n"},
        {408, "408 Request Timeout\r\n"},
        {426, "\r\nSec-WebSocket-Version: 13\r\n"},
        {426, "\r\nUpgrade: websocket\r\n"},
        {426, "\r\nConnection: close, Upgrade\r\n"},
        {431, "431 Request Header Fields Too Large\r\n"},
        {500, "500 Internal Server Error\r\n"},
        {503, "\r\nRetry-After: 1\r\n"},
        {505, "505 HTTP Version Not Supported\r\n"},
    };
    char out[HANDSHAKE_ANSWER_MAX_BYTES + 1], sentence[257];

    (void)state;
    memset(sentence, 'x', sizeof(sentence) - 1);
    sentence[sizeof(sentence) - 1] = 0;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        size_t bytes = handshake_answer_error(rows[i].status, sentence, out, sizeof(out) - 1);

        assert_in_range(bytes, sizeof(sentence), sizeof(out) - 1);
        out[bytes] = 0;
        assert_non_null(strstr(out, rows[i].expected));
    }
}

static void
test_handshake_headers_of_one_status_are_not_in_another(void **state)
{
    char out[HANDSHAKE_ANSWER_MAX_BYTES + 1];
    size_t bytes = handshake_answer_error(403, "No.", out, sizeof(out));

    (void)state;
    out[bytes] = 0;
    assert_null(strstr(out, "Upgrade"));
    assert_null(strstr(out, "Allow"));
    assert_null(strstr(out, "Retry-After"));
    assert_null(strstr(out, "Sec-WebSocket"));
}

static void
test_handshake_an_offer_of_permessage_deflate_is_answered(void **state)
{
    static const char answer[] =
        "HTTP/1.1 101 Switching Protocols\r\n"
        "Upgrade: websocket\r\n"
        "Connection: Upgrade\r\n"
        "Sec-WebSocket-Accept: " ACCEPT "\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; "
        "client_no_context_takeover; server_max_window_bits=10; client_max_window_bits=15\r\n"
        "\r\n";
    char out[HANDSHAKE_ANSWER_MAX_BYTES];

    (void)state;
    assert_int_equal(check_request("GET", "/", "a",
                                   LINES_ALL LINE_OFFER(
                                       "; server_max_window_bits=10; client_max_window_bits=15"),
                                   &compress),
                     101);
    assert_true(verdict.deflate.agreed);
    assert_int_equal(verdict.deflate.server_window_bits, 10);
    assert_int_equal(handshake_answer_101(&verdict, out, sizeof(out)), sizeof(answer) - 1);
    assert_memory_equal(out, answer, sizeof(answer) - 1);
    assert_int_equal(handshake_answer_101(&verdict, out, sizeof(answer) - 2), 0);
}

static void
test_handshake_no_offer_a_declined_one_and_a_policy_without_deflate_agree_on_nothing(void **state)
{
    static const struct {
        const char *lines;
        const struct handshake_policy *policy;
    } rows[] = {
        {LINES_ALL, &compress},
        {LINES_ALL LINE_OFFER("; server_max_window_bits=8"), &compress},
        {LINES_ALL LINE_OFFER(""), &same},
    };
    char out[HANDSHAKE_ANSWER_MAX_BYTES + 1];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        size_t bytes;

        assert_int_equal(check_request("GET", "/", "a", rows[i].lines, rows[i].policy), 101);
        assert_false(verdict.deflate.agreed);
        bytes = handshake_answer_101(&verdict, out, sizeof(out) - 1);
        assert_true(bytes > 0);
        out[bytes] = 0;
        assert_null(strstr(out, "Extensions"));
    }
}

static void
test_handshake_malformed_extensions_are_refused_whatever_the_policy(void **state)
{
    (void)state;
    assert_int_equal(check_request("GET", "/", "a", LINES_ALL LINE_OFFER(";"), &compress), 400);
    assert_int_equal(check_request("GET", "/", "a", LINES_ALL LINE_OFFER(";"), &same), 400);
    assert_non_null(strstr(verdict.sentence, "Sec-WebSocket-Extensions"));
    assert_false(verdict.deflate.agreed);
}

#define LINE_SUBPROTOCOL(value) "Sec-WebSocket-Protocol: " value "\r\n"

static void
test_handshake_the_subprotocol_that_is_agreed_on_is_in_the_answer(void **state)
{
    static const struct handshake_policy chat = {.origin = HANDSHAKE_ORIGIN_SAME,
                                                 .subprotocols = "chat"};
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\n"
                                 "Upgrade: websocket\r\n"
                                 "Connection: Upgrade\r\n"
                                 "Sec-WebSocket-Accept: " ACCEPT "\r\n"
                                 "Sec-WebSocket-Protocol: chat\r\n"
                                 "\r\n";
    char out[HANDSHAKE_ANSWER_MAX_BYTES];

    (void)state;
    assert_int_equal(
        check_request("GET", "/", "a", LINES_ALL LINE_SUBPROTOCOL("mqtt, chat"), &chat), 101);
    assert_int_equal(handshake_answer_101(&verdict, out, sizeof(out)), sizeof(answer) - 1);
    assert_memory_equal(out, answer, sizeof(answer) - 1);
    assert_int_equal(handshake_answer_101(&verdict, out, sizeof(answer) - 2), 0);
}

static void
test_handshake_the_longest_answer_fits(void **state)
{
    static const struct handshake_policy policy = {
        .origin = HANDSHAKE_ORIGIN_SAME, .deflate = true, .subprotocols = "any"};
    char lines[900] = LINES_ALL LINE_OFFER(
        "; server_max_window_bits=10; client_max_window_bits=15") "Sec-WebSocket-Protocol: ";
    size_t used = strlen(lines);
    char out[HANDSHAKE_ANSWER_MAX_BYTES];

    (void)state;
    memset(lines + used, 'x', SUBPROTOCOL_NAME_MAX_BYTES);
    strcpy(lines + used + SUBPROTOCOL_NAME_MAX_BYTES, "\r\n");
    assert_int_equal(check_request("GET", "/", "a", lines, &policy), 101);
    assert_int_equal(verdict.subprotocol.bytes, SUBPROTOCOL_NAME_MAX_BYTES);
    assert_true(handshake_answer_101(&verdict, out, sizeof(out)) > 0);
}

static void
test_handshake_malformed_subprotocols_are_refused_whatever_the_policy(void **state)
{
    (void)state;
    assert_int_equal(check_lines(LINES_ALL LINE_SUBPROTOCOL("a b")), 400);
    assert_non_null(strstr(verdict.sentence, "Sec-WebSocket-Protocol"));
    assert_int_equal(check_lines(LINES_ALL LINE_SUBPROTOCOL("a, a")), 400);
    assert_non_null(strstr(verdict.sentence, "twice"));
    assert_int_equal(check_lines(LINES_ALL LINE_SUBPROTOCOL("a")), 101);
    assert_int_equal(verdict.subprotocol.bytes, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_handshake_the_example_of_the_rfc_is_accepted),
        cmocka_unit_test(test_handshake_the_101_answer_is_exactly_this),
        cmocka_unit_test(test_handshake_a_method_other_than_get_is_405),
        cmocka_unit_test(test_handshake_the_method_is_judged_before_a_body),
        cmocka_unit_test(test_handshake_a_request_that_is_no_upgrade_is_told_what_this_is_with_426),
        cmocka_unit_test(test_handshake_upgrade_and_connection_are_lists_over_several_lines),
        cmocka_unit_test(test_handshake_the_version_is_13_once),
        cmocka_unit_test(test_handshake_the_key_is_16_bytes_in_base64_once),
        cmocka_unit_test(test_handshake_without_an_origin_everybody_is_let_in),
        cmocka_unit_test(test_handshake_the_same_origin_is_the_same_host_and_port),
        cmocka_unit_test(test_handshake_a_list_lets_in_exactly_what_it_names),
        cmocka_unit_test(test_handshake_any_lets_every_page_in),
        cmocka_unit_test(test_handshake_a_refused_page_is_told_of_the_option),
        cmocka_unit_test(test_handshake_more_than_one_origin_is_refused_whatever_the_policy),
        cmocka_unit_test(test_handshake_an_absolute_target_names_the_own_host),
        cmocka_unit_test(test_handshake_the_policy_is_asked_last),
        cmocka_unit_test(test_handshake_an_error_is_a_whole_response_with_the_sentence_as_its_body),
        cmocka_unit_test(test_handshake_every_status_has_its_phrase_and_headers_and_fits),
        cmocka_unit_test(test_handshake_headers_of_one_status_are_not_in_another),
        cmocka_unit_test(test_handshake_an_offer_of_permessage_deflate_is_answered),
        cmocka_unit_test(
            test_handshake_no_offer_a_declined_one_and_a_policy_without_deflate_agree_on_nothing),
        cmocka_unit_test(test_handshake_malformed_extensions_are_refused_whatever_the_policy),
        cmocka_unit_test(test_handshake_the_subprotocol_that_is_agreed_on_is_in_the_answer),
        cmocka_unit_test(test_handshake_the_longest_answer_fits),
        cmocka_unit_test(test_handshake_malformed_subprotocols_are_refused_whatever_the_policy),
    };

    return cmocka_run_group_tests_name("handshake", tests, NULL, NULL);
}
