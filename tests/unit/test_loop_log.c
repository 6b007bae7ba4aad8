/*
 * What libevent warns of, and dies of, in a child of its own whose stderr is read.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <event2/event.h>

#include <cmocka.h>

#include "shm/log.h"
#include "worker/last_words.h"
#include "worker/worker.h"

static struct member_shm me;

static void
on_event(int fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
}

/* A descriptor that epoll does not know, because it was closed. */
static void
watch_closed_descriptor(void)
{
    struct event_base *base = event_base_new();
    int fd = dup(STDIN_FILENO);
    struct event *event;

    close(fd);
    event = event_new(base, fd, EV_READ, on_event, NULL);
    (void)event_add(event, NULL);
}

/* A mistake that libevent does not go on from. */
static void
enable_debugging_twice(void)
{
    event_enable_debug_mode();
    event_enable_debug_mode();
}

/* What a child that does this writes to stderr; its status. */
static int
run_child(void (*act)(void), char *text, size_t room)
{
    size_t used = 0;
    ssize_t bytes;
    int ends[2];
    int status;
    pid_t pid;

    assert_int_equal(pipe(ends), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        signal(SIGABRT, SIG_DFL); /* cmocka's own is not wanted here */
        last_words_open(&me);
        log_open("child", LOG_STATUS);
        loop_log_open();
        act();
        _exit(EXIT_SUCCESS);
    }
    close(ends[1]);
    while ((bytes = read(ends[0], text + used, room - 1 - used)) > 0)
        used += (size_t)bytes;
    text[used] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* Lines of our log, and nothing else. */
static void
expect_one_line(const char *text, const char *word)
{
    assert_non_null(strstr(text, "Z crier["));
    assert_non_null(strstr(text, " child: libevent"));
    assert_non_null(strstr(text, word));
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
}

static void
test_loop_log_has_what_libevent_warns_of(void **state)
{
    char text[1024];

    (void)state;
    assert_int_equal(run_child(watch_closed_descriptor, text, sizeof(text)), 0);
    expect_one_line(text, "Bad file descriptor");
}

static void
test_loop_log_makes_last_words_of_what_libevent_cannot_go_on_from(void **state)
{
    char text[1024];
    int status = run_child(enable_debugging_twice, text, sizeof(text));

    (void)state;
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    expect_one_line(text, "libevent cannot go on: ");
    assert_non_null(strstr(text, "twice"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loop_log_has_what_libevent_warns_of),
        cmocka_unit_test(test_loop_log_makes_last_words_of_what_libevent_cannot_go_on_from),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
