#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "worker/proto/origin.h"

static bool
of_host(const char *origin, const char *host)
{
    return origin_is_of_host(http1_slice_of(origin), http1_slice_of(host));
}

static bool
listed(const char *origin, const char *list)
{
    return origin_is_listed(http1_slice_of(origin), list);
}

static void
test_origin_the_page_of_a_host_has_its_name_and_port_and_one_of_the_schemes_of_the_web(void **state)
{
    (void)state;
    assert_true(of_host("http://a", "a"));
    assert_true(of_host("https://a/", "a:443"));
    assert_true(of_host("WSS://A:443", "a"));
    assert_true(of_host("http://[::1]:8080", "[::1]:8080"));
    assert_false(of_host("http://a", "a:443"));
    assert_false(of_host("http://a", "b"));
    assert_false(of_host("http://a//", "a"));
    assert_false(of_host("app://a", "a"));
    assert_false(of_host("app://a:1", "a:1"));
    assert_false(of_host("null", "null"));
    assert_false(of_host("a", "a"));
    assert_false(of_host("://a", "a"));
    assert_false(of_host("http:/", "a"));
    assert_false(of_host("", ""));
}

static void
test_origin_a_list_has_an_origin_with_and_without_the_default_port_of_its_scheme(void **state)
{
    (void)state;
    assert_true(listed("https://a", "https://a:443"));
    assert_true(listed("https://a:443", "http://b,https://a"));
    assert_true(listed("http://a/", "HTTP://A:80/"));
    assert_true(listed("ws://a:80", "ws://a"));
    assert_true(listed("app://a:80", "app://a:80"));
    assert_false(listed("https://a", "https://a:80"));
    assert_false(listed("http://a:443", "https://a"));
    assert_false(listed("https://a", "http://a:443"));
    assert_false(listed("ws://a", "http://a"));
    assert_false(listed("app://a", "app://a:80"));
    assert_false(listed("http://a", "http://aa,http://"));
    assert_false(listed("http://a", ""));
}

static void
test_origin_what_is_no_origin_is_listed_as_it_is(void **state)
{
    (void)state;
    assert_true(listed("null", "http://a,null"));
    assert_true(listed("file://", "file://"));
    assert_false(listed("null", "nul"));
    assert_false(listed("", "http://a,,null"));
}

static void
test_origin_a_list_can_name_a_scheme_with_a_host_and_a_port(void **state)
{
    static const char *const good[] = {"http://a",       "https://a.example:65535/",
                                       "http://[::1]:1", "capacitor://localhost",
                                       "a+b-c.1://x",    "http://xn--bcher-kva_1.~"};
    static const char *const bad[] = {
        "",           "null",        "a",         "a:b",        "://a",       "http://",
        "file:///",   "file://",     "http://a:", "http://a:/", "http://a:0", "http://a:65536",
        "http://a/b", "http://a//",  "http://*",  "http://u@a", "1://a",      "a_b://c",
        "http://a b", "http://[::1", "http://a?", "http://a b", "http:/a",    "http://\xc3\xa9",
        "http://%61",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        if (!origin_is_listable(http1_slice_of(good[i])))
            fail_msg("%s", good[i]);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (origin_is_listable(http1_slice_of(bad[i])))
            fail_msg("%s", bad[i]);
    assert_false(origin_is_listable((struct http1_slice){"http://a\0", 9}));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            test_origin_the_page_of_a_host_has_its_name_and_port_and_one_of_the_schemes_of_the_web),
        cmocka_unit_test(
            test_origin_a_list_has_an_origin_with_and_without_the_default_port_of_its_scheme),
        cmocka_unit_test(test_origin_what_is_no_origin_is_listed_as_it_is),
        cmocka_unit_test(test_origin_a_list_can_name_a_scheme_with_a_host_and_a_port),
    };

    return cmocka_run_group_tests_name("origin", tests, NULL, NULL);
}
