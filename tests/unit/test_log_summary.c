/*
 * log_summary.h, by a clock that the test turns: each test in a child whose descriptor 2 is a pipe.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/log.h"
#include "shm/log_summary.h"
#include "tests/lib/hand_clock.h"

/* What a child that does this writes to stderr, without what stands before each line's text. */
static void
expect_lines(void (*act)(void), const char *expected)
{
    char text[8192];
    char lines[sizeof(text)] = "";
    char *rest;
    size_t used = 0;
    size_t kept = 0;
    ssize_t bytes;
    int ends[2];
    int status;
    pid_t pid;

    assert_int_equal(pipe(ends), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        hand_clock_hold();
        log_open("child", LOG_STATUS);
        act();
        _exit(EXIT_SUCCESS);
    }
    close(ends[1]);
    while ((bytes = read(ends[0], text + used, sizeof(text) - 1 - used)) > 0)
        used += (size_t)bytes;
    text[used] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        const char *role = strstr(line, " child: ");
        assert_non_null(role);
        kept +=
            (size_t)snprintf(lines + kept, sizeof(lines) - kept, "%s\n", role + strlen(" child: "));
    }
    assert_string_equal(lines, expected);
}

static struct log_summary refused;
static struct log_summary closed;

static void
refuse(int from, int to)
{
    for (int i = from; i < to; i++)
        log_summary_add(&refused, LOG_WARN, "%d refused", i);
}

/* --- tests --- */

static void
log_rare_events(void)
{
    for (int i = 0; i < 3; i++) {
        refuse(i, i + 1);
        hand_clock_turn(LOG_SUMMARY_MS);
    }
    if (log_is_waiting())
        abort();
}

static void
test_log_summary_an_event_a_second_after_the_last_line_has_its_line_at_once(void **state)
{
    (void)state;
    expect_lines(log_rare_events, "0 refused\n1 refused\n2 refused\n");
}

static void
log_many_events(void)
{
    refuse(0, 100000);
    log_tick();
    hand_clock_turn(LOG_SUMMARY_MS - 1);
    log_tick(); /* one millisecond early */
    refuse(100000, 100001);
    if (!log_is_waiting())
        abort();
    hand_clock_turn(1);
    log_tick();
    if (log_is_waiting())
        abort();
    log_tick();
    refuse(100001, 100002);
    hand_clock_turn(LOG_SUMMARY_MS);
    log_tick();
}

static void
test_log_summary_events_within_a_second_have_one_line_that_gives_their_number(void **state)
{
    (void)state;
    expect_lines(log_many_events, "0 refused\n1 refused (and 99999 more)\n100001 refused\n");
}

static void
log_two_causes(void)
{
    refuse(0, 3);
    log_summary_add(&closed, LOG_WARN, "closed");
    hand_clock_turn(LOG_SUMMARY_MS / 2);
    log_summary_add(&closed, LOG_WARN, "closed again");
    hand_clock_turn(LOG_SUMMARY_MS / 2);
    log_tick();
}

static void
test_log_summary_a_frequent_cause_hides_no_other(void **state)
{
    (void)state;
    expect_lines(log_two_causes, "0 refused\nclosed\nclosed again\n1 refused (and 1 more)\n");
}

static void
log_and_end(void)
{
    refuse(0, 3);
    log_finish();
}

static void
test_log_summary_what_waits_at_the_end_of_the_process_is_written(void **state)
{
    (void)state;
    expect_lines(log_and_end, "0 refused\n1 refused (and 1 more)\n");
}

static void
log_unwanted_events(void)
{
    for (int i = 0; i < 3; i++)
        log_summary_add(&refused, LOG_EVENT, "%d refused", i);
    if (log_is_waiting())
        abort();
}

static void
test_log_summary_a_level_that_is_not_wanted_is_not_counted(void **state)
{
    (void)state;
    expect_lines(log_unwanted_events, "");
}

static unsigned gathered;

static void
write_gathered(uint64_t events)
{
    log_warnx("%" PRIu64 " events, %u bytes", events, gathered);
}

static void
log_gathered_events(void)
{
    static struct log_summary summary = {.write = write_gathered};

    for (unsigned i = 0; i < 10; i++) {
        if (log_summary_is_new(&summary))
            gathered = 0;
        gathered += i;
        log_summary_count(&summary);
    }
    hand_clock_turn(LOG_SUMMARY_MS);
    log_tick();
}

static void
test_log_summary_a_writer_has_what_was_gathered_since_the_last_line(void **state)
{
    (void)state;
    expect_lines(log_gathered_events, "1 events, 0 bytes\n9 events, 45 bytes\n");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            test_log_summary_an_event_a_second_after_the_last_line_has_its_line_at_once),
        cmocka_unit_test(
            test_log_summary_events_within_a_second_have_one_line_that_gives_their_number),
        cmocka_unit_test(test_log_summary_a_frequent_cause_hides_no_other),
        cmocka_unit_test(test_log_summary_what_waits_at_the_end_of_the_process_is_written),
        cmocka_unit_test(test_log_summary_a_level_that_is_not_wanted_is_not_counted),
        cmocka_unit_test(test_log_summary_a_writer_has_what_was_gathered_since_the_last_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
