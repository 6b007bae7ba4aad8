#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "worker/proto/response.h"

enum { WHEN = 784111777 }; /* the example of RFC 9110 section 5.6.7 */

static char out[RESPONSE_MAX_BYTES + 1];

static void
refuse(int status, const char *sentence, bool for_head)
{
    size_t bytes = response_refusal(status, sentence, for_head, WHEN, out, sizeof(out) - 1);

    assert_true(bytes > 0 && bytes < sizeof(out));
    out[bytes] = '\0';
}

static void
test_response_a_refusal_is_whole_with_the_sentence_as_its_content(void **state)
{
    static const char expected[] = "HTTP/1.1 400 Bad Request\r\n"
                                   "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                                   "Content-Type: text/plain; charset=utf-8\r\n"
                                   "Content-Length: 4\r\n"
                                   "Connection: close\r\n"
                                   "\r\n"
                                   "No.\n";

    (void)state;
    refuse(400, "No.", false);
    assert_string_equal(out, expected);
    for (size_t room = 0; room < sizeof(expected) - 1; room++)
        assert_int_equal(response_refusal(400, "No.", false, WHEN, out, room), 0);
    assert_int_equal(response_refusal(400, "No.", false, WHEN, out, sizeof(expected) - 1),
                     sizeof(expected) - 1);
}

static void
test_response_to_head_is_the_same_without_content(void **state)
{
    (void)state;
    refuse(404, "No.", true);
    assert_non_null(strstr(out, "\r\nContent-Length: 4\r\n"));
    assert_string_equal(strstr(out, "\r\n\r\n"), "\r\n\r\n");
}

static void
test_response_every_status_has_its_phrase_and_headers_and_fits(void **state)
{
    static const struct {
        int status;
        const char *expected;
    } rows[] = {
        {400, "400 Bad Request\r\n"},
        {403, "403 Forbidden\r\n"},
        {404, "404 Not Found\r\n"},
        {405, "\r\nAllow: GET, HEAD, OPTIONS\r\n"},
        {408, "408 Request Timeout\r\n"},
        {413, "413 Content Too Large\r\n"},
        {414, "414 URI Too Long\r\n"},
        {426, "\r\nSec-WebSocket-Version: 13\r\n"},
        {426, "\r\nUpgrade: websocket\r\n"},
        {426, "\r\nConnection: close, Upgrade\r\n"},
        {431, "431 Request Header Fields Too Large\r\n"},
        {500, "500 Internal Server Error\r\n"},
        {501, "501 Not Implemented\r\n"},
        {503, "\r\nRetry-After: 1\r\n"},
        {505, "505 HTTP Version Not Supported\r\n"},
    };
    char sentence[RESPONSE_SENTENCE_MAX_BYTES + 1];

    (void)state;
    memset(sentence, 'x', sizeof(sentence) - 1);
    sentence[sizeof(sentence) - 1] = '\0';
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        refuse(rows[i].status, sentence, false);
        assert_non_null(strstr(out, rows[i].expected));
        assert_non_null(strstr(out, "\r\nConnection: close"));
    }
}

static void
test_response_headers_of_one_status_are_not_in_another(void **state)
{
    (void)state;
    refuse(403, "No.", false);
    assert_null(strstr(out, "Upgrade"));
    assert_null(strstr(out, "Allow"));
    assert_null(strstr(out, "Retry-After"));
    assert_null(strstr(out, "Sec-WebSocket"));
}

static void
test_response_204_and_304_have_no_length_and_other_heads_have_what_they_are_given(void **state)
{
    struct response response = {.status = 204, .now = WHEN};
    size_t bytes = response_head(&response, out, sizeof(out) - 1);

    (void)state;
    out[bytes] = '\0';
    assert_null(strstr(out, "Content-"));
    assert_non_null(strstr(out, "\r\nAllow: GET, HEAD, OPTIONS\r\n"));
    response = (struct response){.status = 304, .headers = "X: y\r\n", .now = WHEN};
    bytes = response_head(&response, out, sizeof(out) - 1);
    out[bytes] = '\0';
    assert_null(strstr(out, "Content-"));
    assert_non_null(strstr(out, "\r\nX: y\r\n"));
    response = (struct response){
        .status = 200, .type = "a/b", .headers = "X: y\r\n", .content_bytes = 70000, .now = WHEN};
    bytes = response_head(&response, out, sizeof(out) - 1);
    out[bytes] = '\0';
    assert_non_null(strstr(out, "\r\nX: y\r\n"));
    assert_non_null(strstr(out, "\r\nContent-Length: 70000\r\n"));
    assert_int_equal(response_head(&response, out, bytes), 0);
}

static void
test_response_has_no_date_that_its_form_cannot_hold(void **state)
{
    (void)state;
    assert_true(response_refusal(400, "No.", false, (time_t)1 << 50, out, sizeof(out)) > 0);
    assert_null(strstr(out, "Date"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_response_a_refusal_is_whole_with_the_sentence_as_its_content),
        cmocka_unit_test(test_response_to_head_is_the_same_without_content),
        cmocka_unit_test(test_response_every_status_has_its_phrase_and_headers_and_fits),
        cmocka_unit_test(test_response_headers_of_one_status_are_not_in_another),
        cmocka_unit_test(
            test_response_204_and_304_have_no_length_and_other_heads_have_what_they_are_given),
        cmocka_unit_test(test_response_has_no_date_that_its_form_cannot_hold),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
