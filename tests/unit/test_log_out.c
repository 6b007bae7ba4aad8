/*
 * log_out.h: each test in a child of its own, whose descriptor 2 is what the test makes it.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/log.h"
#include "shm/util/log_out.h"

enum { PIPE_BYTES = 4096, LINE_BYTES = 100, TEXT_BYTES = 1 << 20, DEADLINE_S = 120 };

static char text[TEXT_BYTES]; /* what came out */
static size_t text_bytes;

/* Runs `act` with `fd` as its descriptor 2. */
static void
run_child(int fd, void (*act)(void))
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL);
        signal(SIGPIPE, SIG_IGN);
        alarm(DEADLINE_S);
        dup2(fd, STDERR_FILENO);
        act();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* A child's failure goes by its status: its descriptor 2 is the log's. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            _exit(__LINE__ % 200 + 1);                                                             \
    } while (0)

static void
put_lines(int from, int to, bool is_minor)
{
    char line[LINE_BYTES + 1];

    for (int i = from; i < to; i++) {
        int bytes = snprintf(line, sizeof(line), "%-*d\n", LINE_BYTES - 1, i);
        log_out_put(line, (size_t)bytes, is_minor);
    }
}

/* Reads what is there; the write end is open. */
static void
read_some(int fd)
{
    struct pollfd in = {.fd = fd, .events = POLLIN};

    while (poll(&in, 1, 0) == 1) {
        ssize_t bytes = read(fd, text + text_bytes, sizeof(text) - 1 - text_bytes);
        if (bytes <= 0)
            break;
        text_bytes += (size_t)bytes;
    }
    text[text_bytes] = '\0';
}

static const char stamp_like[] = "2026-11-28T15:04:05.123Z";

/* What follows the time, if the line begins with one. */
static const char *
behind_stamp(const char *line)
{
    for (size_t i = 0; stamp_like[i]; i++) {
        bool digit = stamp_like[i] >= '0' && stamp_like[i] <= '9';
        if (digit ? line[i] < '0' || line[i] > '9' : line[i] != stamp_like[i])
            return line;
    }
    return line + sizeof(stamp_like);
}

/* Every line is whole; numbers grow, and those that are missing are counted by the note that follows the gap.
 * Returns the numbers that are there or counted. */
static int
count_lines(void)
{
    int next = 0;

    for (const char *at = text; *at; at = strchr(at, '\n') + 1) {
        unsigned dropped;
        if (!strchr(at, '\n'))
            return -1;
        if (sscanf(behind_stamp(at), "crier: %u lines of log were dropped\n", &dropped) == 1)
            next += (int)dropped;
        else if (strchr(at, '\n') - at != LINE_BYTES - 1 || atoi(at) != next++)
            return -1;
    }
    return next;
}

static int ends[2];

static void
open_pipe(void)
{
    text_bytes = 0;
    assert_int_equal(pipe(ends), 0);
    assert_true(fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES) > 0);
}

static void
close_ends(void)
{
    close(ends[0]);
    close(ends[1]);
}

static void
fill_and_retry(void)
{
    put_lines(0, 1000, false);
    CHECK(log_out_is_waiting());
    log_out_retry(); /* not read yet: returns at once */
    read_some(ends[0]);
    CHECK(count_lines() > 0 && count_lines() < 1000);
    while (log_out_is_waiting()) {
        log_out_retry();
        read_some(ends[0]);
    }
    CHECK(count_lines() == 1000);
    put_lines(1000, 1003, false);
    read_some(ends[0]);
    CHECK(count_lines() == 1003);
    CHECK(strstr(text, "dropped") && !strstr(strstr(text, "dropped") + 1, "dropped"));
}

static void
test_log_out_what_a_full_pipe_does_not_take_is_queued_then_dropped_and_counted(void **state)
{
    (void)state;
    open_pipe();
    run_child(ends[1], fill_and_retry);
    assert_false(fcntl(ends[1], F_GETFL) & O_NONBLOCK);
    close_ends();
}

static void
fill_with_minor_lines(void)
{
    put_lines(0, 1000, true);
    put_lines(1000, 1010, false);
    do {
        read_some(ends[0]);
        log_out_retry();
    } while (log_out_is_waiting());
    read_some(ends[0]);
    CHECK(count_lines() == 1010);
    CHECK(strstr(text, "\n1009 ")); /* minor lines have left room for it */
}

static void
test_log_out_minor_lines_leave_half_of_the_queue(void **state)
{
    (void)state;
    open_pipe();
    run_child(ends[1], fill_with_minor_lines);
    close_ends();
}

static void
fill_and_finish(void)
{
    put_lines(0, 60, false); /* more than the pipe takes, less than the queue */
    log_out_finish(1);       /* not read: ends all the same */
    CHECK(log_out_is_waiting());
    if (fork() == 0) {
        while (count_lines() < 60)
            read_some(ends[0]);
        _exit(0);
    }
    log_out_finish(60000);
    CHECK(!log_out_is_waiting());
}

