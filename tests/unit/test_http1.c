#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/proto/http1.h"

#define HOST "Host: a.example\r\n"

static struct http1_request req;

/* The buffer is exactly as long as the request, so that a step outside is noticed. */
static char *
exact_copy(const char *text, size_t bytes)
{
    char *buf = malloc(bytes + !bytes);

    assert_non_null(buf);
    memcpy(buf, text, bytes);
    return buf;
}

static enum http1_status
parse_once(const char *buf, size_t bytes)
{
    memset(&req, 0xa5, sizeof(req));
    req.scanned = 0;
    return http1_parse(buf, bytes, &req);
}

/* Status of the failure; 0: none; -1: more is needed. It must not depend on how the bytes came. */
static int
parse_status(const char *text, size_t bytes)
{
    char *buf = exact_copy(text, bytes);
    enum http1_status at_once = parse_once(buf, bytes), trickled = HTTP1_NEED_MORE;
    int status = at_once == HTTP1_FAIL ? req.fail_status : at_once == HTTP1_OK ? 0 : -1;

    req.scanned = 0;
    for (size_t i = 1; i <= bytes && trickled == HTTP1_NEED_MORE; i++)
        trickled = http1_parse(buf, i, &req);
    assert_int_equal(trickled, at_once);
    if (at_once == HTTP1_FAIL) {
        assert_int_equal(req.fail_status, status);
        assert_non_null(req.fail_sentence);
    }
    free(buf);
    return status;
}

static void
assert_status(const char *text, int status)
{
    int got = parse_status(text, strlen(text));

    if (got != status)
        fail_msg("%d instead of %d for:\n%s", got, status, text);
}

/* A header line put into a request that is right. */
static void
assert_header_status(const char *line, int status)
{
    char text[512];

    snprintf(text, sizeof(text), "GET / HTTP/1.1\r\n" HOST "%s\r\n\r\n", line);
    assert_status(text, status);
}

static void
assert_body_reported(const char *line, bool reported)
{
    struct http1_request request = {.scanned = 0};
    char text[512];
    int bytes = snprintf(text, sizeof(text), "GET / HTTP/1.1\r\n" HOST "%s\r\n\r\n", line);

    assert_int_equal(http1_parse(text, (size_t)bytes, &request), HTTP1_OK);
    assert_int_equal(request.has_body, reported);
}

static void
assert_slice(struct http1_slice slice, const char *text)
{
    assert_int_equal(slice.bytes, strlen(text));
    assert_memory_equal(slice.at, text, slice.bytes);
}

static void
assert_parsed(const char *text)
{
    assert_int_equal(parse_once(text, strlen(text)), HTTP1_OK);
}

static void
test_http1_a_request_is_sliced_into_its_parts(void **state)
{
    const char *text = "GET /chat/a%20b?since=1&x=?y HTTP/1.1\r\n"
                       "Host: a.example:8080\r\n"
                       "X-Empty:\r\n"
                       "X-Blanks: \t two  words \t \r\n"
                       "!#$%&'*+-.^_`|~09azAZ:\xc3\xa4:\r\n"
                       "\r\nrest";

    (void)state;
    assert_parsed(text);
    assert_int_equal(req.head_bytes, strlen(text) - 4);
    assert_slice(req.method, "GET");
    assert_slice(req.target, "/chat/a%20b?since=1&x=?y");
    assert_slice(req.path, "/chat/a%20b");
    assert_slice(req.query, "since=1&x=?y");
    assert_slice(req.host, "a.example:8080");
    assert_int_equal(req.header_count, 4);
    assert_slice(http1_header_find(&req, "x-empty")->value, "");
    assert_slice(http1_header_find(&req, "X-BLANKS")->value, "two  words");
    assert_slice(http1_header_find(&req, "!#$%&'*+-.^_`|~09AzaZ")->value, "\xc3\xa4:");
    assert_null(http1_header_find(&req, "X-Blank"));
}

