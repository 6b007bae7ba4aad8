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
test_handshake_a_known_method_is_405_and_an_unknown_one_501(void **state)
{
    static const char *const known[] = {"POST", "PUT", "DELETE", "PATCH", "CONNECT", "TRACE"};
    static const char *const unknown[] = {"get", "GETS", "GE", "BREW", "head", "PRI"};

    (void)state;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        assert_int_equal(check_request(known[i], "/", "a", LINES_ALL, &any), 405);
        assert_int_equal(verdict.cause, REFUSAL_METHOD);
    }
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
        assert_int_equal(check_request(unknown[i], "/", "a", LINES_ALL, &any), 501);
}

static void
test_handshake_only_get_opens_a_websocket(void **state)
{
    (void)state;
    assert_int_equal(check_request("HEAD", "/", "a", LINES_ALL, &any), 426);
    assert_int_equal(verdict.cause, REFUSAL_PLAIN);
    assert_int_equal(check_request("OPTIONS", "/", "a", LINES_ALL, &any), 426);
}

static void
test_handshake_the_method_is_judged_before_a_body(void **state)
{
    (void)state;
    assert_int_equal(check_request("POST", "/", "a", LINES_ALL "Content-Length: 3\r\n", &any), 405);
    assert_int_equal(check_request("GET", "/", "a", LINES_ALL "Content-Length: 3\r\n", &any), 413);
}

static void
test_handshake_a_request_that_wants_no_websocket_is_told_what_this_is_with_426(void **state)
{
    static const char *const rows[] = {
        "",
        "Connection: Upgrade\r\n",
        "Upgrade: h2c\r\nConnection: Upgrade\r\n",
        "Upgrade: websockets\r\nConnection: Upgrade\r\n",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(check_lines(rows[i]), 426);
        assert_int_equal(verdict.cause, REFUSAL_PLAIN);
        assert_non_null(strstr(verdict.sentence, "WebSocket server"));
    }
}

static void
test_handshake_one_that_a_proxy_has_spoilt_is_told_what_the_proxy_must_do(void **state)
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
    static const char old[] = "GET / HTTP/1.0\r\nHost: a\r\n" LINES_ALL "\r\n";
    struct http1_request req = {.scanned = 0};
    char lines[256];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        snprintf(lines, sizeof(lines), "%s" LINE_KEY LINE_VERSION, rows[i]);
        assert_int_equal(check_lines(lines), 426);
        assert_int_equal(verdict.cause, REFUSAL_PROXY);
        assert_non_null(strstr(verdict.sentence, "proxy_set_header Upgrade"));
    }
    assert_int_equal(check_lines("Upgrade: websocket\r\n"), 426);
    assert_int_equal(verdict.cause, REFUSAL_PROXY);
    assert_int_equal(check_lines(LINE_VERSION), 426);
    assert_int_equal(verdict.cause, REFUSAL_PROXY);
    assert_int_equal(http1_parse(old, sizeof(old) - 1, &req), HTTP1_OK);
    handshake_check(&req, &any, &verdict);
    assert_int_equal(verdict.status, 426);
    assert_int_equal(verdict.cause, REFUSAL_PROXY);
    assert_non_null(strstr(verdict.sentence, "proxy_http_version 1.1"));
}

static void
test_handshake_every_sentence_fits_into_a_response(void **state)
{
    static const struct {
        const char *method, *lines;
    } rows[] = {{"POST", ""}, {"BREW", ""}, {"GET", ""}, {"GET", LINE_KEY}, {"GET", LINES_UPGRADE}};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_not_equal(check_request(rows[i].method, "/", "a", rows[i].lines, &any), 101);
        assert_true(strlen(verdict.sentence) <= RESPONSE_SENTENCE_MAX_BYTES);
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
test_handshake_without_an_origin_any_client_is_let_in(void **state)
{
    static const struct handshake_policy none = {.origin = HANDSHAKE_ORIGIN_LIST,
                                                 .origin_list = ""};

    (void)state;
    assert_int_equal(check_request("GET", "/", "a", LINES_ALL, &same), 101);
    assert_int_equal(check_request("GET", "/", "a", LINES_ALL, &none), 101);
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
        {"http://a.example/", "a.example", 101},
        {"http://a.example:8080/", "a.example:8080", 101},
        {"http://a.example//", "a.example", 403},
        {"http://a.example/x", "a.example", 403},
        {"http:///", "a.example", 403},
        {"/", "a.example", 403},
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
    static const struct handshake_policy list = {
        .origin = HANDSHAKE_ORIGIN_LIST, .origin_list = "https://a.example, http://B:8080/"};
    static const struct handshake_policy null = {.origin = HANDSHAKE_ORIGIN_LIST,
                                                 .origin_list = "null"};

    (void)state;
    assert_int_equal(check_origin("https://a.example", "x", &list), 101);
    assert_int_equal(check_origin("HTTPS://A.Example", "x", &list), 101);
    assert_int_equal(check_origin("http://b:8080", "x", &list), 101);
    assert_int_equal(check_origin("https://a.example/", "x", &list), 101);
    assert_int_equal(check_origin("http://b:8080/", "x", &list), 101);
    assert_int_equal(check_origin("https://a.example/x", "x", &list), 403);
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
    memcpy(lines + used + SUBPROTOCOL_NAME_MAX_BYTES, "\r\n", 3);
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
        cmocka_unit_test(test_handshake_a_known_method_is_405_and_an_unknown_one_501),
        cmocka_unit_test(test_handshake_only_get_opens_a_websocket),
        cmocka_unit_test(test_handshake_one_that_a_proxy_has_spoilt_is_told_what_the_proxy_must_do),
        cmocka_unit_test(test_handshake_every_sentence_fits_into_a_response),
        cmocka_unit_test(test_handshake_the_method_is_judged_before_a_body),
        cmocka_unit_test(
            test_handshake_a_request_that_wants_no_websocket_is_told_what_this_is_with_426),
        cmocka_unit_test(test_handshake_upgrade_and_connection_are_lists_over_several_lines),
        cmocka_unit_test(test_handshake_the_version_is_13_once),
        cmocka_unit_test(test_handshake_the_key_is_16_bytes_in_base64_once),
        cmocka_unit_test(test_handshake_without_an_origin_any_client_is_let_in),
        cmocka_unit_test(test_handshake_the_same_origin_is_the_same_host_and_port),
        cmocka_unit_test(test_handshake_a_list_lets_in_exactly_what_it_names),
        cmocka_unit_test(test_handshake_any_lets_every_page_in),
        cmocka_unit_test(test_handshake_a_refused_page_is_told_of_the_option),
        cmocka_unit_test(test_handshake_more_than_one_origin_is_refused_whatever_the_policy),
        cmocka_unit_test(test_handshake_an_absolute_target_names_the_own_host),
        cmocka_unit_test(test_handshake_the_policy_is_asked_last),
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
