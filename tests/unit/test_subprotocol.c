#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "worker/proto/subprotocol.h"

static char request[HTTP1_HEAD_MAX_BYTES];
static struct http1_slice chosen;

/* `lines` are whole header lines. */
static enum subprotocol_status
choose(const char *lines, const char *wanted)
{
    struct http1_request req = {.scanned = 0};
    int bytes = snprintf(request, sizeof(request), "GET / HTTP/1.1\r\nHost: x\r\n%s\r\n", lines);

    assert_int_equal(http1_parse(request, (size_t)bytes, &req), HTTP1_OK);
    return subprotocol_choose(&req, wanted, &chosen);
}

static enum subprotocol_status
choose_of(const char *offers, const char *wanted)
{
    char line[4096];

    snprintf(line, sizeof(line), "Sec-WebSocket-Protocol: %s\r\n", offers);
    return choose(line, wanted);
}

static void
assert_chosen(const char *name)
{
    assert_int_equal(chosen.bytes, strlen(name));
    assert_memory_equal(chosen.at, name, chosen.bytes);
}

static void
test_subprotocol_the_first_of_the_client_that_is_listed_is_chosen(void **state)
{
    static const struct {
        const char *offers, *wanted, *chosen;
    } rows[] = {
        {"chat", "chat", "chat"},
        {"a,b,c", "c,b", "b"},
        {"a, b\t, c", "c", "c"},
        {",,chat,", "chat", "chat"},
        {"a", "b", ""},
        {"Chat", "chat", ""},
        {"cha,chatt", "chat", ""},
        {"chat", "", ""},
        {"chat", NULL, ""},
        {"any", "anyone", ""},
        {"bearer.x", "bearer.x", "bearer.x"},
        {"chat", "any", "chat"},
        {"crier.v1,CRIER.x,bearer.,Bearer.x,bearer", "any", "bearer"},
        {"crier.v1", "any", ""},
        {"crie,x", "any", "crie"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(choose_of(rows[i].offers, rows[i].wanted), SUBPROTOCOL_OK);
        assert_chosen(rows[i].chosen);
    }
}

static void
test_subprotocol_any_chooses_no_name_that_looks_like_a_credential(void **state)
{
    static const char *const credentials[] = {
        "base64url.bearer.authorization.k8s.io.dG9rZW4",
        "base64url.bearer.phx.dG9rZW4",
        "BASE64URL.BEARER.PHX.x",
        "Bearer-x",
        "bearer_x",
        "bearer|x",
        "bearer.",
        "basic.dXNlcjpwYXNz",
        "Authorization.x",
        "access_token.x",
        "accessToken-x",
        "jwt.x",
        "openai-insecure-api-key.sk-x",
        "apikey.x",
        "secret.x",
        "password.x",
        "tokens.token.x", /* the second place where the word is */
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.x",
        "eyJ",
    };
    static const char *const names[] = {"bearer",      "access_token", "token", "tokens", "bearer1",
                                        "keyboard.v1", "EYJ",          "ey",    "x.eyJ"};
    char offers[128];

    (void)state;
    for (size_t i = 0; i < sizeof(credentials) / sizeof(credentials[0]); i++) {
        snprintf(offers, sizeof(offers), "%s,v4.channel.k8s.io", credentials[i]);
        assert_int_equal(choose_of(offers, "any"), SUBPROTOCOL_OK);
        assert_chosen("v4.channel.k8s.io");
        assert_int_equal(choose_of(credentials[i], credentials[i]), SUBPROTOCOL_OK);
        assert_chosen(credentials[i]); /* listed: it is the operator's word */
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(offers, sizeof(offers), "%s,dG9rZW4", names[i]);
        assert_int_equal(choose_of(offers, "any"), SUBPROTOCOL_OK);
        assert_chosen(names[i]);
    }
}

static void
test_subprotocol_without_the_header_none_is_chosen(void **state)
{
    (void)state;
    assert_int_equal(choose("", "any"), SUBPROTOCOL_OK);
    assert_chosen("");
}

static void
test_subprotocol_several_lines_are_one_list(void **state)
{
    (void)state;
    assert_int_equal(
        choose("sec-websocket-protocol: a\r\nX: y\r\nSEC-WEBSOCKET-PROTOCOL: b,c\r\n", "c,b"),
        SUBPROTOCOL_OK);
    assert_chosen("b");
    assert_int_equal(choose("Sec-WebSocket-Protocol:\r\nSec-WebSocket-Protocol: b\r\n", "b"),
                     SUBPROTOCOL_OK);
    assert_chosen("b");
    assert_int_equal(choose("Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: a\r\n", "a"),
                     SUBPROTOCOL_REPEATED);
    assert_chosen("");
}

static void
test_subprotocol_what_is_no_list_of_tokens_is_malformed_wanted_or_not(void **state)
{
    static const char *const rows[] = {"",     ",",     "a b", "\"a\"", "a;b",     "a=b",
                                       "a/b",  "a,b c", "(a)", "a@b",   "[a]",     "{a}",
                                       "a\\b", "<a>",   "a?",  "a:b",   "\xc3\xa4"};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(choose_of(rows[i], "any"), SUBPROTOCOL_MALFORMED);
        assert_chosen("");
        assert_int_equal(choose_of(rows[i], ""), SUBPROTOCOL_MALFORMED);
    }
}

