/*
 * conf.h: every kind of option, its limits and its sentences.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "shm/conf.h"

static struct conf_shm conf;
static char why[CONF_WHY_BYTES];

static int
set_up(void **state)
{
    (void)state;
    conf_init(&conf);
    return 0;
}

static const struct conf_row *
row_of(const char *name)
{
    size_t count;
    const struct conf_row *rows = conf_rows(&count);

    for (size_t i = 0; i < count; i++) {
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    }
    fail_msg("no option is named %s", name);
    return NULL;
}

static int
set(const char *name, const char *text)
{
    why[0] = '\0';
    return conf_set(&conf, row_of(name), text, false, why);
}

struct sample {
    const char *text;
    uint64_t value;
};

static void
accepts(const char *name, const uint64_t *field, const struct sample *samples, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(set(name, samples[i].text), 0);
        assert_true(*field == samples[i].value);
    }
}

/* Each is refused with a sentence that has the text, and changes nothing. */
static void
refuses(const char *name, const uint64_t *field, const char *const *texts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t before = *field;
        char quoted[128];

        snprintf(quoted, sizeof(quoted), "'%.80s'", texts[i]);
        assert_int_equal(set(name, texts[i]), -EINVAL);
        assert_true(*field == before);
        assert_int_equal(strncmp(why, "wants ", 6), 0);
        assert_non_null(strstr(why, quoted));
    }
}

#define ACCEPTS(name, field, ...)                                                                  \
    accepts(name, &conf.field, (const struct sample[]){__VA_ARGS__},                               \
            sizeof((const struct sample[]){__VA_ARGS__}) / sizeof(struct sample))
#define REFUSES(name, field, ...)                                                                  \
    refuses(name, &conf.field, (const char *const[]){__VA_ARGS__},                                 \
            sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

static void
test_conf_defaults_are_what_the_table_says(void **state)
{
    (void)state;
    assert_string_equal(conf.listen, "127.0.0.1:8080");
    assert_string_equal(conf.workers, "auto");
    assert_string_equal(conf.origin, "same");
    assert_int_equal(conf.console, CONF_CONSOLE_AUTO);
    assert_int_equal(conf.exit_on_eof, 0);
    assert_int_equal(conf.ring_bytes, 16 << 20);
    assert_int_equal(conf.pool_bytes, 64 << 20);
    assert_int_equal(conf.client_buffer_bytes, 256 << 10);
    assert_int_equal(conf.max_message_bytes, 1 << 20);
    assert_int_equal(conf.slow_grace_ms, 1000);
    assert_int_equal(conf.handshake_timeout_ms, 5000);
    assert_string_equal(conf.app, "");
}

static void
test_conf_every_default_is_accepted_by_its_own_row(void **state)
{
    size_t count;
    const struct conf_row *rows = conf_rows(&count);

    (void)state;
    assert_true(count > 10);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(conf_set(&conf, &rows[i], rows[i].value, false, why), 0);
        assert_true(rows[i].offset < sizeof(conf));
        assert_non_null(rows[i].help);
        for (size_t k = 0; k < i; k++) {
            assert_string_not_equal(rows[i].name, rows[k].name);
            assert_true(!rows[i].short_name || rows[i].short_name != rows[k].short_name);
        }
    }
}

static void
test_conf_count_is_a_whole_number(void **state)
{
    (void)state;
    ACCEPTS("wait-clients", wait_clients, {"0", 0}, {"4", 4}, {"007", 7},
            {"18446744073709551615", UINT64_MAX});
    REFUSES("wait-clients", wait_clients, "", "-1", "+1", " 1", "1 ", "1k", "0x10", "4.5", "four",
            "18446744073709551616");
}

static void
test_conf_size_takes_powers_of_1024(void **state)
{
    (void)state;
    ACCEPTS("ring", ring_bytes, {"0", 0}, {"4096", 4096}, {"1k", 1024}, {"256K", 256 << 10},
            {"16M", 16 << 20}, {"1G", 1 << 30}, {"17179869183G", UINT64_C(17179869183) << 30},
            {"18446744073709551615", UINT64_MAX});
    REFUSES("ring", ring_bytes, "", "k", "-1k", "1kB", "1KiB", "1 k", "1T", "1m", "1.5M",
            "17179869184G", "18446744073709551615k", "18446744073709551616");
}

static void
test_conf_seconds_are_kept_in_milliseconds_and_rounded_up(void **state)
{
    (void)state;
    ACCEPTS("drain", drain_ms, {"0", 0}, {"5", 5000}, {"0.5", 500}, {".25", 250}, {"1.", 1000},
            {"0.0001", 1}, {"2.3456", 2346}, {"0.1230", 123}, {"0.00000000000000000000000001", 1},
            {"0.0", 0}, {"1000000000", UINT64_C(1000000000000)},
            {"999999999.999", UINT64_C(999999999999)});
    REFUSES("drain", drain_ms, "", "-1", "+1", "1s", " 1", "nan", "inf", "1e3", "0x10", "0,5", ".",
            "5 ", "one", "1.5.5", "1000000001", "1000000000.0001", "99999999999999999999999999");
}