static void
test_log_out_the_end_waits_for_a_reader_that_reads(void **state)
{
    (void)state;
    open_pipe();
    run_child(ends[1], fill_and_finish);
    close_ends();
}

static void
test_log_out_a_stream_socket_gets_whole_lines(void **state)
{
    int bytes = 1; /* the least that there is */

    (void)state;
    text_bytes = 0;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_int_equal(setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)), 0);
    run_child(ends[1], fill_and_retry);
    close_ends();
}

/* What is written arrives a moment later. */
static void
fill_terminal(void)
{
    put_lines(0, 1000, false);
    CHECK(log_out_is_waiting());
    do {
        log_out_retry();
        read_some(ends[0]);
    } while (count_lines() != 1000);
    CHECK(!log_out_is_waiting());
}

/* It takes a line in part when that is the room it has. */
static void
test_log_out_a_terminal_gets_whole_lines(void **state)
{
    struct termios raw;

    (void)state;
    text_bytes = 0;
    ends[0] = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(ends[0] >= 0 && grantpt(ends[0]) == 0 && unlockpt(ends[0]) == 0);
    ends[1] = open(ptsname(ends[0]), O_RDWR | O_NOCTTY);
    assert_true(ends[1] >= 0 && tcgetattr(ends[1], &raw) == 0);
    cfmakeraw(&raw);
    assert_int_equal(tcsetattr(ends[1], TCSANOW, &raw), 0);
    run_child(ends[1], fill_terminal);
    close_ends();
}

static void
put_hundred_and_finish(void)
{
    put_lines(0, 100, false);
    log_out_finish(60000);
}

static void
test_log_out_a_file_is_written_from_where_it_stands(void **state)
{
    char path[] = "/tmp/test_log_out.XXXXXX";
    int fd = mkstemp(path);

    (void)state;
    text_bytes = 0;
    assert_true(fd >= 0);
    unlink(path);
    assert_int_equal(write(fd, "before\n", 7), 7);
    run_child(fd, put_hundred_and_finish);
    assert_int_equal(pread(fd, text, sizeof(text), 0), 7 + 100 * LINE_BYTES);
    assert_memory_equal(text, "before\n", 7);
    memmove(text, text + 7, 100 * LINE_BYTES);
    text[100 * LINE_BYTES] = '\0';
    assert_int_equal(count_lines(), 100);
    close(fd);
}

static void
fill_datagrams(void)
{
    put_lines(0, 1000, false);
    while (log_out_is_waiting()) {
        read_some(ends[0]);
        log_out_retry();
    }
    read_some(ends[0]);
    CHECK(count_lines() == 1000);
}

static void
test_log_out_a_datagram_socket_gets_a_line_each(void **state)
{
    (void)state;
    text_bytes = 0;
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), 0);
    run_child(ends[1], fill_datagrams);
    close_ends();
}

static void
put_after_the_reader(void)
{
    close(ends[0]);
    put_lines(0, 1000, false);
    log_out_finish(60000);
}

static void
test_log_out_a_reader_that_has_gone_costs_nothing(void **state)
{
    (void)state;
    open_pipe();
    close(ends[0]);
    run_child(ends[1], put_after_the_reader);
    close(ends[1]);
}

static void
put_as_child(void)
{
    put_lines(0, 1, false);
    log_out_child();
    put_lines(1, 1000, false); /* more than there is room for: does not wait */
}

static void
test_log_out_a_child_before_exec_writes_at_once_and_does_not_wait(void **state)
{
    (void)state;
    open_pipe();
    run_child(ends[1], put_as_child);
    read_some(ends[0]);
    assert_true(count_lines() > 10);
    close_ends();
}

/* Lengths around the longest that is written; in front of the text is "TIME crier[PID] ROLE: ". */
static void
log_around_the_longest(void)
{
    static char word[3 * LOG_OUT_LINE_BYTES];
    char prefix[LOG_OUT_LINE_BYTES];

    log_open("test", LOG_STATUS);
    memset(word, 'x', sizeof(word));
    snprintf(prefix, sizeof(prefix), "%s crier[%d] test: ", stamp_like, (int)getpid());
    for (int length = 900; length < 3 * LOG_OUT_LINE_BYTES - 1; length += length < 1100 ? 1 : 97) {
        for (int with_error = 0; with_error < 2; with_error++) {
            size_t bytes = strlen(prefix) + (size_t)length;
            bool is_cut;

            errno = EPERM;
            if (with_error)
                log_error("%.*s", length, word);
            else
                log_errorx("%.*s", length, word);
            CHECK(errno == EPERM);
            text_bytes = 0;
            read_some(ends[0]);
            bytes += with_error ? strlen(": Operation not permitted") : 0;
            is_cut = bytes > LOG_OUT_LINE_BYTES - 1;
            bytes = is_cut ? LOG_OUT_LINE_BYTES - 1 : bytes;
            CHECK(text_bytes == bytes + 1 && strchr(text, '\n') == text + bytes);
            bytes -= is_cut ? 3 : 0;
            CHECK(strspn(text + strlen(prefix), "x: Operationmd") == bytes - strlen(prefix));
            CHECK(!is_cut || memcmp(text + bytes, "...\n", 4) == 0);
        }
    }
    while (!log_is_waiting()) { /* not read: the calls that write fail */
        errno = EPERM;
        log_errorx("%.*s", 1000, word);
        CHECK(errno == EPERM);
    }
}