static void
test_http1_a_path_without_a_question_mark_has_no_query(void **state)
{
    (void)state;
    assert_parsed("GET / HTTP/1.1\r\n" HOST "\r\n");
    assert_null(req.query.at);
    assert_parsed("GET /? HTTP/1.1\r\n" HOST "\r\n");
    assert_non_null(req.query.at);
    assert_int_equal(req.query.bytes, 0);
}

static void
test_http1_every_prefix_of_a_request_needs_more(void **state)
{
    static const char text[] = "OPTIONS /a?b HTTP/1.1\r\n" HOST "Accept: */*\r\n\r\n";

    (void)state;
    for (size_t bytes = 0; bytes < sizeof(text) - 1; bytes++)
        for (size_t cut = 0; cut <= bytes; cut++) {
            char *buf = exact_copy(text, bytes);

            req.scanned = 0;
            assert_int_equal(http1_parse(buf, cut, &req), HTTP1_NEED_MORE);
            assert_int_equal(http1_parse(buf, bytes, &req), HTTP1_NEED_MORE);
            assert_int_equal(req.scanned, bytes);
            free(buf);
        }
    assert_status(text, 0);
}

static void
test_http1_what_is_no_http_is_refused_with_its_first_bytes(void **state)
{
    static const struct {
        const char *text;
        size_t bytes;
    } rows[] = {
        {"\x16", 1}, /* a TLS ClientHello */
        {"\x00\x01", 2}, {"\rG", 2},     {"\n", 1},     {" GET", 4}, {"GET\t", 4},
        {"GET\r", 4},    {"HELLO\n", 6}, {"{\"a\"", 1}, {"\xff", 1}, {"\x81\x85", 2},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_int_equal(parse_status(rows[i].text, rows[i].bytes), 400);
    assert_int_equal(parse_status("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF", 32), -1);
    assert_int_equal(parse_status("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF ", 33), -1);
}

static void
test_http1_a_lone_line_feed_is_refused_at_once(void **state)
{
    (void)state;
    assert_status("GET /\n", 400);
    assert_status("GET / HTTP/1.1\n", 400);
    assert_status("GET / HTTP/1.1\r\nHost: a\n", 400);
    assert_status("GET / HTTP/1.1\r\nHost: a\r\n\n", 400);
    assert_status("GET / HTTP/1.1\r\nHost: a\n\n", 400);
}

static void
test_http1_a_malformed_request_line_is_400(void **state)
{
    static const char *const lines[] = {
        "GET",
        "GET ",
        "GET /",
        "GET / ",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / HTTP/1.1 x",
        "GET /  HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/1",
        "GET / HTTP/1.10",
        "GET / HTTP/x.1",
        "GET / HTTP/1,1",
        "GET / HTTPS/1.1",
        "GET /\tHTTP/1.1",
        "GET /\r HTTP/1.1",
        "GE(T / HTTP/1.1",
        "GET /a\x7f HTTP/1.1",
        "GET /\xc3\xa4 HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET a HTTP/1.1",
        "GET * HTTP/1.1",
    };
    char text[256];

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        snprintf(text, sizeof(text), "%s\r\n" HOST "\r\n", lines[i]);
        assert_status(text, 400);
    }
    assert_int_equal(parse_status("GET /\0 HTTP/1.1\r\n" HOST "\r\n", 17 + sizeof(HOST) - 1 + 2),
                     400);
}