static void
test_conf_lag_is_in_the_unit_that_it_ends_with(void **state)
{
    (void)state;
    ACCEPTS("max-lag", max_lag.amount, {"5000", 5000}, {"4M", 4 << 20}, {"10s", 10000}, {"0", 0},
            {".5s", 500}, {"0k", 0}, {"18446744073709551615", UINT64_MAX});
    REFUSES("max-lag", max_lag.amount, "", "s", "-1", "-1s", "1.5", "1.5M", "1ms", "10 s", "Ms",
            "10m", "4MB", "1e10s", "00000000000000000000000000000000000000001s",
            "00000000000000000000000000000001s");
    ACCEPTS("max-lag", max_lag.amount,
            {"0000000000000000000000000000001s", 1000}); /* the longest */
    assert_int_equal(set("max-lag", "7"), 0);
    assert_int_equal(conf.max_lag.unit, CONF_LAG_BROADCASTS);
    assert_int_equal(set("max-lag", "7k"), 0);
    assert_int_equal(conf.max_lag.unit, CONF_LAG_BYTES);
    assert_int_equal(set("max-lag", "7s"), 0);
    assert_int_equal(conf.max_lag.unit, CONF_LAG_MS);
}

static void
test_conf_flag_is_one_or_zero(void **state)
{
    (void)state;
    ACCEPTS("verbose", verbose, {"1", 1}, {"0", 0});
    REFUSES("verbose", verbose, "", "2", "yes", "true", "-0");
}

static void
test_conf_choice_is_one_of_its_words(void **state)
{
    (void)state;
    ACCEPTS("stdin", console, {"on", CONF_CONSOLE_ON}, {"off", CONF_CONSOLE_OFF},
            {"auto", CONF_CONSOLE_AUTO});
    REFUSES("stdin", console, "", "o", "ON", "auto|on", "onn", "of", "|");
    assert_non_null(strstr(why, "auto|on|off"));
}

static void
test_conf_choice_is_found_by_its_index(void **state)
{
    (void)state;
    assert_int_equal(conf_choice("a|bc|d", "a"), 0);
    assert_int_equal(conf_choice("a|bc|d", "bc"), 1);
    assert_int_equal(conf_choice("a|bc|d", "d"), 2);
    assert_int_equal(conf_choice("a|bc|d", "b"), -1);
    assert_int_equal(conf_choice("a|bc|d", "a|bc"), -1);
    assert_int_equal(conf_choice("a|bc|d", ""), -1);
    assert_int_equal(conf_choice("", ""), -1);
}

static void
test_conf_text_is_replaced_each_time(void **state)
{
    (void)state;
    assert_int_equal(set("origin", "any"), 0);
    assert_int_equal(conf_set(&conf, row_of("origin"), "same", true, why), 0);
    assert_string_equal(conf.origin, "same");
    assert_int_equal(set("origin", ""), 0);
    assert_string_equal(conf.origin, "");
}

static void
test_conf_list_replaces_the_default_and_then_grows(void **state)
{
    (void)state;
    assert_int_equal(conf_set(&conf, row_of("listen"), ":1", false, why), 0);
    assert_string_equal(conf.listen, ":1");
    assert_int_equal(conf_set(&conf, row_of("listen"), "unix:a", true, why), 0);
    assert_int_equal(conf_set(&conf, row_of("listen"), "[::1]:2", true, why), 0);
    assert_string_equal(conf.listen, ":1\nunix:a\n[::1]:2");
    assert_int_equal(conf_set(&conf, row_of("listen"), ":9", false, why), 0); /* another source */
    assert_string_equal(conf.listen, ":9");
}

static void
test_conf_text_that_is_too_long_is_refused_whole(void **state)
{
    char text[CONF_TEXT_BYTES + 1];
    size_t longest = CONF_TEXT_BYTES - 2;

    (void)state;
    memset(text, 'x', sizeof(text));
    text[longest] = '\0';
    assert_int_equal(set("listen", text), 0);
    assert_string_equal(conf.listen, text);
    assert_int_equal(conf_set(&conf, row_of("listen"), "y", true, why), -EINVAL);
    assert_string_equal(conf.listen, text);
    assert_non_null(strstr(why, "wants a shorter text"));
    text[longest] = 'x';
    text[longest + 1] = '\0';
    assert_int_equal(set("origin", text), -EINVAL);
    assert_string_equal(conf.origin, "same");
    assert_true(strlen(why) < CONF_WHY_BYTES);
}

static void
test_conf_sentences_say_what_would_have_been_accepted(void **state)
{
    (void)state;
    assert_int_equal(set("ring", "big"), -EINVAL);
    assert_string_equal(why, "wants a size such as 4096, 256k, 16M or 1G, not 'big'");
    assert_int_equal(set("drain", "soon"), -EINVAL);
    assert_string_equal(why, "wants seconds such as 5 or 0.5, not 'soon'");
    assert_int_equal(set("stdin", "maybe"), -EINVAL);
    assert_string_equal(why, "wants one of these words: auto|on|off, not 'maybe'");
}