static void
test_subprotocol_a_name_that_is_there_twice_is_refused(void **state)
{
    (void)state;
    assert_int_equal(choose_of("a,b,a", "b"), SUBPROTOCOL_REPEATED);
    assert_chosen("");
    assert_int_equal(choose_of("a,A", "A"), SUBPROTOCOL_OK);
    assert_chosen("A");
}

static void
test_subprotocol_a_request_may_have_64_names(void **state)
{
    char offers[1024] = "p0";

    (void)state;
    for (int i = 1; i < SUBPROTOCOL_OFFERS_MAX; i++)
        snprintf(offers + strlen(offers), sizeof(offers) - strlen(offers), ",p%d", i);
    assert_int_equal(choose_of(offers, "p63"), SUBPROTOCOL_OK);
    assert_chosen("p63");
    snprintf(offers + strlen(offers), 8, ",more");
    assert_int_equal(choose_of(offers, "p63"), SUBPROTOCOL_TOO_MANY);
    assert_chosen("");
}

static void
test_subprotocol_any_passes_over_names_that_the_answer_has_no_room_for(void **state)
{
    char offers[1024];
    char name[SUBPROTOCOL_NAME_MAX_BYTES + 1] = "";

    (void)state;
    memset(name, 'x', sizeof(name) - 1);
    snprintf(offers, sizeof(offers), "%sx,%s", name, name);
    assert_int_equal(choose_of(offers, "any"), SUBPROTOCOL_OK);
    assert_chosen(name);
}

static void
test_subprotocol_the_option_is_any_or_tokens_between_commas(void **state)
{
    static const char *const good[] = {"any", "a", "a,b", "graphql-ws,mqtt", "!#$%&'*+-.^_`|~"};
    static const char *const bad[] = {"",    ",",    "a,",  ",a",    "a,,b",
                                      "a b", "a, b", "a/b", "\"a\"", "\xc3\xa4"};
    char name[SUBPROTOCOL_NAME_MAX_BYTES + 2] = "";

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(subprotocol_wanted_valid(good[i]));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(subprotocol_wanted_valid(bad[i]));
    memset(name, 'x', SUBPROTOCOL_NAME_MAX_BYTES);
    assert_true(subprotocol_wanted_valid(name));
    name[SUBPROTOCOL_NAME_MAX_BYTES] = 'x';
    assert_false(subprotocol_wanted_valid(name));
}

static void
test_subprotocol_every_status_has_a_name(void **state)
{
    (void)state;
    assert_string_equal(subprotocol_status_name(SUBPROTOCOL_OK), "ok");
    assert_string_equal(subprotocol_status_name(SUBPROTOCOL_MALFORMED), "malformed");
    assert_string_equal(subprotocol_status_name(SUBPROTOCOL_REPEATED), "repeated");
    assert_string_equal(subprotocol_status_name(SUBPROTOCOL_TOO_MANY), "too many");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_subprotocol_the_first_of_the_client_that_is_listed_is_chosen),
        cmocka_unit_test(test_subprotocol_any_chooses_no_name_that_looks_like_a_credential),
        cmocka_unit_test(test_subprotocol_without_the_header_none_is_chosen),
        cmocka_unit_test(test_subprotocol_several_lines_are_one_list),
        cmocka_unit_test(test_subprotocol_what_is_no_list_of_tokens_is_malformed_wanted_or_not),
        cmocka_unit_test(test_subprotocol_a_name_that_is_there_twice_is_refused),
        cmocka_unit_test(test_subprotocol_a_request_may_have_64_names),
        cmocka_unit_test(test_subprotocol_any_passes_over_names_that_the_answer_has_no_room_for),
        cmocka_unit_test(test_subprotocol_the_option_is_any_or_tokens_between_commas),
        cmocka_unit_test(test_subprotocol_every_status_has_a_name),
    };

    return cmocka_run_group_tests_name("subprotocol", tests, NULL, NULL);
}