/* A FIFO keeps what the first reader has left for the next one. */
static void
put_between_two_readers(void)
{
    char folder[] = "/tmp/test_log_out.XXXXXX";
    char path[sizeof(folder) + 5];

    CHECK(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/fifo", folder);
    CHECK(mkfifo(path, 0600) == 0);
    ends[0] = open(path, O_RDONLY | O_NONBLOCK);
    ends[1] = open(path, O_WRONLY);
    CHECK(ends[0] >= 0 && dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
    put_lines(0, 1, false);
    close(ends[0]);
    put_lines(1, 50, false);
    CHECK(log_out_is_waiting());
    ends[0] = open(path, O_RDONLY | O_NONBLOCK);
    put_lines(50, 51, false);
    CHECK(!log_out_is_waiting());
    unlink(path);
    rmdir(folder);
    text_bytes = 0;
    read_some(ends[0]);
    CHECK(count_lines() == 51);
    CHECK(strstr(text, "crier: 49 lines of log were dropped\n"));
}

static void
test_log_out_lines_without_a_reader_are_counted_for_the_next_one(void **state)
{
    (void)state;
    open_pipe();
    run_child(ends[1], put_between_two_readers);
    close_ends();
}

static void
test_log_a_line_of_any_length_is_one_line_and_keeps_errno(void **state)
{
    (void)state;
    open_pipe();
    run_child(ends[1], log_around_the_longest);
    close_ends();
}

static void
log_controls(void)
{
    log_open("test", LOG_STATUS);
    setenv("LC_ALL", "C.UTF-8", 1);
    log_status("%s", "a\tb\nc\x1f d\x7f\xc3\xa9~\xc2\x9b");
    log_event("not wanted");
}

static void
test_log_controls_of_a_client_are_escaped(void **state)
{
    (void)state;
    open_pipe();
    run_child(ends[1], log_controls);
    read_some(ends[0]);
    assert_non_null(strstr(text, "test: a\\x09b\\x0ac\\x1f d\\x7f\xc3\xa9~\\xc2\\x9b\n"));
    assert_null(strstr(text, "not wanted"));
    close_ends();
}

/* Lines up to the last byte of the queue. */
static void
fill_exactly(void)
{
    static char line[LOG_OUT_LINE_BYTES];
    size_t left = LOG_OUT_QUEUE_BYTES;

    memset(line, 'x', sizeof(line));
    line[sizeof(line) - 1] = '\n';
    for (int i = 0; i < PIPE_BYTES / LOG_OUT_LINE_BYTES; i++) /* what the pipe holds */
        log_out_put(line, sizeof(line), false);
    CHECK(!log_out_is_waiting());
    for (; left > 0; left -= sizeof(line)) {
        log_out_put(line, sizeof(line), false);
        CHECK(log_out_is_waiting());
    }
    while (log_out_is_waiting()) {
        read_some(ends[0]);
        log_out_retry();
    }
    read_some(ends[0]);
    CHECK(text_bytes == PIPE_BYTES + LOG_OUT_QUEUE_BYTES);
    CHECK(!strstr(text, "dropped"));
}

static void
test_log_out_the_queue_takes_lines_up_to_its_last_byte(void **state)
{
    (void)state;
    open_pipe();
    run_child(ends[1], fill_exactly);
    close_ends();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            test_log_out_what_a_full_pipe_does_not_take_is_queued_then_dropped_and_counted),
        cmocka_unit_test(test_log_out_minor_lines_leave_half_of_the_queue),
        cmocka_unit_test(test_log_out_the_end_waits_for_a_reader_that_reads),
        cmocka_unit_test(test_log_out_a_stream_socket_gets_whole_lines),
        cmocka_unit_test(test_log_out_a_terminal_gets_whole_lines),
        cmocka_unit_test(test_log_out_a_file_is_written_from_where_it_stands),
        cmocka_unit_test(test_log_out_a_datagram_socket_gets_a_line_each),
        cmocka_unit_test(test_log_out_a_reader_that_has_gone_costs_nothing),
        cmocka_unit_test(test_log_out_a_child_before_exec_writes_at_once_and_does_not_wait),
        cmocka_unit_test(test_log_out_the_queue_takes_lines_up_to_its_last_byte),
        cmocka_unit_test(test_log_out_lines_without_a_reader_are_counted_for_the_next_one),
        cmocka_unit_test(test_log_a_line_of_any_length_is_one_line_and_keeps_errno),
        cmocka_unit_test(test_log_controls_of_a_client_are_escaped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
