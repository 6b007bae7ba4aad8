#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "worker/http/site.h"

#define LINE_KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

/* The status of the answer; 0: it is handshake.h's. */
static int
find(const char *line, const char *headers)
{
    static struct site_answer answer;
    struct http1_request request = {.scanned = 0};
    char text[512];
    int bytes = snprintf(text, sizeof(text), "%s HTTP/1.1\r\nHost: a\r\n%s\r\n", line, headers);

    assert_int_equal(http1_parse(text, (size_t)bytes, &request), HTTP1_OK);
    if (!site_find(&request, &answer))
        return 0;
    assert_true((answer.status == 204 || answer.status == 304) == !answer.content.bytes);
    assert_true((answer.status == 200 || answer.status == 412) == (answer.type != NULL));
    return answer.status;
}

static void
test_site_the_page_is_for_requests_that_want_no_websocket(void **state)
{
    (void)state;
    assert_int_equal(find("GET /", ""), 200);
    assert_int_equal(find("GET /?x", "Accept: */*\r\n"), 200);
    assert_int_equal(find("GET http://b", ""), 200);
    assert_int_equal(find("GET /", "Upgrade: h2c\r\nConnection: Upgrade\r\n"), 200);
    assert_int_equal(find("GET /", LINE_KEY), 0);
    assert_int_equal(find("GET /", "Sec-WebSocket-Version: 13\r\n"), 0);
    assert_int_equal(find("GET /", "Upgrade: websocket\r\n"), 0);
    assert_int_equal(find("HEAD /", LINE_KEY), 200); /* HEAD opens none */
    assert_int_equal(find("GET /x", ""), 0);
    assert_int_equal(find("GET //", ""), 0);
    assert_int_equal(find("POST /", ""), 0);
    assert_int_equal(find("get /", ""), 0);
    assert_int_equal(find("GET /", "Content-Length: 1\r\n"), 0);
}

static void
test_site_paths_below_the_prefix_are_the_servers_own(void **state)
{
    (void)state;
    assert_int_equal(find("GET /_/healthz", ""), 200);
    assert_int_equal(find("HEAD /_/healthz?x", ""), 200);
    assert_int_equal(find("GET http://b/_/healthz", ""), 200);
    assert_int_equal(find("GET /_/healthz", LINE_KEY "Upgrade: websocket\r\n"), 200);
    assert_int_equal(find("GET /_/", ""), 404);
    assert_int_equal(find("GET /_/x", LINE_KEY "Upgrade: websocket\r\n"), 404);
    assert_int_equal(find("GET /_/healthz/", ""), 404);
    assert_int_equal(find("GET /%5F/x", ""), 404);
    assert_int_equal(find("GET /%5f/x", ""), 404);
    assert_int_equal(find("GET /%5f/healthz", ""), 200);
    assert_int_equal(find("GET /_/%68ealth%7A", ""), 200);
    assert_int_equal(find("GET /_/healthz%", ""), 404);
    assert_int_equal(find("GET /_/health%7", ""), 404);
    assert_int_equal(find("GET /_/health%7a%00", ""), 404);
    assert_int_equal(find("GET /_/%48ealthz", ""), 404);
    assert_int_equal(find("GET /_%2fhealthz", ""), 0);
    assert_int_equal(find("GET /%5", ""), 0);
    assert_int_equal(find("GET /%5e/", ""), 0);
    assert_int_equal(find("GET /_", ""), 0);
    assert_int_equal(find("GET /_x/", ""), 0);
    assert_int_equal(find("GET /x/_/healthz", ""), 0);
    assert_int_equal(find("POST /_/healthz", ""), 0);
}

static void
test_site_nothing_has_an_entity_tag_that_a_condition_could_name(void **state)
{
    (void)state;
    assert_int_equal(find("GET /", "If-None-Match: \"a\"\r\n"), 200);
    assert_int_equal(find("GET /", "If-None-Match: *\r\n"), 304);
    assert_int_equal(find("HEAD /_/healthz", "If-None-Match: *\r\n"), 304);
    assert_int_equal(find("GET /", "If-None-Match: \"a,*,b\"\r\n"), 200);
    assert_int_equal(find("GET /", "If-Match: *\r\n"), 200);
    assert_int_equal(find("GET /", "If-Match: \"a\"\r\n"), 412);
    assert_int_equal(find("GET /", "If-Match: \"a\"\r\nIf-None-Match: *\r\n"), 412);
    assert_int_equal(find("GET /", "If-Match: *\r\nIf-None-Match: *\r\n"), 304);
    assert_int_equal(find("GET /", "If-Modified-Since: Sat, 29 Oct 1994 19:43:31 GMT\r\n"), 200);
    assert_int_equal(find("GET /_/x", "If-Match: \"a\"\r\n"), 404);
    assert_int_equal(find("GET /_/x", "If-None-Match: *\r\n"), 404);
    assert_int_equal(find("OPTIONS /", "If-Match: \"a\"\r\n"), 204);
    assert_int_equal(find("GET /x", "If-Match: \"a\"\r\n"), 0);
    assert_int_equal(find("GET /", LINE_KEY "If-Match: \"a\"\r\n"), 0);
}

static void
test_site_options_are_told_of_every_target(void **state)
{
    (void)state;
    assert_int_equal(find("OPTIONS *", ""), 204);
    assert_int_equal(find("OPTIONS /", LINE_KEY), 204);
    assert_int_equal(find("OPTIONS /x/y", ""), 204);
    assert_int_equal(find("OPTIONS /_/healthz", ""), 204);
    assert_int_equal(find("OPTIONS /", "Content-Length: 0\r\n"), 204);
    assert_int_equal(find("OPTIONS /", "Content-Length: 1\r\n"), 0);
    assert_int_equal(find("options /", ""), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_site_the_page_is_for_requests_that_want_no_websocket),
        cmocka_unit_test(test_site_paths_below_the_prefix_are_the_servers_own),
        cmocka_unit_test(test_site_nothing_has_an_entity_tag_that_a_condition_could_name),
        cmocka_unit_test(test_site_options_are_told_of_every_target),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