static void
test_http1_other_major_versions_are_505(void **state)
{
    (void)state;
    assert_status("GET / HTTP/0.9\r\n" HOST "\r\n", 505);
    assert_non_null(strstr(req.fail_sentence, "HTTP/1.1"));
    assert_status("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505); /* what an HTTP/2 client says first */
}

static void
test_http1_version_1_0_needs_no_host_and_higher_ones_are_read_as_1_1(void **state)
{
    (void)state;
    assert_parsed("GET / HTTP/1.0\r\n\r\n");
    assert_true(req.is_http10);
    assert_null(req.host.at);
    assert_parsed("GET / HTTP/1.0\r\nHost: b\r\n\r\n");
    assert_slice(req.host, "b");
    assert_status("GET / HTTP/1.0\r\nHost: a b\r\n\r\n", 400);
    assert_status("GET / HTTP/1.0\r\n" HOST HOST "\r\n", 400);
    assert_parsed("GET / HTTP/1.1\r\n" HOST "\r\n");
    assert_false(req.is_http10);
    assert_parsed("GET / HTTP/1.9\r\n" HOST "\r\n");
    assert_false(req.is_http10);
    assert_status("GET / HTTP/1.2\r\n\r\n", 400); /* no Host */
}

static void
test_http1_one_empty_line_in_front_is_ignored(void **state)
{
    (void)state;
    assert_status("\r\nGET / HTTP/1.1\r\n" HOST "\r\n", 0);
    assert_status("\r", -1);
    assert_status("\r\n", -1);
    assert_status("\r\nG", -1);
    assert_status("\r\n\r\nGET / HTTP/1.1\r\n" HOST "\r\n", 400);
    assert_status("\nGET / HTTP/1.1\r\n" HOST "\r\n", 400);
    assert_status("\rGET / HTTP/1.1\r\n" HOST "\r\n", 400);
    assert_status("\r\n GET / HTTP/1.1\r\n" HOST "\r\n", 400);
    assert_parsed("\r\nGET / HTTP/1.1\r\n" HOST "\r\n");
    assert_slice(req.method, "GET");
    assert_int_equal(req.head_bytes, strlen("\r\nGET / HTTP/1.1\r\n" HOST "\r\n"));
}

/* A client of HTTP/0.9 sends this line and waits. */
static void
test_http1_a_wrong_request_line_is_refused_when_it_ends(void **state)
{
    (void)state;
    assert_status("GET /\r\n", 400);
    assert_status("GET / HTTP/3.0\r\n", 505);
    assert_status("GET x HTTP/1.1\r\n", 400);
    assert_status("GET / HTTP/1.1\r\n", -1);
    assert_status("GET / HTTP/3.0\r\nX: a\n", 505); /* before what is wrong behind it */
    assert_status("\r\nGET /\r\n", 400);
}

static void
test_http1_a_method_that_no_server_knows_is_501(void **state)
{
    (void)state;
    assert_status("XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX / HTTP/1.1\r\n" HOST "\r\n", 0);
    assert_status("XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX", 501);
}

static void
test_http1_a_tls_client_is_told_so(void **state)
{
    (void)state;
    assert_status("\x16\x03\x01", 400);
    assert_non_null(strstr(req.fail_sentence, "TLS"));
    assert_status("\x15", 400);
    assert_null(strstr(req.fail_sentence, "TLS"));
}

static void
test_http1_a_proxy_that_sends_the_proxy_protocol_is_told_so(void **state)
{
    static const char second[] = "\r\n\r\n\0\r\nQUIT\n";

    (void)state;
    assert_status("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", 400);
    assert_non_null(strstr(req.fail_sentence, "PROXY protocol"));
    assert_status("PROXY UNKNOWN\r\n", 400);
    assert_non_null(strstr(req.fail_sentence, "PROXY protocol"));
    assert_int_equal(parse_status(second, sizeof(second) - 1), 400);
    assert_non_null(strstr(req.fail_sentence, "PROXY protocol"));
    for (size_t i = 0; i < sizeof(second) - 1; i++)
        assert_int_equal(parse_status(second, i), -1);
    assert_int_equal(parse_status("\r\n\r\nG", 5), 400);
    assert_null(strstr(req.fail_sentence, "PROXY protocol"));
    assert_status("PROXY / HTTP/2.0\r\n", 505);
    assert_status("PROXY / HTTP/1.1\r\n" HOST "\r\n", 0);
    assert_status("GET UNKNOWN\r\n", 400);
    assert_null(strstr(req.fail_sentence, "PROXY protocol"));
}

static void
test_http1_options_may_be_about_the_server_and_connect_names_a_host(void **state)
{
    (void)state;
    assert_parsed("OPTIONS * HTTP/1.1\r\n" HOST "\r\n");
    assert_slice(req.target, "*");
    assert_slice(req.path, "/");
    assert_parsed("CONNECT b.example:80 HTTP/1.1\r\n" HOST "\r\n");
    assert_slice(req.target, "b.example:80");
    assert_slice(req.host, "a.example");
    assert_status("GET * HTTP/1.1\r\n" HOST "\r\n", 400);
    assert_status("OPTIONS ** HTTP/1.1\r\n" HOST "\r\n", 400);
    assert_status("GET b.example:80 HTTP/1.1\r\n" HOST "\r\n", 400);
    assert_status("CONNECT b.example:80\x01 HTTP/1.1\r\n" HOST "\r\n", 400);
}

static void
test_http1_a_failure_names_the_method_and_target_that_were_read(void **state)
{
    (void)state;
    assert_int_equal(parse_once("HEAD /x HTTP/1.1\r\n\r\n", 20), HTTP1_FAIL);
    assert_slice(req.method, "HEAD");
    assert_slice(req.target, "/x");
    assert_int_equal(parse_once("HEAD /x HTTP/1.1\r\nX: \x01\r\n\r\n", 26), HTTP1_FAIL);
    assert_slice(req.method, "HEAD");
    assert_int_equal(parse_once("\x01", 1), HTTP1_FAIL);
    assert_int_equal(req.method.bytes, 0);
    assert_int_equal(req.target.bytes, 0);
}

static void
test_http1_malformed_headers_are_400(void **state)
{
    static const char *const lines[] = {
        "Name : value",  "Name\t: value",  ": value",     "Name",
        "Na me: value",  "Name: a\rb",     "Name: a\x01", "Name: a\x7f",
        "Name: a\r\n b", "Name: a\r\n\tb", " Name: a",    "N\xc3\xa4me: a",
        "(Name): a",     "Name: a\x1b[1m", "Name: a\r",   "Na\rme: a",
    };
    static const char nul[] = "GET / HTTP/1.1\r\n" HOST "Name: a\0b\r\n\r\n";

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        assert_header_status(lines[i], 400);
    assert_int_equal(parse_status(nul, sizeof(nul) - 1), 400);
    assert_status("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400);
    assert_non_null(strstr(req.fail_sentence, "folded"));
    assert_header_status("Name: a\tb \"c\" \xff", 0);
}

static void
test_http1_there_is_exactly_one_host_and_it_is_valid(void **state)
{
    static const char *const good[] = {"a",
                                       "a.example",
                                       "127.0.0.1:8080",
                                       "[::1]",
                                       "[::1]:80",
                                       "[::ffff:1.2.3.4]:80",
                                       "a:",
                                       "x_y-z~",
                                       "a%20b",
                                       "A.EXAMPLE:65535",
                                       "%aF:1",
                                       "[1:2:3:4:5:6:7:8]",
                                       "[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:1"};
    static const char *const bad[] = {"",
                                      ":80",
                                      "a b",
                                      "a/b",
                                      "a:b",
                                      "a:80:80",
                                      "a:65536",
                                      "a:0",
                                      "[::1",
                                      "[]",
                                      "[g::]",
                                      "[::1]x",
                                      "u@a",
                                      "a:-1",
                                      "a,b@c",
                                      "a\xc3\xa4",
                                      "a?",
                                      "a:99999999999999999999",
                                      "[:]",
                                      "[f]",
                                      "[1.2.3.4]",
                                      "[::1%25lo]",
                                      "[1:2:3:4:5:6:7:8:9]",
                                      "::1",
                                      "::1:8080",
                                      "[00000000000000000000000000000000000000000000::1]",
                                      "a%",
                                      "a%2",
                                      "a%2g",
                                      "a%g2",
                                      "%:80"};
    char text[128];

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", good[i]);
        assert_status(text, 0);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", bad[i]);
        assert_status(text, 400);
    }
    assert_status("GET / HTTP/1.1\r\n\r\n", 400);
    assert_status("GET / HTTP/1.1\r\nAccept: */*\r\n\r\n", 400);
    assert_header_status("hOST: a.example", 400);
}

static void
test_http1_an_absolute_target_brings_its_own_host(void **state)
{
    (void)state;
    assert_parsed("GET http://b.example:81/path?q HTTP/1.1\r\n" HOST "\r\n");
    assert_slice(req.host, "b.example:81");
    assert_slice(req.path, "/path");
    assert_slice(req.query, "q");
    assert_parsed("GET WSS://[::1] HTTP/1.1\r\n" HOST "\r\n");
    assert_slice(req.host, "[::1]");
    assert_slice(req.path, "/");
    assert_null(req.query.at);
    assert_parsed("GET ws://b?q=/ HTTP/1.1\r\n" HOST "\r\n");
    assert_slice(req.host, "b");
    assert_slice(req.path, "/");
    assert_slice(req.query, "q=/");

    assert_status("GET http:///path HTTP/1.1\r\n" HOST "\r\n", 400);
    assert_status("GET http://u@b/ HTTP/1.1\r\n" HOST "\r\n", 400);
    assert_status("GET http://b:x/ HTTP/1.1\r\n" HOST "\r\n", 400);
    assert_status("GET ftp://b/ HTTP/1.1\r\n" HOST "\r\n", 400);
    assert_status("GET http://b/ HTTP/1.1\r\n\r\n", 400); /* Host is demanded all the same */
    assert_status("GET http://b/ HTTP/1.1\r\nHost: a b\r\n\r\n", 400);
}

static void
test_http1_a_body_is_reported_unless_its_length_is_zero(void **state)
{
    static const char *const without[] = {"X: y", "Content-Length: 0", "Content-Length: 000"};
    static const char *const with[] = {
        "Content-Length: 1", "Content-Length: 010", "Content-Length: 99999999999999999999999999",
        "Transfer-Encoding: chunked", "Transfer-Encoding: , Chunked ,"};

    (void)state;
    for (size_t i = 0; i < sizeof(without) / sizeof(without[0]); i++)
        assert_body_reported(without[i], false);
    for (size_t i = 0; i < sizeof(with) / sizeof(with[0]); i++)
        assert_body_reported(with[i], true);
}

/* A proxy may see the end of the body elsewhere: RFC 9112 sections 6.1 and 6.3. */
static void
test_http1_a_body_whose_end_is_not_certain_is_400(void **state)
{
    static const char *const lines[] = {"Content-Length:",
                                        "Content-Length: -0",
                                        "Content-Length: +1",
                                        "Content-Length: 0x10",
                                        "Content-Length: 1 1",
                                        "Content-Length: 5, 5",
                                        "Content-Length: 0\r\nContent-Length: 0",
                                        "Content-Length: 0\r\ncontent-length: 5",
                                        "Content-Length: 1.0",
                                        "Content-Length: 5\r\nTransfer-Encoding: chunked",
                                        "Transfer-Encoding: chunked\r\nContent-Length: 0",
                                        "Transfer-Encoding:",
                                        "Transfer-Encoding: identity",
                                        "Transfer-Encoding: xchunked",
                                        "Transfer-Encoding: chunked, gzip",
                                        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x"};

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        assert_header_status(lines[i], 400);
    assert_header_status("Transfer-Encoding: gzip, chunked", 501);
    assert_header_status("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", 501);
    assert_header_status("Transfer-Encoding: chunked, chunked", 501);
    assert_status("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
}

/* A request whose head is `bytes` long. */
static char *
long_request(size_t bytes)
{
    static const char start[] = "GET / HTTP/1.1\r\n" HOST "X: ";
    static const char end[] = {'\r', '\n', '\r', '\n'};
    char *text = malloc(bytes);

    assert_non_null(text);
    memset(text, 'x', bytes);
    memcpy(text, start, sizeof(start) - 1);
    memcpy(text + bytes - sizeof(end), end, sizeof(end));
    return text;
}

static void
test_http1_a_head_of_8192_bytes_passes_and_one_more_is_431(void **state)
{
    char *text = long_request(HTTP1_HEAD_MAX_BYTES);

    (void)state;
    assert_int_equal(parse_status(text, HTTP1_HEAD_MAX_BYTES - 1), -1);
    assert_int_equal(parse_status(text, HTTP1_HEAD_MAX_BYTES), 0);
    free(text);
    text = long_request(HTTP1_HEAD_MAX_BYTES + 1);
    assert_int_equal(parse_status(text, HTTP1_HEAD_MAX_BYTES), 431);
    assert_int_equal(parse_status(text, HTTP1_HEAD_MAX_BYTES + 1), 431);
    memset(text + strlen("GET /"), 'x', HTTP1_HEAD_MAX_BYTES - strlen("GET /"));
    assert_int_equal(parse_status(text, HTTP1_HEAD_MAX_BYTES - 1), -1);
    assert_int_equal(parse_status(text, HTTP1_HEAD_MAX_BYTES), 414); /* one line */
    free(text);
}

static void
test_http1_64_headers_pass_and_one_more_is_431(void **state)
{
    char text[2048];
    size_t at;

    (void)state;
    for (int count = HTTP1_HEADERS_MAX; count <= HTTP1_HEADERS_MAX + 1; count++) {
        at = (size_t)snprintf(text, sizeof(text), "GET / HTTP/1.1\r\n" HOST);
        for (int i = 1; i < count; i++)
            at += (size_t)snprintf(text + at, sizeof(text) - at, "X-%d: %d\r\n", i, i);
        snprintf(text + at, sizeof(text) - at, "\r\n");
        assert_status(text, count <= HTTP1_HEADERS_MAX ? 0 : 431);
    }
}

static void
test_http1_headers_that_are_repeated_are_found_in_order(void **state)
{
    const struct http1_header *first, *second;

    (void)state;
    assert_parsed("GET / HTTP/1.1\r\n" HOST "A: 1\r\nB: 2\r\na: 3\r\n\r\n");
    first = http1_header_find(&req, "a");
    second = http1_header_next(&req, first, "a");
    assert_slice(first->value, "1");
    assert_slice(second->value, "3");
    assert_null(http1_header_next(&req, second, "a"));
    assert_true(http1_header_repeated(&req, "A"));
    assert_false(http1_header_repeated(&req, "B"));
    assert_false(http1_header_repeated(&req, "C"));
}

static void
test_http1_token_lists_are_searched_without_case_and_by_whole_elements(void **state)
{
    static const char list[] = ", keep-alive ,\tUpgrade,, h2c,";

    (void)state;
    assert_true(http1_token_list_has(http1_slice_of(list), "upgrade"));
    assert_true(http1_token_list_has(http1_slice_of(list), "KEEP-ALIVE"));
    assert_true(http1_token_list_has(http1_slice_of(list), "h2c"));
    assert_false(http1_token_list_has(http1_slice_of(list), "keep"));
    assert_false(http1_token_list_has(http1_slice_of(list), "alive"));
    assert_false(http1_token_list_has(http1_slice_of(list), "upgrades"));
    assert_false(http1_token_list_has(http1_slice_of(""), "a"));
    assert_false(http1_token_list_has(http1_slice_of(" , ,"), ""));
    assert_parsed("GET / HTTP/1.1\r\n" HOST "Connection: a\r\nconnection: b, c\r\n\r\n");
    assert_true(http1_header_has_token(&req, "Connection", "C"));
    assert_false(http1_header_has_token(&req, "Connection", "d"));
}

static void
test_http1_a_request_struct_may_be_used_again(void **state)
{
    (void)state;
    assert_parsed("GET http://b/?q HTTP/1.1\r\n" HOST "A: 1\r\nB: 2\r\n\r\n");
    req.scanned = 0;
    assert_int_equal(http1_parse("GET / HTTP/1.1\r\n" HOST "\r\n", 35, &req), HTTP1_OK);
    assert_int_equal(req.header_count, 1);
    assert_null(req.query.at);
    assert_slice(req.host, "a.example");
}

static void
test_http1_random_changes_never_lead_out_of_the_buffer(void **state)
{
    static const char text[] = "GET http://b.example:80/x?y HTTP/1.1\r\n" HOST
                               "Connection: keep-alive, Upgrade\r\nContent-Length: 0\r\n\r\n";
    static const char odd[] = "\r\n\0 :,\t?#/[]@\x7f\x80z09";
    uint64_t random = 3;
    int counts[2] = {0, 0};

    (void)state;
    for (int round = 0; round < 20000; round++) {
        char changed[sizeof(text)];

        memcpy(changed, text, sizeof(text));
        for (int i = 0; i < 1 + round % 3; i++) {
            random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
            changed[(random >> 33) % (sizeof(text) - 1)] = odd[(random >> 20) % (sizeof(odd) - 1)];
        }
        counts[parse_status(changed, sizeof(text) - 1) == 0]++;
    }
    assert_true(counts[0] > 1000 && counts[1] > 1000); /* both kinds were there */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_http1_a_request_is_sliced_into_its_parts),
        cmocka_unit_test(test_http1_a_path_without_a_question_mark_has_no_query),
        cmocka_unit_test(test_http1_every_prefix_of_a_request_needs_more),
        cmocka_unit_test(test_http1_what_is_no_http_is_refused_with_its_first_bytes),
        cmocka_unit_test(test_http1_a_lone_line_feed_is_refused_at_once),
        cmocka_unit_test(test_http1_a_malformed_request_line_is_400),
        cmocka_unit_test(test_http1_other_major_versions_are_505),
        cmocka_unit_test(test_http1_version_1_0_needs_no_host_and_higher_ones_are_read_as_1_1),
        cmocka_unit_test(test_http1_one_empty_line_in_front_is_ignored),
        cmocka_unit_test(test_http1_a_wrong_request_line_is_refused_when_it_ends),
        cmocka_unit_test(test_http1_a_method_that_no_server_knows_is_501),
        cmocka_unit_test(test_http1_a_tls_client_is_told_so),
        cmocka_unit_test(test_http1_a_proxy_that_sends_the_proxy_protocol_is_told_so),
        cmocka_unit_test(test_http1_options_may_be_about_the_server_and_connect_names_a_host),
        cmocka_unit_test(test_http1_a_failure_names_the_method_and_target_that_were_read),
        cmocka_unit_test(test_http1_malformed_headers_are_400),
        cmocka_unit_test(test_http1_there_is_exactly_one_host_and_it_is_valid),
        cmocka_unit_test(test_http1_an_absolute_target_brings_its_own_host),
        cmocka_unit_test(test_http1_a_body_is_reported_unless_its_length_is_zero),
        cmocka_unit_test(test_http1_a_body_whose_end_is_not_certain_is_400),
        cmocka_unit_test(test_http1_a_head_of_8192_bytes_passes_and_one_more_is_431),
        cmocka_unit_test(test_http1_64_headers_pass_and_one_more_is_431),
        cmocka_unit_test(test_http1_headers_that_are_repeated_are_found_in_order),
        cmocka_unit_test(test_http1_token_lists_are_searched_without_case_and_by_whole_elements),
        cmocka_unit_test(test_http1_a_request_struct_may_be_used_again),
        cmocka_unit_test(test_http1_random_changes_never_lead_out_of_the_buffer),
    };

    return cmocka_run_group_tests_name("http1", tests, NULL, NULL);
}
