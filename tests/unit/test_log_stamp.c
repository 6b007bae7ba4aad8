/*
 * log_stamp.h: the calendar against the C library's, and which descriptors get a time.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <inttypes.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/util/log_stamp.h"

enum { DAY = 86400 };

static void
assert_like_the_c_library(time_t seconds, unsigned ms)
{
    char date[LOG_STAMP_BYTES];
    char expected[2 * LOG_STAMP_BYTES];
    char stamp[LOG_STAMP_BYTES];
    struct tm tm;

    assert_non_null(gmtime_r(&seconds, &tm));
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(expected, sizeof(expected), "%s.%03uZ ", date, ms);
    assert_int_equal(
        log_stamp_format(stamp, (uint64_t)seconds * 1000000000 + ms * 1000000 + 999999), 25);
    assert_string_equal(stamp, expected);
}

static void
test_log_stamp_every_day_of_five_centuries_is_the_c_librarys(void **state)
{
    (void)state;
    for (time_t day = 0; day < 500 * 366; day++) {
        assert_like_the_c_library(day * DAY, 0);
        assert_like_the_c_library(day * DAY + DAY - 1, 999);
    }
}

static void
test_log_stamp_every_second_of_a_day_is_the_c_librarys(void **state)
{
    (void)state;
    for (time_t second = 0; second < DAY; second++)
        assert_like_the_c_library(1709164800 + second, (unsigned)(second % 1000)); /* a leap day */
}

/* The length of the stamp of a process whose descriptor 2 is this one; 99: the child failed. */
static int
stamp_bytes(int fd, const char *journal_stream)
{
    char stamp[LOG_STAMP_BYTES];
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        unsetenv("JOURNAL_STREAM");
        if (journal_stream)
            setenv("JOURNAL_STREAM", journal_stream, 1);
        if (dup2(fd, STDERR_FILENO) < 0)
            _exit(99);
        _exit((int)log_stamp(stamp));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void
test_log_stamp_all_but_a_terminal_and_the_journal_get_one(void **state)
{
    int pipes[2];
    int sockets[2];
    int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    int null = open("/dev/null", O_WRONLY);
    char own[64];
    char other[64];
    struct stat st;

    (void)state;
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    assert_true(terminal >= 0 && null >= 0);
    assert_int_equal(fstat(sockets[1], &st), 0);
    snprintf(own, sizeof(own), "%" PRIu64 ":%" PRIu64, (uint64_t)st.st_dev, (uint64_t)st.st_ino);
    snprintf(other, sizeof(other), "%" PRIu64 ":%" PRIu64, (uint64_t)st.st_dev,
             (uint64_t)st.st_ino + 1000000);
    assert_int_equal(stamp_bytes(pipes[1], NULL), 25);
    assert_int_equal(stamp_bytes(null, NULL), 25);
    assert_int_equal(stamp_bytes(terminal, NULL), 0);
    assert_int_equal(stamp_bytes(sockets[1], own), 0);
    assert_int_equal(stamp_bytes(sockets[1], NULL), 25);
    assert_int_equal(stamp_bytes(sockets[1], other), 25); /* inherited, and redirected since */
    assert_int_equal(stamp_bytes(sockets[1], "8:"), 25);
    assert_int_equal(stamp_bytes(pipes[1], own), 25);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log_stamp_every_day_of_five_centuries_is_the_c_librarys),
        cmocka_unit_test(test_log_stamp_every_second_of_a_day_is_the_c_librarys),
        cmocka_unit_test(test_log_stamp_all_but_a_terminal_and_the_journal_get_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