static void
test_conf_application_options_are_kept_and_the_last_one_counts(void **state)
{
    (void)state;
    assert_null(conf_app_get(&conf, "welcome"));
    assert_int_equal(conf_app_set(&conf, "welcome", "Welcome, %a!", CONF_DEFAULT), 0);
    assert_int_equal(conf_app_set(&conf, "on-message", "a=b", CONF_ENVIRONMENT), 0);
    assert_int_equal(conf_app_set(&conf, "welcome", "", CONF_COMMAND_LINE), 0);
    assert_string_equal(conf_app_get(&conf, "welcome"), "");
    assert_string_equal(conf_app_get(&conf, "on-message"), "a=b");
    assert_null(conf_app_get(&conf, "on"));
    assert_int_equal(conf_app_source(&conf, "welcome"), CONF_COMMAND_LINE);
    assert_int_equal(conf_app_source(&conf, "on-message"), CONF_ENVIRONMENT);
    assert_int_equal(conf_app_source(&conf, "on"), CONF_DEFAULT);
}

static void
test_conf_application_options_that_do_not_fit_are_refused_whole(void **state)
{
    static char value[CONF_APP_BYTES];

    (void)state;
    memset(value, 'v', sizeof(value) - 1);
    assert_int_equal(conf_app_set(&conf, "first", "1", CONF_DEFAULT), 0);
    assert_int_equal(conf_app_set(&conf, "much", value, CONF_DEFAULT), -ENOSPC);
    assert_null(conf_app_get(&conf, "much"));
    value[CONF_APP_BYTES - strlen("dfirst=1") - 1 - strlen("dfits=") - 2] = '\0';
    assert_int_equal(conf_app_set(&conf, "fits", value, CONF_DEFAULT), 0);
    assert_string_equal(conf_app_get(&conf, "fits"), value);
    assert_int_equal(conf_app_set(&conf, "", "", CONF_DEFAULT), -ENOSPC);
    assert_string_equal(conf_app_get(&conf, "first"), "1");
    assert_string_equal(conf_app_get(&conf, "fits"), value);
}

static void
test_conf_copy_ends_every_text_whatever_the_original_holds(void **state)
{
    static struct conf_shm copy;
    size_t count;
    const struct conf_row *rows = conf_rows(&count);

    (void)state;
    conf_copy(&copy, &conf);
    assert_memory_equal(&copy, &conf, sizeof(conf));
    memset(&conf, 'x', sizeof(conf));
    conf_copy(&copy, &conf);
    for (size_t i = 0; i < count; i++) {
        if (rows[i].kind == CONF_TEXT || rows[i].kind == CONF_LIST)
            assert_int_equal(strlen((char *)&copy + rows[i].offset), CONF_TEXT_BYTES - 1);
    }
    assert_int_equal(copy.app[CONF_APP_BYTES - 3],
                     'x'); /* the last value, and the end of the list */
    assert_int_equal(copy.app[CONF_APP_BYTES - 2], '\0');
    assert_int_equal(copy.app[CONF_APP_BYTES - 1], '\0');
    assert_null(conf_app_get(&copy, "x"));
}

static void
test_conf_names_an_option_as_its_source_gives_it(void **state)
{
    char text[CONF_NAME_BYTES];
    char longest[2 * CONF_NAME_BYTES];

    (void)state;
    assert_string_equal(conf_given_as(CONF_COMMAND_LINE, "max-message", text), "--max-message");
    assert_string_equal(conf_given_as(CONF_DEFAULT, "ring", text), "--ring");
    assert_string_equal(conf_given_as(CONF_ENVIRONMENT, "max-message", text), "CRIER_MAX_MESSAGE");
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    assert_int_equal(strlen(conf_given_as(CONF_ENVIRONMENT, longest, text)), CONF_NAME_BYTES - 1);
}

#define CONF_TEST(name) cmocka_unit_test_setup(name, set_up)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CONF_TEST(test_conf_defaults_are_what_the_table_says),
        CONF_TEST(test_conf_every_default_is_accepted_by_its_own_row),
        CONF_TEST(test_conf_count_is_a_whole_number),
        CONF_TEST(test_conf_size_takes_powers_of_1024),
        CONF_TEST(test_conf_seconds_are_kept_in_milliseconds_and_rounded_up),
        CONF_TEST(test_conf_lag_is_in_the_unit_that_it_ends_with),
        CONF_TEST(test_conf_flag_is_one_or_zero),
        CONF_TEST(test_conf_choice_is_one_of_its_words),
        CONF_TEST(test_conf_choice_is_found_by_its_index),
        CONF_TEST(test_conf_text_is_replaced_each_time),
        CONF_TEST(test_conf_list_replaces_the_default_and_then_grows),
        CONF_TEST(test_conf_text_that_is_too_long_is_refused_whole),
        CONF_TEST(test_conf_sentences_say_what_would_have_been_accepted),
        CONF_TEST(test_conf_application_options_are_kept_and_the_last_one_counts),
        CONF_TEST(test_conf_application_options_that_do_not_fit_are_refused_whole),
        CONF_TEST(test_conf_names_an_option_as_its_source_gives_it),
        CONF_TEST(test_conf_copy_ends_every_text_whatever_the_original_holds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
